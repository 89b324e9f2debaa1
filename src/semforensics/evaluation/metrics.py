"""Numbers that judge a detector, and the intervals around them: arrays in, numbers out.

Scores are of any scale, higher means more likely fake; fakes are the positive class. Every curve
treats images of one score as one step, so that their order never matters.
"""

import math
from statistics import NormalDist

import numpy as np
from jaxtyping import Bool, Float, Int, Integer

Scores = Float[np.ndarray, " n"]
Labels = Bool[np.ndarray, " n"]
Weights = Integer[np.ndarray, "resamples n"]
Interval = tuple[float, float]


def wilson_interval(successes: int, trials: int, confidence: float = 0.95) -> Interval:
    """Bound a proportion (Wilson, J. Am. Stat. Assoc. 22, 1927; without continuity correction).

    It takes the trials as independent. Crops of one micrograph are not, so the true interval of a
    proportion of crops is wider; the number of groups belongs beside it.

    Raises:
        ValueError: There are no trials, or the successes are not between 0 and their number.
    """
    if not 0 <= successes <= trials or trials == 0:
        raise ValueError(f"{successes} successes in {trials} trials")
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share = successes / trials
    centre = share + z**2 / (2 * trials)
    spread = z * math.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2))
    scale = 1 + z**2 / trials
    # The bounds at 0 and at all are exact; rounding must not push them outside.
    low = 0.0 if successes == 0 else (centre - spread) / scale
    high = 1.0 if successes == trials else (centre + spread) / scale
    return low, high


def choose_threshold(
    real_scores: Float[np.ndarray, " n_real"],
    fake_scores: Float[np.ndarray, " n_fake"],
    max_false_positive_rate: float,
) -> float:
    """Choose the threshold above which an image is called fake.

    The rule: the highest true-positive rate among all thresholds with a false-positive rate of at
    most `max_false_positive_rate` on these scores. Among those of equal true-positive rate, the
    lowest false-positive rate; among those of both equal, the middle of the gap between the two
    scores that it separates. Where no fake can be caught within the bound, the highest real score:
    none of these images is then called fake.

    With fewer than 1 / `max_false_positive_rate` reals the bound means none of them.

    Raises:
        ValueError: A class is empty, or a score is not finite.
    """
    for name, scores in (("real", real_scores), ("fake", fake_scores)):
        if len(scores) == 0 or not np.isfinite(scores).all():
            raise ValueError(f"{len(scores)} {name} scores, expected at least one, all finite")
    reals = np.sort(real_scores.astype(np.float64))[::-1]
    fakes = fake_scores.astype(np.float64)

    # + 1e-9: 0.1 * 30 is just below 3 in floating point.
    allowed = min(int(max_false_positive_rate * len(reals) + 1e-9), len(reals) - 1)
    admissible = reals[allowed]  # the lowest threshold within the bound: `allowed` reals are above
    caught = fakes[fakes > admissible]
    if len(caught) == 0:
        return float(reals[0])
    upper = caught.min()
    lower = reals[reals < upper].max()
    return float((lower + upper) / 2)


def share_at_or_above(
    scores: Scores, thresholds: Float[np.ndarray, " points"]
) -> Float[np.ndarray, " points"]:
    """Give the share of scores at or above each threshold: one rate of a ROC curve."""
    below = np.searchsorted(np.sort(scores), thresholds, side="left")
    share: Float[np.ndarray, " points"] = (len(scores) - below) / len(scores)
    return share


def precision_by_recall(scores: Scores, is_fake: Labels) -> Float[np.ndarray, " n_fake"]:
    """Give the precision at the threshold that finds the first fake, two fakes, ..., all fakes.

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
    ones = np.ones((1, len(scores)), dtype=np.int64)
    return float(average_precisions(scores, is_fake, ones)[0])


def auroc(scores: Scores, is_fake: Labels) -> float:
    """Estimate the chance that a fake scores above a real; ties count one half."""
    return float(aurocs(scores, is_fake, np.ones((1, len(scores)), dtype=np.int64))[0])


def average_precisions(
    scores: Scores, is_fake: Labels, weights: Weights
) -> Float[np.ndarray, " resamples"]:
    """Give the average precision of each resample.

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
    """Give the area under the ROC curve of each resample; arguments as in `average_precisions`."""
    true, false = _counts_above(scores, is_fake, weights)
    wrong = np.diff(false, axis=1, prepend=0)
    before = np.concatenate([np.zeros_like(true[:, :1]), true[:, :-1]], axis=1)
    # The trapezoid over one step is the half that ties count.
    area = (wrong * (true + before)).sum(axis=1) / 2
    result: Float[np.ndarray, " resamples"] = area / (true[:, -1] * false[:, -1])
    return result


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
    """Give the central interval that holds `confidence` of the bootstrap values."""
    tail = (1 - confidence) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)


def _counts_above(
    scores: Scores, is_fake: Labels, weights: Weights
) -> tuple[Int[np.ndarray, "resamples steps"], Int[np.ndarray, "resamples steps"]]:
    """Count fakes and reals at and above each distinct score, from the highest score down.

    Raises:
        ValueError: A class is empty: no curve has a meaning.
    """
    if is_fake.all() or not is_fake.any():
        raise ValueError(f"{is_fake.sum()} fakes of {len(is_fake)} images, both classes are needed")
    order = np.argsort(-scores, kind="stable")
    last_of_ties = np.append(np.diff(scores[order]) != 0, True)
    ordered = weights[:, order].astype(np.int64)
    fakes = is_fake[order]
    true = np.cumsum(ordered * fakes, axis=1)[:, last_of_ties]
    false = np.cumsum(ordered * ~fakes, axis=1)[:, last_of_ties]
    return true, false
