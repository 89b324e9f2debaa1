"""Metrics of a detector: arrays in, numbers out.

Scores are of any scale, higher means more likely fake; fakes are the positive class. Every curve
treats images of one score as one step, so their order never matters. A function in the plural
returns one number per bootstrap resample.
"""

import math

import numpy as np
from jaxtyping import Bool, Float, Int, Integer

from semforensics.core.errors import InputError
from semforensics.detector.calibration import Labels, Scores, fake_probability

Weights = Integer[np.ndarray, "resamples n"]


def share_at_or_above(
    scores: Scores, thresholds: Float[np.ndarray, " points"]
) -> Float[np.ndarray, " points"]:
    """Return the share of scores at or above each threshold: one rate of a ROC curve."""
    below = np.searchsorted(np.sort(scores), thresholds, side="left")
    return np.asarray((len(scores) - below) / len(scores))


def precision_by_recall(scores: Scores, is_fake: Labels) -> Float[np.ndarray, " n_fake"]:
    """Return the precision at the threshold that finds the first fake, two fakes, ..., all fakes.

    Their mean is the average precision. Fakes of one score are found together.
    """
    fakes = np.sort(scores[is_fake])[::-1]
    found = len(fakes) * share_at_or_above(fakes, fakes)
    wrong = (~is_fake).sum() * share_at_or_above(scores[~is_fake], fakes)
    return np.asarray(found / (found + wrong))


def auroc(scores: Scores, is_fake: Labels) -> float:
    """Estimate the chance that a fake scores above a real; ties count one half."""
    return float(aurocs(scores, is_fake, np.ones((1, len(scores)), dtype=np.int64))[0])


def average_precisions(
    scores: Scores, is_fake: Labels, weights: Weights
) -> Float[np.ndarray, " resamples"]:
    """Sum precision over the steps of recall, without interpolation, in each resample.

    It depends on the share of fakes: a random score has that share.

    `weights` says how often each resample holds each image.
    """
    true, false = _counts_above(scores, is_fake, weights)
    found = np.diff(true, axis=1, prepend=0)
    # Before the first image of a resample nothing is called fake, and nothing is found either.
    precision = true / np.maximum(true + false, 1)
    return np.asarray((found * precision).sum(axis=1) / true[:, -1])


def aurocs(scores: Scores, is_fake: Labels, weights: Weights) -> Float[np.ndarray, " resamples"]:
    """Compute the AUROC of each resample; arguments as in `average_precisions`."""
    true, false = _counts_above(scores, is_fake, weights)
    wrong = np.diff(false, axis=1, prepend=0)
    before = np.concatenate([np.zeros_like(true[:, :1]), true[:, :-1]], axis=1)
    # The trapezoid over one step is the half that ties count.
    area = (wrong * (true + before)).sum(axis=1) / 2
    return np.asarray(area / (true[:, -1] * false[:, -1]))


def equal_error_rates(
    scores: Scores, is_fake: Labels, weights: Weights
) -> Float[np.ndarray, " resamples"]:
    """Return the error rate where as large a share of reals as of fakes is called wrongly.

    One per resample; between two thresholds the ROC curve is a straight line. Arguments as in
    `average_precisions`.
    """
    true, false = _counts_above(scores, is_fake, weights)
    missed = np.pad(1 - true / true[:, -1:], ((0, 0), (1, 0)), constant_values=1)
    alarms = np.pad(false / false[:, -1:], ((0, 0), (1, 0)))
    # From -1, where nothing is called fake, to 1, where everything is; it never falls.
    difference = alarms - missed
    after = (difference >= 0).argmax(axis=1)[:, None]
    d0, d1 = (np.take_along_axis(difference, i, axis=1) for i in (after - 1, after))
    a0, a1 = (np.take_along_axis(alarms, i, axis=1) for i in (after - 1, after))
    return np.asarray((a0 + (a1 - a0) * d0 / (d0 - d1))[:, 0])


def tprs_at_fpr(
    scores: Scores, is_fake: Labels, weights: Weights, max_false_positive_rate: float
) -> Float[np.ndarray, " resamples"]:
    """Return the highest share of fakes found by a threshold that calls few reals fake.

    One per resample; arguments as in `average_precisions`. Fewer than
    1 / `max_false_positive_rate` reals cannot tell such a rate from none: the threshold then is
    above all of them. With three times as many, no alarm at all still leaves the rate itself as
    the upper end of a 95 % interval.
    """
    true, false = _counts_above(scores, is_fake, weights)
    # + 1e-9: 0.1 * 30 is just below 3 in floating point.
    allowed = np.floor(max_false_positive_rate * false[:, -1:] + 1e-9)
    found = np.where(false <= allowed, true, 0).max(axis=1)
    return np.asarray(found / true[:, -1])


def brier_terms(logits: Scores, is_fake: Labels) -> Float[np.ndarray, " n"]:
    """Return the squared error of each probability; their mean is the Brier score, 0 … 1."""
    return np.asarray((fake_probability(logits) - is_fake) ** 2)


def expected_calibration_errors(
    logits: Scores, is_fake: Labels, weights: Weights, bins: int = 15
) -> Float[np.ndarray, " resamples"]:
    """Return the mean distance between the stated probability of a fake and the share of fakes.

    One per resample, over bins of equal numbers of images (`equal_mass_bins`), 0 … 1. A perfect
    calibration of few images is above 0 too, since a share of 1500 / 15 images is only that exact.
    Resampling adds to it, so its percentiles are higher than the number itself.
    """
    gaps = fake_probability(logits) - is_fake
    member = equal_mass_bins(logits, bins)[:, None] == np.arange(bins)  # [n, bins]
    sums = np.abs((weights * gaps) @ member).sum(axis=1)
    return np.asarray(sums / weights.sum(axis=1))


def equal_mass_bins(scores: Scores, bins: int = 15) -> Int[np.ndarray, " n"]:
    """Return each image a bin, 0 … bins - 1, such that each bin holds about as many.

    By the middle rank, so that images of one score share a bin; with many of them some stay empty.
    """
    ordered = np.sort(scores)
    first, last = (np.searchsorted(ordered, scores, side=s) for s in ("left", "right"))
    middle = (first + last) / (2 * len(scores))  # inside 0 … 1
    return np.floor(bins * middle).astype(np.int64)


def posterior(share_if_so: float, share_if_not: float, prevalence: float) -> float:
    """Return the share of images that are so among those called so (Bayes); NaN where none is.

    The shares called so are those of the images that are so, and of the others; the prevalence is
    that among all images that are looked at.
    """
    right, wrong = prevalence * share_if_so, (1 - prevalence) * share_if_not
    return right / (right + wrong) if right + wrong > 0 else math.nan


def best_of_pass_rate(passes: Bool[np.ndarray, " n"], scores: Scores, choices: int) -> float:
    """Return the chance that the least suspicious of several fakes passes.

    Exact over all ways to take `choices` of these fakes without replacement; of fakes with one
    score any may be the one. The forger shows the lowest score.

    Raises:
        InputError: There are fewer fakes than that.
    """
    count = len(scores)
    if not 1 <= choices <= count:
        raise InputError(f"the best of {choices} of {count} fakes")
    # Chance that all of the taken are at a rank or above it: C(count - rank, choices) / C(count,
    # choices), as a product of shares.
    above = np.cumprod([1.0, *(1 - choices / (count - np.arange(count)).clip(choices))])
    order = np.argsort(scores, kind="stable")
    _, tied = np.unique(scores[order], return_inverse=True)
    share = np.bincount(tied, passes[order]) / np.bincount(tied)
    return float(((above[:-1] - above[1:]) * share[tied]).sum())


def _counts_above(
    scores: Scores, is_fake: Labels, weights: Weights
) -> tuple[Int[np.ndarray, "resamples steps"], Int[np.ndarray, "resamples steps"]]:
    """Count fakes and reals at and above each distinct score, from the highest score down.

    Raises:
        InputError: A class is empty: no curve has a meaning.
    """
    if is_fake.all() or not is_fake.any():
        raise InputError(f"{is_fake.sum()} fakes of {len(is_fake)} images, both classes are needed")
    order = np.argsort(-scores, kind="stable")
    last_of_ties = np.append(np.diff(scores[order]) != 0, True)
    ordered = weights[:, order].astype(np.int64)
    fakes = is_fake[order]
    true = np.cumsum(ordered * fakes, axis=1)[:, last_of_ties]
    false = np.cumsum(ordered * ~fakes, axis=1)[:, last_of_ties]
    return true, false
