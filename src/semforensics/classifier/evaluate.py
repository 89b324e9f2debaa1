"""Score the test side of one classifier: the columns of the thesis's Table 4.3, with intervals.

The table's accuracies stand at a probability of 0.5 (`..._at_half`) and at the threshold that
training chose on the validation side. Proportions carry Wilson's interval, which takes images as
independent: crops of one group are not, so the number of groups stands beside it. Average precision
and AUROC carry a cluster bootstrap: reals are resampled by group, fakes by image.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from semforensics.classifier.dataset import (
    LabelledImages,
    generators_of,
    load_test_side,
)
from semforensics.classifier.scoring import load_classifier, score_images, sigmoid
from semforensics.evaluation.metrics import (
    Interval,
    Labels,
    Scores,
    aurocs,
    average_precisions,
    cluster_resamples,
    percentile_interval,
    precision_by_recall,
    share_at_or_above,
    wilson_interval,
)
from semforensics.files import atomic_file, atomic_folder
from semforensics.params import EvaluateClassifierParams


def evaluate_row(
    row: str,
    classifier: Path,
    cropped: Path,
    splits: Path,
    fakes: Path,
    metrics: Path,
    plots: Path,
    *,
    params: EvaluateClassifierParams,
    seed: int,
    device: torch.device,
) -> str:
    """Score the test side and write metrics and plots.

    Args:
        row: Whose fakes the classifier learned from, and is tested on.
        classifier: Folder of the model.
        cropped: Holds the reals.
        splits: The table of crops with their sides.
        fakes: Holds one folder per generator.
        metrics: JSON file to write: one object per generator.
        plots: Folder to write: roc.csv, pr.csv, confusion.csv, scores.csv.
        params: Phases and resamples.
        seed: Of the resamples. The test side itself is drawn with the seed of the training.
        device: Where to score.

    Returns:
        One line per generator.

    Raises:
        ValueError: The model is another row's, or images changed sides since it was trained.
        FileNotFoundError: Images or model are missing.
    """
    network, meta = load_classifier(classifier, device)
    test = load_test_side(row, meta, cropped, splits, fakes)
    logits = score_images(network, test.images, phases=params.phases, device=device)
    threshold = meta["thresholds"][str(params.phases)]
    scores = score_table(test, logits)

    result: dict[str, Any] = {
        "row": row,
        "network": meta["network"],
        "protocol": meta["protocol"],
        "data": meta["data"],
        "threshold": sigmoid(threshold),
        "threshold_logit": threshold,
        "max_false_positive_rate": meta["params"]["max_false_positive_rate"],
        "phases": params.phases,
        "bootstrap_resamples": params.bootstrap_resamples,
    }
    for generator in generators_of(row):
        part = scores[scores["generator"].isin(["", generator])]
        rng = np.random.default_rng(seed)
        result[generator] = measure(part, threshold, params.bootstrap_resamples, rng)

    with atomic_folder(plots) as folder:
        for name, table in curves(scores, threshold).items():
            table.to_csv(folder / f"{name}.csv", index=False, lineterminator="\n")
        scores.to_csv(folder / "scores.csv", index=False, lineterminator="\n")
    with atomic_file(metrics) as path:
        path.write_text(json.dumps(result, indent=2) + "\n")
    return "\n".join(_summary(row, name, result[name]) for name in generators_of(row))


def score_table(test: LabelledImages, logits: Scores) -> pd.DataFrame:
    """Give one row per test image with its logit and its probability of being fake."""
    columns = ["file", "class", "generator", "side", "group"]
    return test.table[columns].assign(logit=logits, probability=[sigmoid(float(z)) for z in logits])


def measure(
    scores: pd.DataFrame, threshold: float, resamples: int, rng: np.random.Generator
) -> dict[str, int | float]:
    """Compute all numbers of one generator.

    Args:
        scores: All test reals and the test fakes of the generator, as `score_table` gives them.
        threshold: A logit; above it an image is called fake.
        resamples: Of the bootstrap.
        rng: Of the bootstrap.

    Returns:
        Every number with its 95 % interval under `_low` and `_high`, numbers of images and groups,
        and the share of fakes, which average precision depends on.
    """
    logits, is_fake = _arrays(scores)
    reals = scores[~is_fake]
    numbers: dict[str, int | float] = {}
    for suffix, limit in (("", threshold), ("_at_half", 0.0)):
        right = (logits > limit) == is_fake
        for name, chosen in (
            (f"accuracy{suffix}", right),
            (f"accuracy_real{suffix}", right[~is_fake]),
            (f"accuracy_fake{suffix}", right[is_fake]),
        ):
            interval = wilson_interval(int(chosen.sum()), len(chosen))
            numbers |= _with_interval(name, float(chosen.mean()), interval)

    weights = np.empty((resamples, len(logits)), dtype=np.int64)
    weights[:, ~is_fake] = cluster_resamples(
        pd.factorize(reals["group"])[0].astype(np.int64), resamples, rng
    )
    weights[:, is_fake] = cluster_resamples(np.arange(int(is_fake.sum())), resamples, rng)
    ones = np.ones((1, len(logits)), dtype=np.int64)
    for name, metric in (("average_precision", average_precisions), ("auroc", aurocs)):
        value = float(metric(logits, is_fake, ones)[0])
        interval = percentile_interval(metric(logits, is_fake, weights))
        numbers |= _with_interval(name, value, interval)
    return numbers | {
        "prevalence": float(is_fake.mean()),
        "n_real": len(reals),
        "n_fake": int(is_fake.sum()),
        "n_groups": int(reals["group"].nunique()),
    }


def _arrays(scores: pd.DataFrame) -> tuple[Scores, Labels]:
    return scores["logit"].to_numpy(), (scores["class"] == "fake").to_numpy()


def _with_interval(name: str, value: float, interval: Interval) -> dict[str, float]:
    return {name: value, f"{name}_low": interval[0], f"{name}_high": interval[1]}


def curves(scores: pd.DataFrame, threshold: float) -> dict[str, pd.DataFrame]:
    """Give the tables behind the ROC, precision-recall and confusion plots.

    The generators share the reals and have as many fakes each, so a curve has one x column and one
    y column per generator, as DVC needs to draw a line for each.
    """
    logits, is_fake = _arrays(scores)
    thresholds = np.unique(logits)[::-1]
    # Infinity: above all scores nothing is called fake.
    thresholds = np.concatenate([[np.inf], thresholds]).astype(logits.dtype)
    roc = {"fpr": share_at_or_above(logits[~is_fake], thresholds)}
    pr: dict[str, np.ndarray] = {}
    for generator in sorted(set(scores["generator"]) - {""}):
        ones = scores["generator"] == generator
        roc[f"tpr_{generator}"] = share_at_or_above(logits[ones], thresholds)
        precision = precision_by_recall(*_arrays(scores[~is_fake | ones]))
        pr["recall"] = np.arange(1, len(precision) + 1) / len(precision)
        pr[f"precision_{generator}"] = precision
    called = np.where(logits > threshold, "fake", "real")
    confusion = {
        "actual": scores["class"],
        "predicted": called,
        "generator": scores["generator"],
    }
    return {
        "roc": pd.DataFrame(roc),
        "pr": pd.DataFrame(pr),
        "confusion": pd.DataFrame(confusion),
    }


def _summary(row: str, generator: str, numbers: dict[str, int | float]) -> str:
    def percent(name: str) -> str:
        low, value, high = (100 * numbers[name + end] for end in ("_low", "", "_high"))
        return f"{value:.1f} ({low:.1f}-{high:.1f})"

    names: Sequence[str] = ("accuracy", "average_precision", "accuracy_real", "accuracy_fake")
    listed = ", ".join(f"{name.replace('_', ' ')} {percent(name)}" for name in names)
    return (
        f"{row} on {generator}: {listed} % at the validation threshold; {numbers['n_real']} reals "
        f"of {numbers['n_groups']} groups, {numbers['n_fake']} fakes"
    )
