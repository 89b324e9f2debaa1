"""p-values keep their promise."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from semforensics.detector.conformal import (
    LEAST_GROUPS,
    calibration_groups,
    calibration_sizes,
    check_alpha,
    conformal_p_values,
    largest_p_values,
)

SCORES = st.lists(st.integers(-3, 3), min_size=1, max_size=12).map(
    lambda values: np.array(values, dtype=np.float32)
)


@pytest.mark.parametrize(("n_real", "alpha"), [(99, 0.01), (99, 0.05), (50, 0.05), (173, 0.1)])
def test_a_real_is_excluded_as_seldom_as_promised(n_real: int, alpha: float) -> None:
    """Over 20,000 calibration sets, p_real is at most alpha floor(alpha (n + 1)) / (n + 1) times.

    The rank of a new score among n exchangeable ones is uniform, so the chance is exact.
    """
    rng = np.random.default_rng(n_real)
    draws = 20_000
    excluded = 0
    for calibration in np.split(rng.standard_cauchy((draws, n_real + 1)), 100):
        for *others, new in calibration:
            p_real, _ = conformal_p_values(np.array([new]), np.array(others), np.zeros(1))
            excluded += int(p_real[0] <= alpha)

    exact = np.floor(alpha * (n_real + 1) + 1e-9) / (n_real + 1)
    low, high = binom.ppf([0.0005, 0.9995], draws, exact)
    assert low <= excluded <= high
    assert exact <= alpha


@pytest.mark.parametrize(
    ("share", "low", "high"), [(0, 0.045, 0.055), (0.5, 0.06, 0.08), (0.9, 0.085, 0.115)]
)
def test_crops_of_few_areas_promise_less_for_other_areas(
    share: float, low: float, high: float
) -> None:
    """At alpha 0.05, 6 to 10 % of reals of new areas are excluded where seven areas differ.

    420 crops of 7 areas calibrate. `share` of the variance of a score lies between areas, 0 for
    crops that are exchangeable.
    """
    rng = np.random.default_rng(0)

    def scores(areas: int, crops: int) -> np.ndarray:
        between, within = rng.normal(size=(areas, 1)), rng.normal(size=(areas, crops))
        return (share**0.5 * between + (1 - share) ** 0.5 * within).ravel()

    excluded = [
        (conformal_p_values(scores(200, 1), scores(7, 60), np.zeros(1))[0] <= 0.05).mean()
        for _ in range(500)
    ]

    assert low <= np.mean(excluded) <= high


@pytest.mark.parametrize("share", [0.0, 0.5, 0.9])
def test_areas_as_units_keep_the_promise_for_other_areas(share: float) -> None:
    """At most 5 % of reals of new areas are excluded, however much areas differ; more are by crops.

    30 crops of each of 22 areas calibrate. `share` of the variance of a score lies between areas.
    """
    rng = np.random.default_rng(0)

    def scores(areas: int, crops: int) -> np.ndarray:
        between, within = rng.normal(size=(areas, 1)), rng.normal(size=(areas, crops))
        return (share**0.5 * between + (1 - share) ** 0.5 * within).ravel()

    groups = np.repeat(np.arange(LEAST_GROUPS), 30)
    excluded = {"areas": [], "crops": []}
    for _ in range(400):
        new, calibration = scores(50, 1), scores(LEAST_GROUPS, 30)
        for unit, of in (("areas", groups), ("crops", None)):
            p_real, _ = conformal_p_values(new, calibration, np.zeros(1), of)
            excluded[unit].append((p_real <= 0.05).mean())

    error = 3 * np.std(excluded["areas"]) / 20
    assert np.mean(excluded["areas"]) <= 0.05 + error
    if share > 0.5:
        error = 3 * np.std(excluded["crops"]) / 20
        assert np.mean(excluded["crops"]) - error > 0.05


@given(SCORES, SCORES)
def test_every_area_has_one_vote(scores: np.ndarray, reals: np.ndarray) -> None:
    """The p-value is the mean share of an area's reals at least as high, one area more."""
    groups = np.arange(len(reals)) % 3
    p_real, _ = conformal_p_values(scores, reals, np.zeros(1), groups)

    areas = [reals[groups == group] for group in np.unique(groups)]
    for score, found in zip(scores, p_real, strict=True):
        expected = (1 + sum((area >= score).mean() for area in areas)) / (len(areas) + 1)
        assert found == pytest.approx(expected)
    repeated, _ = conformal_p_values(scores, np.tile(reals, 4), np.zeros(1), np.tile(groups, 4))
    np.testing.assert_allclose(repeated, p_real)


def test_areas_count_where_there_are_enough_of_them() -> None:
    """From 22 areas on the calibration counts areas; with fewer, or without names, crops."""
    calibration = {"real": [0.0] * 100, "generators": {"a": [1.0] * 40, "b": [1.0] * 60}}
    assert calibration_sizes(calibration) == (100, 40)

    few = calibration | {"groups": [number % 21 for number in range(100)]}
    enough = calibration | {"groups": [number % 22 for number in range(100)]}
    assert calibration_groups(few) is None
    assert calibration_sizes(few) == (100, 40)
    assert calibration_groups(enough) is not None
    assert calibration_sizes(enough) == (22, 40)
    check_alpha(0.05, *calibration_sizes(enough), "areas")
    with pytest.raises(ValueError, match=r"alpha 0\.04 needs 24 calibration areas, found 22"):
        check_alpha(0.04, *calibration_sizes(enough), "areas")


def test_fakes_are_excluded_as_seldom_as_promised() -> None:
    """The same for p_fake, with scores of either class from another distribution."""
    rng = np.random.default_rng(0)
    excluded = 0
    for _ in range(10_000):
        fakes = rng.normal(2, 3, 40)
        _, p_fake = conformal_p_values(fakes[:1], rng.normal(0, 1, 30), fakes[1:])
        excluded += int(p_fake[0] <= 0.1)

    low, high = binom.ppf([0.0005, 0.9995], 10_000, 4 / 40)
    assert low <= excluded <= high


@given(SCORES, SCORES, SCORES)
def test_p_values_count_the_image_itself_and_ties(
    scores: np.ndarray, reals: np.ndarray, fakes: np.ndarray
) -> None:
    """Each is the share at least as extreme, ties and the image itself included."""
    p_real, p_fake = conformal_p_values(scores, reals, fakes)

    for score, real, fake in zip(scores, p_real, p_fake, strict=True):
        assert real == (1 + (reals >= score).sum()) / (len(reals) + 1)
        assert fake == (1 + (fakes <= score).sum()) / (len(fakes) + 1)


def test_equal_scores_exclude_nobody() -> None:
    """A score that all calibration images share has p-values of one."""
    p_real, p_fake = conformal_p_values(np.zeros(3), np.zeros(50), np.zeros(50))

    assert (p_real == 1).all()
    assert (p_fake == 1).all()


def test_a_real_of_any_known_kind_is_rarely_excluded() -> None:
    """Of raw and of processed reals at most alpha are excluded, though processing moves scores."""
    rng = np.random.default_rng(0)
    excluded = {"raw": 0, "processed": 0}
    trials, alpha = 400, 0.1
    for _ in range(trials):
        raw, processed = rng.normal(0, 1, 60), rng.normal(1.5, 0.5, 60)
        kinds, fakes = [raw[:-10], processed[:-10]], rng.normal(5, 1, 50)
        for name, new in (("raw", raw[-10:]), ("processed", processed[-10:])):
            p_real, p_fake = largest_p_values(new, kinds, [fakes])
            excluded[name] += int((p_real <= alpha).sum())
            np.testing.assert_array_equal(p_fake, conformal_p_values(new, raw, fakes)[1])

    # 4 standard errors, new images of one calibration counted as one
    bound = alpha + 4 * np.sqrt(alpha * (1 - alpha) / trials)
    assert max(excluded.values()) / (10 * trials) < bound
    assert excluded["processed"] > 0
    alone, _ = conformal_p_values(processed, raw, fakes)
    assert (alone <= alpha).mean() > 2 * alpha


def test_without_other_kinds_the_p_values_are_the_plain_ones() -> None:
    """One kind of reals is the split-conformal case."""
    rng = np.random.default_rng(1)
    scores, reals, fakes = (rng.normal(size=20) for _ in range(3))

    both = largest_p_values(scores, [reals], [fakes]), conformal_p_values(scores, reals, fakes)

    np.testing.assert_array_equal(*both)


def test_an_empty_calibration_is_refused() -> None:
    """Without calibration fakes there is no p_fake."""
    with pytest.raises(ValueError, match="10 reals and 0 fakes"):
        conformal_p_values(np.zeros(1), np.zeros(10), np.zeros(0))


@pytest.mark.parametrize(("alpha", "needed"), [(0.01, 99), (0.05, 19), (0.1, 9), (0.03, 33)])
def test_an_alpha_needs_so_many_calibration_images(alpha: float, needed: int) -> None:
    """One image fewer than 1 / alpha - 1 and the alpha is refused: its class could never go."""
    check_alpha(alpha, needed, needed)
    with pytest.raises(ValueError, match=f"needs {needed} calibration fakes, found {needed - 1}"):
        check_alpha(alpha, needed, needed - 1)
    with pytest.raises(ValueError, match=f"needs {needed} calibration reals, found 1"):
        check_alpha(alpha, 1, needed)

    lowest, _ = conformal_p_values(np.ones(1), np.zeros(needed), np.zeros(1))
    assert lowest[0] <= alpha
