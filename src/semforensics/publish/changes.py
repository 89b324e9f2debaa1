"""A result in two revisions: its intervals, which way is better, and whether chance explains it.

What a metrics file holds beside results is recognised by its name and left out: ends of intervals,
thresholds, temperatures, hashes, counts, parameters.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_HIGHER_IS_BETTER = re.compile(
    r"accuracy|average_precision|auroc|true_positive_rate|decided|passed|coverage|density"
    r"|^precision_|^recall_|compactness_supported"
)
_LOWER_IS_BETTER = re.compile(
    r"false_alarms|misses|false_positive_rate|flagged|equal_error_rate|^ece|brier|log_loss|^kid_"
    r"|^spectrum_distance|^particle_size_distance|^n_fragile|^n_biased|^red_gates|_change$"
)
_OF_BASELINES = re.compile(r"^(leave_one_out|false_alarms)\.(?!npr\.)|best_baseline$")
_NO_RESULT = re.compile(
    r"_(low|high|sd|floor|over_seeds|resamples)$|^(low|high|bound|n|alpha|phases|compared)$"
    r"|^n_(?!fragile$|biased$)|^num_|^prevalence$|^max_false_positive_rate$|^tile_px$"
    r"|threshold|temperature"
)
_SPREADS = ("", "_over_seeds")  # of one training, and over several


@dataclass(frozen=True)
class Measured:
    """A number with the ends of its interval, where it has one."""

    value: float
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        if self.low is None or self.high is None or self.low == self.high:
            return _short(self.value)
        return f"{_short(self.value)} ({_short(self.low)} to {_short(self.high)})"

    def holds(self, other: float) -> bool | None:
        """Say whether another number lies in the interval; None without an interval."""
        return None if self.low is None or self.high is None else self.low <= other <= self.high

    def joined(self, other: "Measured | None") -> "Measured":
        """Return the number with an interval that contains another one of the same number."""
        if other is None or other.low is None or other.high is None or other.value != self.value:
            return self
        lows, highs = (
            [end for end in ends if end is not None]
            for ends in ((self.low, other.low), (self.high, other.high))
        )
        return Measured(self.value, min(lows), max(highs))


@dataclass(frozen=True)
class Change:
    """One result in two revisions; None: it is not there."""

    key: str
    old: Measured | None
    new: Measured | None

    @property
    def name(self) -> str:
        """The last part of the key."""
        return self.key.rpartition(".")[2]

    @property
    def step(self) -> float:
        """New minus old; 0 where one is missing."""
        if self.old is None or self.new is None:
            return 0.0
        return float(self.new.value) - float(self.old.value)

    @property
    def is_same(self) -> bool:
        """The number is equal; its interval need not be."""
        return (self.old and self.old.value) == (self.new and self.new.value)

    @property
    def gain(self) -> float:
        """How much better the new value is, below 0 if worse, as far as the name tells."""
        if _OF_BASELINES.search(self.key):
            return 0.0
        if _LOWER_IS_BETTER.search(self.name):  # first: false alarms *of decided*
            return -self.step
        return self.step if _HIGHER_IS_BETTER.search(self.name) else 0.0

    @property
    def is_outside(self) -> bool | None:
        """Each value lies outside of the other's interval; None where there is no interval."""
        if self.old is None or self.new is None:
            return None
        held = {self.old.holds(self.new.value), self.new.holds(self.old.value)} - {None}
        return True not in held if held else None

    @property
    def is_worse(self) -> bool:
        """It is worse, and chance does not explain it."""
        return self.gain < 0 and self.is_outside is True

    @property
    def is_better(self) -> bool:
        """It is better, and chance does not explain it."""
        return self.gain > 0 and self.is_outside is True

    @property
    def verdict(self) -> str:
        """What a reviewer reads of it."""
        if self.is_same:
            return "same"
        if self.old is None or self.new is None:
            return "new" if self.old is None else "gone"
        if self.is_outside is False:
            return "within"
        word = "worse" if self.gain < 0 else "better" if self.gain > 0 else "changed"
        if self.is_outside is None:
            return f"{word}, no interval"
        return "⚠ **worse**" if word == "worse" else word

    def as_row(self) -> dict[str, float | str]:
        """Return it as `changes_figure` draws it."""
        row: dict[str, float | str] = {
            "verdict": "worse" if self.is_worse else "better" if self.is_better else ""
        }
        for end, one in (("old", self.old), ("new", self.new)):
            values = (math.nan,) * 3 if one is None else (one.value, one.low, one.high)
            for suffix, value in zip(("", "_low", "_high"), values, strict=True):
                row[f"{end}{suffix}"] = math.nan if value is None else value
        return row


def results_in(metrics: Mapping[str, Any]) -> dict[str, Measured]:
    """Return the results of a metrics file by their keys, with dots."""
    values = flatten(metrics)
    found = {
        key: measured_in(values, key)
        for key in values
        if not _NO_RESULT.search(key.rsplit(".", 1)[-1])
    }
    return {key: measured for key, measured in found.items() if measured is not None}


def measured_in(values: Mapping[str, Any], key: str) -> Measured | None:
    """Find a number of a flat metrics file with its interval; None where there is no such number.

    Ends are in `<key>_low` and `<key>_high`, those of a gate or difference in `low` and `high`.
    Where `<key>_over_seeds_low` and `..._high` give the spread over several trainings, the interval
    contains it. A boolean is exact.
    """
    value = values.get(key)
    if isinstance(value, bool):
        return exact(value)
    if not isinstance(value, int | float):
        return None
    measured = Measured(value)
    prefixes = [f"{key}{spread}_" for spread in _SPREADS]
    parent, _, name = key.rpartition(".")
    if name in ("value", "difference"):
        prefixes.append(f"{parent}." if parent else "")
    for prefix in prefixes:
        low, high = values.get(f"{prefix}low"), values.get(f"{prefix}high")
        if isinstance(low, int | float) and isinstance(high, int | float):
            measured = measured.joined(Measured(value, low, high))
    return measured


def exact(value: float | None) -> Measured | None:
    """Return a number that no chance changes."""
    return None if value is None else Measured(value, value, value)


def flatten(metrics: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested objects as one, keys joined by dots; lists are left out."""
    flat: dict[str, Any] = {}
    for key, value in metrics.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        elif not isinstance(value, list):
            flat[f"{prefix}{key}"] = value
    return flat


def _short(value: float) -> str:
    if isinstance(value, bool):
        return str(value)
    if abs(value) >= 1000:
        return f"{value:.0f}"
    short = f"{value:.3g}"
    return short if short != "1" or value == 1 else f"{value:.4f}"  # 0.9999 is not 1
