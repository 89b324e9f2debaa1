"""The detector under every processing of the grid: of both classes, of fakes only, of reals only.

If both classes are processed, a fall of the AUROC is fragility: the processing destroys the trace.
If one class is, any change of it is bias: the detector takes the processing itself as a sign of one
class. A detector that knows fakes by being free of JPEG gains when reals are compressed. Every
image is processed once; the three cases select from the same logits.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, UInt8
from torch import Tensor

from semforensics.core.files import atomic_folder, write_json
from semforensics.core.progress import track
from semforensics.core.tables import read_splits
from semforensics.detector.corpus import Corpus, LabelledImages, draw_evenly, load_images
from semforensics.detector.perturbations import AS_IT_IS, AXES, GRID, Perturbation, apply_to_all
from semforensics.detector.verdict import decide
from semforensics.figures.heatmaps import one_sided_heatmap, two_sided_heatmap
from semforensics.figures.style import save_figure, source_line
from semforensics.params import RobustnessParams
from semforensics.trials.intervals import labels_and_groups, paired_difference, wilson_interval
from semforensics.trials.metrics import auroc
from semforensics.trials.under_test import DetectorUnderTest

Images = UInt8[Tensor, "n 1 height width"]
Processed = Literal["both", "fakes", "reals"]
"""Which class is processed; the other one stays as it was."""

_RESAMPLES = 500  # of the interval that decides a remark
_NUM_DONORS = 64  # training reals whose spectra are given to fakes

_WORST = {
    "false_positive_rate": "max",
    "true_positive_rate": "min",
    "auroc": "min",
    "false_alarms_of_decided": "max",
}
"""The rates of the metrics file, and which end of each is the worst."""


def measure_robustness(
    tested: DetectorUnderTest, metrics: Path, plots: Path, *, params: RobustnessParams
) -> str:
    """Score the test split after every kind of processing, and write metrics, table and heat maps.

    The mean and the worst cell of each axis go to the JSON file `metrics`; grid.csv (a row per cell
    and case), two_sided.png and one_sided.png go to the folder `plots`. The seed of the corpus is
    that of noise and of the choice of images. The summary counts the cells, the fragile and the
    biased ones, and names the worst.

    Raises:
        InputError: The images are so small that a cell leaves less than the detector takes.
        FileNotFoundError: Images are missing.
    """
    grid = measure_grid(tested, thin(tested.test, params.max_images, tested.corpus.seed))
    first = grid.iloc[0]
    counts = f"{first['n_real']} reals of {first['n_groups']} groups, {first['n_fake']} fakes"
    source = f"{source_line(f'Detector {tested.name}', tested.meta['data'])} · {counts}"
    with atomic_folder(plots) as folder:
        grid.to_csv(folder / "grid.csv", index=False, lineterminator="\n")
        save_figure(two_sided_heatmap(grid, source=source), folder / "two_sided.png")
        save_figure(one_sided_heatmap(grid, source=source), folder / "one_sided.png")
    write_json(metrics, summarise(grid, tested))
    return f"{tested.name}: {_line(grid)}; {counts}{tested.note}"


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


def measure_grid(tested: DetectorUnderTest, test: LabelledImages) -> pd.DataFrame:
    """Measure every cell in its three cases, after the images as they are.

    Returns:
        One row per cell and case: axis, level, and the numbers of `measure_cell`.
    """
    seed, threshold = tested.corpus.seed, tested.detector.threshold
    donors = load_donors(tested.corpus)
    files = test.table["file"].tolist()
    original = classify(tested, test.images)

    def row(cell: Perturbation, changed: pd.DataFrame, case: Processed) -> dict[str, Any]:
        numbers = measure_cell(original, changed, case, test.table, threshold, seed)
        return {"axis": cell.axis, "level": cell.level} | numbers

    rows = [row(AS_IT_IS, original, "both")]
    for cell in track(GRID, "robustness"):
        changed = classify(tested, process(cell, test.images, files, seed, donors))
        rows += [row(cell, changed, case) for case in get_args(Processed)]
    return pd.DataFrame(rows)


def load_donors(corpus: Corpus) -> Images:
    """Load some training reals, to whose spectra a forger would match fakes."""
    table = read_splits(corpus.splits)
    reals = table[table["split"] == "train"]
    chosen = draw_evenly(reals, _NUM_DONORS, corpus.seed).sort_values("file")
    return load_images(chosen.assign(path=[corpus.cropped / f for f in chosen["file"]])).images


def process(
    cell: Perturbation,
    images: Images,
    files: Sequence[str],
    seed: int,
    donors: UInt8[Tensor, "n_donor 1 height width"] | None = None,
) -> UInt8[Tensor, "n 1 new_height new_width"]:
    """Process images as `apply_to_all` does."""
    of_donors = None if donors is None else donors[:, 0].numpy()
    changed = apply_to_all(cell, images[:, 0].numpy(), files, seed, of_donors)
    return torch.from_numpy(changed[:, None])


def classify(tested: DetectorUnderTest, images: Images) -> pd.DataFrame:
    """Score images and decide on each; outside the domain the verdict is inconclusive.

    Returns:
        One row per image: logit, verdict, is_inside (the training domain).
    """
    detector = tested.detector
    logits = detector.logits(images)
    is_inside = detector.domain.is_inside(images)
    verdicts = decide(*detector.p_values(logits), tested.alpha, is_inside)
    return pd.DataFrame({"logit": logits, "verdict": verdicts, "is_inside": is_inside})


def measure_cell(
    original: pd.DataFrame,
    changed: pd.DataFrame,
    processed: Processed,
    table: pd.DataFrame,
    threshold: float,
    seed: int,
) -> dict[str, Any]:
    """Return all numbers of a cell in one of its cases.

    `original` and `changed` are what `classify` returns of the images as they were, and after all
    of them were processed; of the class that is not in `processed` the originals count. Above
    the threshold, a logit, an image is called fake. Every cell has the same resamples.

    Returns:
        Rates with Wilson's 95 % interval; the AUROC and its change against the originals, with the
        interval of a paired bootstrap over groups; the mean shift of the logits of each class; the
        shares of images inside the domain and decided; errors of the decided ones (not a number
        where none is); numbers of images and groups; a remark where the change is certain.
    """
    is_fake, groups = labels_and_groups(table)
    chosen = {"both": np.ones_like(is_fake), "fakes": is_fake, "reals": ~is_fake}[processed]
    outcome = original.copy()
    outcome.loc[chosen] = changed.loc[chosen]
    before, logits = original["logit"].to_numpy(), outcome["logit"].to_numpy()
    called = logits > threshold
    decided = (outcome["verdict"] != "inconclusive").to_numpy()
    suspected = (outcome["verdict"] == "ai-suspected").to_numpy()
    is_inside = outcome["is_inside"].to_numpy()
    shift = logits.astype(np.float64) - before
    rng = np.random.default_rng(seed)
    change, low, high = paired_difference(logits, before, is_fake, groups, _RESAMPLES, rng)
    return {
        "processed": processed,
        **rate("false_positive_rate", called[~is_fake]),
        **rate("true_positive_rate", called[is_fake]),
        "auroc": auroc(logits, is_fake),
        "auroc_change": change,
        "auroc_change_low": low,
        "auroc_change_high": high,
        "logit_shift_real": shift[~is_fake].mean(),
        "logit_shift_fake": shift[is_fake].mean(),
        "inside_real": is_inside[~is_fake].mean(),
        "inside_fake": is_inside[is_fake].mean(),
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
    """State a share with Wilson's 95 % interval under `_low` and `_high`; of nothing, NaN."""
    value, low, high = np.nan, np.nan, np.nan
    if len(happened):
        value = float(happened.mean())
        low, high = wilson_interval(int(happened.sum()), len(happened))
    return {name: value, f"{name}_low": low, f"{name}_high": high}


def remark(processed: Processed, low: float, high: float) -> str:
    """Name a change of the AUROC between two bounds; nothing where there may be none."""
    if processed == "both":
        return "fragile" if high < 0 else ""
    return "bias" if high < 0 or low > 0 else ""


def summarise(grid: pd.DataFrame, tested: DetectorUnderTest) -> dict[str, Any]:
    """Return the mean and the worst cell of every axis, both classes processed."""
    cells = grid[grid["processed"] == "both"]
    original = cells.iloc[0]
    result: dict[str, Any] = {
        **tested.about,
        **{name: int(original[name]) for name in ("n_real", "n_fake", "n_groups")},
        "n_cells": len(GRID),
        "n_fragile": int((grid["remark"] == "fragile").sum()),
        "n_biased": count_biased(grid),
        "original": {name: original[name] for name in _WORST},
    }
    for axis in AXES:
        part = cells[cells["axis"] == axis]
        result[axis] = {}
        for name, worst in _WORST.items():
            result[axis] |= {
                f"{name}_mean": part[name].mean(),
                f"{name}_worst": part[name].agg(worst),
            }
    return result


def count_biased(grid: pd.DataFrame) -> int:
    """Count the kinds of processing of reals alone that change the AUROC.

    With fakes alone processed, a fall may be fragility: the trace is gone.
    """
    return int((grid.loc[grid["processed"] == "reals", "remark"] == "bias").sum())


def _line(grid: pd.DataFrame) -> str:
    """Say in one line what matters most."""
    cells = grid[(grid["processed"] == "both") & (grid["axis"] != "none")]
    worst = cells.sort_values("auroc", kind="stable").iloc[0]
    return (
        f"{len(cells)} kinds of processing, {int((cells['remark'] == 'fragile').sum())} fragile, "
        f"{count_biased(grid)} biased; AUROC {grid['auroc'].iloc[0]:.3f} as it is, mean "
        f"{cells['auroc'].mean():.3f}, worst {worst['auroc']:.3f} ({worst['axis']} "
        f"{worst['level']})"
    )
