"""For every image, the nearest one of the other kind, and the numbers that sum this up.

Sah, "From Synthesis to Discrimination" (M.Tech. thesis, IIT Gandhinagar, 2024), plots the minima of
the reals and calls the smallest of them a mean. Here minimum, mean, median and quartiles of the
minima and the mean over all pairs have names that say so.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from semforensics.core.errors import InputError


@dataclass(frozen=True)
class Nearest:
    """For each row of a distance matrix, its nearest column."""

    distance: Float[np.ndarray, " rows"]
    index: Int[np.ndarray, " rows"]
    """The column where it is; the lowest one wins a tie."""
    mean: Float[np.ndarray, " rows"]


def nearest(distances: Float[np.ndarray, "rows columns"]) -> Nearest:
    """Find the nearest column of every row.

    Raises:
        InputError: There are no rows or no columns.
    """
    if distances.size == 0:
        raise InputError(f"distances of shape {distances.shape}: nothing to compare")
    return Nearest(distances.min(axis=1), distances.argmin(axis=1), distances.mean(axis=1))


def summarise(distances: Float[np.ndarray, "n_real n_fake"], name: str) -> dict[str, float]:
    """Return the numbers of the metrics file, in the unit of the distances, which `name` begins.

    Minima without a further word are those of the reals, each over all fakes, as in the thesis.
    """
    per_real, per_fake = distances.min(axis=1), distances.min(axis=0)
    lower, median, upper = np.quantile(per_real, [0.25, 0.5, 0.75])
    return {
        f"{name}_min": float(distances.min()),
        f"{name}_mean_of_minima": float(per_real.mean()),
        f"{name}_median_of_minima": float(median),
        f"{name}_lower_quartile_of_minima": float(lower),
        f"{name}_upper_quartile_of_minima": float(upper),
        f"{name}_mean_of_minima_per_fake": float(per_fake.mean()),
        f"{name}_median_of_minima_per_fake": float(np.median(per_fake)),
        f"{name}_mean_all_pairs": float(distances.mean()),
    }
