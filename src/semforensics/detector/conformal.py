"""Conformal p-values: how unusual a score is among calibration images of a known class.

The p-values are split-conformal with one calibration set per class (Vovk, Gammerman, Shafer,
"Algorithmic Learning in a Random World", 2005, chapter 4): when a real and the calibration reals
are exchangeable, its p_real is at most alpha with a chance of at most alpha, whatever the network.

Crops of one sample area are not exchangeable with those of another. Where the calibration names the
area (group) of each real, and has enough areas, every area has one vote, shared by its crops: the
hierarchical conformal prediction of Lee, Barber, Willett, "Distribution-free inference with
hierarchical data", 2023, arXiv:2306.06342, section 3. What must be exchangeable then are areas, and
the crops inside of each. (Dunn, Wasserman, Ramdas, JASA 118, 2023, arXiv:1809.07441, reach the same
promise by taking one crop of each area.)
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from semforensics.core.errors import InputError
from semforensics.detector.calibration import Scores

PValues = Float[np.ndarray, " n"]

LEAST_GROUPS = 22
"""Areas from which on areas are the units of a calibration: so many resolve an alpha of 4.5 %,
which is what a screening at 5 % leaves for whole panels."""


def conformal_p_values(
    scores: Scores,
    real_calibration: Float[np.ndarray, " n_real"],
    fake_calibration: Float[np.ndarray, " n_fake"],
    real_groups: Int[np.ndarray, " n_real"] | None = None,
) -> tuple[PValues, PValues]:
    """Compute how unusual each score would be for a real, and for a fake.

    Args:
        scores: Higher means more likely fake.
        real_calibration: Scores of reals that nothing was trained on, in any order.
        fake_calibration: Such scores of fakes.
        real_groups: The area of each calibration real; None: each real is a unit by itself.

    Returns:
        p_real: the share of reals at least as high, p_fake: of fakes at least as low, the image
        itself counted among them, so between 1 / (n + 1) and 1. With groups, p_real is the mean
        over areas of the share of their reals at least as high, the image itself counted as one
        more area: between 1 / (number of areas + 1) and 1. Ties count against rejection.

    Raises:
        InputError: A calibration set is empty.
    """
    n_real, n_fake = len(real_calibration), len(fake_calibration)
    if min(n_real, n_fake) == 0:
        raise InputError(f"calibration on {n_real} reals and {n_fake} fakes, both are needed")
    below = np.searchsorted(np.sort(fake_calibration), scores, side="right")
    p_fake = (1 + below) / (n_fake + 1)
    if real_groups is None:
        above = n_real - np.searchsorted(np.sort(real_calibration), scores, side="left")
        return (1 + above) / (n_real + 1), p_fake
    areas = [np.sort(real_calibration[real_groups == group]) for group in np.unique(real_groups)]
    shares = [1 - np.searchsorted(area, scores, side="left") / len(area) for area in areas]
    return (1 + np.sum(shares, axis=0)) / (len(areas) + 1), p_fake


def largest_p_values(
    scores: Scores,
    real_calibrations: Sequence[Float[np.ndarray, " _"]],
    fake_calibrations: Sequence[Float[np.ndarray, " _"]],
    real_groups: Int[np.ndarray, " _"] | None = None,
) -> tuple[PValues, PValues]:
    """Return p-values that hold for reals and fakes of several kinds each.

    For a real of any of the kinds, such as raw and denoised ones, the largest p_real is at least
    that of its own kind, so it is at most alpha with a chance of at most alpha, too; likewise for
    fakes of several generators.

    Args:
        scores: Higher means more likely fake.
        real_calibrations: Scores of reals, kind by kind.
        fake_calibrations: Scores of fakes, kind by kind.
        real_groups: As `conformal_p_values` takes them, the same for every kind of reals.

    Returns:
        The largest p_real and the largest p_fake over the kinds, each as by `conformal_p_values`.
    """
    fakes = fake_calibrations[0]
    p_real = [conformal_p_values(scores, r, fakes, real_groups)[0] for r in real_calibrations]
    p_fake = [conformal_p_values(scores, real_calibrations[0], f)[1] for f in fake_calibrations]
    return np.max(p_real, axis=0), np.max(p_fake, axis=0)


def calibration_groups(calibration: Mapping[str, Any]) -> Int[np.ndarray, " n_real"] | None:
    """Return the area of each calibration real, where areas are the units of the p-values.

    Args:
        calibration: Of one number of phases, as the training stores it beside a model.

    Returns:
        None where the calibration does not name them, as in models of before, or has fewer than
        `LEAST_GROUPS`: its crops are the units then.
    """
    groups = np.asarray(calibration.get("groups", []), dtype=np.int64)
    return groups if len(np.unique(groups)) >= LEAST_GROUPS else None


def calibration_sizes(calibration: Mapping[str, Any]) -> tuple[int, int]:
    """Return the number of real units (crops or areas), and of fakes of the rarest generator.

    Args:
        calibration: Of one number of phases, as the training stores it beside a model.
    """
    groups = calibration_groups(calibration)
    n_real = len(calibration["real"]) if groups is None else len(np.unique(groups))
    return n_real, min(map(len, calibration["generators"].values()))


def check_alpha(alpha: float, n_real: int, n_fake: int, unit: str = "reals") -> None:
    """Refuse an error rate that a calibration set cannot resolve.

    No p-value is below 1 / (n + 1), so a smaller alpha would reject nothing, ever.

    Args:
        alpha: Chance that a true class is excluded.
        n_real: Real units of the calibration, as `calibration_sizes` counts them.
        n_fake: Its fakes.
        unit: What the real units are, for the message.

    Raises:
        InputError: alpha is below that for a class; the message says how many it needs.
    """
    for name, count in ((unit, n_real), ("fakes", n_fake)):
        # - 1e-9: 1 / alpha may come out just above a whole number
        if count + 1 < 1 / alpha - 1e-9:
            raise InputError(
                f"alpha {alpha:g} needs {math.ceil(1 / alpha - 1 - 1e-9)} calibration {name}, "
                f"found {count}"
            )
