"""Conformal p-values: how unusual a score is among calibration images of a known class.

The p-values are split-conformal with one calibration set per class (Vovk, Gammerman, Shafer,
"Algorithmic Learning in a Random World", 2005, chapter 4): when a real and the calibration reals
are exchangeable, its p_real is at most alpha with a chance of at most alpha, whatever the network.
Crops of one micrograph are exchangeable only roughly: the number of groups belongs beside a p.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from semforensics.core.errors import InputError
from semforensics.detector.calibration import Scores

PValues = Float[np.ndarray, " n"]


def conformal_p_values(
    scores: Scores,
    real_calibration: Float[np.ndarray, " n_real"],
    fake_calibration: Float[np.ndarray, " n_fake"],
) -> tuple[PValues, PValues]:
    """Compute how unusual each score would be for a real, and for a fake.

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
        The largest p_real and the largest p_fake over the kinds, each as by `conformal_p_values`.
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
