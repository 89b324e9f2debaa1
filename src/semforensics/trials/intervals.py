"""Intervals around the numbers of a detector: Wilson's of a proportion, percentiles of a bootstrap.

The bootstrap draws whole groups, because crops of one micrograph are not independent.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd
from jaxtyping import Float, Int, Integer, Shaped
from scipy.stats import binomtest

from semforensics.core.errors import InputError
from semforensics.detector.calibration import Labels, Scores
from semforensics.trials.metrics import Weights, aurocs

Groups = Shaped[np.ndarray, " n"]
Interval = tuple[float, float]
Metric = Callable[[Scores, Labels, Weights], Float[np.ndarray, " resamples"]]


def labels_and_groups(table: pd.DataFrame) -> tuple[Labels, Groups]:
    """Return which images of a table are fake, and the group of each."""
    return (table["class"] == "fake").to_numpy(), table["group"].to_numpy(dtype=str)


def wilson_interval(successes: int, trials: int, confidence: float = 0.95) -> Interval:
    """Bound a proportion (Wilson, J. Am. Stat. Assoc. 22, 1927; without continuity correction).

    It takes the trials as independent. Crops of one micrograph are not, so the true interval of a
    proportion of crops is wider; the number of groups belongs beside it.

    Raises:
        InputError: There are no trials, or the successes are not between 0 and their number.
    """
    if not 0 <= successes <= trials or trials == 0:
        raise InputError(f"{successes} successes in {trials} trials")
    low, high = binomtest(successes, trials).proportion_ci(confidence, method="wilson")
    return float(low), float(high)


def with_interval(
    metric: Metric, scores: Scores, is_fake: Labels, weights: Weights
) -> tuple[float, float, float]:
    """Return a metric of the images as they are, and its 95 % interval over the resamples."""
    once = np.ones((1, len(scores)), dtype=np.int64)
    value = float(metric(scores, is_fake, once)[0])
    return value, *percentile_interval(metric(scores, is_fake, weights))


def paired_difference(
    scores_a: Scores,
    scores_b: Scores,
    is_fake: Labels,
    groups: Groups,
    resamples: int,
    rng: np.random.Generator,
) -> tuple[float, float, float]:
    """Return the AUROC of scores a minus that of scores b, and its 95 % interval.

    Both are on any scale, of the same images, and see the same resamples.
    """
    weights = stratified_resamples(groups, is_fake, resamples, rng)
    (value,), resampled = (
        aurocs(scores_a, is_fake, of) - aurocs(scores_b, is_fake, of)
        for of in (np.ones((1, len(is_fake)), dtype=np.int64), weights)
    )
    return float(value), *percentile_interval(resampled)


def stratified_resamples(
    groups: Groups, is_fake: Labels, resamples: int, rng: np.random.Generator
) -> Int[np.ndarray, "resamples n"]:
    """Draw whole groups with replacement so that no resample lacks a class.

    Groups of reals only, of fakes only and of both are drawn by themselves, of each kind as many as
    there are. A fake made out of noise is a group by itself; one made out of a real is in the
    group of its original, and then is drawn with it. The result says how often each resample holds
    each image.
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
    """Draw whole clusters with replacement, as many as there are; return each image's counts."""
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
