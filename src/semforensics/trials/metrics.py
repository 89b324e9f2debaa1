"""Numbers that judge a detector, and the intervals around them: arrays in, numbers out.

Scores are of any scale, higher means more likely fake; fakes are the positive class. Every curve
treats images of one score as one step, so that their order never matters. A function in the plural
gives one number per bootstrap resample.
"""

import math
from statistics import NormalDist

import numpy as np
from jaxtyping import Bool, Float, Int, Integer, Shaped

from semforensics.core.errors import InputError
from semforensics.detector.calibration import Labels, Scores, fake_probability

Weights = Integer[np.ndarray, "resamples n"]
Interval = tuple[float, float]


def wilson_interval(successes: int, trials: int, confidence: float = 0.95) -> Interval:
    """Bound a proportion (Wilson, J. Am. Stat. Assoc. 22, 1927; without continuity correction).

    It takes the trials as independent. Crops of one micrograph are not, so the true interval of a
    proportion of crops is wider; the number of groups belongs beside it.

    Raises:
        InputError: There are no trials, or the successes are not between 0 and their number.
    """
    if not 0 <= successes <= trials or trials == 0:
        raise InputError(f"{successes} successes in {trials} trials")
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share = successes / trials
    centre = share + z**2 / (2 * trials)
    spread = z * math.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2))
    scale = 1 + z**2 / trials
    # The bounds at 0 and at all are exact; rounding must not push them outside.
    low = 0.0 if successes == 0 else (centre - spread) / scale
    high = 1.0 if successes == trials else (centre + spread) / scale
    return low, high


def share_at_or_above(
    scores: Scores, thresholds: Float[np.ndarray, " points"]
) -> Float[np.ndarray, " points"]:
    """Return the share of scores at or above each threshold: one rate of a ROC curve."""
    below = np.searchsorted(np.sort(scores), thresholds, side="left")
    share: Float[np.ndarray, " points"] = (len(scores) - below) / len(scores)
    return share


def precision_by_recall(scores: Scores, is_fake: Labels) -> Float[np.ndarray, " n_fake"]:
    """Return the precision at the threshold that finds the first fake, two fakes, ..., all fakes.

    Their mean is the average precision. Fakes of one score are found together.
    """
    fakes = np.sort(scores[is_fake])[::-1]
    found = len(fakes) * share_at_or_above(fakes, fakes)
    wrong = (~is_fake).sum() * share_at_or_above(scores[~is_fake], fakes)
    precision: Float[np.ndarray, " n_fake"] = found / (found + wrong)
    return precision


def average_precision(scores: Scores, is_fake: Labels) -> float:
    """Sum precision over the steps of recall, without interpolation.

    It depends on the share of fakes: a random score gives that share.
    """
    return float(average_precisions(scores, is_fake, _once(scores))[0])


def auroc(scores: Scores, is_fake: Labels) -> float:
    """Estimate the chance that a fake scores above a real; ties count one half."""
    return float(aurocs(scores, is_fake, _once(scores))[0])


def average_precisions(
    scores: Scores, is_fake: Labels, weights: Weights
) -> Float[np.ndarray, " resamples"]:
    """Return the average precision of each resample.

    Args:
        scores: One per image.
        is_fake: One per image.
        weights: How often each resample holds each image.
    """
    true, false = _counts_above(scores, is_fake, weights)
    found = np.diff(true, axis=1, prepend=0)
    # Before the first image of a resample nothing is called fake, and nothing is found either.
    precision = true / np.maximum(true + false, 1)
    result: Float[np.ndarray, " resamples"] = (found * precision).sum(axis=1) / true[:, -1]
    return result


def aurocs(scores: Scores, is_fake: Labels, weights: Weights) -> Float[np.ndarray, " resamples"]:
    """Compute the AUROC of each resample; arguments as in `average_precisions`."""
    true, false = _counts_above(scores, is_fake, weights)
    wrong = np.diff(false, axis=1, prepend=0)
    before = np.concatenate([np.zeros_like(true[:, :1]), true[:, :-1]], axis=1)
    # The trapezoid over one step is the half that ties count.
    area = (wrong * (true + before)).sum(axis=1) / 2
    result: Float[np.ndarray, " resamples"] = area / (true[:, -1] * false[:, -1])
    return result


def equal_error_rate(scores: Scores, is_fake: Labels) -> float:
    """Return the error rate where as large a share of reals as of fakes is called wrongly.

    Between two thresholds the ROC curve is a straight line.
    """
    return float(equal_error_rates(scores, is_fake, _once(scores))[0])


def equal_error_rates(
    scores: Scores, is_fake: Labels, weights: Weights
) -> Float[np.ndarray, " resamples"]:
    """Return the equal error rate of each resample; arguments as in `average_precisions`."""
    true, false = _counts_above(scores, is_fake, weights)
    missed = np.pad(1 - true / true[:, -1:], ((0, 0), (1, 0)), constant_values=1)
    alarms = np.pad(false / false[:, -1:], ((0, 0), (1, 0)))
    # From -1, where nothing is called fake, to 1, where everything is; it never falls.
    difference = alarms - missed
    after = (difference >= 0).argmax(axis=1)[:, None]
    d0, d1 = (np.take_along_axis(difference, i, axis=1) for i in (after - 1, after))
    a0, a1 = (np.take_along_axis(alarms, i, axis=1) for i in (after - 1, after))
    rates: Float[np.ndarray, " resamples"] = (a0 + (a1 - a0) * d0 / (d0 - d1))[:, 0]
    return rates


def tpr_at_fpr(scores: Scores, is_fake: Labels, max_false_positive_rate: float) -> float:
    """Return the highest share of fakes found by a threshold that calls few reals fake.

    Fewer than 1 / `max_false_positive_rate` reals cannot tell such a rate from none: the threshold
    then is above all of them. With three times as many, no alarm at all still leaves the rate
    itself as the upper end of a 95 % interval.
    """
    weights = _once(scores)
    return float(tprs_at_fpr(scores, is_fake, weights, max_false_positive_rate)[0])


def tprs_at_fpr(
    scores: Scores, is_fake: Labels, weights: Weights, max_false_positive_rate: float
) -> Float[np.ndarray, " resamples"]:
    """Return `tpr_at_fpr` of each resample; arguments as in `average_precisions`."""
    true, false = _counts_above(scores, is_fake, weights)
    # + 1e-9: 0.1 * 30 is just below 3 in floating point.
    allowed = np.floor(max_false_positive_rate * false[:, -1:] + 1e-9)
    found = np.where(false <= allowed, true, 0).max(axis=1)
    rates: Float[np.ndarray, " resamples"] = found / true[:, -1]
    return rates


def brier_score(logits: Scores, is_fake: Labels) -> float:
    """Return the mean squared error of the probabilities, 0 … 1; 0.25 is a coin that says so."""
    return float(brier_terms(logits, is_fake).mean())


def brier_terms(logits: Scores, is_fake: Labels) -> Float[np.ndarray, " n"]:
    """Return what each image adds to the Brier score."""
    terms: Float[np.ndarray, " n"] = (fake_probability(logits) - is_fake) ** 2
    return terms


def expected_calibration_error(logits: Scores, is_fake: Labels, bins: int = 15) -> float:
    """Return the mean distance between the stated probability of a fake and the share of fakes.

    Over bins of equal numbers of images (`equal_mass_bins`), 0 … 1. A perfect calibration of few
    images is above 0 too, since a share of 1500 / 15 images is only that exact.
    """
    return float(expected_calibration_errors(logits, is_fake, _once(logits), bins)[0])


def expected_calibration_errors(
    logits: Scores, is_fake: Labels, weights: Weights, bins: int = 15
) -> Float[np.ndarray, " resamples"]:
    """Return the expected calibration error of each resample, in the bins of the images themselves.

    Drawing anew adds to it, so its percentiles stand higher than the number itself.
    """
    gaps = fake_probability(logits) - is_fake
    member = equal_mass_bins(logits, bins)[:, None] == np.arange(bins)  # [n, bins]
    sums = np.abs((weights * gaps) @ member).sum(axis=1)
    errors: Float[np.ndarray, " resamples"] = sums / weights.sum(axis=1)
    return errors


def equal_mass_bins(scores: Scores, bins: int = 15) -> Int[np.ndarray, " n"]:
    """Return each image a bin, 0 … bins - 1, such that each bin holds about as many.

    By the middle rank, so that images of one score share a bin; with many of them some stay empty.
    """
    ordered = np.sort(scores)
    first, last = (np.searchsorted(ordered, scores, side=s) for s in ("left", "right"))
    middle = (first + last) / (2 * len(scores))  # inside 0 … 1
    return np.floor(bins * middle).astype(np.int64)


def posterior(share_if_so: float, share_if_not: float, prevalence: float) -> float:
    """Return the share of images that are so among those that are called so (Bayes).

    Args:
        share_if_so: Share called so of the images that are.
        share_if_not: Share called so of the others.
        prevalence: Share that is so of all images that are looked at.

    Returns:
        Not a number where no image is called so.
    """
    right, wrong = prevalence * share_if_so, (1 - prevalence) * share_if_not
    return right / (right + wrong) if right + wrong > 0 else math.nan


def best_of_pass_rate(passes: Bool[np.ndarray, " n"], scores: Scores, choices: int) -> float:
    """Return the chance that the least suspicious of several fakes passes.

    Exact over all ways to take `choices` of these fakes without replacement; of fakes with one
    score any may be the one.

    Args:
        passes: Whether each fake passes when it is shown.
        scores: The forger shows the lowest.
        choices: How many are made.

    Raises:
        InputError: There are fewer fakes than that.
    """
    count = len(scores)
    if not 1 <= choices <= count:
        raise InputError(f"the best of {choices} of {count} fakes")
    # Chance that all of the taken stand at a rank or above it: C(count - rank, choices) / C(count,
    # choices), as a product of shares.
    above = np.cumprod([1.0, *(1 - choices / (count - np.arange(count)).clip(choices))])
    order = np.argsort(scores, kind="stable")
    _, tied = np.unique(scores[order], return_inverse=True)
    share = np.bincount(tied, passes[order]) / np.bincount(tied)
    chance: float = ((above[:-1] - above[1:]) * share[tied]).sum()
    return float(chance)


def paired_difference(
    scores_a: Scores,
    scores_b: Scores,
    is_fake: Labels,
    groups: Shaped[np.ndarray, " n"],
    resamples: int,
    rng: np.random.Generator,
) -> tuple[float, float, float]:
    """Compare two detectors on the same images.

    Args:
        scores_a: Of one, on any scale.
        scores_b: Of the other, on any scale.
        is_fake: One per image.
        groups: What is drawn together, as in `stratified_resamples`.
        resamples: How often; both detectors see the same ones.
        rng: Where the draws come from.

    Returns:
        AUROC of a minus AUROC of b, and its 95 % interval.
    """
    weights = stratified_resamples(groups, is_fake, resamples, rng)
    low, high = percentile_interval(
        aurocs(scores_a, is_fake, weights) - aurocs(scores_b, is_fake, weights)
    )
    return auroc(scores_a, is_fake) - auroc(scores_b, is_fake), low, high


def stratified_resamples(
    groups: Shaped[np.ndarray, " n"], is_fake: Labels, resamples: int, rng: np.random.Generator
) -> Int[np.ndarray, "resamples n"]:
    """Draw whole groups with replacement so that no resample lacks a class.

    Groups of reals only, of fakes only and of both are drawn by themselves, of each kind as many as
    there are. A fake made out of noise is a group of its own; one made out of a real is in the
    group of its original, and then is drawn with it.

    Args:
        groups: The group of each image, numbers or names.
        is_fake: One per image.
        resamples: How many times.
        rng: Where the draws come from.

    Returns:
        How often each resample holds each image.
    """
    _, index = np.unique(groups.astype(str), return_inverse=True)
    fakes, reals = np.bincount(index, is_fake) > 0, np.bincount(index, ~is_fake) > 0
    kind = (2 * fakes + reals)[index]  # [n], 1: reals, 2: fakes, 3: both
    weights = np.empty((resamples, len(index)), dtype=np.int64)
    for part in np.unique(kind):
        weights[:, kind == part] = cluster_resamples(index[kind == part], resamples, rng)
    return weights


def cluster_resamples(
    clusters: Integer[np.ndarray, " n"], resamples: int, rng: np.random.Generator
) -> Int[np.ndarray, "resamples n"]:
    """Draw whole clusters with replacement, as many as there are.

    Args:
        clusters: The cluster of each image, any integers.
        resamples: How many times.
        rng: Where the draws come from.

    Returns:
        How often each resample holds each image.
    """
    _, index = np.unique(clusters, return_inverse=True)
    count = int(index.max()) + 1
    return rng.multinomial(count, np.full(count, 1 / count), size=resamples)[:, index]


def percentile_interval(
    values: Float[np.ndarray, " resamples"], confidence: float = 0.95
) -> Interval:
    """Return the central interval that holds `confidence` of the bootstrap values."""
    tail = (1 - confidence) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)


def _once(scores: Scores) -> Weights:
    """Weigh every image once: the images as they are."""
    return np.ones((1, len(scores)), dtype=np.int64)


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
