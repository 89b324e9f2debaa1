"""Intervals by their formulas and by their coverage."""

import math
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from semforensics.trials.intervals import (
    cluster_resamples,
    paired_difference,
    percentile_interval,
    stratified_resamples,
    wilson_interval,
    with_interval,
)
from semforensics.trials.metrics import auroc, aurocs


@given(st.integers(1, 500), st.floats(0, 1), st.sampled_from([0.9, 0.95, 0.99]))
def test_wilson_intervals_follow_the_formula(trials: int, share: float, confidence: float) -> None:
    """The interval is Wilson's, equation by equation; its ends at none and at all are exact."""
    successes = round(share * trials)

    low, high = wilson_interval(successes, trials, confidence)

    share, z = successes / trials, NormalDist().inv_cdf((1 + confidence) / 2)
    centre = share + z**2 / (2 * trials)
    spread = z * math.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2))
    scale = 1 + z**2 / trials
    assert low == pytest.approx((centre - spread) / scale, abs=1e-12)
    assert high == pytest.approx((centre + spread) / scale, abs=1e-12)
    assert 0 <= low <= share <= high <= 1
    assert low == 0 or successes > 0
    assert high == 1 or successes < trials


def test_a_proportion_of_nothing_has_no_interval() -> None:
    """No trials, or more successes than trials, are refused."""
    with pytest.raises(ValueError, match="0 successes in 0"):
        wilson_interval(0, 0)
    with pytest.raises(ValueError, match="3 successes in 2"):
        wilson_interval(3, 2)


def test_clusters_are_drawn_whole() -> None:
    """Images of one cluster are drawn together, as many clusters as there are."""
    clusters = np.array([7, 7, 7, 2, 5, 5])

    weights = cluster_resamples(clusters, 50, np.random.default_rng(0))

    assert weights.shape == (50, 6)
    assert (weights[:, 0] == weights[:, 2]).all()
    assert (weights[:, 4] == weights[:, 5]).all()
    assert (weights[:, 0] + weights[:, 3] + weights[:, 4] == 3).all()
    assert len(np.unique(weights, axis=0)) > 5


def test_the_cluster_bootstrap_covers_where_the_image_bootstrap_does_not() -> None:
    """Where groups share a shift, resampling groups covers the truth; resampling images fails."""
    rng = np.random.default_rng(0)
    truth = 0.76  # chance that N(1, 1) is above N(0, 1): Phi(1 / sqrt 2)
    hits = {"group": 0, "image": 0}
    trials, groups, size = 120, 30, 8
    for _ in range(trials):
        shifts = np.repeat(rng.normal(0, np.sqrt(0.8), groups), size)
        reals = shifts + rng.normal(0, np.sqrt(0.2), groups * size)
        scores = np.concatenate([reals, rng.normal(1, 1, 300)])
        is_fake = np.arange(len(scores)) >= groups * size
        fakes = cluster_resamples(np.arange(300), 200, rng)
        for name, clusters in (
            ("group", np.repeat(np.arange(groups), size)),
            ("image", np.arange(groups * size)),
        ):
            weights = np.hstack([cluster_resamples(clusters, 200, rng), fakes])
            low, high = percentile_interval(aurocs(scores, is_fake, weights))
            hits[name] += low <= truth <= high

    assert hits["group"] / trials > 0.88
    assert hits["image"] / trials < 0.80


def test_resamples_never_lack_a_class() -> None:
    """Two reals' groups and one that holds both classes: every resample has reals and fakes."""
    groups = np.array(["a", "a", "b", "c", "c", "d"])
    is_fake = np.array([False, False, False, False, True, True])

    weights = stratified_resamples(groups, is_fake, 200, np.random.default_rng(0))

    assert (weights[:, 0] + weights[:, 2] == 2).all()
    assert (weights[:, 0] == weights[:, 1]).all()
    assert (weights[:, [3, 4, 5]] == 1).all()
    assert set(weights[:, 0]) == {0, 1, 2}


def test_copies_are_drawn_with_their_originals() -> None:
    """A fake in the group of a real is in a resample as often as that real."""
    groups = np.tile([f"g{i}" for i in range(10)], 2)
    is_fake = np.arange(20) >= 10

    weights = stratified_resamples(groups, is_fake, 50, np.random.default_rng(0))

    assert (weights[:, :10] == weights[:, 10:]).all()
    assert len(np.unique(weights, axis=0)) > 20


def test_a_difference_of_two_detectors_is_sharper_when_paired() -> None:
    """Two detectors that err alike differ surely, though the interval of each holds both."""
    rng = np.random.default_rng(0)
    is_fake = np.arange(400) >= 200
    good = rng.normal(is_fake * 1.2, 1)
    worse = good + rng.normal(0, 0.35, 400)
    groups = np.array([f"g{i % 20}" if i < 200 else f"f{i}" for i in range(400)])

    difference, low, high = paired_difference(good, worse, is_fake, groups, 1000, rng)

    assert difference == pytest.approx(auroc(good, is_fake) - auroc(worse, is_fake))
    assert 0 < low <= difference <= high
    weights = stratified_resamples(groups, is_fake, 1000, rng)
    alone = percentile_interval(aurocs(good, is_fake, weights))
    assert alone[0] < auroc(worse, is_fake) < alone[1]
    assert high - low < 0.7 * (alone[1] - alone[0])
    same = paired_difference(good, good * 3, is_fake, groups, 100, rng)
    assert same == (0, 0, 0)


def test_a_metric_stands_between_its_ends() -> None:
    """The value is that of the images as they are, the ends are percentiles of the resamples."""
    rng = np.random.default_rng(0)
    scores, is_fake = rng.normal(size=60), np.arange(60) % 2 == 0
    weights = stratified_resamples(np.arange(60), is_fake, 200, rng)

    value, *ends = with_interval(aurocs, scores, is_fake, weights)

    assert value == auroc(scores, is_fake)
    assert tuple(ends) == percentile_interval(aurocs(scores, is_fake, weights))
