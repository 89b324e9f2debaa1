"""Verdicts follow from p-values."""

import numpy as np

from semforensics.detector.conformal import conformal_p_values
from semforensics.detector.verdict import decide


def test_errors_of_verdicts_stay_below_alpha() -> None:
    """Of reals at most alpha are suspected, of fakes at most alpha called consistent."""
    rng = np.random.default_rng(1)
    errors = np.zeros(2)
    sets, size = 400, 50
    for _ in range(sets):
        reals, fakes = rng.normal(0, 1, 100 + size), rng.normal(1.5, 1, 100 + size)
        for index, (new, wrong) in enumerate(((reals, "ai-suspected"), (fakes, "consistent"))):
            p_values = conformal_p_values(new[100:], reals[:100], fakes[:100])
            errors[index] += (decide(*p_values, 0.1) == wrong).sum()

    # 4 standard errors of the mean over sets, whose own rate spreads with sd sqrt(a (1 - a) / n)
    margin = 4 * np.sqrt(0.1 * 0.9 / 100 / sets)
    assert (errors / (sets * size) <= 10 / 101 + margin).all()
    assert (errors > 0).all()


def test_three_verdicts() -> None:
    """One class excluded decides; both or none, or an image outside the domain, does not."""
    p_real = np.array([0.01, 0.5, 0.5, 0.01, 0.05, 0.01])
    p_fake = np.array([0.50, 0.01, 0.5, 0.01, 0.06, 0.50])
    inside = np.array([True, True, True, True, True, False])

    verdicts = decide(p_real, p_fake, 0.05, inside)

    assert verdicts.tolist() == [
        "ai-suspected", "consistent", "inconclusive", "inconclusive", "ai-suspected",
        "inconclusive",
    ]  # fmt: skip
    assert decide(p_real, p_fake, 0.05)[-1] == "ai-suspected"
