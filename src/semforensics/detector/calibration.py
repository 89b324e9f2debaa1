"""How to read a logit: threshold, temperature, probability.

Temperature: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, section 4.2.
"""

import math
from typing import TypeVar

import numpy as np
from jaxtyping import Bool, Float

from semforensics.core.errors import InputError

Scores = Float[np.ndarray, " n"]
Labels = Bool[np.ndarray, " n"]
_Logits = TypeVar("_Logits", float, np.ndarray)

_MAX_TEMPERATURE = 100.0


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
        InputError: A class is empty, or a score is not finite.
    """
    for name, scores in (("real", real_scores), ("fake", fake_scores)):
        if len(scores) == 0 or not np.isfinite(scores).all():
            raise InputError(f"{len(scores)} {name} scores, expected at least one, all finite")
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


def fake_probability(logits: _Logits) -> _Logits:
    """Turn logits into probabilities of being fake, in float64 and without overflow."""
    return 0.5 * (1 + np.tanh(np.asarray(logits, dtype=np.float64) / 2))  # type: ignore[return-value]


def log_loss(logits: Scores, is_fake: Labels) -> float:
    """Return the mean cross-entropy of the probabilities, in nats."""
    return float(log_loss_terms(logits, is_fake).mean())


def log_loss_terms(logits: Scores, is_fake: Labels) -> Float[np.ndarray, " n"]:
    """Return what each image adds to the log loss."""
    z = logits.astype(np.float64)
    # log(1 + exp(-z)) for fakes, log(1 + exp(z)) for reals, free of overflow
    terms: Float[np.ndarray, " n"] = np.logaddexp(0, np.where(is_fake, -z, z))
    return terms


def fit_temperature(logits: Scores, is_fake: Labels) -> float:
    """Find the temperature that makes logits / temperature the most likely on these images.

    The targets are not 1 and 0 but (n + 1) / (n + 2) and 1 / (n + 2) for a class of n images
    (Platt 1999): without a single error the plain likelihood would grow for ever towards a
    temperature of 0.

    Args:
        logits: Positive means fake.
        is_fake: One per image.

    Returns:
        Between 0.01 and 100; above 1 the logits were too sure. 100 where they say nothing.

    Raises:
        InputError: A class is empty, or a logit is not finite.
    """
    n_fake, n_real = int(is_fake.sum()), int((~is_fake).sum())
    if min(n_fake, n_real) == 0 or not np.isfinite(logits).all():
        raise InputError(f"{n_real} real and {n_fake} fake logits, expected both, all finite")
    z = logits.astype(np.float64)
    targets = np.where(is_fake, (n_fake + 1) / (n_fake + 2), 1 / (n_real + 2))

    def slope(beta: float) -> float:
        """Return the derivative of the loss by beta = 1 / temperature; it grows with beta."""
        return float((z * (0.5 * (1 + np.tanh(beta * z / 2)) - targets)).mean())

    low, high = 1 / _MAX_TEMPERATURE, _MAX_TEMPERATURE
    if slope(low) >= 0:
        return _MAX_TEMPERATURE
    if slope(high) <= 0:
        return 1 / _MAX_TEMPERATURE
    # Imported here: screening needs none of it, and loading it takes a tenth of a start.
    from scipy.optimize import brentq

    return 1 / float(brentq(slope, low, high, xtol=1e-12))


def at_prevalence(logit: _Logits, prevalence: float) -> _Logits:
    """Move a calibrated logit from a prevalence of one half to another share of fakes.

    Raises:
        InputError: The prevalence is not between 0 and 1.
    """
    if not 0 < prevalence < 1:
        raise InputError(f"prevalence {prevalence}: expected between 0 and 1, both left out")
    return logit + math.log(prevalence / (1 - prevalence))
