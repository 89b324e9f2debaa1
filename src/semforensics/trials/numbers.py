"""All numbers of one classifier on one generator, each with its interval and a remark.

Proportions carry Wilson's interval, which takes images as independent: crops of one group are not,
so the number of groups is beside it. The others carry a cluster bootstrap: reals are resampled
by group, fakes by image, and reconstructions of reals together with their originals.
"""

from dataclasses import asdict, dataclass
from functools import partial

import numpy as np
import pandas as pd

from semforensics.detector.calibration import Labels, Scores, fake_probability, log_loss_terms
from semforensics.trials import metrics
from semforensics.trials.intervals import (
    percentile_interval,
    stratified_resamples,
    wilson_interval,
    with_interval,
)

FALSE_POSITIVE_RATE = 0.01
_ENOUGH_REALS = 300  # where no false alarm at all bounds their rate to 1 % (the rule of three)
_TPRS = partial(metrics.tprs_at_fpr, max_false_positive_rate=FALSE_POSITIVE_RATE)
PREVALENCES = (0.01, 0.05, 0.1, 0.5)
CHOICES = (1, 10, 100)


@dataclass(frozen=True)
class Number:
    """One measured number."""

    name: str
    value: float
    """Not a number where nothing could be counted."""
    low: float
    """Lower end of the 95 % interval."""
    high: float
    remark: str = ""


def measure(
    scores: pd.DataFrame,
    threshold: float,
    temperature: float,
    resamples: int,
    rng: np.random.Generator,
) -> list[Number]:
    """Compute all numbers of one generator.

    `scores` has class, group, logit, verdict and inside of all test reals and of the generator's
    test fakes. Above the threshold, a logit, an image is called fake; the temperature divides
    logits for calibrated probabilities.
    """
    logits, is_fake = arrays(scores)
    numbers = []
    for suffix, limit in (("", threshold), ("_at_half", 0.0)):
        right = (logits > limit) == is_fake
        numbers += [
            _proportion(f"accuracy{suffix}", right),
            _proportion(f"accuracy_real{suffix}", right[~is_fake]),
            _proportion(f"accuracy_fake{suffix}", right[is_fake]),
        ]

    weights = stratified_resamples(scores["group"].to_numpy(), is_fake, resamples, rng)
    tpr_remark = f"at most {FALSE_POSITIVE_RATE:.0%} of the test reals called fake"
    if (n_real := int((~is_fake).sum())) < _ENOUGH_REALS:
        tpr_remark += f"; {n_real} reals, fewer than {_ENOUGH_REALS}, cannot resolve that rate"
    for name, metric, remark in (
        ("average_precision", metrics.average_precisions, f"prevalence {is_fake.mean():.3f}"),
        ("auroc", metrics.aurocs, ""),
        ("equal_error_rate", metrics.equal_error_rates, ""),
        ("tpr_at_fpr_1_percent", _TPRS, tpr_remark),
    ):
        numbers.append(Number(name, *with_interval(metric, logits, is_fake, weights), remark))

    for suffix, z in (("", logits / temperature), ("_uncalibrated", logits)):
        for name, terms, unit in (
            ("brier_score", metrics.brier_terms(z, is_fake), "0 ... 1"),
            ("log_loss", log_loss_terms(z, is_fake), "nats"),
        ):
            interval = percentile_interval(weights @ terms / weights.sum(axis=1))
            numbers.append(Number(f"{name}{suffix}", float(terms.mean()), *interval, unit))
        value = with_interval(metrics.expected_calibration_errors, z, is_fake, weights)
        remark = "15 bins of equal mass; resampling adds to it, so the interval lies high"
        numbers.append(Number(f"ece{suffix}", *value, remark))
    return numbers + _of_verdicts(scores, is_fake)


def _of_verdicts(scores: pd.DataFrame, is_fake: Labels) -> list[Number]:
    """Count decided images, and the errors among them."""
    verdict, inside = scores["verdict"].to_numpy(), scores["inside"].to_numpy()
    decided = verdict != "inconclusive"
    suspected, consistent = verdict == "ai-suspected", verdict == "consistent"
    return [
        _proportion("decided_real", decided[~is_fake]),
        _proportion("decided_fake", decided[is_fake]),
        _proportion("false_alarms_of_decided", suspected[~is_fake & decided]),
        _proportion("misses_of_decided", consistent[is_fake & decided]),
        _proportion("false_alarms_of_all", suspected[~is_fake]),
        _proportion("misses_of_all", consistent[is_fake]),
        _proportion("inside_real", inside[~is_fake]),
        _proportion("inside_fake", inside[is_fake]),
    ]


def _proportion(name: str, chosen: Labels) -> Number:
    if len(chosen) == 0:
        return Number(name, np.nan, 0.0, 1.0, "none to count")
    interval = wilson_interval(int(chosen.sum()), len(chosen))
    return Number(name, float(chosen.mean()), *interval, f"of {len(chosen)}")


def arrays(scores: pd.DataFrame) -> tuple[Scores, Labels]:
    """Return logits and classes of a table of scores."""
    return scores["logit"].to_numpy(), (scores["class"] == "fake").to_numpy()


def number_table(numbers: list[Number]) -> pd.DataFrame:
    """Return one row per number."""
    return pd.DataFrame([asdict(number) for number in numbers])


def reliability_table(
    scores: pd.DataFrame, temperature: float, generator: str, bins: int = 15
) -> pd.DataFrame:
    """Compare stated probabilities with shares of fakes, in at most `bins` bins of equal mass.

    Images of one score share a bin. Temperature scaling keeps the order, so the bins before and
    after it hold the same images. `generator` ends the names of the columns.

    Returns:
        Per bin: its number from the least suspicious on, images, share of fakes with Wilson's
        interval, mean probability of a fake before and after the temperature.
    """
    logits, is_fake = arrays(scores)
    members = metrics.equal_mass_bins(logits, bins)
    rows = []
    for index in np.unique(members):
        chosen = members == index
        low, high = wilson_interval(int(is_fake[chosen].sum()), int(chosen.sum()))
        values = {
            "n": int(chosen.sum()),
            "share_of_fakes": is_fake[chosen].mean(),
            "low": low,
            "high": high,
            "before": fake_probability(logits[chosen]).mean(),
            "after": fake_probability(logits[chosen] / temperature).mean(),
        }
        named = {f"{name}_{generator}": value for name, value in values.items()}
        rows.append({"bin": int(index) + 1} | named)
    return pd.DataFrame(rows)


def best_of_table(scores: pd.DataFrame, threshold: float) -> pd.DataFrame:
    """Return a forger's chances who makes several fakes and shows the least suspicious one.

    The forger knows the logits. By the threshold a fake passes when it is not called fake, by the
    verdict when it is not "ai-suspected"; the table also says how often it is called "consistent".
    All are exact means over all choices from the test fakes, without replacement; a number of
    choices above theirs is left out.
    """
    fakes = scores[scores["class"] == "fake"]
    logits = fakes["logit"].to_numpy()
    passes = {
        "passes_threshold": logits <= threshold,
        "passes_verdict": (fakes["verdict"] != "ai-suspected").to_numpy(),
        "called_consistent": (fakes["verdict"] == "consistent").to_numpy(),
    }
    rows = [
        {"choices": choices, "n_fake": len(fakes)}
        | {
            name: metrics.best_of_pass_rate(passing, logits, choices)
            for name, passing in passes.items()
        }
        for choices in CHOICES
        if choices <= len(fakes)
    ]
    return pd.DataFrame(rows)


def predictive_table(scores: pd.DataFrame, threshold: float) -> pd.DataFrame:
    """Say what a call is worth where fakes are rare: Bayes' rule on the rates of the test split.

    Returns:
        Per rule (the threshold, and the verdict) and prevalence: the share of fakes among images
        called fake, and of reals among images called real. The ends join the Wilson ends of both
        rates, so they hold the truth at least as often as 95 %.
    """
    logits, is_fake = arrays(scores)
    verdict = scores["verdict"].to_numpy()
    rules = {
        "threshold": (logits > threshold, logits <= threshold),
        "verdict": (verdict == "ai-suspected", verdict == "consistent"),
    }
    rows = []
    for rule, (fake_called, real_called) in rules.items():
        for prevalence in PREVALENCES:
            row: dict[str, str | float] = {"rule": rule, "prevalence": prevalence}
            row |= _posteriors("fake_if_called_fake", fake_called, is_fake, prevalence)
            row |= _posteriors("real_if_called_real", real_called, ~is_fake, 1 - prevalence)
            rows.append(row)
    return pd.DataFrame(rows)


def _posteriors(name: str, called: Labels, is_so: Labels, prevalence: float) -> dict[str, float]:
    value, low, high = np.nan, 0.0, 1.0
    if called.any():
        right, wrong = called[is_so], called[~is_so]
        best, worst = (wilson_interval(int(c.sum()), len(c)) for c in (right, wrong))
        value = metrics.posterior(float(right.mean()), float(wrong.mean()), prevalence)
        low = metrics.posterior(best[0], worst[1], prevalence)
        high = metrics.posterior(best[1], worst[0], prevalence)
    return {name: value, f"{name}_low": low, f"{name}_high": high}


def spread_over_seeds(seeds: pd.DataFrame) -> list[Number]:
    """Return the mean over the trainings of every number, with the lowest and highest as its ends.

    `seeds` has a row per training and number: training_seed, name, value.
    """
    remark = f"mean, lowest and highest of {seeds['training_seed'].nunique()} trainings"
    return [
        Number(
            f"{name}_over_seeds", values.mean(), float(values.min()), float(values.max()), remark
        )
        for name, values in seeds.groupby("name", sort=False)["value"]
    ]
