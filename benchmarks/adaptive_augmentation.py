"""Show that the augmentation of StyleGAN2-ADA adapts: strong on few reals, weak on many.

    python benchmarks/adaptive_augmentation.py CROPPED SPLITS

trains the same small network twice on quarters, 64 px, of the 128 px crops of the training split:
on 16 of them, evenly chosen, and on all. Writes docs/results/adaptive_augmentation.csv, .png and
.md. The speed of the augmentation is 125 times the paper's, since the trainings are that short.
"""

import argparse
import platform
import time
from pathlib import Path

import pandas as pd
import torch
from matplotlib.figure import Figure
from rich.progress import track

from semforensics.core.allocator import keep_memory

keep_memory()

from semforensics.core.markdown import markdown_table  # noqa: E402
from semforensics.figures.style import FAKE, NEUTRAL, REAL, save_figure, styled  # noqa: E402
from semforensics.generators.common.reals import RealCrops  # noqa: E402 - after keep_memory
from semforensics.generators.stylegan2_ada.configurations import resolve  # noqa: E402
from semforensics.generators.stylegan2_ada.training import new_state, take_step  # noqa: E402
from semforensics.params import StyleGAN2Params, read_params  # noqa: E402

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "docs/results/adaptive_augmentation"
FEW = 16
SIZE_PX = 64
CHANGES = {
    "channel_base": 1024,
    "channel_max": 64,
    "z_dim": 64,
    "w_dim": 64,
    "kimg": 10.0,
    "ada_kimg": 4.0,
    "log_every": 20,
    "precision": "float32",
}


def quarters(cropped: Path, splits: Path) -> torch.Tensor:
    """Return the training split's crops cut in four: [n, 1, 64, 64]."""
    reals = RealCrops(cropped, splits, "clean").load()
    cut = reals.unfold(2, SIZE_PX, SIZE_PX).unfold(3, SIZE_PX, SIZE_PX)  # [n, 1, 2, 2, 64, 64]
    return cut.flatten(0, 3)[:, None].contiguous()


def rows_of(reals: torch.Tensor, params: StyleGAN2Params, title: str) -> pd.DataFrame:
    """Train on some reals; give the logged rows."""
    configuration = resolve(params, SIZE_PX)
    state = new_state(params, configuration, SIZE_PX, len(reals), 0, torch.device("cpu"))
    for _ in track(range(configuration.iterations), title):
        take_step(state, reals, params, configuration)
        if state.iteration % params.log_every == 0:
            kimg = state.iteration * configuration.batch / 1000
            state.log(kimg=kimg, p=state.ada.p, r_t=state.ada.r)
    return pd.DataFrame(state.rows).assign(n_real=len(reals))


@styled
def draw(rows: pd.DataFrame, target: float) -> Figure:
    """Draw p and r_t of both trainings."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    upper, lower = figure.subplots(2, sharex=True)
    for colour, (n_real, part) in zip((FAKE, REAL), rows.groupby("n_real"), strict=True):
        upper.plot(part["kimg"], part["p"], color=colour, label=f"{n_real} reals")
        lower.plot(part["kimg"], part["r_t"], color=colour, alpha=0.25, linewidth=0.8)
        smooth = part["r_t"].rolling(10, center=True, min_periods=1).mean()
        lower.plot(part["kimg"], smooth, color=colour, label=f"{n_real} reals")
    lower.axhline(target, color=NEUTRAL, linestyle="--", linewidth=1, label="target")
    upper.set_title("Strength p of the augmentation", loc="left")
    lower.set_title("r_t: mean sign of the reals' logits", loc="left")
    lower.set_xlabel("Thousands of reals shown")
    for axes in (upper, lower):
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1), borderaxespad=0, ncols=3)
    return figure


def describe(rows: pd.DataFrame, params: StyleGAN2Params, seconds: float) -> str:
    """Return the text of the result."""
    lines = []
    for n_real, part in rows.groupby("n_real"):
        last = part[part["kimg"] > part["kimg"].max() * 3 / 4]
        numbers = (part["p"].max(), part["p"].iloc[-1], last["p"].mean(), last["r_t"].mean())
        lines.append([str(n_real), *(f"{number:.2f}" for number in numbers)])
    names = ["reals", "largest p", "last p", "mean p, last quarter", "mean r_t, last quarter"]
    table = markdown_table(names, lines)
    speed = 500 / params.ada_kimg  # the paper's 500 kimg
    return f"""# Adaptive augmentation at work

Made by `python benchmarks/adaptive_augmentation.py data/cropped data/splits.csv` after the
`real_subset` preset: real micrographs, training split, 64 px quarters of the crops. The same
network (channel base {params.channel_base}, batch {params.batch}, {params.kimg:g} kimg, float32,
mirrored copies) learns from few of them and from all. p may move by 1 in {params.ada_kimg:g} kimg,
{speed:g} times as fast as in the paper, since these trainings are short. Target of r_t:
{params.ada_target}; bound of p: {params.ada_p_max}. Strong line of r_t: mean over 10 rows.
{seconds / 60:.0f} minutes of CPU time, {platform.machine()}, torch {torch.__version__}.

{table}
![p and r_t over the trainings](adaptive_augmentation.png)

The numbers behind the curves are in [adaptive_augmentation.csv](adaptive_augmentation.csv).
"""


def main() -> None:
    """Train twice and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cropped", type=Path)
    parser.add_argument("splits", type=Path)
    arguments = parser.parse_args()
    section = read_params(ROOT / "presets/real_subset.yaml").train_gan.stylegan2_ada
    params = section.model_copy(update=CHANGES)
    reals = quarters(arguments.cropped, arguments.splits)
    few = reals[torch.linspace(0, len(reals) - 1, FEW).long()]

    start = time.process_time()
    tables = [rows_of(r, params, f"{len(r)} reals") for r in (few, reals)]
    rows = pd.concat(tables, ignore_index=True)

    RESULT.parent.mkdir(parents=True, exist_ok=True)
    rows.to_csv(RESULT.with_suffix(".csv"), index=False, float_format="%.6g")
    save_figure(draw(rows, params.ada_target), RESULT.with_suffix(".png"))
    text = describe(rows, params, time.process_time() - start)
    RESULT.with_suffix(".md").write_text(text)


if __name__ == "__main__":
    main()
