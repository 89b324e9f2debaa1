"""The thesis's Table 4.3 from the classifiers' metrics: one line per detector and test generator.

Sah, "From Synthesis to Discrimination" (M.Tech. thesis, IIT Gandhinagar, 2024). It is unclear
whether its table shows one classifier scored per generator, or two classifiers, so this table has
both. A mean is that of a detector's lines, as in the thesis; it has no interval, because the lines
share their reals.
"""

from pathlib import Path
from statistics import fmean
from typing import Any

from semforensics.core.errors import InputError
from semforensics.core.files import atomic_file, read_json
from semforensics.core.markdown import markdown_table, with_interval

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
_THESIS = (
    ("thesis, unclear", "StyleGAN2-ADA", "", "95.1", "99.1", "96.4", "93.8"),
    ("thesis, unclear", "FastGAN", "", "96.4", "99.8", "93.8", "99.1"),
    ("thesis, unclear", "mean", "", "95.8", "99.5", "", ""),
)
"""The thesis's own lines; it does not say what its classifier learned from."""


def tabulate(metrics: Path, out: Path) -> int:
    """Write all classifiers' numbers as one Markdown table, in per cent with 95 % intervals.

    `metrics` holds `<detector>.json`, as `evaluate-classifier` writes them. Returns the number of
    lines made of measurements.

    Raises:
        InputError: There are no metrics, they come from different data or protocols, or a file
            lacks a number.
    """
    files = sorted(metrics.glob("*.json"))
    if not files:
        raise InputError(f"{metrics}: no metrics of classifiers")
    detectors = [read_json(path) for path in files]
    for key in ("data", "protocol", "network"):
        found = {path.name: one.get(key) for path, one in zip(files, detectors, strict=True)}
        if len(set(found.values())) != 1:
            listed = ", ".join(f"{name}: {value}" for name, value in found.items())
            raise InputError(f"{metrics}: one table of different {key}: {listed}")
    try:
        lines = [line for one in detectors for line in _lines(one)]
    except KeyError as error:
        raise InputError(f"{metrics}: no number {error} for a classifier") from error

    first = detectors[0]
    tested = _tests(first).popitem()[1]
    text = (
        f"Per cent, 95 % interval. Data: {first['data']}, protocol {first['protocol']}, "
        f"{first['network']}; {tested['n_real']} test reals of {tested['n_groups']} groups. "
        "Accuracies at the threshold of the validation split but for the first column. Last lines: "
        "the thesis's Table 4.3, threshold not stated, about 450 test images in all.\n\n"
    )
    names = ["learned from", "tested on", *_COLUMNS.values()]
    with atomic_file(out) as temporary:
        temporary.write_text(text + markdown_table(names, [*lines, *_THESIS]))
    return len(lines)


def _tests(metrics: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Return what a classifier was tested on: generator and numbers."""
    return {name: value for name, value in metrics.items() if isinstance(value, dict)}


def _lines(metrics: dict[str, Any]) -> list[list[str]]:
    """Return the cells of a classifier's lines; of several generators also the mean."""
    tests = _tests(metrics)
    learned = _NAMES.get(metrics["detector"], metrics["detector"])
    lines = [
        [
            learned,
            _NAMES.get(name, name),
            *(with_interval(numbers, column, percent=True) for column in _COLUMNS),
        ]
        for name, numbers in tests.items()
    ]
    if len(tests) > 1:
        means = [fmean(numbers[column] for numbers in tests.values()) for column in _COLUMNS]
        lines.append([learned, "mean", *(f"{100 * mean:.1f}" for mean in means)])
    return lines
