"""Metrics against scikit-learn and by hand, intervals by their coverage."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.metrics import average_precision_score, roc_auc_score

from semforensics.evaluation.metrics import (
    auroc,
    aurocs,
    average_precision,
    average_precisions,
    choose_threshold,
    cluster_resamples,
    percentile_interval,
    precision_by_recall,
    share_at_or_above,
    wilson_interval,
)

# Few distinct values, so that ties are common.
TIED_SCORES = st.lists(st.integers(-3, 3), min_size=1, max_size=20)


def both(reals: list[int], fakes: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Scores and labels of two classes."""
    scores = np.array(reals + fakes, dtype=np.float32)
    return scores, np.arange(len(scores)) >= len(reals)


@given(TIED_SCORES, TIED_SCORES)
def test_curves_agree_with_scikit_learn(reals: list[int], fakes: list[int]) -> None:
    """Average precision and AUROC are those of scikit-learn, ties included."""
    scores, is_fake = both(reals, fakes)

    assert average_precision(scores, is_fake) == pytest.approx(
        average_precision_score(is_fake, scores)
    )
    assert auroc(scores, is_fake) == pytest.approx(roc_auc_score(is_fake, scores))


@given(TIED_SCORES, TIED_SCORES)
def test_points_lie_on_the_curves(reals: list[int], fakes: list[int]) -> None:
    """The area under the ROC's rates is the AUROC; the mean of the precisions is their average."""
    scores, is_fake = both(reals, fakes)
    thresholds = np.append(np.unique(scores), np.float32(np.inf))[::-1]

    false = share_at_or_above(scores[~is_fake], thresholds)
    true = share_at_or_above(scores[is_fake], thresholds)
    precision = precision_by_recall(scores, is_fake)

    assert np.trapezoid(true, false) == pytest.approx(auroc(scores, is_fake))
    assert (false[0], true[0], false[-1], true[-1]) == (0, 0, 1, 1)
    assert len(precision) == len(fakes)
    assert precision.mean() == pytest.approx(average_precision(scores, is_fake))


def test_precision_falls_with_the_reals_above() -> None:
    """The second fake found has one real above it, so two of three are right."""
    scores = np.array([9.0, 5.0, 1.0, 7.0])

    precision = precision_by_recall(scores, np.array([True, True, False, False]))

    assert precision == pytest.approx([1, 2 / 3])


@given(TIED_SCORES, TIED_SCORES, st.randoms(use_true_random=False))
def test_order_never_matters(reals: list[int], fakes: list[int], random) -> None:
    """Any order of the images gives the same numbers."""
    scores, is_fake = both(reals, fakes)
    order = random.sample(range(len(scores)), len(scores))

    assert average_precision(scores[order], is_fake[order]) == average_precision(scores, is_fake)
    assert auroc(scores[order], is_fake[order]) == auroc(scores, is_fake)


@given(TIED_SCORES, TIED_SCORES, st.integers(0, 1000))
def test_a_resample_scores_as_the_images_it_holds(
    reals: list[int], fakes: list[int], seed: int
) -> None:
    """Weights count an image as often as if it stood there so many times."""
    scores, is_fake = both(reals, fakes)
    weights = np.random.default_rng(seed).integers(0, 3, (1, len(scores)))
    weights[0, [0, -1]] = 1
    repeated = np.repeat(np.arange(len(scores)), weights[0])

    expected = auroc(scores[repeated], is_fake[repeated])
    assert aurocs(scores, is_fake, weights)[0] == pytest.approx(expected)
    expected = average_precision(scores[repeated], is_fake[repeated])
    assert average_precisions(scores, is_fake, weights)[0] == pytest.approx(expected)


def test_one_class_has_no_curve() -> None:
    """Without fakes, or without reals, there is no curve."""
    with pytest.raises(ValueError, match="0 fakes of 2"):
        auroc(np.zeros(2), np.zeros(2, dtype=bool))
    with pytest.raises(ValueError, match="2 fakes of 2"):
        average_precision(np.zeros(2), np.ones(2, dtype=bool))


@given(TIED_SCORES, TIED_SCORES, st.floats(0.01, 0.99))
def test_no_threshold_within_the_bound_is_better(
    reals: list[int], fakes: list[int], bound: float
) -> None:
    """The threshold keeps the bound; none that does catches more, or as many with fewer errors."""
    real_scores, fake_scores = (np.array(s, dtype=np.float32) for s in (reals, fakes))

    chosen = choose_threshold(real_scores, fake_scores, bound)

    def rates(threshold: float) -> tuple[float, float]:
        return (real_scores > threshold).mean(), (fake_scores > threshold).mean()

    false, true = rates(chosen)
    assert false <= bound
    for other in np.arange(-3.5, 4, 0.5):
        other_false, other_true = rates(other)
        assert other_false > bound or (other_true, -other_false) <= (true, -false)


def test_the_threshold_halves_the_gap() -> None:
    """Between separated classes the threshold stands in the middle, whatever the bound."""
    reals, fakes = np.array([-3.0, -1.0]), np.array([2.0, 5.0])

    assert choose_threshold(reals, fakes, 0.05) == 0.5
    assert choose_threshold(reals, fakes, 0.5) == 0.5


def test_one_real_in_ten_may_be_wrong_at_ten_per_cent() -> None:
    """The bound counts whole reals, free of rounding: 0.1 of 30 are three."""
    reals = np.arange(30.0)

    chosen = choose_threshold(reals, np.full(5, 26.5), 0.1)

    assert (reals > chosen).sum() == 3


def test_a_threshold_needs_both_classes_and_finite_scores() -> None:
    """An empty class and an endless score are refused."""
    with pytest.raises(ValueError, match="0 fake scores"):
        choose_threshold(np.zeros(3), np.zeros(0), 0.05)
    with pytest.raises(ValueError, match="all finite"):
        choose_threshold(np.array([np.nan]), np.zeros(1), 0.05)


@given(st.integers(1, 500), st.floats(0, 1), st.sampled_from([0.9, 0.95, 0.99]))
def test_wilson_intervals_are_those_of_scipy(trials: int, share: float, confidence: float) -> None:
    """Wilson's interval agrees with SciPy's and holds the share it was made of."""
    successes = round(share * trials)

    low, high = wilson_interval(successes, trials, confidence)

    expected = binomtest(successes, trials).proportion_ci(confidence, method="wilson")
    assert (low, high) == pytest.approx(expected, abs=1e-9)
    assert 0 <= low <= successes / trials <= high <= 1


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
