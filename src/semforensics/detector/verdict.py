"""The verdict on an image, and the rule that turns p-values into it."""

from typing import Literal

import numpy as np
from jaxtyping import Bool, Shaped

from semforensics.detector.conformal import PValues

Verdict = Literal["consistent", "inconclusive", "ai-suspected"]
"""consistent: with a real micrograph."""


def decide(
    p_real: PValues,
    p_fake: PValues,
    alpha: float,
    inside: Bool[np.ndarray, " n"] | None = None,
) -> Shaped[np.ndarray, " n"]:
    """Return the verdict on each image: a class is excluded when its p-value is at most alpha.

    Args:
        p_real: As by `conformal_p_values`.
        p_fake: Likewise.
        alpha: Chance that a true class is excluded.
        inside: Whether an image is like the training images; None: all are. Outside, the p-values
            mean nothing and the verdict is inconclusive.

    Returns:
        Of `Verdict`: "ai-suspected" where real alone is excluded, "consistent" where fake alone is,
        "inconclusive" where both or none are.
    """
    suspected = (p_real <= alpha) & (alpha < p_fake)
    consistent = (p_fake <= alpha) & (alpha < p_real)
    if inside is not None:
        suspected, consistent = suspected & inside, consistent & inside
    return np.where(suspected, "ai-suspected", np.where(consistent, "consistent", "inconclusive"))
