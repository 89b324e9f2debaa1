"""The thesis's Table 4.3 from the classifiers' metrics: one line per row and test generator.

Sah, "From Synthesis to Discrimination" (M.Tech. thesis, IIT Gandhinagar, 2024). It is unclear
whether its table is one classifier scored per generator, or two; so both stand here. A mean is the
mean of a row's lines, as in the thesis, and has no interval: the lines share their reals.
"""

import json
from pathlib import Path
from statistics import fmean
from typing import Any

from semforensics.core.errors import InputError
from semforensics.core.files import atomic_file

_COLUMNS = {
    "accuracy_at_half": "accuracy at 0.5",
    "accuracy": "accuracy",
    "average_precision": "average precision",
    "accuracy_real": "accuracy real",
    "accuracy_fake": "accuracy fake",
}
_NAMES = {
    "fastgan": "FastGAN",
    "stylegan2_ada": "StyleGAN2-ADA",
    "pseudo": "pseudo-fakes",
    "both": "both",
    "both_pseudo": "both and pseudo-fakes",
}
_PUBLISHED = (
    ("StyleGAN2-ADA", "95.1", "99.1", "96.4", "93.8"),
    ("FastGAN", "96.4", "99.8", "93.8", "99.1"),
    ("mean", "95.8", "99.5", "", ""),
)
"""The thesis's own: tested on, accuracy, average precision, accuracy real, accuracy fake."""


def write_table(metrics: Path, table: Path) -> int:
    """Write all classifiers' numbers as one Markdown table, in per cent with 95 % intervals.

    Args:
        metrics: Folder of `<row>.json`, as `evaluate-classifier` writes them.
        table: File to write.

    Returns:
        The number of lines made of measurements.

    Raises:
        InputError: There are no metrics, they come from different data or protocols, or a file
            lacks a number.
    """
    files = sorted(metrics.glob("*.json"))
    if not files:
        raise InputError(f"{metrics}: no metrics of classifiers")
    rows = [json.loads(path.read_text()) for path in files]
    for key in ("data", "protocol", "network"):
        if len({row.get(key) for row in rows}) != 1:
            found = ", ".join(f"{p.name}: {r.get(key)}" for p, r in zip(files, rows, strict=True))
            raise InputError(f"{metrics}: one table of different {key}: {found}")
    try:
        lines = [line for row in rows for line in _lines(row)]
    except KeyError as error:
        raise InputError(f"{metrics}: no number {error} for a classifier") from error

    first = rows[0]
    tested = _tests(first).popitem()[1]
    names = ["learned from", "tested on", *_COLUMNS.values()]
    thesis = [
        ["thesis, unclear", name, "", accuracy, *others] for name, accuracy, *others in _PUBLISHED
    ]
    text = (
        f"Per cent, 95 % interval. Data: {first['data']}, protocol {first['protocol']}, "
        f"{first['network']}; {tested['n_real']} test reals of {tested['n_groups']} groups. "
        "Accuracies at the threshold of the validation side but for the first column. Last lines: "
        "the thesis's Table 4.3, threshold not stated, about 450 test images in all.\n\n"
    )
    text += "\n".join(_line(cells) for cells in (names, ["---"] * len(names), *lines, *thesis))
    with atomic_file(table) as temporary:
        temporary.write_text(text + "\n")
    return len(lines)


def _tests(row: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Return what a classifier was tested on: generator and numbers."""
    return {name: value for name, value in row.items() if isinstance(value, dict)}


def _lines(row: dict[str, Any]) -> list[list[str]]:
    """Return the cells of a classifier's lines; of several generators also the mean."""
    tests = _tests(row)
    learned = _NAMES.get(row["row"], row["row"])
    lines = [
        [learned, _NAMES.get(name, name), *(_cell(numbers, column) for column in _COLUMNS)]
        for name, numbers in tests.items()
    ]
    if len(tests) > 1:
        means = [fmean(numbers[column] for numbers in tests.values()) for column in _COLUMNS]
        lines.append([learned, "mean", *(f"{100 * mean:.1f}" for mean in means)])
    return lines


def _cell(numbers: dict[str, float], column: str) -> str:
    value, low, high = (100 * numbers[f"{column}{end}"] for end in ("", "_low", "_high"))
    return f"{value:.1f} ({low:.1f}-{high:.1f})"


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
