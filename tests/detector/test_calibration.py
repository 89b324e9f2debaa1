"""Temperatures undo overconfidence; probabilities and logits belong together."""

import numpy as np
import pytest

from semforensics.detector.calibration import (
    at_prevalence,
    fake_probability,
    fit_temperature,
    log_loss,
)


@pytest.mark.parametrize("truth", [0.4, 1.0, 3.0])
def test_the_temperature_undoes_overconfidence(truth: float) -> None:
    """Logits that are so many times too large get that temperature, and the least loss."""
    rng = np.random.default_rng(0)
    honest = rng.normal(0, 2, 20_000)
    is_fake = rng.random(20_000) < 1 / (1 + np.exp(-honest))

    temperature = fit_temperature(truth * honest, is_fake)

    assert temperature == pytest.approx(truth, rel=0.05)
    best = log_loss(truth * honest / temperature, is_fake)
    for other in (0.9, 1.1):
        assert log_loss(truth * honest / (other * temperature), is_fake) > best


def test_without_an_error_the_temperature_stays_finite() -> None:
    """Twenty of each class, all right: the certainty is that of one error to come among them."""
    logits = np.repeat([-4.0, 4.0], 20)

    temperature = fit_temperature(logits, logits > 0)

    assert 1 / (1 + np.exp(-4 / temperature)) == pytest.approx(21 / 22)


def test_logits_that_say_nothing_are_flattened() -> None:
    """Logits of the wrong sign get the highest temperature."""
    logits = np.repeat([-4.0, 4.0], 20)

    assert fit_temperature(logits, logits < 0) == 100


def test_a_temperature_needs_both_classes() -> None:
    """One class alone, and endless logits, are refused."""
    with pytest.raises(ValueError, match="0 real and 3 fake"):
        fit_temperature(np.zeros(3), np.ones(3, dtype=bool))
    with pytest.raises(ValueError, match="all finite"):
        fit_temperature(np.array([0.0, np.inf]), np.array([False, True]))


def test_prevalence_moves_the_logit() -> None:
    """Even odds at one half are odds of 1 to 99 at one in a hundred; one half changes nothing."""
    assert at_prevalence(0.0, 0.01) == pytest.approx(np.log(1 / 99))
    assert at_prevalence(1.3, 0.5) == 1.3
    moved = at_prevalence(np.array([0.0, 2.0]), 0.1)
    np.testing.assert_allclose(moved, np.log(1 / 9) + np.array([0.0, 2.0]))
    with pytest.raises(ValueError, match="prevalence 1"):
        at_prevalence(0.0, 1.0)


def test_probabilities() -> None:
    """A logit of 0 is one half, log 9 is nine tenths; numbers and arrays are read alike."""
    logits = np.array([0, np.log(9), -800, 800])

    probabilities = fake_probability(logits)

    np.testing.assert_allclose(probabilities, [0.5, 0.9, 0, 1], atol=1e-12)
    assert [fake_probability(float(logit)) for logit in logits] == probabilities.tolist()
