"""From the tiles of a panel to p-values: one score, and a null for its history and its tile count.

Evidence of tiles adds up: the mean of sixteen tells far more than each of them, so a panel must be
compared with panels of as many tiles. And processing moves the scores of reals and fakes alike, so
it must be compared with panels of the same history. Both calibrations are stored as the logits of
tiles, from which the null of any number of tiles is made.

A resampling shifts scores most, and pixels do not tell it well. So the p-value of a real is the
largest of several: that among all panels of the cell, and among those of each resampling that
enough collections and papers have there. It holds for each of them, whichever the panel went
through, and not only on the mean over them.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from semforensics.core.errors import InputError
from semforensics.detector.conformal import LEAST_GROUPS, conformal_p_values
from semforensics.detector.histories import History
from semforensics.detector.traces import CELLS

Logits = Float[np.ndarray, " n"]

TRIM = 0.2
"""Share of the tiles left out at each end: letters, scale bars and flat parts are often extreme."""
GRID: Mapping[str, History] = {
    "native": History(),
    **{f"JPEG {q}": History(qualities=(q,), shifts=((3, 5),)) for q in (95, 85, 75, 65)},
    **{f"x{f:g}": History(factor=f) for f in (0.5, 0.75, 1.25)},
    **{
        f"x{f:g}, JPEG {q}": History(factor=f, qualities=(q,), shifts=((3, 5),))
        for f, q in ((0.5, 85), (0.75, 85), (1.25, 85), (0.5, 70), (0.75, 70))
    },
}
"""The histories that are calibrated. Shifts: the grid of a JPEG seldom begins at a panel's edge."""
LEAST_FAKES = 19
"""Panels of a generator that a p-value of one in twenty needs; a rarer one does not count."""
LEAST_POWER = 0.5
"""Share of generated panels that would be suspected, below which no panel is called consistent."""

_CURVE_STEPS = 300


def panel_score(logits: Logits) -> float:
    """Return the trimmed mean of the tiles' logits.

    Raises:
        InputError: There are no tiles.
    """
    if len(logits) == 0:
        raise InputError("no tiles to score")
    cut = int(TRIM * len(logits))
    return float(np.sort(logits)[cut : len(logits) - cut].mean())


@dataclass(frozen=True)
class Panel:
    """The tiles of a calibration panel."""

    unit: str
    """What is exchangeable: the collection, or the paper."""
    family: str
    """The generator; empty for a real."""
    logits: Logits
    shrunk: float = 1.0
    """To so much of its size; 1: not at all, or enlarged."""


def scores_of(panels: Sequence[Panel], num_tiles: int) -> Logits:
    """Return the score of so many tiles of each panel; of all where it has no more.

    The tiles are drawn at random, the same for the same numbers, so panels of few tiles have a
    wide null. As `panel_score`, for panels of as many tiles at once.
    """
    sizes = np.array([len(panel.logits) for panel in panels])
    found = np.empty(len(panels))
    for size in np.unique(sizes):
        which = np.flatnonzero(sizes == size)
        logits = np.stack([panels[int(index)].logits for index in which])
        if num_tiles < size:
            rng = np.random.default_rng([num_tiles, size])
            logits = logits[:, rng.permutation(size)[:num_tiles]]
        count = logits.shape[1]
        cut = int(TRIM * count)
        found[which] = np.sort(logits, axis=1)[:, cut : count - cut].mean(axis=1)
    return found


@dataclass(frozen=True)
class Null:
    """The scores of a cell's panels of so many tiles."""

    reals: Logits
    units: Int[np.ndarray, " n"]
    """Of the reals, by number."""
    shrunk: Float[np.ndarray, " n"]
    """Of the reals, as `Panel.shrunk`."""
    fakes: Mapping[str, Float[np.ndarray, " _"]]
    """By family."""

    def p_values(self, scores: Logits) -> tuple[Logits, Logits]:
        """Return p_real and p_fake of panels; as `Cell.p_values`."""
        if not self.fakes or not len(self.reals):
            raise InputError(
                f"calibration on {len(self.reals)} reals and {len(self.fakes)} families"
            )
        return self._p_real(scores), self._p_fake(scores, self.fakes.values())

    def _p_real(self, scores: Logits) -> Logits:
        any_fakes = next(iter(self.fakes.values()))
        found = [
            conformal_p_values(scores, self.reals[of], any_fakes, self.units[of])[0]
            for of in self._comparisons
        ]
        return np.asarray(np.max(found, axis=0))

    def _p_fake(self, scores: Logits, families: Iterable[Float[np.ndarray, " _"]]) -> Logits:
        found = [conformal_p_values(scores, self.reals, of)[1] for of in families]
        return np.asarray(np.max(found, axis=0))

    def power(self, alpha: float) -> float:
        """Return the share of generated panels that would be suspected; as `Cell.power`."""
        if alpha not in self._powers:
            self._powers[alpha] = self._power(alpha) if self.fakes and len(self.reals) else 0.0
        return self._powers[alpha]

    def _power(self, alpha: float) -> float:
        sizes = [len(scores) for scores in self.fakes.values()]
        p_reals = np.split(self._p_real(np.concatenate([*self.fakes.values()])), np.cumsum(sizes))
        shares = []
        for (family, scores), p_real in zip(self.fakes.items(), p_reals, strict=False):
            others = [of for name, of in self.fakes.items() if name != family] or [scores]
            p_fake = self._p_fake(scores, others)
            shares.append(np.mean((p_real <= alpha) & (p_fake > alpha)))
        return float(np.mean(shares))

    def log_odds(self, score: float) -> float:
        """Return the logarithm of the odds that a panel is generated, at a prevalence of one half.

        A logistic curve through the scores of both classes, each unit and each family with one
        vote, by soft targets (Platt, "Probabilistic outputs for support vector machines", 1999).
        """
        offset, slope = self._curve
        return offset + slope * score

    @cached_property
    def _curve(self) -> tuple[float, float]:
        fakes = list(self.fakes.values())
        scores = np.concatenate([self.reals, *fakes])
        is_fake = np.arange(len(scores)) >= len(self.reals)
        votes = 1 / np.bincount(self.units)[self.units], *(np.ones(len(f)) / len(f) for f in fakes)
        weights = np.concatenate(votes)
        for of_class in (is_fake, ~is_fake):
            weights[of_class] /= 2 * weights[of_class].sum()
        n_fake, n_real = int(is_fake.sum()), len(self.reals)
        targets = np.where(is_fake, (n_fake + 1) / (n_fake + 2), 1 / (n_real + 2))
        middle, spread = float(scores.mean()), float(scores.std()) + 1e-6
        x = np.stack([np.ones(len(scores)), (scores - middle) / spread], axis=1)
        # A quarter bounds the curvature of the loss, so every step goes down (Boehning and Lindsay,
        # "Monotonicity of quadratic-approximation algorithms", AISM 40, 1988).
        inverse = np.linalg.inv(x.T @ (weights[:, None] * x) / 4)
        found = np.zeros(2)
        for _ in range(_CURVE_STEPS):
            probability = 0.5 * (1 + np.tanh(x @ found / 2))
            found -= inverse @ (x.T @ (weights * (probability - targets)))
        slope = max(float(found[1]), 0.0) / spread
        return float(found[0]) - slope * middle, slope

    @cached_property
    def _comparisons(self) -> list[Bool[np.ndarray, " n"]]:
        """Sets of reals that a panel is compared with: all, and those of each resampling."""
        masks = [self.shrunk == factor for factor in np.unique(self.shrunk)]
        enough = [of for of in masks if len(np.unique(self.units[of])) >= LEAST_GROUPS]
        return [np.ones(len(self.reals), dtype=bool), *enough]

    @cached_property
    def _powers(self) -> dict[float, float]:
        """Those found, by alpha: every panel that is judged asks for one."""
        return {}


@dataclass(frozen=True)
class Cell:
    """The calibration panels of one cell: those whose pixels tell of the same history."""

    panels: tuple[Panel, ...]

    @cached_property
    def num_units(self) -> int:
        """Collections and papers that have a real here."""
        return len({panel.unit for panel in self.panels if not panel.family})

    @cached_property
    def families(self) -> tuple[str, ...]:
        """Generators that have `LEAST_FAKES` panels here."""
        counts = Counter(panel.family for panel in self.panels if panel.family)
        return tuple(sorted(name for name, count in counts.items() if count >= LEAST_FAKES))

    def null(self, num_tiles: int) -> Null:
        """Return the scores of so many tiles of each panel; of all where it has no more."""
        count = min(num_tiles, self._most_tiles)
        if count not in self._nulls:
            reals = [panel for panel in self.panels if not panel.family]
            names = sorted({panel.unit for panel in reals})
            self._nulls[count] = Null(
                scores_of(reals, count),
                np.array([names.index(panel.unit) for panel in reals], dtype=np.int64),
                np.array([panel.shrunk for panel in reals]),
                {
                    name: scores_of([p for p in self.panels if p.family == name], count)
                    for name in self.families
                },
            )
        return self._nulls[count]

    def p_values(self, scores: Logits, num_tiles: int) -> tuple[Logits, Logits]:
        """Return p_real and p_fake of panels with so many tiles.

        Units have one vote each among the reals, shared by their panels
        (`semforensics.detector.conformal`). p_real is the largest over kinds of resampling, p_fake
        over the families, so they hold for each of them.

        Raises:
            InputError: There are no reals or too few fakes.
        """
        return self.null(num_tiles).p_values(scores)

    def power(self, num_tiles: int, alpha: float) -> float:
        """Return the share of generated panels of as many tiles that would be suspected.

        Each family is left out of the calibration in turn, and judged as a new one; the mean over
        families. With a single family, its own panels are judged. 0 where there is none, or no
        real.
        """
        return self.null(num_tiles).power(alpha)

    @cached_property
    def _most_tiles(self) -> int:
        return max((len(panel.logits) for panel in self.panels), default=1)

    @cached_property
    def _nulls(self) -> dict[int, Null]:
        """Those made, by the number of tiles."""
        return {}


def restore_cells(
    logits: Float[Tensor, " tiles"], panels: Sequence[Sequence[Any]]
) -> dict[str, Cell]:
    """Put stored panels into their cells.

    Args:
        logits: Of all tiles, panel by panel.
        panels: Cell, unit, family, resampling (as `Panel.shrunk`) and number of tiles of each.

    Raises:
        InputError: There is a cell that this version does not know, no panel, one without tiles, or
            a logit that is not finite.
        RuntimeError, TypeError, ValueError: The numbers of tiles do not add up.
    """
    if not bool(torch.isfinite(logits).all()) or not panels:
        raise InputError("calibration with logits that are missing or not finite")
    parts = torch.split(logits.double(), [int(tiles) for *_, tiles in panels])
    cells: dict[str, list[Panel]] = {name: [] for name in CELLS}
    for (cell, unit, family, shrunk, _), part in zip(panels, parts, strict=True):
        if cell not in cells:
            raise InputError(f"unknown cell {cell!r}, expected one of {', '.join(CELLS)}")
        if len(part) == 0:
            raise InputError(f"a calibration panel of {unit} without tiles")
        cells[cell].append(Panel(str(unit), str(family), part.numpy(), float(shrunk)))
    return {name: Cell(tuple(found)) for name, found in cells.items()}
