"""Try the detector for any instrument on collections and generators that it has not seen.

    python benchmarks/world.py /path/to/sem /path/to/generated --weights /path/to/taesd \
        --autoencoders data/autoencoders --diffusion data/diffusion

Renews the tables of docs/results/world.md. What is judged: the middle 512 px of the largest panel
of each picture, as it is and after four histories; and fakes of the same panels, so that classes
differ in their origin alone. Nothing of it was in training, selection or calibration, but for half
of the published papers, which are left out here. The former model stands beside the new one, and
what `screen` says by default, with both.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import UInt8
from PIL import Image, ImageDraw
from rich.progress import track
from sklearn.metrics import roc_auc_score

from semforensics.core.markdown import markdown_table
from semforensics.detector.histories import History
from semforensics.detector.world_calibration import calibration_groups
from semforensics.generators.autoencoders.networks import load_autoencoder
from semforensics.generators.autoencoders.resynthesise import reconstruct
from semforensics.generators.common.sampling import generate_grey
from semforensics.generators.diffusion.networks import load_denoiser
from semforensics.generators.diffusion.refine import refine
from semforensics.generators.generate_fakes import load_generator
from semforensics.generators.published.networks import load_published
from semforensics.generators.published.resynthesise import Variation, resynthesise
from semforensics.generators.published.super_resolvers import load_super_resolver
from semforensics.screening.read.apart import read_inputs
from semforensics.screening.records import Limits, Picture
from semforensics.screening.screener import Screener
from semforensics.screening.split.panels import split_panels

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/results/world.md"
RELEASED = ROOT / "data/released"
MEASURED = (
    "pollen3d_zeiss_resaved", "kier_fei_thermo", "wc_electron", "hitachi_tm4000_sidecar",
    "soot_fei_rgba", "membrane_png_small", "cell_biology_jpeg", "nanofibre_pan_rgb_filtered",
)  # fmt: skip
PUBLISHED, TEM = "emps_papers", "not_sem_tem"
HISTORIES = {
    "as it is": History(),
    "JPEG 75": History(qualities=(75,), shifts=((3, 5),)),
    "x0.75, JPEG 85": History(factor=0.75, qualities=(85,), shifts=((3, 5),)),
    "x0.5, JPEG 85": History(factor=0.5, qualities=(85,), shifts=((3, 5),)),
}
BOTH = "both"
SIDE_PX = 512
SHEET_PX = 200
NUM_DRAWN = 20
REFINED_FROM = 0.1  # of the noising process
FIRST_SEED = 100  # far from those of training and calibration
RESAMPLES = 500
BEGIN, END = "<!-- tables -->", "<!-- end of tables -->"

Grey = UInt8[np.ndarray, "height width"]


@dataclass(frozen=True)
class Case:
    """A picture to be judged."""

    kind: str
    """Where it comes from: `measured`, `published`, `TEM`, or a generator."""
    unit: str
    """Collection, paper or generator: what the intervals resample."""
    image: Grey


def middle(image: Grey, side_px: int = SIDE_PX) -> Grey:
    """Cut out the middle."""
    top, left = (max(0, (side - side_px) // 2) for side in image.shape)
    return np.ascontiguousarray(image[top : top + side_px, left : left + side_px])


def panels_of(folder: Path) -> Iterator[tuple[str, Grey]]:
    """Yield the largest panel of each picture of a folder, and the picture's name."""
    for picture in read_inputs([folder], Limits()):
        if isinstance(picture, Picture):
            panels, _ = split_panels(picture, 128)
            if panels:
                largest = max(panels, key=lambda panel: panel.grey.size).grey
                yield Path(picture.path).name, middle(largest)


def reals(sem: Path) -> Iterator[Case]:
    """Yield micrographs of collections that nothing was learned from, published panels, and TEM.

    Of the published papers every second one, by the order of their names, calibrates; the others
    are here.
    """
    for name in MEASURED:
        for _, image in panels_of(sem / name):
            yield Case("measured", name, image)
    manifest = pd.read_csv(sem / PUBLISHED / "MANIFEST.csv", dtype=str)
    paper_of = dict(zip(manifest["path"], manifest["group"], strict=True))
    calibrating = set(calibration_groups(manifest))
    for name, image in panels_of(sem / PUBLISHED):
        if paper_of[name] not in calibrating:
            yield Case("published", paper_of[name], image)
    for name, image in panels_of(sem / TEM):
        yield Case("TEM", name, image)


def reconstructions(found: Sequence[Case], args: argparse.Namespace) -> Iterator[Case]:
    """Yield fakes of the measured micrographs, by networks that the detector knows and by new ones.

    It knows some by other micrographs; it has seen nothing of a small super-resolver, of the
    diffusion model, and of our encoder-decoders that are here.
    """
    measured = [case for case in found if case.kind == "measured"]
    published = {
        "TAESD3 (known)": load_published(args.weights, "taesd3"),
        "Real-ESRGAN (known)": load_super_resolver("realesrgan", args.scratch),
        "Real-ESRGAN for films (new)": load_super_resolver("realesrgan_video", args.scratch),
    }
    for kind, network in published.items():
        rng = np.random.default_rng(0)
        for case in track(measured, kind):
            fake = resynthesise(network, case.image, Variation(), rng)
            yield Case(kind, case.unit, fake)
    denoiser, meta = load_denoiser(args.diffusion)
    for case in track(measured[::3], "diffusion"):  # the slowest
        steps = meta["timesteps"]
        fake = refine(denoiser, case.image, start=REFINED_FROM, timesteps=steps, seed=FIRST_SEED)
        yield Case("refined by diffusion (new)", case.unit, fake)
    for name in ("nearest", "transposed"):
        own = load_autoencoder(args.autoencoders / f"{name}.safetensors")[0]
        for case in track(measured, name):
            height, width = (side // 16 * 16 for side in case.image.shape)
            yield Case(
                f"own decoder {name} (new)",
                case.unit,
                reconstruct(own, case.image[:height, :width]),
            )


def drawn() -> Iterator[Case]:
    """Yield images of released generators: two that the detector knows, and a later snapshot."""
    seeds = range(FIRST_SEED, FIRST_SEED + NUM_DRAWN)
    names = {
        "fastgan": "FastGAN (known)",
        "stylegan2_ada_best": "StyleGAN2-ADA (known)",
        "stylegan2_ada": "StyleGAN2-ADA, last snapshot (new)",
    }
    for name, kind in names.items():
        generator = load_generator(RELEASED / "real_subset" / f"{name}.safetensors")
        for image in generate_grey(generator, seeds).numpy():
            yield Case(kind, kind, image)


def generated(folder: Path) -> Iterator[Case]:
    """Yield pictures of others' generators."""
    for collection in sorted(path for path in folder.iterdir() if path.is_dir()):
        for _, image in panels_of(collection):
            yield Case(collection.name, collection.name, image)


def judge(cases: Sequence[Case], models: dict[str, Screener]) -> pd.DataFrame:
    """Judge every case after every history by every model."""
    rows = []
    for case in track(cases, "judging"):
        for history, steps in HISTORIES.items():
            image = steps.apply(case.image, seed=0)
            for model, screener in models.items():
                finding = screener.judge([image], parts=False)[0]
                rows.append(
                    {
                        "model": model,
                        "history": history,
                        "kind": case.kind,
                        "unit": case.unit,
                        "verdict": finding.verdict,
                        "logit": finding.logit,
                        "tiles": finding.n_tiles,
                        "p_real": finding.p_real,
                        "p_fake": finding.p_fake,
                        "inside": finding.share_inside,
                    }
                )
    return pd.DataFrame(rows)


def draw_sheets(cases: Sequence[Case], rows: pd.DataFrame, folder: Path) -> None:
    """Draw the reals with the smallest p-values and others' generated pictures with the largest.

    Of the new model, as they are. The pictures belong to their authors: look at them, keep none.
    """
    folder.mkdir(parents=True, exist_ok=True)
    first = rows[(rows["model"] == "new") & (rows["history"] == "as it is")].reset_index(drop=True)
    judged = first.assign(image=[case.image for case in cases]).dropna(subset="p_real")
    is_real = judged["kind"].isin(["measured", "published"])
    is_theirs = judged["kind"].isin(judged["unit"]) & ~is_real  # units are their own kinds
    for name, chosen in (
        ("false_alarms", judged[is_real].sort_values("p_real")),
        ("misses", judged[is_theirs].sort_values("p_real", ascending=False)),
    ):
        sheet = Image.new("L", (6 * SHEET_PX, 4 * (SHEET_PX + 20)), 255)
        draw = ImageDraw.Draw(sheet)
        for index, row in enumerate(chosen[:24].to_dict("records")):
            left, top = index % 6 * SHEET_PX, index // 6 * (SHEET_PX + 20)
            picture = Image.fromarray(row["image"])
            picture.thumbnail((SHEET_PX - 4, SHEET_PX - 4))
            sheet.paste(picture, (left, top))
            draw.text((left, top + SHEET_PX), f"{row['unit'][:20]} p {row['p_real']:.2f}", fill=0)
        sheet.save(folder / f"{name}.png")


def resampled(values: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """Draw as many units as there are, with replacement, with all their rows."""
    units = values["unit"].unique()
    groups = dict(tuple(values.groupby("unit")))
    return pd.concat([groups[unit] for unit in rng.choice(units, len(units))])


def interval(values: pd.DataFrame, number: Callable[[pd.DataFrame], float]) -> str:
    """Return a share in percent with its 95 % interval over units; alone where there is one."""
    rng = np.random.default_rng(0)
    text = f"{100 * number(values):.0f}"
    if values["unit"].nunique() < 3:
        return text
    drawn_again = [number(resampled(values, rng)) for _ in range(RESAMPLES)]
    low, high = np.nanquantile(drawn_again, (0.025, 0.975))
    return f"{text} ({100 * low:.0f} to {100 * high:.0f})"


def share(verdict: str) -> Callable[[pd.DataFrame], float]:
    """Return what counts a verdict."""
    return lambda rows: float((rows["verdict"] == verdict).mean())


def separation(real: pd.DataFrame, fake: pd.DataFrame) -> str:
    """Return the AUROC of panels, those that were refused left out."""
    real, fake = real.dropna(subset="logit"), fake.dropna(subset="logit")
    if real.empty or fake.empty:
        return ""
    labels = [0] * len(real) + [1] * len(fake)
    return f"{roc_auc_score(labels, [*real['logit'], *fake['logit']]):.3f}"


def tables(rows: pd.DataFrame) -> str:
    """Write one table for reals, and one for fakes."""
    parts = []
    models = list(rows["model"].unique())
    body = []
    for kind in ("measured", "published", "TEM"):
        for history in HISTORIES:
            cells = []
            for model in models:
                of = rows[(rows["history"] == history) & (rows["model"] == model)]
                found = of[of["kind"] == kind]
                found = found[found["verdict"] != "refused"]
                decided = interval(found, lambda r: 1 - share("inconclusive")(r))
                count = int((found["verdict"] == "ai-suspected").sum())
                cells += [decided, f"{count} of {int((found['verdict'] != 'inconclusive').sum())}"]
            body.append([kind, history, str(len(found)), *cells])
    columns = ["reals", "history", "panels"]
    for model in models:
        columns += [f"{model}: decided, %", f"{model}: false alarms of decided"]
    parts.append(markdown_table(columns, body).strip())
    body = []
    fakes = [k for k in rows["kind"].unique() if k not in ("measured", "published", "TEM")]
    for kind in fakes:
        against = "published" if kind.startswith(("gemini", "wafer", "cgan")) else "measured"
        for history in HISTORIES:
            line = [kind, history]
            for model in models:
                of = rows[(rows["history"] == history) & (rows["model"] == model)]
                fake, real = of[of["kind"] == kind], of[of["kind"] == against]
                fake = fake[fake["verdict"] != "refused"]
                if fake.empty:
                    break
                line += [str(len(fake))] if model == models[0] else []
                # Its scores are of one model or of the other.
                line += [separation(real, fake)] if model != BOTH else []
                line += [interval(fake, share(v)) for v in ("ai-suspected", "consistent")]
            else:
                body.append(line)
    columns = ["fakes", "history", "panels"]
    for model in models:
        columns += [f"{model}: AUROC"] if model != BOTH else []
        columns += [f"{model}: suspected, %", f"{model}: consistent, %"]
    parts.append(markdown_table(columns, body).strip())
    return "\n\n".join(parts)


def main() -> None:
    """Judge everything, and write the page anew between its marks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sem", type=Path)
    parser.add_argument("generated", type=Path)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--autoencoders", type=Path, required=True)
    parser.add_argument("--diffusion", type=Path, required=True)
    parser.add_argument("--scratch", type=Path, default=Path(".scratch/super_resolvers"))
    parser.add_argument("--model", type=Path, default=RELEASED / "world_model")
    parser.add_argument("--former", type=Path, default=RELEASED / "screening_model")
    parser.add_argument("--page", type=Path, default=PAGE, help="Whose tables are renewed.")
    parser.add_argument("--verdicts", type=Path, default=Path("world_verdicts.csv"))
    parser.add_argument("--sheets", type=Path, help="Folder for contact sheets to look at.")
    args = parser.parse_args()
    torch.set_num_threads(1)
    models = {
        name: Screener.load(path, evidence=False)
        for name, path in (("new", args.model), ("former", args.former), (BOTH, None))
    }
    found = list(reals(args.sem))
    found += [*reconstructions(found, args), *drawn()]
    found += generated(args.generated)
    rows = judge(found, models)
    rows.to_csv(args.verdicts, index=False)
    if args.sheets:
        draw_sheets(found, rows, args.sheets)
    before, _, rest = args.page.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    args.page.write_text(f"{before}{BEGIN}\n\n{tables(rows)}\n\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
