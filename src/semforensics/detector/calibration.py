"""From logits to what may be said of an image: temperature, conformal p-values, three verdicts.

Temperature: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, section 4.2. The
p-values are split-conformal with one calibration set per class (Vovk, Gammerman, Shafer,
"Algorithmic Learning in a Random World", 2005, chapter 4): when a real and the calibration reals
are exchangeable, its p_real is at most alpha with a chance of at most alpha, whatever the network.
Crops of one micrograph are exchangeable only roughly: the number of groups belongs beside a p.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeVar

import numpy as np
from jaxtyping import Bool, Float, Shaped
from scipy.optimize import brentq

from semforensics.core.errors import InputError

Verdict = Literal["consistent", "inconclusive", "ai-suspected"]
"""consistent: with a real micrograph."""

Scores = Float[np.ndarray, " n"]
Labels = Bool[np.ndarray, " n"]
PValues = Float[np.ndarray, " n"]
_Logit = TypeVar("_Logit", float, np.ndarray)

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


def fake_probability(logits: Float[np.ndarray, "*any"]) -> Float[np.ndarray, "*any"]:
    """Turn logits into probabilities of being fake, in float64 and without overflow."""
    probability: Float[np.ndarray, "*any"] = 0.5 * (1 + np.tanh(logits.astype(np.float64) / 2))
    return probability


def log_loss(logits: Scores, is_fake: Labels) -> float:
    """Return the mean cross-entropy of the probabilities, in nats; log 2 is a coin that says so."""
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
    return 1 / float(brentq(slope, low, high, xtol=1e-12))


def conformal_p_values(
    scores: Scores,
    real_calibration: Float[np.ndarray, " n_real"],
    fake_calibration: Float[np.ndarray, " n_fake"],
) -> tuple[PValues, PValues]:
    """Say how unusual each score would be for a real, and for a fake.

    Args:
        scores: Higher means more likely fake.
        real_calibration: Scores of reals that nothing was trained on, in any order.
        fake_calibration: Such scores of fakes.

    Returns:
        p_real: the share of reals at least as high, p_fake: of fakes at least as low, the image
        itself counted among them, so between 1 / (n + 1) and 1. Ties count against rejection.

    Raises:
        InputError: A calibration set is empty.
    """
    n_real, n_fake = len(real_calibration), len(fake_calibration)
    if min(n_real, n_fake) == 0:
        raise InputError(f"calibration on {n_real} reals and {n_fake} fakes, both are needed")
    above = n_real - np.searchsorted(np.sort(real_calibration), scores, side="left")
    below = np.searchsorted(np.sort(fake_calibration), scores, side="right")
    return (1 + above) / (n_real + 1), (1 + below) / (n_fake + 1)


def largest_p_values(
    scores: Scores,
    real_calibrations: Sequence[Float[np.ndarray, " _"]],
    fake_calibrations: Sequence[Float[np.ndarray, " _"]],
) -> tuple[PValues, PValues]:
    """Return p-values that hold for reals and fakes of several kinds each.

    For a real of any of the kinds, such as raw and denoised ones, the largest p_real is at least
    that of its own kind, so it is at most alpha with a chance of at most alpha, too; likewise for
    fakes of several generators.

    Args:
        scores: Higher means more likely fake.
        real_calibrations: Scores of reals, kind by kind.
        fake_calibrations: Scores of fakes, kind by kind.

    Returns:
        The largest p_real and the largest p_fake over the kinds, each as `conformal_p_values`
        gives them.
    """
    p_real = [conformal_p_values(scores, r, fake_calibrations[0])[0] for r in real_calibrations]
    p_fake = [conformal_p_values(scores, real_calibrations[0], f)[1] for f in fake_calibrations]
    return np.max(p_real, axis=0), np.max(p_fake, axis=0)


def calibration_sizes(calibration: Mapping[str, Any]) -> tuple[int, int]:
    """Return the number of reals, and of fakes of the generator that has fewest.

    Args:
        calibration: Of one number of phases, as the training stores it beside a model.
    """
    return len(calibration["real"]), min(map(len, calibration["generators"].values()))


def check_alpha(alpha: float, n_real: int, n_fake: int) -> None:
    """Refuse an error rate that a calibration set cannot resolve.

    No p-value is below 1 / (n + 1), so a smaller alpha would reject nothing, ever.

    Raises:
        InputError: alpha is below that for a class; the message says how many images it needs.
    """
    for name, count in (("reals", n_real), ("fakes", n_fake)):
        # - 1e-9: 1 / alpha may come out just above a whole number
        if count + 1 < 1 / alpha - 1e-9:
            raise InputError(
                f"alpha {alpha:g} needs {math.ceil(1 / alpha - 1 - 1e-9)} calibration {name}, "
                f"found {count}"
            )


def decide(
    p_real: PValues,
    p_fake: PValues,
    alpha: float,
    inside: Bool[np.ndarray, " n"] | None = None,
) -> Shaped[np.ndarray, " n"]:
    """Return the verdict on each image: a class is excluded when its p-value is at most alpha.

    Args:
        p_real: As `conformal_p_values` gives them.
        p_fake: Likewise.
        alpha: Chance that a true class is excluded.
        inside: Whether an image is like the training images; None: all are. Outside the p-values
            mean nothing, and the verdict is inconclusive.

    Returns:
        Of `Verdict`: "ai-suspected" where real alone is excluded, "consistent" where fake alone is,
        "inconclusive" where both or none are.
    """
    suspected = (p_real <= alpha) & (alpha < p_fake)
    consistent = (p_fake <= alpha) & (alpha < p_real)
    if inside is not None:
        suspected, consistent = suspected & inside, consistent & inside
    return np.where(suspected, "ai-suspected", np.where(consistent, "consistent", "inconclusive"))


def at_prevalence(logit: _Logit, prevalence: float) -> _Logit:
    """Move a calibrated logit from a prevalence of one half to another share of fakes.

    Raises:
        InputError: The prevalence is not between 0 and 1.
    """
    if not 0 < prevalence < 1:
        raise InputError(f"prevalence {prevalence}: expected between 0 and 1, both left out")
    return logit + math.log(prevalence / (1 - prevalence))
