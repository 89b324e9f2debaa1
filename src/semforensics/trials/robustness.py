"""The detector under every processing of the grid: of both classes, of fakes only, of reals only.

Processed on both sides, a fall of the AUROC is fragility: the processing destroys the trace.
Processed on one side, any change of it is bias: the detector takes the processing itself for a sign
of one class. A detector that knows fakes by being free of JPEG gains when reals are compressed.
Every image is processed once; the three cases pick their logits.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Shaped, UInt8
from rich.console import Console
from rich.progress import track
from torch import Tensor

from semforensics.core.files import atomic_file, atomic_folder
from semforensics.core.tables import read_splits
from semforensics.detector.calibration import decide
from semforensics.detector.corpus import (
    LabelledImages,
    draw_evenly,
    load_images,
)
from semforensics.detector.detector import Detector
from semforensics.detector.perturbations import AS_IT_IS, AXES, GRID, Perturbation, rng_of
from semforensics.figures.heatmaps import one_sided_heatmap, two_sided_heatmap
from semforensics.figures.style import save_figure, source_line
from semforensics.params import RobustnessParams
from semforensics.trials.metrics import auroc, paired_difference, wilson_interval
from semforensics.trials.under_test import DetectorUnderTest

Processed = Literal["both", "fakes", "reals"]
"""Which class is processed; the other one is as it was."""

_RESAMPLES = 500  # of the interval that decides a remark
_NUM_DONORS = 64  # training reals whose spectra are given to fakes

_RATES = ("false_positive_rate", "true_positive_rate", "auroc", "false_alarms_of_decided")


@dataclass(frozen=True)
class Outcome:
    """What the detector says of some images."""

    logits: Float[np.ndarray, " n"]
    verdicts: Shaped[np.ndarray, " n"]
    is_inside: Bool[np.ndarray, " n"]
    """Whether an image is inside the training domain."""

    def where(self, chosen: Bool[np.ndarray, " n"], other: "Outcome") -> "Outcome":
        """Take the chosen images from here, the rest from another outcome of the same images."""
        return Outcome(
            *(
                np.where(chosen, getattr(self, name), getattr(other, name))
                for name in ("logits", "verdicts", "is_inside")
            )
        )


def measure_robustness(
    tested: DetectorUnderTest, metrics: Path, plots: Path, *, params: RobustnessParams
) -> str:
    """Score the test split after every kind of processing, and write metrics, table and heat maps.

    Args:
        tested: The detector; the seed of its corpus is that of noise and of the choice of images.
        metrics: JSON file to write: the mean and the worst cell of each axis.
        plots: Folder to write: grid.csv, one row per cell and case, two_sided.png, one_sided.png.
        params: How many images.

    Returns:
        One line: how many cells, how many of them fragile and biased, the worst.

    Raises:
        InputError: alpha is finer than the calibration resolves; or the images are so small that a
            cell leaves less than the detector takes.
        FileNotFoundError: Images are missing.
    """
    detector, alpha, seed = tested.detector, tested.alpha, tested.corpus.seed
    detector.check_alpha(alpha)
    test = thin(tested.test, params.max_images, seed)
    donors = load_donors(tested.corpus.cropped, tested.corpus.splits, seed)
    files = test.table["file"].tolist()

    original = judge(detector, test.images, alpha)

    def cells(perturbation: Perturbation, changed: Outcome) -> list[dict[str, Any]]:
        names = {"axis": perturbation.axis, "level": perturbation.level}
        return [
            names | measure_cell(original, changed, case, test.table, detector.threshold, seed)
            for case in get_args(Processed)
        ]

    rows = cells(AS_IT_IS, original)[:1]
    console = Console(stderr=True)
    for perturbation in track(GRID, "robustness", console=console, disable=not console.is_terminal):
        images = process(perturbation, test.images, files, donors, seed)
        rows += cells(perturbation, judge(detector, images, alpha))
    grid = pd.DataFrame(rows)

    counts = f"{rows[0]['n_real']} reals of {rows[0]['n_groups']} groups, {rows[0]['n_fake']} fakes"
    source = f"{source_line(f'Detector {tested.name}', detector.meta['data'])} · {counts}"
    with atomic_folder(plots) as folder:
        grid.to_csv(folder / "grid.csv", index=False, lineterminator="\n")
        save_figure(two_sided_heatmap(grid, source=source), folder / "two_sided.png")
        save_figure(one_sided_heatmap(grid, source=source), folder / "one_sided.png")
    with atomic_file(metrics) as path:
        path.write_text(json.dumps(summarise(grid, detector, alpha), indent=2) + "\n")
    return _line(tested.name, grid)


def thin(test: LabelledImages, max_images: int, seed: int) -> LabelledImages:
    """Keep at most `max_images` of each class: reals evenly by group, fakes by generator."""
    table = test.table
    num_generators = table.loc[table["class"] == "fake", "generator"].nunique()
    kept = []
    for generator, part in table.groupby("generator"):
        count = max_images // num_generators if generator else max_images
        kept += draw_evenly(part, max(1, count), seed).index.tolist()
    kept.sort()
    return LabelledImages(table.loc[kept].reset_index(drop=True), test.images[kept])


def load_donors(cropped: Path, splits: Path, seed: int) -> UInt8[Tensor, "n 1 height width"]:
    """Load some training reals, to whose spectra a forger would match fakes."""
    table = read_splits(splits)
    chosen = draw_evenly(table[table["split"] == "train"], _NUM_DONORS, seed).sort_values("file")
    return load_images(chosen.assign(path=[cropped / file for file in chosen["file"]])).images


def process(
    perturbation: Perturbation,
    images: UInt8[Tensor, "n 1 height width"],
    files: list[str],
    donors: UInt8[Tensor, "n_donor 1 height width"],
    seed: int,
) -> UInt8[Tensor, "n 1 new_height new_width"]:
    """Process images, each by draws that depend on seed, cell and its own file name alone.

    Raises:
        InputError: The results are smaller than the detector takes.
    """
    results = []
    for image, file in zip(images[:, 0].numpy(), files, strict=True):
        donor = int(rng_of(seed, perturbation, f"donor of {file}").integers(len(donors)))
        rng = rng_of(seed, perturbation, file)
        results.append(perturbation.apply(image, rng, donors[donor, 0].numpy()))
    return torch.from_numpy(np.stack(results)[:, None])


def judge(detector: Detector, images: UInt8[Tensor, "n 1 height width"], alpha: float) -> Outcome:
    """Score images and give the verdict on each; outside the domain it is inconclusive."""
    logits = detector.logits(images)
    is_inside = detector.domain.is_inside(images)
    return Outcome(logits, decide(*detector.p_values(logits), alpha, is_inside), is_inside)


def measure_cell(
    original: Outcome,
    changed: Outcome,
    processed: Processed,
    table: pd.DataFrame,
    threshold: float,
    seed: int,
) -> dict[str, Any]:
    """Return all numbers of a cell in one of its cases.

    Args:
        original: Of the images as they were.
        changed: Of the same images, all of them processed.
        processed: Which class counts as processed.
        table: One row per image, as in `LabelledImages`.
        threshold: A logit; above it an image is called fake.
        seed: Of the bootstrap: in every cell the same resamples.

    Returns:
        Rates with Wilson's 95 % interval; the AUROC and its change against the originals, with the
        interval of a paired bootstrap over groups; the mean shift of the logits of each class; the
        shares of images inside the domain and decided; errors of the decided ones (not a number
        where none is); numbers of images and groups; a remark where the change is certain.
    """
    is_fake = (table["class"] == "fake").to_numpy()
    chosen = {"both": np.ones_like(is_fake), "fakes": is_fake, "reals": ~is_fake}[processed]
    outcome = changed.where(chosen, original)
    called = outcome.logits > threshold
    decided = outcome.verdicts != "inconclusive"
    suspected = outcome.verdicts == "ai-suspected"
    shift = outcome.logits.astype(np.float64) - original.logits
    change, low, high = paired_difference(
        outcome.logits,
        original.logits,
        is_fake,
        table["group"].to_numpy(),
        _RESAMPLES,
        np.random.default_rng(seed),
    )
    return {
        "processed": processed,
        **rate("false_positive_rate", called[~is_fake]),
        **rate("true_positive_rate", called[is_fake]),
        "auroc": auroc(outcome.logits, is_fake),
        "auroc_change": change,
        "auroc_change_low": low,
        "auroc_change_high": high,
        "logit_shift_real": shift[~is_fake].mean(),
        "logit_shift_fake": shift[is_fake].mean(),
        "inside_real": outcome.is_inside[~is_fake].mean(),
        "inside_fake": outcome.is_inside[is_fake].mean(),
        "decided": decided.mean(),
        "decided_real": decided[~is_fake].mean(),
        "decided_fake": decided[is_fake].mean(),
        **rate("false_alarms_of_decided", suspected[~is_fake & decided]),
        **rate("misses_of_decided", ~suspected[is_fake & decided]),
        "n_real": int((~is_fake).sum()),
        "n_fake": int(is_fake.sum()),
        "n_groups": int(table.loc[~is_fake, "group"].nunique()),
        "remark": remark(processed, low, high),
    }


def rate(name: str, happened: Bool[np.ndarray, " n"]) -> dict[str, float]:
    """State a share with Wilson's 95 % interval under `_low` and `_high`; of nothing, no number."""
    if len(happened) == 0:
        value, (low, high) = np.nan, (np.nan, np.nan)
    else:
        value = float(happened.mean())
        low, high = wilson_interval(int(happened.sum()), len(happened))
    return {name: value, f"{name}_low": low, f"{name}_high": high}


def remark(processed: Processed, low: float, high: float) -> str:
    """Say what a change of the AUROC between two bounds is called; nothing where it may be none."""
    if processed == "both":
        return "fragile" if high < 0 else ""
    return "bias" if high < 0 or low > 0 else ""


def summarise(grid: pd.DataFrame, detector: Detector, alpha: float) -> dict[str, Any]:
    """Return the mean and the worst cell of every axis, both classes processed."""
    cells = grid[grid["processed"] == "both"]
    original = cells[cells["axis"] == "none"].iloc[0]
    result: dict[str, Any] = {
        "detector": detector.meta["detector"],
        "network": detector.meta["network"],
        "data": detector.meta["data"],
        "threshold_logit": detector.threshold,
        "phases": detector.phases,
        "alpha": alpha,
        **{name: int(original[name]) for name in ("n_real", "n_fake", "n_groups")},
        "n_cells": len(GRID),
        "n_fragile": int((grid["remark"] == "fragile").sum()),
        "n_biased": count_biased(grid),
        "original": {name: _number(original[name]) for name in _RATES},
    }
    for axis in AXES:
        part = cells[cells["axis"] == axis]
        result[axis] = {}
        for name in _RATES:
            worst = (
                part[name].min() if name in ("true_positive_rate", "auroc") else part[name].max()
            )
            result[axis] |= {
                f"{name}_mean": _number(part[name].mean()),
                f"{name}_worst": _number(worst),
            }
    return result


def count_biased(grid: pd.DataFrame) -> int:
    """Count the kinds of processing of reals alone that change the AUROC.

    With fakes alone processed, a fall may be fragility: the trace is gone.
    """
    return int((grid.loc[grid["processed"] == "reals", "remark"] == "bias").sum())


def _number(value: float) -> float | None:
    """JSON knows no number for "nothing was decided"."""
    return None if np.isnan(value) else float(value)


def _line(detector: str, grid: pd.DataFrame) -> str:
    """Say in one line what matters most."""
    cells = grid[(grid["processed"] == "both") & (grid["axis"] != "none")]
    worst = cells.sort_values("auroc", kind="stable").iloc[0]
    original = grid.iloc[0]
    return (
        f"{detector}: {len(cells)} kinds of processing, "
        f"{int((cells['remark'] == 'fragile').sum())} fragile, {count_biased(grid)} biased; "
        f"AUROC {original['auroc']:.3f} as it is, mean {cells['auroc'].mean():.3f}, "
        f"worst {worst['auroc']:.3f} ({worst['axis']} {worst['level']}); "
        f"{original['n_real']} reals of {original['n_groups']} groups, {original['n_fake']} fakes"
    )
