"""A forger against the detector for any instrument: the best of many fakes, and resampled ones.

    dvc pull data/released/*.dvc
    python benchmarks/world_forger.py

Renews a table of docs/results/world.md. Judged are images of the released GANs, as they are and
resampled and brought back: made smaller or larger, then returned to their size. Of the images of
one GAN the forger shows that with the lowest score. The former model stands beside the new one,
and what `screen` says by default, with both.
"""

import argparse
from pathlib import Path

import pandas as pd
import torch
from rich.progress import track

from semforensics.core.markdown import markdown_table
from semforensics.core.processing import resize_and_back
from semforensics.generators.common.sampling import generate_grey
from semforensics.generators.generate_fakes import load_generator
from semforensics.screening.screener import Screener
from semforensics.trials.metrics import best_of_pass_rate

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/results/world.md"
RELEASED = ROOT / "data/released"
GANS = {
    "fastgan": "FastGAN (known)",
    "stylegan2_ada_best": "StyleGAN2-ADA (known)",
    "stylegan2_ada": "StyleGAN2-ADA, last snapshot (new)",
}
FACTORS = {"as it is": 1.0, "x0.75 and back": 0.75, "x1.5 and back": 1.5}
CHOICES = (10, 100)
FIRST_SEED = 20000  # far from those of training, calibration and of the other benchmark
BOTH = "both"
BEGIN, END = "<!-- forger -->", "<!-- end of forger -->"


def judge(number: int, models: dict[str, Screener]) -> pd.DataFrame:
    """Judge the images of every GAN after every resampling by every model."""
    rows = []
    for name, kind in GANS.items():
        generator = load_generator(RELEASED / "real_subset" / f"{name}.safetensors")
        images = generate_grey(generator, range(FIRST_SEED, FIRST_SEED + number)).numpy()
        for image in track(images, kind):
            for treatment, factor in FACTORS.items():
                treated = image if factor == 1 else resize_and_back(image, factor)
                for model, screener in models.items():
                    finding = screener.judge([treated], parts=False)[0]
                    rows.append((model, kind, treatment, finding.logit, finding.verdict))
    return pd.DataFrame(rows, columns=["model", "fakes", "treatment", "logit", "verdict"])


def table(rows: pd.DataFrame) -> str:
    """Return how many are suspected, and how often the forger's best one is not."""
    body = []
    for (kind, treatment), group in rows.groupby(["fakes", "treatment"], sort=False):
        line = [kind, treatment, str(len(group) // rows["model"].nunique())]
        for model, of in group.groupby("model", sort=False):
            verdicts, scores = of["verdict"].to_numpy(), of["logit"].to_numpy()
            line += [f"{100 * (verdicts == v).mean():.0f}" for v in ("ai-suspected", "consistent")]
            for choices in CHOICES if model != BOTH else ():
                passed = best_of_pass_rate(verdicts != "ai-suspected", scores, choices)
                line.append(f"{100 * passed:.0f}")
        body.append(line)
    columns = ["fakes", "treatment", "images"]
    for model in rows["model"].unique():
        columns += [f"{model}: suspected, %", f"{model}: consistent, %"]
        columns += [f"{model}: best of {n} passes, %" for n in CHOICES if model != BOTH]
    return markdown_table(columns, body).strip()


def main() -> None:
    """Judge everything, and write the page anew between its marks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=200, help="Of each GAN, at least 100.")
    parser.add_argument("--model", type=Path, default=RELEASED / "world_model")
    parser.add_argument("--former", type=Path, default=RELEASED / "screening_model")
    args = parser.parse_args()
    torch.set_num_threads(1)
    models = {
        name: Screener.load(path, evidence=False)
        for name, path in (("new", args.model), ("former", args.former), (BOTH, None))
    }
    found = table(judge(args.images, models))
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n\n{found}\n\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
