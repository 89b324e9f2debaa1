"""Metrics against scikit-learn and by hand."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score
from sklearn.metrics import log_loss as sklearn_log_loss

from semforensics.detector.calibration import choose_threshold, fake_probability, log_loss
from semforensics.trials.metrics import (
    auroc,
    aurocs,
    average_precisions,
    best_of_pass_rate,
    brier_terms,
    equal_error_rates,
    equal_mass_bins,
    expected_calibration_errors,
    posterior,
    precision_by_recall,
    share_at_or_above,
    tprs_at_fpr,
)

# Few distinct values, so that ties are common.
TIED_SCORES = st.lists(st.integers(-3, 3), min_size=1, max_size=20)


def once(metric, scores: np.ndarray, is_fake: np.ndarray, *settings) -> float:
    """A metric of the images as they are."""
    return float(metric(scores, is_fake, np.ones((1, len(scores)), dtype=int), *settings)[0])


def both(reals: list[int], fakes: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Scores and labels of two classes."""
    scores = np.array(reals + fakes, dtype=np.float32)
    return scores, np.arange(len(scores)) >= len(reals)


@given(TIED_SCORES, TIED_SCORES)
def test_curves_agree_with_scikit_learn(reals: list[int], fakes: list[int]) -> None:
    """Average precision and AUROC are those of scikit-learn, ties included."""
    scores, is_fake = both(reals, fakes)

    assert once(average_precisions, scores, is_fake) == pytest.approx(
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
    assert precision.mean() == pytest.approx(once(average_precisions, scores, is_fake))


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

    assert once(average_precisions, scores[order], is_fake[order]) == once(
        average_precisions, scores, is_fake
    )
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
    expected = once(average_precisions, scores[repeated], is_fake[repeated])
    assert average_precisions(scores, is_fake, weights)[0] == pytest.approx(expected)


def test_one_class_has_no_curve() -> None:
    """Without fakes, or without reals, there is no curve."""
    with pytest.raises(ValueError, match="0 fakes of 2"):
        auroc(np.zeros(2), np.zeros(2, dtype=bool))
    with pytest.raises(ValueError, match="2 fakes of 2"):
        once(average_precisions, np.zeros(2), np.ones(2, dtype=bool))


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


def test_the_equal_error_rate_is_where_both_errors_meet() -> None:
    """Known cases: separated classes, one score for all, one of three wrong on each side."""
    separated, is_fake = both([0, 1], [2, 3])
    assert once(equal_error_rates, separated, is_fake) == 0
    assert once(equal_error_rates, -separated, is_fake) == 1
    alike, is_fake = both([1, 1], [1, 1])
    assert once(equal_error_rates, alike, is_fake) == 0.5
    crossed, is_fake = both([0, 1, 5], [4, 6, 7])
    assert once(equal_error_rates, crossed, is_fake) == pytest.approx(1 / 3)


@given(TIED_SCORES, TIED_SCORES)
def test_the_equal_error_rate_lies_on_the_curve(reals: list[int], fakes: list[int]) -> None:
    """At the false-positive rate of the equal error rate, the curve misses as many fakes."""
    scores, is_fake = both(reals, fakes)
    thresholds = np.append(np.unique(scores), np.float32(np.inf))[::-1]
    false = share_at_or_above(scores[~is_fake], thresholds)
    true = share_at_or_above(scores[is_fake], thresholds)

    rate = once(equal_error_rates, scores, is_fake)

    # The distance to the polyline: the curve may stand upright there.
    steps = np.linspace(0, 1, 2001)[:, None]
    x = false[:-1] + steps * np.diff(false)
    y = true[:-1] + steps * np.diff(true)
    assert np.hypot(x - rate, y - (1 - rate)).min() < 1e-3


@given(TIED_SCORES, TIED_SCORES, st.floats(0.01, 0.99))
def test_no_threshold_with_so_few_alarms_finds_more(
    reals: list[int], fakes: list[int], bound: float
) -> None:
    """The rate of fakes found is the best of all thresholds within the bound."""
    scores, is_fake = both(reals, fakes)

    found = once(tprs_at_fpr, scores, is_fake, bound)

    rates = [
        (scores[is_fake] >= t).mean()
        for t in [*np.unique(scores), np.inf]
        if (scores[~is_fake] >= t).mean() <= bound
    ]
    assert found == pytest.approx(max(rates))


def test_few_reals_allow_no_alarm() -> None:
    """At 1 % of 99 reals none may be called fake; of 100 one may."""
    fakes = [50] * 10
    assert once(tprs_at_fpr, *both([0] * 98 + [60], fakes), 0.01) == 0
    assert once(tprs_at_fpr, *both([0] * 99 + [60], fakes), 0.01) == 1


@given(TIED_SCORES, TIED_SCORES, st.integers(0, 1000))
def test_every_rate_of_a_resample_is_that_of_its_images(
    reals: list[int], fakes: list[int], seed: int
) -> None:
    """Equal error rate and fakes found, of weights and of repeated images, are the same."""
    scores, is_fake = both(reals, fakes)
    weights = np.random.default_rng(seed).integers(0, 3, (1, len(scores)))
    weights[0, [0, -1]] = 1
    repeated = np.repeat(np.arange(len(scores)), weights[0])
    again, labels = scores[repeated], is_fake[repeated]

    assert equal_error_rates(scores, is_fake, weights)[0] == pytest.approx(
        once(equal_error_rates, again, labels)
    )
    assert tprs_at_fpr(scores, is_fake, weights, 0.2)[0] == once(tprs_at_fpr, again, labels, 0.2)


@given(TIED_SCORES, TIED_SCORES)
def test_scores_of_probabilities_agree_with_scikit_learn(
    reals: list[int], fakes: list[int]
) -> None:
    """Brier score and log loss are those of scikit-learn."""
    logits, is_fake = both(reals, fakes)
    probability = 1 / (1 + np.exp(-logits.astype(float)))

    assert brier_terms(logits, is_fake).mean() == pytest.approx(
        brier_score_loss(is_fake, probability)
    )
    expected = sklearn_log_loss(is_fake, probability, labels=[False, True])
    assert log_loss(logits, is_fake) == pytest.approx(expected)


def test_sure_logits_have_a_finite_loss() -> None:
    """A logit of 800 neither overflows nor is cut off."""
    assert log_loss(np.array([800.0, -800.0]), np.array([False, True])) == pytest.approx(800)
    assert fake_probability(np.array([-800.0, 0.0, 800.0])).tolist() == [0, 0.5, 1]


def test_calibration_error_of_honest_and_of_sure_logits() -> None:
    """Honest probabilities are off by chance alone; logits three times too large by far more."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 1.5, 30_000)
    is_fake = rng.random(30_000) < 1 / (1 + np.exp(-logits))

    assert once(expected_calibration_errors, logits, is_fake) < 0.015
    assert once(expected_calibration_errors, 3 * logits, is_fake) > 0.1


def test_calibration_error_by_hand() -> None:
    """Two bins: 0.5 stated and all real is off by a half, 0.5 stated and half fake by nothing."""
    logits = np.array([-1e-9] * 4 + [1e-9] * 4)
    is_fake = np.array([False] * 4 + [False, False, True, True])

    assert once(expected_calibration_errors, logits, is_fake, 2) == pytest.approx(0.25)


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=60), st.integers(1, 15))
def test_bins_of_equal_mass_keep_ties_together(values: list[int], bins: int) -> None:
    """Images of one score share a bin, bins rise with the scores, and all are in range."""
    scores = np.array(values, dtype=float)

    members = equal_mass_bins(scores, bins)

    assert ((members >= 0) & (members < bins)).all()
    order = np.argsort(scores)
    assert (np.diff(members[order]) >= 0).all()
    for value in np.unique(scores):
        assert len(np.unique(members[scores == value])) == 1


def test_distinct_scores_fill_bins_evenly() -> None:
    """100 scores in 15 bins are six or seven each."""
    counts = np.bincount(equal_mass_bins(np.random.default_rng(0).normal(size=100)), minlength=15)

    assert set(counts) == {6, 7}


def test_bayes_by_hand() -> None:
    """90 % found, 10 % alarms: nine in ten at one half, one in twelve at one in a hundred."""
    assert posterior(0.9, 0.1, 0.5) == pytest.approx(0.9)
    assert posterior(0.9, 0.1, 0.01) == pytest.approx(0.009 / (0.009 + 0.099))
    assert np.isnan(posterior(0.0, 0.0, 0.5))


@given(
    st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=1, max_size=7),
    st.integers(1, 7),
)
def test_the_forgers_chance_is_the_mean_over_all_choices(
    fakes: list[tuple[int, bool]], choices: int
) -> None:
    """Exactly the mean over every subset, a tie for the lowest score broken by chance."""
    scores = np.array([score for score, _ in fakes], dtype=float)
    passes = np.array([passing for _, passing in fakes])
    if choices > len(fakes):
        with pytest.raises(ValueError, match=f"best of {choices} of {len(fakes)}"):
            best_of_pass_rate(passes, scores, choices)
        return

    chance = best_of_pass_rate(passes, scores, choices)

    outcomes = []
    for subset in combinations(range(len(fakes)), choices):
        taken = np.array(subset)
        outcomes.append(passes[taken][scores[taken] == scores[taken].min()].mean())
    assert chance == pytest.approx(np.mean(outcomes))
