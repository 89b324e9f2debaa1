"""From the tiles of a panel to p-values: one score, and a null for its history and its tile count.

Evidence of tiles adds up: the mean of sixteen tells far more than each of them, so a panel must be
compared with panels of as many tiles. And processing moves the scores of reals and fakes alike, so
it must be compared with panels of the same history. Both calibrations are stored as the logits of
tiles, from which the null of any number of tiles is made.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from semforensics.core.errors import InputError
from semforensics.detector.conformal import conformal_p_values
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
        f"x{f:g}, JPEG 85": History(factor=f, qualities=(85,), shifts=((3, 5),))
        for f in (0.5, 0.75, 1.25)
    },
}
"""The histories that are calibrated. Shifts: the grid of a JPEG seldom begins at a panel's edge."""
LEAST_FAKES = 19
"""Panels of a generator that a p-value of one in twenty needs; a rarer one does not count."""
LEAST_POWER = 0.5
"""Share of generated panels that would be suspected, below which no panel is called consistent."""


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

    def score(self, num_tiles: int) -> float:
        """Return the score of so many of its tiles; of all where it has no more.

        The tiles are drawn at random, the same for the same numbers, so panels of few tiles have a
        wide null.
        """
        if num_tiles >= len(self.logits):
            return panel_score(self.logits)
        rng = np.random.default_rng([num_tiles, len(self.logits)])
        return panel_score(self.logits[rng.permutation(len(self.logits))[:num_tiles]])


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

    def p_values(self, scores: Logits, num_tiles: int) -> tuple[Logits, Logits]:
        """Return p_real and p_fake of panels with so many tiles.

        Units have one vote each among the reals, shared by their panels
        (`semforensics.detector.conformal`). p_fake is the largest over the families, so it holds
        for each of them.

        Raises:
            InputError: There are no reals or too few fakes.
        """
        if not self.families or not self.num_units:
            raise InputError(f"calibration on {self.num_units} units and {self.families} families")
        reals, groups = self._reals(num_tiles)
        found = [
            conformal_p_values(scores, reals, self._fakes(family, num_tiles), groups)
            for family in self.families
        ]
        return found[0][0], np.max([p_fake for _, p_fake in found], axis=0)

    def power(self, num_tiles: int, alpha: float) -> float:
        """Return the share of generated panels of as many tiles that would be suspected.

        Each family is left out of the calibration in turn, and judged as a new one; the mean over
        families. With a single family, its own panels are judged.
        """
        shares = []
        for family in self.families:
            scores = self._fakes(family, num_tiles)
            kept = tuple(p for p in self.panels if p.family != family or len(self.families) == 1)
            p_real, p_fake = Cell(kept).p_values(scores, num_tiles)
            shares.append(float(np.mean((p_real <= alpha) & (p_fake > alpha))))
        return float(np.mean(shares)) if shares else 0.0

    def _reals(self, num_tiles: int) -> tuple[Logits, Int[np.ndarray, " n"]]:
        reals = [panel for panel in self.panels if not panel.family]
        units = {name: index for index, name in enumerate(sorted({p.unit for p in reals}))}
        groups = np.array([units[panel.unit] for panel in reals])
        return np.array([panel.score(num_tiles) for panel in reals]), groups

    def _fakes(self, family: str, num_tiles: int) -> Logits:
        return np.array([p.score(num_tiles) for p in self.panels if p.family == family])


def restore_cells(
    logits: Float[Tensor, " tiles"], panels: Sequence[Sequence[Any]]
) -> dict[str, Cell]:
    """Put stored panels into their cells.

    Args:
        logits: Of all tiles, panel by panel.
        panels: Cell, unit, family and number of tiles of each panel.

    Raises:
        InputError: There is a cell that this version does not know.
        RuntimeError: The numbers of tiles do not add up.
    """
    parts = torch.split(logits.double(), [int(tiles) for *_, tiles in panels])
    cells: dict[str, list[Panel]] = {name: [] for name in CELLS}
    for (cell, unit, family, _), part in zip(panels, parts, strict=True):
        if cell not in cells:
            raise InputError(f"unknown cell {cell!r}, expected one of {', '.join(CELLS)}")
        cells[cell].append(Panel(unit, family, part.numpy()))
    return {name: Cell(tuple(found)) for name, found in cells.items()}


@dataclass(frozen=True)
class PanelVerdict:
    """What is said of a panel, and why."""

    verdict: str
    p_real: float
    p_fake: float
    cells: tuple[str, ...]
    """The histories that it may have."""
    power: float
    """Share of generated panels of that history and size that would be suspected."""


def judge_panel(
    logits: Logits, cells: Mapping[str, Cell], likely: Sequence[str], alpha: float
) -> PanelVerdict:
    """Judge a panel by all histories that it may have.

    The largest p-values over the cells hold whichever of them is its own. "Consistent" is said only
    where at least half of generated panels would have been suspected: elsewhere the absence of
    evidence says nothing.

    Args:
        logits: Of its tiles.
        cells: The calibration, by history.
        likely: The histories that it may have, the likeliest first.
        alpha: Chance that a true class is excluded.

    Raises:
        InputError: There are no tiles, or no history is named.
    """
    if not likely:
        raise InputError("no history to judge by")
    score, count = np.array([panel_score(logits)]), len(logits)
    found = [cells[name].p_values(score, count) for name in likely]
    p_real, p_fake = (max(float(p[which][0]) for p in found) for which in (0, 1))
    power = min(cells[name].power(count, alpha) for name in likely)
    if p_real <= alpha < p_fake:
        verdict = "ai-suspected"
    elif p_fake <= alpha < p_real and power >= LEAST_POWER:
        verdict = "consistent"
    else:
        verdict = "inconclusive"
    return PanelVerdict(verdict, p_real, p_fake, tuple(likely), power)
