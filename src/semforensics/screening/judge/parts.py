"""Parts that disagree: a generated part of a real micrograph, which the mean over tiles hides.

Tiles that overlap by three quarters ("windows") scan the panel. A window's score is its logit, less
what the rest of the panel lies above the usual level of reals: processing moves all windows of a
panel alike, a generated part moves its own. The highest score counts, as in a scan statistic
(Kulldorff, "A spatial scan statistic", Communications in Statistics 26, 1997).

Two comparisons read it. How often a real panel of this size has so high a score somewhere: the
chance that a window exceeds it, by an exponential tail fitted to the highest scores of the
calibration reals (peaks over a threshold; Coles, "An Introduction to Statistical Modeling of
Extreme Values", 2001, chapter 4), times the number of tiles. And the share of composites, real
panels with a generated part pasted in, that have none higher.

The rule knows nothing of the network: it takes logits of windows and their places. A part smaller
than a tile is seen only by chance.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from scipy.ndimage import find_objects, label

from semforensics.core.errors import InputError
from semforensics.screening.records import Box

VERSION = 1
"""Of what a model file keeps of the calibration."""
WINDOWS = 4
"""Windows that begin in a tile's side: they are a quarter of a tile apart."""
LEAST_WINDOWS = 25
"""Of a panel that is searched: one of twice a tile's side has so many."""
IN_PART = 0.1
"""Share of alpha for the suspicion of a part; the rest is for that of a whole panel."""

_TAIL = 0.1  # share of the highest scores to which the tail is fitted
_DIGITS = 5
_NORMAL = 0.7979, 0.6028  # mean and deviation of the lower half of normal numbers, from the middle

Windows = Float[np.ndarray, "rows columns"]
"""Logits of windows, a quarter of a tile apart; NaN where none is judged."""
Cells = Float[np.ndarray, "n rows columns"]
"""Logits of the cells of tiles, whose mean over a tile is its logit."""


def typical_level(windows: Windows) -> float:
    """Return the level about which the windows of a panel scatter, generated parts left out.

    From the lower half alone, so up to half of the windows may be higher than they should.
    """
    known = np.sort(windows[np.isfinite(windows)])
    low = known[: max(1, len(known) // 2)]
    return float(low.mean() + _NORMAL[0] / _NORMAL[1] * low.std())


def highest_per_tile(scores: Windows) -> Float[np.ndarray, " n"]:
    """Return the highest score of the windows that begin in each tile's area, if there are any."""
    rows, columns = (-(-side // WINDOWS) for side in scores.shape)
    padded = np.full((rows * WINDOWS, columns * WINDOWS), -np.inf)
    padded[: scores.shape[0], : scores.shape[1]] = np.nan_to_num(scores, nan=-np.inf)
    highest = padded.reshape(rows, WINDOWS, columns, WINDOWS).max(axis=(1, 3)).ravel()
    return np.asarray(highest[np.isfinite(highest)])


@dataclass(frozen=True)
class Part:
    """The part of a panel that disagrees most with the rest."""

    box: Box
    """In pixels of the panel."""
    windows: Bool[np.ndarray, "rows columns"]
    """Those that belong to it."""
    logit: float
    """The highest of its windows."""
    p_real: float
    """Chance that a real panel of this size has so high a score anywhere: the largest over kinds of
    processing."""
    p_native: float
    """The same for reals as they are."""
    p_composite: float
    """Share of composites that have no higher one."""
    share_inside: float = math.nan
    """Of its windows, inside the training domain."""


@dataclass(frozen=True)
class PartRule:
    """What was measured on calibration panels."""

    usual: float
    """Typical level of calibration reals as they are: their median."""
    tails: Mapping[str, tuple[float, float]]
    """By kind of processing: the score that a tenth of the tiles exceed, and their mean excess."""
    composites: tuple[float, ...]
    """The highest scores of composites, in rising order."""

    @classmethod
    def measure(
        cls, reals: Mapping[str, Sequence[Windows]], composites: Sequence[Windows]
    ) -> "PartRule":
        """Calibrate.

        Args:
            reals: Windows of real panels by kind of processing, the first kind as they are.
            composites: Windows of such panels with generated parts pasted in.

        Raises:
            InputError: There are none of either.
        """
        if not composites or not reals or not all(reals.values()):
            raise InputError("no panels to calibrate the search for generated parts on")
        usual = float(np.median([typical_level(w) for w in next(iter(reals.values()))]))
        rule = cls(usual, {}, ())
        tails = {}
        for kind, panels in reals.items():
            highest = np.concatenate([highest_per_tile(rule.scores(w)) for w in panels])
            level = float(np.quantile(highest, 1 - _TAIL))
            tails[kind] = level, float((highest[highest >= level] - level).mean())
        return cls(usual, tails, tuple(sorted(float(rule.scores(w).max()) for w in composites)))

    def scores(self, windows: Windows) -> Windows:
        """Return logits less what the panel's typical level lies above the usual one."""
        return windows - max(0.0, typical_level(windows) - self.usual)

    def find(self, windows: Windows, tile_px: int) -> Part | None:
        """Find the part that disagrees most, whether much or little.

        Args:
            windows: Of a panel.
            tile_px: Side of a tile.

        Returns:
            None where fewer than `LEAST_WINDOWS` are judged.
        """
        if np.isfinite(windows).sum() < LEAST_WINDOWS:
            return None
        scores = self.scores(windows)
        highest = float(np.nanmax(scores))
        row, column = np.unravel_index(np.nanargmax(scores), scores.shape)
        n_tiles = len(highest_per_tile(scores))
        chances = [
            min(1.0, n_tiles * _TAIL * math.exp(min(0.0, level - highest) / max(excess, 1e-6)))
            for level, excess in self.tails.values()
        ]
        # A window that half covers a part is half way up to it: then its middle is on the border.
        # Where windows are of two kinds, the typical level may be above all of them.
        middle = min(highest, (highest + typical_level(scores)) / 2)
        groups, _ = label(np.nan_to_num(scores, nan=-np.inf) >= middle, np.ones((3, 3)))
        number = int(groups[row, column])
        step, half = tile_px // WINDOWS, tile_px // 2
        rows, columns = find_objects(groups)[number - 1]
        return Part(
            box=Box(
                rows.start * step + half - step // 2,
                columns.start * step + half - step // 2,
                (rows.stop - 1) * step + half + step // 2,
                (columns.stop - 1) * step + half + step // 2,
            ),
            windows=groups == number,
            logit=float(windows[row, column]),
            p_real=max(chances),
            p_native=chances[0],
            p_composite=float(np.searchsorted(self.composites, highest, side="right") + 1)
            / (len(self.composites) + 1),
        )

    def numbers(self) -> dict[str, Any]:
        """Return what a model file keeps, rounded: the last digits of a sum depend on memory."""
        return {
            "version": VERSION,
            "usual": round(self.usual, _DIGITS),
            "tails": {k: [round(v, _DIGITS) for v in tail] for k, tail in self.tails.items()},
            "composites": [round(value, _DIGITS) for value in self.composites],
        }

    @classmethod
    def restore(cls, numbers: Mapping[str, Any]) -> "PartRule":
        """Read what `numbers` returned.

        Raises:
            InputError: It is of another version, or numbers are not finite.
            KeyError, TypeError, ValueError: It is something else.
        """
        if numbers["version"] != VERSION:
            raise InputError(f"calibration of parts of version {numbers['version']}")
        tails = {str(k): (float(low), float(by)) for k, (low, by) in numbers["tails"].items()}
        rule = cls(float(numbers["usual"]), tails, tuple(map(float, numbers["composites"])))
        values = [rule.usual, *(value for tail in tails.values() for value in tail)]
        if not tails or not rule.composites or not np.isfinite([*values, *rule.composites]).all():
            raise InputError("calibration of parts with numbers that are missing or not finite")
        return rule
