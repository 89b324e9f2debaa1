"""The score that a real panel is expected to have, by what its pixels tell.

Noise, fineness and compression move the scores of reals, whoever made them. What a linear
regression on these explains is subtracted from the score of a panel, so that a smooth micrograph is
not suspected for being smooth, and panels of different instruments can be compared with each other.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from semforensics.core.errors import InputError
from semforensics.detector.traces import Traces

Vector = Float[np.ndarray, " n"]

RIDGE = 3.0
"""Of the standardised predictors; a unit weighs 1."""
_MOST_EQUAL = 5.0
_MIDDLE_QUALITY = 85.0
_FARTHEST = 3.0  # standard deviations: nothing is known beyond


@dataclass(frozen=True)
class Expectation:
    """A ridge regression of scores on `predictors`."""

    centers: Vector
    spreads: Vector
    weights: Float[np.ndarray, " n+1"]
    """Of the standardised predictors, and then the constant."""

    @classmethod
    def fit(cls, traces: Sequence[Traces], scores: Vector, units: Sequence[str]) -> "Expectation":
        """Fit the scores of reals; each unit, a collection or a paper, weighs the same.

        Raises:
            InputError: There are none.
        """
        if not traces:
            raise InputError("no real panels to expect a score from")
        x = np.stack([predictors(one) for one in traces])
        _, numbers = np.unique(np.asarray(units), return_inverse=True)
        votes = 1 / np.bincount(numbers)[numbers]
        centers = np.average(x, axis=0, weights=votes)
        spreads = np.sqrt(np.average((x - centers) ** 2, axis=0, weights=votes)) + 1e-9
        z = _bounded((x - centers) / spreads)
        constant = float(np.average(scores, weights=votes))
        squares = z.T @ (votes[:, None] * z) + RIDGE * np.eye(z.shape[1])
        found = np.linalg.solve(squares, z.T @ (votes * (scores - constant)))
        return cls(centers, spreads, np.array([*found, constant]))

    def of(self, traces: Traces) -> float:
        """Return the score that a real panel with such pixels is expected to have."""
        z = _bounded((predictors(traces) - self.centers) / self.spreads)
        return float(z @ self.weights[:-1] + self.weights[-1])

    def numbers(self) -> list[list[float]]:
        """Return what `restore` needs."""
        return [values.tolist() for values in (self.centers, self.spreads, self.weights)]

    @classmethod
    def restore(cls, numbers: Sequence[Sequence[float]]) -> "Expectation":
        """Rebuild it.

        Raises:
            ValueError: There are not three rows.
        """
        centers, spreads, weights = (np.array(row, dtype=np.float64) for row in numbers)
        return cls(centers, spreads, weights)


def predictors(traces: Traces) -> Vector:
    """Return fineness, quality, noise, peaks and equal neighbours, and two squares."""
    return np.array(
        [
            traces.fineness_db,
            traces.quality,
            np.log1p(traces.noise),
            np.log1p(traces.peak),
            np.log1p(traces.grid_peak),
            min(traces.equal, _MOST_EQUAL),
            traces.fineness_db**2,
            (traces.quality - _MIDDLE_QUALITY) ** 2,
        ]
    )


def _bounded(z: Float[np.ndarray, "*n k"]) -> Float[np.ndarray, "*n k"]:
    bounded: Float[np.ndarray, "*n k"] = np.clip(z, -_FARTHEST, _FARTHEST)
    return bounded


def expect_unseen(
    traces: Sequence[Traces], scores: Vector, units: Sequence[str], is_real: Sequence[bool]
) -> Vector:
    """Return the expected score of each panel, by the reals of all units but its own."""
    reals = [index for index, real in enumerate(is_real) if real]
    found = np.empty(len(traces))
    for unit in sorted(set(units)):
        others = [index for index in reals if units[index] != unit] or reals
        fitted = Expectation.fit(
            [traces[index] for index in others], scores[others], [units[index] for index in others]
        )
        for index, own in enumerate(units):
            if own == unit:
                found[index] = fitted.of(traces[index])
    return found
