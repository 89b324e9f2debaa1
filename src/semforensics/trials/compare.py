"""Every detector on every generator: the matrix, and who wins where.

Rows are the detectors, by what they learned from; columns are what is tested. The headline leaves
one generator out: trained on one GAN, tested on the other. Differences between detectors are
paired: both see the same resamples of the same images.

Intervals are 95 %. Those of AUROC and of its differences come from a bootstrap over groups: reals
by group, with whatever was made of them; other fakes by image. The same seed draws the same groups
in every column, so that means over columns are resampled as one. Those of shares are Wilson's.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Float32, Int

from semforensics.core.errors import InputError
from semforensics.core.files import atomic_folder, write_json
from semforensics.core.tables import write_table
from semforensics.detector.corpus import DETECTORS, Corpus, draw_training_split, generators_of
from semforensics.detector.networks import NPRNetwork
from semforensics.detector.scoring import MODEL_FILE, load_classifier, model_files
from semforensics.figures.comparison_table import comparison_table
from semforensics.figures.matrix import detector_matrix, leave_one_out_figure
from semforensics.figures.style import save_figure, source_line
from semforensics.params import CompareDetectorsParams
from semforensics.trials.baselines import BASELINES, TILE_PX
from semforensics.trials.columns import GANS, Column, Unseen, list_columns, note
from semforensics.trials.detectors import METHODS, Measured, Methods, fit_methods, measure_images
from semforensics.trials.intervals import (
    labels_and_groups,
    percentile_interval,
    stratified_resamples,
    wilson_interval,
)
from semforensics.trials.metrics import aurocs, average_precisions

MEAN = "mean"
"""In the tables, in place of a detector or column: over all pairs that leave a generator out."""

Cell = dict[str, Any]
Resampled = dict[tuple[str, str, str], Float[np.ndarray, " resamples"]]
"""AUROC in every resample, by method, detector and column."""


def compare_detectors(
    classifiers: Path,
    corpus: Corpus,
    unseen: Unseen,
    metrics: Path,
    plots: Path,
    *,
    params: CompareDetectorsParams,
    phases: int,
    device: torch.device,
) -> str:
    """Fit the baselines, test all detectors on all columns, and write metrics, tables and figures.

    Detectors without a model below `classifiers` are left out. The headline goes to the JSON file
    `metrics`; cells.csv, differences.csv, table.md, matrix.png and leave_one_out.png go to the
    folder `plots`. The seed of the corpus is that of the draws and the resamples. The summary
    has the headline, the best baseline and false alarms, in a line each.

    Raises:
        InputError: Images changed splits since a classifier was trained, or have no common size.
        FileNotFoundError: There are no classifiers, or images are missing.
    """
    trained = read_trained(classifiers, corpus, device)
    tested = tuple(gan for gan in GANS if any(gan in generators_of(n) for n in trained.trains))
    columns = list_columns(
        corpus.list_images(tested), unseen, max_images=params.max_images, seed=corpus.seed
    )
    tile_px = min(TILE_PX, *(side for column in columns for side in column.size_px))
    measure = partial(measure_images, tile_px=tile_px, phases=phases, device=device)
    fitted = _fit(trained, measure, str(phases))
    cells, resampled = _test(
        fitted, trained.networks, columns, measure, params.bootstrap_resamples, corpus.seed
    )

    headline, differences = leave_one_out(cells, resampled), compare(cells, resampled)
    summary = {
        "protocol": corpus.protocol,
        "data": trained.meta["data"],
        "network": trained.meta["network"],
        "bootstrap_resamples": params.bootstrap_resamples,
        "tile_px": tile_px,
        **summarise(cells, headline, differences),
    }
    source = source_line("all detectors", trained.meta["data"])
    with atomic_folder(plots) as folder:
        write_table(cells, folder / "cells.csv")
        write_table(differences, folder / "differences.csv")
        (folder / "table.md").write_text(comparison_table(cells, headline, differences, summary))
        save_figure(detector_matrix(cells, source=source), folder / "matrix.png")
        if not headline.empty:
            figure = leave_one_out_figure(headline, source=source)
            save_figure(figure, folder / "leave_one_out.png")
    write_json(metrics, summary)
    return _lines(summary)


@dataclass(frozen=True)
class Trained:
    """All classifiers with the images that they learned from and were calibrated on."""

    networks: dict[tuple[str, int], NPRNetwork]
    """By detector and number of the training."""
    metas: dict[tuple[str, int], dict[str, Any]]
    trains: dict[str, pd.DataFrame]
    """By detector, as is the next."""
    validations: dict[str, pd.DataFrame]

    @property
    def meta(self) -> dict[str, Any]:
        """What training wrote beside the first model."""
        return next(iter(self.metas.values()))


def read_trained(classifiers: Path, corpus: Corpus, device: torch.device) -> Trained:
    """Load the classifiers of all trainings, and list their images.

    Raises:
        InputError: A classifier was trained on other images or with another seed.
        FileNotFoundError: There are no classifiers.
    """
    trained = Trained({}, {}, {}, {})
    for name in DETECTORS:
        folder = classifiers / name
        if not (folder / MODEL_FILE).is_file():
            continue
        for index, file in enumerate(model_files(folder)):
            network, meta = load_classifier(folder, device, file)
            trained.networks[name, index], trained.metas[name, index] = network, meta
        if meta["seed"] != corpus.seed:  # else test fakes might be drawn otherwise
            raise InputError(f"{folder}: trained with seed {meta['seed']}, found {corpus.seed}")
        table = corpus.list_images_of(meta, name)
        trained.trains[name] = draw_training_split(table, "train", corpus.seed)
        trained.validations[name] = draw_training_split(table, "validation", corpus.seed)
    if not trained.trains:
        raise FileNotFoundError(f"{classifiers}: no classifier of {', '.join(DETECTORS)}")
    return trained


def _fit(trained: Trained, measure: Callable[..., Measured], phases: str) -> dict[str, Methods]:
    """Fit the baselines and the stack of every detector, on the images of its networks."""
    height, width = trained.meta["size_px"]
    learned = measure(pd.concat(trained.trains.values()), {}, size_px=(height, width))
    calibrated = measure(
        pd.concat(trained.validations.values()), trained.networks, size_px=(height, width)
    )
    return {
        name: fit_methods(
            name,
            [meta["thresholds"][phases] for (n, _), meta in trained.metas.items() if n == name],
            trained.trains[name],
            trained.validations[name],
            learned,
            calibrated,
            max_false_positive_rate=trained.meta["params"]["max_false_positive_rate"],
        )
        for name in trained.trains
    }


def _test(
    fitted: Mapping[str, Methods],
    networks: dict[tuple[str, int], NPRNetwork],
    columns: list[Column],
    measure: Callable[..., Measured],
    resamples: int,
    seed: int,
) -> tuple[pd.DataFrame, Resampled]:
    """Test every method of every detector on every column; return a row per cell, and its AUROCs.

    Every column is measured once for all methods, reals once for all columns of a size.
    """
    cells: list[Cell] = []
    resampled: Resampled = {}
    reals: dict[tuple[int, int], Measured] = {}
    all_reals = pd.concat([c.table[c.table["class"] == "real"] for c in columns])
    for column in columns:
        size_px, table = column.size_px, column.table
        if size_px not in reals:
            reals[size_px] = measure(all_reals, networks, size_px=size_px)
        others = measure(table[table["class"] == "fake"], networks, size_px=size_px)
        images = reals[size_px].join(others).pick(table["path"])
        is_fake, groups = labels_and_groups(table)
        rng = np.random.default_rng(seed)  # as in every column: groups of reals are drawn first
        weights = stratified_resamples(groups, is_fake, resamples, rng)
        for name, methods in fitted.items():
            about = {"detector": name, "column": column.name}
            about["note"] = note(generators_of(name), column)
            for method, scores in methods.score(images).items():
                numbers, values = measure_cell(scores, methods.thresholds[method], is_fake, weights)
                resampled[method, name, column.name] = values
                n_groups = len(set(groups[~is_fake]))
                cells.append({"method": method, **about, **numbers, "n_groups": n_groups})
    return pd.DataFrame(cells), resampled


def measure_cell(
    scores: Float32[np.ndarray, "models n"],
    thresholds: Float[np.ndarray, " models"],
    is_fake: Bool[np.ndarray, " n"],
    weights: Int[np.ndarray, "resamples n"],
) -> tuple[Cell, Float[np.ndarray, " resamples"]]:
    """Return the numbers of one detector on one column, and its AUROC in every resample.

    Scores and thresholds are of every training of the detector; above its threshold an image is
    called fake. `weights` says how often each resample holds each image.

    Returns:
        Means over the trainings: AUROC with its interval, average precision, the share of fakes and
        of reals called fake with Wilson's interval around the rounded mean count; beside them the
        standard deviation of AUROC between trainings, none for one. And AUROC in every resample.
    """
    once = np.ones((1, len(is_fake)), dtype=np.int64)
    values = np.array([aurocs(one, is_fake, once)[0] for one in scores])
    precisions = [average_precisions(one, is_fake, once)[0] for one in scores]
    resampled = np.mean([aurocs(one, is_fake, weights) for one in scores], axis=0)
    low, high = percentile_interval(resampled)
    cell: Cell = {
        "auroc": float(values.mean()),
        "auroc_low": low,
        "auroc_high": high,
        "auroc_sd": float(values.std(ddof=1)) if len(values) > 1 else None,
        "n_seeds": len(values),
        "average_precision": float(np.mean(precisions)),
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
        parts = [(name, column, [(name, column)]) for name, column in pairs]
        for detector, column, members in [*parts, (MEAN, MEAN, pairs)] if pairs else []:
            mine, npr = (
                np.mean([resampled[name, *pair] for pair in members], axis=0)
                for name in (method, "npr")
            )
            mean, npr_mean = (_mean_auroc(cells, name, members) for name in (method, "npr"))
            low, high = percentile_interval(mine)
            numbers: Cell = {"auroc": mean, "auroc_low": low, "auroc_high": high}
            if method != "npr":
                numbers |= _difference(npr_mean - mean, npr - mine)
            rows.append({"method": method, "detector": detector, "column": column, **numbers})
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
        name, column, method = cell["detector"], cell["column"], cell["method"]
        gap = resampled["npr", name, column] - resampled[method, name, column]
        numbers = _difference(npr[name, column] - cell["auroc"], gap)
        better = "npr" if numbers["low"] > 0 else method if numbers["high"] < 0 else "open"
        about = {key: cell[key] for key in ("detector", "column", "note", "method")}
        values = {"auroc_npr": npr[name, column], "auroc": cell["auroc"]}
        rows.append({**about, **values, **numbers, "better": better})
    return pd.DataFrame(rows)


def _difference(value: float, resampled: Float[np.ndarray, " resamples"]) -> Cell:
    low, high = percentile_interval(resampled)
    return {"difference": float(value), "low": low, "high": high}


def summarise(
    cells: pd.DataFrame, headline: pd.DataFrame, differences: pd.DataFrame
) -> dict[str, Any]:
    """Return the headline as plain numbers.

    Returns:
        `leave_one_out`: AUROC of every method, mean over the pairs, with its interval, and what the
        network has above it; `best_baseline` there; `worst`: the cell of least AUROC of the
        network, without controls and under-trained columns; in how many cells, `compared`, a single
        baseline beats the network (`baseline_wins`) or the network it (`npr_wins`);
        `false_alarms`: the largest share over the detectors of each control, and of the reals, that
        a method calls fake.
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
