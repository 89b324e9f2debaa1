"""Every detector on every generator: the matrix, and who wins where.

Rows are training sides, columns are what is tested. The headline leaves one generator out: trained
on one GAN, tested on the other, never on its own. Differences between detectors are paired: both
see the same resamples of the same images.

Intervals are 95 %. Those of AUROC and of its differences come from a bootstrap over groups: reals
by group, with whatever was made of them; other fakes by image. The same seed draws the same groups
in every column, so that means over columns are resampled as one. Those of shares are Wilson's.
"""

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Float32, Int

from semforensics.core.errors import InputError
from semforensics.core.files import atomic_file, atomic_folder
from semforensics.detector.corpus import (
    DETECTORS,
    Corpus,
    draw_training_split,
    generators_of,
)
from semforensics.detector.scoring import MODEL_FILE, load_classifier, model_files
from semforensics.figures.comparison_table import comparison_table
from semforensics.figures.matrix import detector_matrix, leave_one_out_figure
from semforensics.figures.style import save_figure, source_line
from semforensics.params import CompareDetectorsParams
from semforensics.trials.baselines import BASELINES, TILE_PX
from semforensics.trials.columns import GANS, Column, list_columns, note
from semforensics.trials.detectors import (
    METHODS,
    Measured,
    RowDetectors,
    fit_row,
    measure_images,
)
from semforensics.trials.metrics import (
    auroc,
    aurocs,
    average_precision,
    percentile_interval,
    stratified_resamples,
    wilson_interval,
)

MEAN = "mean"
"""In the tables, where a row or column would stand: over all pairs that leave a generator out."""

Cell = dict[str, Any]
Resampled = dict[tuple[str, str, str], Float[np.ndarray, " resamples"]]
"""AUROC in every resample, by method, row and column."""


def compare_detectors(
    classifiers: Path,
    corpus: Corpus,
    unseen: Path,
    metrics: Path,
    plots: Path,
    *,
    params: CompareDetectorsParams,
    max_false_positive_rate: float,
    phases: int,
    under_trained: bool,
    device: torch.device,
) -> str:
    """Fit the baselines, test all detectors on all columns, and write metrics, tables and figures.

    Args:
        classifiers: Holds a folder per row; rows without a model are left out.
        corpus: The images. Its seed is that of the draws and the resamples.
        unseen: Holds a folder per further column.
        metrics: JSON file to write: the headline.
        plots: Folder to write: cells.csv, differences.csv, table.md, matrix.png, leave_one_out.png.
        params: Images per column, and resamples.
        max_false_positive_rate: Of the classifiers' thresholds, and of the baselines'.
        phases: Phases of the 2x2 grid that the networks average.
        under_trained: The diffusion model is; its column is marked and stands outside the headline.
        device: Where to score.

    Returns:
        Three lines: the headline, the best baseline, false alarms.

    Raises:
        InputError: Images changed splits since a classifier was trained, or have no common size.
        FileNotFoundError: There are no classifiers, or images are missing.
    """
    rows = [row for row in DETECTORS if (classifiers / row / MODEL_FILE).is_file()]
    if not rows:
        raise FileNotFoundError(f"{classifiers}: no classifier of {', '.join(DETECTORS)}")
    networks, metas = {}, {}
    for row in rows:
        for index, name in enumerate(model_files(classifiers / row)):
            networks[row, index], metas[row, index] = load_classifier(
                classifiers / row, device, name
            )

    # Which images: those that the classifiers learned from, and the columns.
    seed = corpus.seed
    trains, validations = {}, {}
    for row in rows:
        table = corpus.list_images_of(metas[row, 0], row)
        if metas[row, 0]["seed"] != seed:  # else the draw of test fakes might be another
            raise InputError(
                f"{classifiers / row}: trained with seed {metas[row, 0]['seed']}, found {seed}"
            )
        trains[row] = draw_training_split(table, "train", seed)
        validations[row] = draw_training_split(table, "validation", seed)
    tested = tuple(gan for gan in GANS if any(gan in generators_of(row) for row in rows))
    columns = list_columns(
        corpus.list_images(tested),
        unseen,
        max_images=params.max_images,
        under_trained=under_trained,
        seed=seed,
    )

    # Learn: every baseline in every row, from the images of the row's networks.
    height, width = metas[rows[0], 0]["size_px"]
    tile_px = min(TILE_PX, *(side for column in columns for side in column.size_px))
    measure = partial(measure_images, tile_px=tile_px, phases=phases, device=device)
    learned = measure(pd.concat(trains.values()), {}, size_px=(height, width))
    calibrated = measure(pd.concat(validations.values()), networks, size_px=(height, width))
    detectors = {
        row: fit_row(
            row,
            [metas[r, i]["thresholds"][str(phases)] for r, i in networks if r == row],
            trains[row],
            validations[row],
            learned,
            calibrated,
            max_false_positive_rate=max_false_positive_rate,
        )
        for row in rows
    }

    # Test: every column is measured once for all detectors; reals once for all columns of a size.
    cells: list[Cell] = []
    resampled: Resampled = {}
    reals: dict[tuple[int, int], Measured] = {}
    all_reals = pd.concat([c.table[c.table["class"] == "real"] for c in columns])
    for column in columns:
        if column.size_px not in reals:
            reals[column.size_px] = measure(all_reals, networks, size_px=column.size_px)
        others = column.table[column.table["class"] == "fake"]
        measured = reals[column.size_px].join(measure(others, networks, size_px=column.size_px))
        _test_column(
            column, detectors, measured, params.bootstrap_resamples, seed, cells, resampled
        )

    table = pd.DataFrame(cells)
    headline, differences = leave_one_out(table, resampled), compare(table, resampled)
    meta = metas[rows[0], 0]
    summary = {
        "protocol": corpus.protocol,
        "data": meta["data"],
        "network": meta["network"],
        "bootstrap_resamples": params.bootstrap_resamples,
        "tile_px": tile_px,
        **summarise(table, headline, differences),
    }
    source = source_line("all detectors", meta["data"])
    with atomic_folder(plots) as folder:
        for name, rows_of in (("cells", table), ("differences", differences)):
            rows_of.to_csv(folder / f"{name}.csv", index=False, lineterminator="\n")
        (folder / "table.md").write_text(comparison_table(table, headline, differences, summary))
        save_figure(detector_matrix(table, source=source), folder / "matrix.png")
        if not headline.empty:
            figure = leave_one_out_figure(headline, source=source)
            save_figure(figure, folder / "leave_one_out.png")
    with atomic_file(metrics) as path:
        path.write_text(json.dumps(summary, indent=2) + "\n")
    return _lines(summary)


def _test_column(
    column: Column,
    detectors: Mapping[str, RowDetectors],
    measured: Measured,
    resamples: int,
    seed: int,
    cells: list[Cell],
    resampled: Resampled,
) -> None:
    """Add the cells of all detectors on one column."""
    is_fake = (column.table["class"] == "fake").to_numpy()
    groups = column.table["group"].to_numpy(dtype=str)
    rng = np.random.default_rng(seed)  # the same in every column: groups of reals are drawn first
    weights = stratified_resamples(groups, is_fake, resamples, rng)
    images = measured.pick(column.table["path"])
    for row, detector in detectors.items():
        for method, scores in detector.score(images).items():
            numbers, values = measure_cell(scores, detector.thresholds[method], is_fake, weights)
            resampled[method, row, column.name] = values
            cells.append(
                {
                    "method": method,
                    "detector": row,
                    "column": column.name,
                    "note": note(generators_of(row), column),
                    **numbers,
                    "n_groups": len(set(groups[~is_fake])),
                }
            )


def measure_cell(
    scores: Float32[np.ndarray, "models n"],
    thresholds: Float[np.ndarray, " models"],
    is_fake: Bool[np.ndarray, " n"],
    weights: Int[np.ndarray, "resamples n"],
) -> tuple[Cell, Float[np.ndarray, " resamples"]]:
    """Compute the numbers of one detector on one column.

    Args:
        scores: Of every training of the detector, higher means more likely fake.
        thresholds: Of every training; above it an image is called fake.
        is_fake: One per image.
        weights: How often each resample holds each image.

    Returns:
        Means over the trainings: AUROC with its interval, average precision, the share of fakes and
        of reals called fake with Wilson's interval around the rounded mean count; beside them the
        standard deviation of AUROC between trainings, none for one. And AUROC in every resample.
    """
    values = np.array([auroc(one, is_fake) for one in scores])
    resampled = np.mean([aurocs(one, is_fake, weights) for one in scores], axis=0)
    low, high = percentile_interval(resampled)
    cell: Cell = {
        "auroc": float(values.mean()),
        "auroc_low": low,
        "auroc_high": high,
        "auroc_sd": float(values.std(ddof=1)) if len(values) > 1 else None,
        "n_seeds": len(values),
        "average_precision": float(np.mean([average_precision(one, is_fake) for one in scores])),
    }
    called = scores > thresholds[:, None]
    for name, chosen in (("called_fake", is_fake), ("reals_called_fake", ~is_fake)):
        count, total = called[:, chosen].sum(axis=1).mean(), int(chosen.sum())
        low, high = wilson_interval(round(count), total)
        cell |= {name: float(count / total), f"{name}_low": low, f"{name}_high": high}
    cell |= {"n_real": int((~is_fake).sum()), "n_fake": int(is_fake.sum())}
    return cell, resampled


def leave_one_out(cells: pd.DataFrame, resampled: Resampled) -> pd.DataFrame:
    """Return the AUROC of every method on the GAN that it did not learn from.

    Returns:
        One row per method and pair of GANs (the `detector` that learned, the `column` tested on),
        and one for the mean over the pairs: `auroc`, `auroc_low`, `auroc_high`, and `difference`,
        `low`, `high` of the network less this method. Empty where no detector learned from one GAN
        alone.
    """
    rows = []
    for method in METHODS:
        part = cells[(cells["method"] == method) & (cells["note"] == "left out")]
        pairs = list(zip(part["detector"], part["column"], strict=True))
        parts = [(row, column, [(row, column)]) for row, column in pairs]
        for row, column, members in [*parts, (MEAN, MEAN, pairs)] if pairs else []:
            mine, npr = (
                np.mean([resampled[name, *pair] for pair in members], axis=0)
                for name in (method, "npr")
            )
            mean, npr_mean = (_mean_auroc(cells, name, members) for name in (method, "npr"))
            low, high = percentile_interval(mine)
            numbers: Cell = {"auroc": mean, "auroc_low": low, "auroc_high": high}
            if method != "npr":
                numbers |= _difference(npr_mean - mean, npr - mine)
            rows.append({"method": method, "detector": row, "column": column, **numbers})
    return pd.DataFrame(rows)


def _mean_auroc(cells: pd.DataFrame, method: str, pairs: list[tuple[str, str]]) -> float:
    part = cells[cells["method"] == method].set_index(["detector", "column"])["auroc"]
    return float(np.mean([part[pair] for pair in pairs]))


def compare(cells: pd.DataFrame, resampled: Resampled) -> pd.DataFrame:
    """Return the AUROC of the network less that of every other method, in every cell but controls.

    Returns:
        `detector`, `column`, `note`, `method`, both AUROC, `difference`, `low`, `high`, `better`:
        "npr" or the method where the interval leaves out 0, else "open".
    """
    rows = []
    tested = cells[cells["note"] != "control"]
    npr = tested[tested["method"] == "npr"].set_index(["detector", "column"])["auroc"]
    for cell in tested[tested["method"] != "npr"].to_dict("records"):
        row, column, method = cell["detector"], cell["column"], cell["method"]
        values = resampled["npr", row, column] - resampled[method, row, column]
        numbers = _difference(npr[row, column] - cell["auroc"], values)
        better = "npr" if numbers["low"] > 0 else method if numbers["high"] < 0 else "open"
        rows.append(
            {
                "detector": row,
                "column": column,
                "note": cell["note"],
                "method": method,
                "auroc_npr": npr[row, column],
                "auroc": cell["auroc"],
                **numbers,
                "better": better,
            }
        )
    return pd.DataFrame(rows)


def _difference(value: float, resampled: Float[np.ndarray, " resamples"]) -> Cell:
    low, high = percentile_interval(resampled)
    return {"difference": float(value), "low": low, "high": high}


def summarise(
    cells: pd.DataFrame, headline: pd.DataFrame, differences: pd.DataFrame
) -> dict[str, Any]:
    """Return the headline as plain numbers.

    Returns:
        `leave_one_out`: AUROC of every method, mean over the pairs, with its interval, and of the
        others what the network has above them; `best_baseline` there; `worst`: the cell of least
        AUROC of the network, without controls and under-trained columns; `baseline_wins` and
        `compared`: in how many cells, of how many, a single baseline beats the network, and the
        network a baseline (`npr_wins`); `false_alarms`: the share of each control, and of the
        reals, that a method calls fake, the largest over the rows.
    """
    summary: dict[str, Any] = {"n_real": int(cells["n_real"].max())}
    summary["n_groups"] = int(cells["n_groups"].max())
    summary["n_seeds"] = int(cells["n_seeds"].max())
    if not headline.empty:
        means = headline[headline["detector"] == MEAN].drop(columns=["detector", "column"])
        records = means.set_index("method").to_dict("index")
        summary["leave_one_out"] = {
            name: {key: value for key, value in record.items() if not pd.isna(value)}
            for name, record in records.items()
        }
        best = max(BASELINES, key=lambda name: records[name]["auroc"])
        summary["best_baseline"] = best
    counted = differences[~differences["note"].isin(["under-trained"])]
    single = counted[counted["method"] != "stack"]
    summary |= {
        "compared": len(single),
        "npr_wins": int((single["better"] == "npr").sum()),
        "baseline_wins": int((single["better"] == single["method"]).sum()),
    }
    npr = cells[cells["method"] == "npr"]
    worst = npr[~npr["note"].isin(["control", "under-trained"])].nsmallest(1, "auroc").iloc[0]
    summary["worst"] = {key: worst[key] for key in ("detector", "column", "auroc")}
    controls = cells[cells["note"] == "control"]
    whole = controls if not controls.empty else cells  # reals of the size that was learned
    summary["false_alarms"] = {
        method: {
            "reals": float(whole.loc[whole["method"] == method, "reals_called_fake"].max()),
            **controls[controls["method"] == method].groupby("column")["called_fake"].max(),
        }
        for method in METHODS
    }
    return summary


def _lines(summary: Mapping[str, Any]) -> str:
    """Say the headline in one or a few lines."""
    lines = []
    if "leave_one_out" in summary:
        parts = summary["leave_one_out"]
        best = summary["best_baseline"]
        for name, what in (("npr", "NPR"), (best, f"best baseline ({best})"), ("stack", "stack")):
            value, low, high = (parts[name][key] for key in ("auroc", "auroc_low", "auroc_high"))
            lines.append(f"{what} {value:.4f} ({low:.4f}-{high:.4f})")
        lines = ["leave one generator out, mean AUROC: " + ", ".join(lines)]
    worst = summary["worst"]
    lines.append(
        f"a baseline beats NPR in {summary['baseline_wins']} of {summary['compared']} comparisons, "
        f"NPR a baseline in {summary['npr_wins']}; NPR is worst from {worst['detector']} to "
        f"{worst['column']}: {worst['auroc']:.4f}"
    )
    alarms = ", ".join(f"{k} {100 * v:.1f} %" for k, v in summary["false_alarms"]["npr"].items())
    lines.append(f"false alarms of NPR in its worst row: {alarms}")
    return "\n".join(lines)
