"""How far a result is from that of another training: measured once, stored, and added to intervals.

A bootstrap over test images knows nothing of training again. So the demo's networks are trained
again from other seeds (`tools/training_spread.py`), and a CSV keeps what each training measured.
Around the number of one training lies the interval of another training's: the difference of two
normal values has the standard deviation s sqrt(2), so half the width is t s sqrt(2), for the
standard deviation s of n trainings and the 97.5 % point t of Student's distribution with n - 1
degrees of freedom.
"""

import csv
import io
import math
from collections.abc import Mapping
from functools import cache
from typing import Any

from scipy.stats import t

from semforensics.core.errors import InputError

SPREAD_FILE = "data/training_spread.csv"
"""Below the repository."""
COLUMNS = ("file", "key", "retrained", "seed", "value")
"""A metrics file, a number's key with dots, what was trained again, from which seed, the number."""
RETRAINED = ("all", "classifier")
"""The GANs too, or the classifier alone; of a number that has both, the first counts."""
MIN_TRAININGS = 3
CONFIDENCE = 0.95
Spread = dict[tuple[str, str], float]
"""Half the width of the interval of another training, by file and key."""


def read_spread(text: str) -> Spread:
    """Return the half widths from the text of a CSV; a number of fewer than 3 trainings has none.

    Raises:
        InputError: It is no such table, or a value is no number.
    """
    reader = csv.DictReader(io.StringIO(text))
    if reader.fieldnames is None or tuple(reader.fieldnames) != COLUMNS:
        raise InputError(
            f"{SPREAD_FILE}: columns {reader.fieldnames}, expected {', '.join(COLUMNS)}"
        )
    found: dict[tuple[str, str], dict[str, list[float]]] = {}
    for row in reader:
        try:
            value = float(row["value"])
        except (TypeError, ValueError) as error:
            raise InputError(f"{SPREAD_FILE}: line {reader.line_num}: {error}") from error
        if row["retrained"] not in RETRAINED or not math.isfinite(value):
            raise InputError(
                f"{SPREAD_FILE}: line {reader.line_num}: {row}, expected a number of "
                f"{' or '.join(RETRAINED)}"
            )
        of_number = found.setdefault((row["file"], row["key"]), {})
        of_number.setdefault(row["retrained"], []).append(value)
    spread: Spread = {}
    for number, trainings in found.items():
        enough = [
            trainings[kind] for kind in RETRAINED if len(trainings.get(kind, ())) >= MIN_TRAININGS
        ]
        if enough:
            spread[number] = half_width(enough[0])
    return spread


def half_width(values: list[float]) -> float:
    """Return half the width of the interval around a value that holds another, from two or more."""
    n = len(values)
    mean = math.fsum(values) / n
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    return _point_of_t(n - 1) * deviation * math.sqrt(2)


@cache
def _point_of_t(degrees: int) -> float:
    return float(t.ppf(0.5 + CONFIDENCE / 2, degrees))


def with_spread(metrics: Mapping[str, Any], file: str, spread: Spread) -> dict[str, Any]:
    """Add `<key>_over_seeds_low` and `..._high` to numbers of a metrics file that have a spread.

    Ends of shares and of AUROCs stay within 0 … 1, those of other numbers are not cut.
    """

    def added(level: Mapping[str, Any], prefix: str) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key, value in level.items():
            if isinstance(value, Mapping):
                result[key] = added(value, f"{prefix}{key}.")
                continue
            result[key] = value
            half = spread.get((file, f"{prefix}{key}"))
            if half is None or isinstance(value, bool) or not isinstance(value, int | float):
                continue
            low, high = value - half, value + half
            ends = (level.get(f"{key}_low"), level.get(f"{key}_high"))
            if all(isinstance(end, int | float) and 0 <= end <= 1 for end in (value, *ends)):
                low, high = max(low, 0.0), min(high, 1.0)
            result[f"{key}_over_seeds_low"], result[f"{key}_over_seeds_high"] = low, high
        return result

    return added(metrics, "")
