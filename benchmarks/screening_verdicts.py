"""Ask the released models about real micrographs and about images of both released generators.

    python benchmarks/screening_verdicts.py /path/to/sem

Needs `dvc pull data/released/*.dvc`. The folder holds
the micrographs of Boiko et al. 2020 and Bai et al. 2022 as docs/results/detector.md names them.
Writes docs/results/screening.md. Splits come from the released `splits.csv`: reals of the training
split make no false-alarm rate.
"""

import argparse
import csv
import dataclasses
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
from rich.progress import track

from semforensics.acquire.names import describe_name
from semforensics.core.markdown import markdown_table
from semforensics.core.processing import gaussian_blur, jpeg, median, resize_and_back
from semforensics.detector.perturbations import crop_to_even, resize, shifted_jpeg
from semforensics.generators.common.sampling import generate_grey
from semforensics.generators.generate_fakes import load_generator
from semforensics.screening.judge import signs
from semforensics.screening.read.apart import read_inputs
from semforensics.screening.records import Limits, Refusal
from semforensics.screening.screener import Screener
from semforensics.screening.split.panels import split_panels
from semforensics.trials.intervals import wilson_interval

ROOT = Path(__file__).parents[1]
RELEASED = ROOT / "data/released/real_subset"
TABLE = ROOT / "docs/results/screening.md"
VERDICTS = ("panels", "n", "groups", "consistent", "inconclusive", "AI-suspected", "suspected, %")
SIGNS = ("panels", "n", "steps", "pattern", "blocks", "repeat", "detail", "none")
FIRST_SEED, NUM_FAKES = 100_000, 200  # seeds that no classifier has seen
SMALL_PX = 384
PROCESSED: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "JPEG 95": partial(jpeg, quality=95),
    "JPEG 75": partial(jpeg, quality=75),
    "JPEG 90, then cut": partial(shifted_jpeg, quality=90, shift_px=4),
    "x0.5 bicubic": partial(resize, factor=0.5, kernel="bicubic"),
    "x0.75 bicubic": partial(resize, factor=0.75, kernel="bicubic"),
    "x0.75 Lanczos": partial(resize, factor=0.75, kernel="lanczos"),
    "x0.9 bicubic": partial(resize, factor=0.9, kernel="bicubic"),
    "x1.25 bicubic": partial(resize, factor=1.25, kernel="bicubic"),
    "x2 bicubic": partial(resize, factor=2.0, kernel="bicubic"),
    "x0.75 and back": partial(resize_and_back, factor=0.75),
    "blur 1 px": partial(gaussian_blur, sigma=1.0),
    "median 3 px": partial(median, size_px=3),
}
"""What the pixels alone must show: nothing else tells of it."""
Panel = tuple[str, np.ndarray]
"""Group and grey levels."""


def read_panels(screener: Screener, folder: Path) -> dict[str, list[Panel]]:
    """Read the panels of all micrographs, by where they come from."""
    with (RELEASED / "splits.csv").open() as file:
        splits = {row["group"]: row["split"] for row in csv.DictReader(file)}
    found: dict[str, list[Panel]] = defaultdict(list)
    folders = [folder / name for name in ("boiko-pdc-partial", "bai2022-nanocomposite")]
    for picture in track(list(read_inputs(folders, Limits())), "reading"):
        if isinstance(picture, Refusal):
            continue
        path = Path(picture.path).relative_to(folder)
        group = describe_name(path.name.replace("_blurred", ""))["group"]
        split = splits.get(group, "new")
        if path.parts[0] != "boiko-pdc-partial":
            kind = "another material and instrument (Bai et al.)"
        elif "denoised" in path.parts[1]:
            known = "new groups" if split in ("new", "test") else "known groups"
            kind = f"denoised by others (Boiko et al.), {known}"
        elif path.suffix != ".tif":
            kind = "saved as JPEG (Boiko et al.), known group"
        else:
            kind = f"raw (Boiko et al.), {split} split"
        panels, _ = split_panels(picture, screener.size_px)
        found[kind] += [(group, panel.grey) for panel in panels]
    return found


def generate() -> Iterator[tuple[str, list[Panel]]]:
    """Draw images of both generators, one tile each."""
    for gan, file in (
        ("FastGAN", "fastgan"),
        ("StyleGAN2-ADA", "stylegan2_ada_best"),
        ("StyleGAN2-ADA, later snapshot (not learned from)", "stylegan2_ada"),
    ):
        generator = load_generator(RELEASED / f"{file}.safetensors")
        seeds = range(FIRST_SEED, FIRST_SEED + NUM_FAKES)
        images = track(generate_grey(generator, seeds), gan, total=NUM_FAKES)
        pairs = zip(seeds, images, strict=True)
        yield gan, [(f"{gan} {seed}", np.squeeze(np.asarray(image))) for seed, image in pairs]


def verdict_row(screener: Screener, kind: str, panels: list[Panel]) -> list[str]:
    """Judge panels; return a row of the table of verdicts."""
    found = Counter(screener.judge([grey])[0].verdict for _, grey in panels)
    n = len(panels)
    assert not found["refused"], kind
    low, high = wilson_interval(found["ai-suspected"], n)
    numbers = [str(found[v]) for v in ("consistent", "inconclusive", "ai-suspected")]
    share = f"{100 * found['ai-suspected'] / n:.1f} ({100 * low:.1f}-{100 * high:.1f})"
    return [kind, str(n), str(len({group for group, _ in panels})), *numbers, share]


def sign_row(screener: Screener, kind: str, panels: list[Panel]) -> list[str]:
    """Count the panels in which the tests of `limits` find something, by the first that does."""
    found: Counter[str] = Counter()
    clauses = ("steps of JPEG", "pattern of interpolation", "blocks", "repeat", "fine detail")
    for _, grey in panels:
        reason = signs.why_not_native(grey, screener.model.references) or ""
        found[next((clause for clause in clauses if clause in reason), "none")] += 1
    return [kind, str(len(panels)), *(str(found[clause]) for clause in (*clauses, "none"))]


def nearest(screener: Screener, panels: list[Panel]) -> list[float]:
    """Return the distances to the nearest training real, suspicious or not."""
    all_found = dataclasses.replace(screener.model.references, nearest=2.0)
    return sorted(all_found.find(grey)["distance"] for _, grey in panels)  # type: ignore[index]


def planted(screener: Screener, training: list[Panel], rng: np.random.Generator) -> list[float]:
    """Put parts of training reals, turned and compressed, into noise; give their distances."""
    all_found = dataclasses.replace(screener.model.references, nearest=2.0)
    size, distances = screener.size_px, []
    for _, grey in training:
        for turns in range(4):
            top, left = (int(rng.integers(side // size)) * size for side in grey.shape)
            panel = rng.normal(90, 25, (3 * size, 3 * size)).clip(0, 255).astype(np.uint8)
            y, x = rng.integers(0, 2 * size, 2)
            part = grey[top : top + size, left : left + size]
            panel[y : y + size, x : x + size] = np.rot90(
                part[:, ::-1] if turns % 2 else part, turns
            )
            found = all_found.find(jpeg(panel, 90))
            is_it = found is not None and abs(found["box"].top - y) + abs(found["box"].left - x) < 3
            distances.append(found["distance"] if found is not None and is_it else 1.0)
    return sorted(distances)


def main() -> None:
    """Judge everything, and write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("micrographs", type=Path)
    screener = Screener.load(evidence=False)
    reals = read_panels(screener, parser.parse_args().micrographs)
    fakes = dict(generate())
    test = reals["raw (Boiko et al.), test split"]

    verdicts = [verdict_row(screener, kind, panels) for kind, panels in sorted(reals.items())]
    verdicts += [verdict_row(screener, f"{g}, new seeds, one tile", p) for g, p in fakes.items()]
    signs = [sign_row(screener, kind, panels) for kind, panels in sorted(reals.items())]
    small = [
        (group, grey[top : top + SMALL_PX, left : left + SMALL_PX])
        for group, grey in test
        for top in (0, SMALL_PX)
        for left in (0, SMALL_PX, 2 * SMALL_PX)
    ]
    signs += [sign_row(screener, f"raw, test split, {SMALL_PX} px parts", small)]
    signs += [sign_row(screener, f"{g}, one tile", p) for g, p in fakes.items()]
    both = [panel for panels in fakes.values() for panel in panels]
    denoised = [panel for kind, panels in reals.items() if "denoised" in kind for panel in panels]
    for name, change in track(PROCESSED.items(), "processed"):
        sets = {"raw, test split": test, f"raw, test split, {SMALL_PX} px parts": small}
        for kind, panels in (sets | {"all fakes, one tile": both}).items():
            changed = [(group, change(crop_to_even(grey))) for group, grey in panels]
            if min(changed[0][1].shape) < screener.size_px:
                continue  # a single tile that shrank
            signs.append(sign_row(screener, f"{kind}, {name}", changed))
            verdicts.append(verdict_row(screener, f"{kind}, {name}", changed))
        changed = [(group, change(crop_to_even(grey))) for group, grey in denoised]
        verdicts.append(
            verdict_row(screener, f"denoised by others (Boiko et al.), {name}", changed)
        )

    own = ("train split", "validation split", "known")
    strangers = {k: p for k, p in reals.items() if not any(word in k for word in own)}
    near = {kind: nearest(screener, panels) for kind, panels in strangers.items()}
    training = reals["raw (Boiko et al.), train split"]
    hidden = planted(screener, training, np.random.default_rng(0))
    border = screener.model.references.nearest
    # What other programs wrote stays.
    kept = r"^## (?!Verdicts\n|Signs of |Near to ).*"
    others = re.search(kept, TABLE.read_text(), re.MULTILINE | re.DOTALL)
    written = page(screener, verdicts, signs, near, hidden, border)
    TABLE.write_text(f"{written}\n{others.group()}" if others else written)


def page(
    screener: Screener,
    verdicts: list[list[str]],
    signs: list[list[str]],
    strangers: dict[str, list[float]],
    hidden: list[float],
    border: float,
) -> str:
    """Write the page."""
    about = screener.describe()
    planted = "parts of training reals, hidden in noise, turned, JPEG 90"
    near = [
        [kind, str(len(d)), f"{d[0]:.3f}", f"{np.median(d):.3f}", str(sum(x < border for x in d))]
        for kind, d in [*sorted(strangers.items()), (planted, hidden)]
    ]
    parts = [
        "# What the released models say of real and of generated images",
        f"Made by `python benchmarks/screening_verdicts.py /path/to/sem`: model {about['name']} "
        f"(SHA-256 {about['sha256'][:12]}), second model {about['second']['name']} "
        f"({about['second']['sha256'][:12]}), alpha {screener.alpha:g}, tiles of "
        f"{screener.size_px} px pooled by their {screener.pooling}, maps off.",
        "## Verdicts",
        "Suspected: share of all panels, with Wilson's 95 % interval, which takes panels as "
        "independent; so the number of groups is given as well. Lines of the train and validation "
        "splits and of known groups: the model has learned from these or was calibrated on them, "
        "so they give no rate of errors. The second model learned from frames of every line of "
        "raw panels, and from those of Bai et al. Processed panels are scored by their pixels "
        "alone; of a file the screener would also know that it is a JPEG. Images of all "
        "generators are single tiles; a mean of several would be surer. Where a processing "
        "shrinks them below the size of a tile there is no line: how often a large generated "
        "image that was shrunk is called consistent is not measured here, and the real ones say "
        "that x0.75 is often overlooked.",
        markdown_table(VERDICTS, verdicts).strip(),
        "## Signs of JPEG and resampling",
        "Panels by the first test of `src/semforensics/screening/judge/signs.py` that finds "
        "something. "
        "Steps: JPEG coefficients in steps; pattern: periods of interpolation; blocks: periods "
        "that divide 8 pixels; repeat: equal neighbours; detail: less of it than 19 of 20 training "
        'crops. What is not "none" in lines of raw panels is a false alarm of a test; "none" in '
        "lines of processed panels is a miss. The tests were designed and their limits set on "
        "these micrographs and on other images of these generators. The files of Bai et al. show "
        "that they were JPEGs once.",
        markdown_table(SIGNS, signs).strip(),
        "## Near to a training real",
        "Share of differing bits of the nearest fingerprint; suspicious below "
        f"{border:.3f}, which was learned on the validation split.",
        markdown_table(["panels", "n", "smallest", "median", "suspicious"], near).strip(),
    ]
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    main()
