"""Score the test split of one classifier: numbers with intervals, verdicts, curves.

The headline holds the columns of the thesis's Table 4.3 and what becomes of the images once a
detector may abstain. Accuracies are at a probability of 0.5 (`..._at_half`) and at the threshold
that training chose on the validation split.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from semforensics.core.files import atomic_folder, write_json
from semforensics.core.tables import write_table
from semforensics.detector.calibration import fake_probability
from semforensics.detector.conformal import calibration_sizes
from semforensics.detector.corpus import LabelledImages, generators_of
from semforensics.detector.detector import Detector
from semforensics.detector.scoring import model_files
from semforensics.detector.verdict import decide
from semforensics.trials.metrics import precision_by_recall, share_at_or_above
from semforensics.trials.numbers import (
    Number,
    arrays,
    best_of_table,
    measure,
    number_table,
    predictive_table,
    reliability_table,
    spread_over_seeds,
)
from semforensics.trials.under_test import DetectorUnderTest

_HEADLINE = (
    "accuracy",
    "accuracy_at_half",
    "average_precision",
    "accuracy_real",
    "accuracy_fake",
    "auroc",
    "ece",
    "decided_real",
    "decided_fake",
    "false_alarms_of_decided",
    "misses_of_decided",
)
"""What the metrics file holds; numbers.csv holds all."""


def evaluate_classifier(
    tested: DetectorUnderTest, metrics: Path, plots: Path, *, resamples: int
) -> str:
    """Score the test split and write metrics and plots; return one line per generator.

    The metrics are a JSON file with one object per generator. The folder `plots` holds scores.csv,
    numbers.csv, seeds.csv, roc.csv, pr.csv, confusion.csv, reliability.csv, best_of.csv and
    predictive_values.csv. `resamples` are those of the bootstrap.

    Raises:
        InputError: Images have another size.
        FileNotFoundError: Images are missing.
    """
    detector, meta, alpha = tested.detector, tested.meta, tested.alpha
    n_calibration_real, n_calibration_fake = calibration_sizes(detector.calibration)
    others = [
        Detector.load(tested.folder, phases=detector.phases, device=detector.device, name=name)
        for name in model_files(tested.folder)[1:]
    ]
    detectors, test = [detector, *others], tested.test
    inside = detector.domain.is_inside(test.images)
    tables = [score_table(d, test, inside, alpha) for d in detectors]
    generators = generators_of(tested.name)
    numbers, seeds = _measure_all(detectors, tables, generators, resamples, tested.corpus.seed)

    result: dict[str, Any] = {
        "detector": tested.name,
        "network": meta["network"],
        "protocol": meta["protocol"],
        "data": meta["data"],
        "threshold": fake_probability(detector.threshold),
        "threshold_logit": detector.threshold,
        "max_false_positive_rate": meta["params"]["max_false_positive_rate"],
        "temperature": detector.temperature,
        "alpha": alpha,
        "phases": detector.phases,
        "bootstrap_resamples": resamples,
        "num_seeds": len(detectors),
        "n_calibration_real": n_calibration_real,
        "n_calibration_fake": n_calibration_fake,
        "n_calibration_groups": meta["calibration_groups"],
    }
    for generator in generators:
        result[generator] = _headline(numbers[generator], _part(tables[0], generator))

    with atomic_folder(plots) as folder:
        written = curves(tables[0], detector.threshold)
        written |= _tables(detector, tables[0], numbers)
        written |= {"scores": tables[0], "seeds": seeds}
        for name, table in written.items():
            write_table(table, folder / f"{name}.csv")
    write_json(metrics, result)
    lines = [_summary(tested.name, name, result[name]) for name in generators]
    return "\n".join(lines) + tested.note


def score_table(
    detector: Detector, test: LabelledImages, inside: np.ndarray, alpha: float
) -> pd.DataFrame:
    """Return one row per test image with all that the detector says of it.

    Probabilities are at a prevalence of one half: as the network states them, and calibrated.
    """
    columns = ["file", "class", "generator", "split", "group"]
    logits = detector.logits(test.images)
    p_real, p_fake = detector.p_values(logits)
    return test.table[columns].assign(
        logit=logits,
        probability=fake_probability(logits),
        calibrated=fake_probability(logits / detector.temperature),
        p_real=p_real,
        p_fake=p_fake,
        verdict=decide(p_real, p_fake, alpha, inside),
        inside=inside,
    )


def _part(scores: pd.DataFrame, generator: str) -> pd.DataFrame:
    """Take the test reals and the fakes of one generator."""
    return scores[scores["generator"].isin(["", generator])]


def _measure_all(
    detectors: list[Detector],
    tables: list[pd.DataFrame],
    generators: tuple[str, ...],
    resamples: int,
    seed: int,
) -> tuple[dict[str, list[Number]], pd.DataFrame]:
    """Return the numbers on each generator, and one row per training, generator and number."""
    numbers: dict[str, list[Number]] = {}
    parts = []
    for generator in generators:
        for detector, table in zip(detectors, tables, strict=True):
            # The first training carries the intervals; of the others the numbers alone are wanted.
            count = resamples if generator not in numbers else 1
            found = measure(
                _part(table, generator),
                detector.threshold,
                detector.temperature,
                count,
                np.random.default_rng(seed),
            )
            numbers.setdefault(generator, found)
            values = number_table(found)[["name", "value"]]
            parts.append(
                values.assign(training_seed=detector.meta["training_seed"], generator=generator)
            )
    seeds = pd.concat(parts, ignore_index=True)
    if len(detectors) > 1:
        for generator in generators:
            numbers[generator] += spread_over_seeds(seeds[seeds["generator"] == generator])
    return numbers, seeds[["training_seed", "generator", "name", "value"]]


def _headline(numbers: list[Number], part: pd.DataFrame) -> dict[str, float]:
    """Return the numbers of the metrics file; not a number where nothing could be counted."""
    by_name = {number.name: number for number in numbers}
    result: dict[str, float] = {}
    for name in _HEADLINE:
        number = by_name[name]
        result |= {name: number.value, f"{name}_low": number.low, f"{name}_high": number.high}
    return result | {"prevalence": float((part["class"] == "fake").mean())} | _counts(part)


def _counts(part: pd.DataFrame) -> dict[str, int]:
    reals = part[part["class"] == "real"]
    return {
        "n_real": len(reals),
        "n_fake": len(part) - len(reals),
        "n_groups": int(reals["group"].nunique()),
    }


def _tables(
    detector: Detector, scores: pd.DataFrame, numbers: dict[str, list[Number]]
) -> dict[str, pd.DataFrame]:
    """Return the tables of numbers, calibration, forger's choices and predictive values."""
    found: dict[str, list[pd.DataFrame]] = {"numbers": [], "best_of": [], "predictive_values": []}
    reliability = []
    for generator, measured in numbers.items():
        part = _part(scores, generator)
        table = number_table(measured)
        found["numbers"].append(table.assign(**_counts(part)))
        found["best_of"].append(best_of_table(part, detector.threshold))
        found["predictive_values"].append(predictive_table(part, detector.threshold))
        for tables in found.values():
            tables[-1].insert(0, "generator", generator)
        table = reliability_table(part, detector.temperature, generator)
        reliability.append(table.set_index("bin"))
    together = {name: pd.concat(tables, ignore_index=True) for name, tables in found.items()}
    return together | {"reliability": pd.concat(reliability, axis=1).sort_index().reset_index()}


def curves(scores: pd.DataFrame, threshold: float) -> dict[str, pd.DataFrame]:
    """Return the tables behind the ROC, precision-recall and confusion plots.

    The generators share the reals and have as many fakes each, so a curve has one x column and one
    y column per generator, as DVC needs to draw a line for each.
    """
    logits, is_fake = arrays(scores)
    thresholds = np.unique(logits)[::-1]
    # Infinity: above all scores nothing is called fake.
    thresholds = np.concatenate([[np.inf], thresholds]).astype(logits.dtype)
    roc = {"fpr": share_at_or_above(logits[~is_fake], thresholds)}
    pr: dict[str, np.ndarray] = {}
    for generator in sorted(set(scores["generator"]) - {""}):
        ones = scores["generator"] == generator
        roc[f"tpr_{generator}"] = share_at_or_above(logits[ones], thresholds)
        precision = precision_by_recall(*arrays(scores[~is_fake | ones]))
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


def _summary(detector: str, generator: str, numbers: dict[str, float]) -> str:
    def percent(name: str) -> str:
        values = [numbers[name + end] for end in ("", "_low", "_high")]
        value, low, high = ("-" if math.isnan(v) else f"{100 * v:.1f}" for v in values)
        return f"{value} ({low}-{high})"

    calls = ("accuracy", "average_precision", "accuracy_real", "accuracy_fake")
    verdicts = ("decided_real", "decided_fake", "false_alarms_of_decided", "misses_of_decided")
    called, decided = (
        ", ".join(f"{name.replace('_', ' ')} {percent(name)}" for name in names)
        for names in (calls, verdicts)
    )
    return (
        f"{detector} on {generator}: {called} % at the validation threshold; verdicts: "
        f"{decided} %; {numbers['n_real']} reals of {numbers['n_groups']} groups, "
        f"{numbers['n_fake']} fakes"
    )
