"""Ask the released model about panels with generated parts, and about panels with pixels left out.

    python benchmarks/screening_parts.py /path/to/sem

Needs `dvc pull data/released/screening_model.dvc data/released/real_subset.dvc`. The folder holds
one folder of micrographs for each collection, among them those of Boiko et al. 2020. Composites are
made of the test split's micrographs and of fakes with new seeds; the model was calibrated on the
validation split. Writes the sections "Generated parts" and "Pixels left out" of
docs/results/screening.md.
"""

import argparse
import csv
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from rich.progress import track

from semforensics.core.images import read_grey
from semforensics.core.markdown import markdown_table
from semforensics.generators.common.sampling import generate_grey
from semforensics.generators.generate_fakes import load_generator
from semforensics.screening.read.apart import read_inputs
from semforensics.screening.records import Box, Finding, Grey, Limits, Refusal
from semforensics.screening.screener import Screener
from semforensics.screening.split.panels import split_panels

ROOT = Path(__file__).parents[1]
RELEASED = ROOT / "data/released/real_subset"
TABLE = ROOT / "docs/results/screening.md"
GENERATORS = {
    "StyleGAN2-ADA": "stylegan2_ada_best",
    "FastGAN": "fastgan",
    "StyleGAN2-ADA, later snapshot (not learned from)": "stylegan2_ada",
}
FIRST_SEED, NUM_FAKES = 300_000, 100
SIDES, SHARES, STEPS = (128, 200, 320, 440), (0.2, 0.35, 0.5), (2, 3, 4)
FRAME_PX = 3
VERDICTS = ("panels", "n", "consistent", "inconclusive", "suspected", "in part", "overlap")


def read_reals(folder: Path, split: str) -> list[Grey]:
    """Read the raw micrographs of a split, without their info bars."""
    with (RELEASED / "splits.csv").open() as file:
        names = {row["micrograph"] for row in csv.DictReader(file) if row["split"] == split}
    return [read_grey(folder / "boiko-pdc-partial" / name)[:890] for name in sorted(names)]


def sheet(tiles: np.ndarray, side: int, rng: np.random.Generator) -> Grey:
    """Lay generated tiles edge to edge, and cut a square of them."""
    count = -(-side // tiles.shape[-1])
    picks = rng.integers(0, len(tiles), (count, count))
    return np.block([[tiles[number] for number in row] for row in picks])[:side, :side]


def with_square(
    real: Grey, tiles: np.ndarray, side: int, frame: bool, rng: np.random.Generator
) -> tuple[Grey, Box]:
    """Paste a square of generated tiles at a random place, with or without a white frame."""
    top, left = (int(rng.integers(0, length - side)) for length in real.shape)
    panel, square = real.copy(), sheet(tiles, side, rng)
    if frame:
        inner = square[FRAME_PX:-FRAME_PX, FRAME_PX:-FRAME_PX].copy()
        square[:] = 255
        square[FRAME_PX:-FRAME_PX, FRAME_PX:-FRAME_PX] = inner
    panel[top : top + side, left : left + side] = square
    return panel, Box(top, left, top + side, left + side)


def with_tiles(real: Grey, tiles: np.ndarray, share: float, rng: np.random.Generator) -> Grey:
    """Replace a share of the tiles, drawn at random, by generated ones."""
    panel, size = real.copy(), tiles.shape[-1]
    places = [
        (top, left)
        for top in range(0, real.shape[0] - size + 1, size)
        for left in range(0, real.shape[1] - size + 1, size)
    ]
    for number in rng.permutation(len(places))[: round(share * len(places))]:
        top, left = places[number]
        panel[top : top + size, left : left + size] = tiles[rng.integers(len(tiles))]
    return panel


def overlap(found: Box | None, true: Box) -> float:
    """Return the area that two boxes share, over the area that they cover."""
    if found is None:
        return 0.0
    height = min(found.bottom, true.bottom) - max(found.top, true.top)
    width = min(found.right, true.right) - max(found.left, true.left)
    both = max(height, 0) * max(width, 0)
    areas = [int(np.prod(box.size_px)) for box in (found, true)]
    return both / (sum(areas) - both)


def row(kind: str, findings: list[Finding], overlaps: Iterable[float] = ()) -> list[str]:
    """Count verdicts; return a row of the table."""
    names = [
        f"{finding.verdict} in part" if finding.part_box else finding.verdict
        for finding in findings
    ]
    found = Counter(names)
    inconclusive = found["inconclusive"] + found["inconclusive in part"]
    counts = (found["consistent"], inconclusive, found["ai-suspected"])
    counts += (found["ai-suspected in part"],)
    known = [value for value in overlaps if value > 0]
    middle = f"{np.median(known):.2f}" if known else ""
    return [kind, str(len(findings)), *map(str, counts), middle]


def judge_composites(screener: Screener, reals: list[Grey]) -> tuple[list[list[str]], ...]:
    """Judge composites of every generator, and generated panels with pixels left out."""
    rng = np.random.default_rng(0)
    parts, decimated = [row("no part: test micrographs", screener.judge(reals))], []
    for name, file in track(GENERATORS.items(), "composites"):
        generator = load_generator(RELEASED / f"{file}.safetensors")
        seeds = range(FIRST_SEED, FIRST_SEED + NUM_FAKES)
        tiles = np.squeeze(np.asarray(generate_grey(generator, seeds)))
        for side in SIDES:
            for frame in (False, True):
                made = [with_square(real, tiles, side, frame, rng) for real in reals]
                found = screener.judge([panel for panel, _ in made])
                boxes = [box for _, box in made]
                shares = (overlap(f.part_box, box) for f, box in zip(found, boxes, strict=True))
                words = f"{name}, {side} px square{', framed' if frame else ''}"
                parts.append(row(words, found, shares))
        for share in SHARES:
            panels = [with_tiles(real, tiles, share, rng) for real in reals]
            parts.append(row(f"{name}, {share:.0%} of the tiles", screener.judge(panels)))
        whole = [sheet(tiles, 512, rng) for _ in range(30)]
        for step in STEPS:
            panels = [np.ascontiguousarray(panel[::step, ::step]) for panel in whole]
            decimated.append(row(f"{name}, every {step}. pixel", screener.judge(panels))[:-1])
    for step in STEPS:
        panels = [np.ascontiguousarray(real[::step, ::step]) for real in reals]
        decimated.append(row(f"test micrographs, every {step}. pixel", screener.judge(panels))[:-1])
    return parts, decimated


def judge_collections(screener: Screener, folder: Path) -> list[list[str]]:
    """Judge the real panels of all other collections."""
    rows, every = [], []
    folders = sorted(p for p in folder.iterdir() if p.is_dir() and "boiko" not in p.name)
    for collection in track(folders, "collections"):
        findings: list[Finding] = []
        for picture in read_inputs([collection], Limits()):
            if isinstance(picture, Refusal):
                continue
            panels, _ = split_panels(picture, screener.size_px)
            findings += screener.judge(
                panels, is_lossy=picture.is_lossy, is_resampled=picture.is_resampled
            )
        every += findings
        rows.append(row(collection.name, findings)[:-1])
    return [*rows, row("all", every)[:-1]]


def put_section(text: str, title: str, body: str) -> str:
    """Replace a section of a page, or add it at the end."""
    section = f"## {title}\n\n{body.strip()}\n"
    found = re.search(rf"^## {title}\n.*?(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    if found is None:
        return f"{text.rstrip()}\n\n{section}"
    rest = text[found.end() :]
    return text[: found.start()] + section + (f"\n{rest}" if rest else "")


def main() -> None:
    """Judge everything, and write both sections."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("micrographs", type=Path)
    folder = parser.parse_args().micrographs
    screener = Screener.load(evidence=False)
    parts, decimated = judge_composites(screener, read_reals(folder, "test"))
    others = judge_collections(screener, folder)
    about = (
        f"Made by `python benchmarks/screening_parts.py /path/to/sem`: model "
        f"{screener.describe()['name']} (SHA-256 {screener.describe()['sha256'][:12]}), alpha "
        f"{screener.alpha:g}."
    )
    body = [
        about,
        "Composites of the 9 test micrographs (1280x890 px) and of fakes with new seeds, laid edge "
        f"to edge; framed: {FRAME_PX} px of white. The search was calibrated on the validation "
        "split and its fakes. The frame makes the windows on it unlike the training "
        "images, which leaves a panel inconclusive. The splitter, which finds most such squares as "
        "insets, was not used. In part: suspected with a box; overlap: median of the area that the "
        "box and the true square share, over the area of both together, where there is a box.",
        markdown_table(VERDICTS, parts).strip(),
        "Real panels of other collections, from many instruments; most of their tiles are unlike "
        "the images that the model was trained on, which makes a panel inconclusive. Whatever is "
        "suspected here is a false alarm.",
        markdown_table(VERDICTS[:-1], others).strip(),
    ]
    left_out = (
        f"{about} Generated panels of 512x512 px and real ones of which only every second, third "
        "or fourth pixel was kept in each direction, without smoothing."
    )
    text = put_section(TABLE.read_text(), "Generated parts", "\n\n".join(body))
    table = markdown_table(VERDICTS[:-1], decimated).strip()
    TABLE.write_text(put_section(text, "Pixels left out", f"{left_out}\n\n{table}"))


if __name__ == "__main__":
    main()
