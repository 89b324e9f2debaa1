"""The few numbers that say whether a change was for the better: what `dvc metrics` shows.

All others, with intervals and counts, stay in the files that these are taken from. The numbers of
the trials stand apart, since an experiment need not run them to be compared.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from semforensics.core.errors import InputError
from semforensics.core.files import atomic_file

_ROW = "both"  # the classifier that `screen` uses

Numbers = dict[str, float | int | str | None]


def write_headline(metrics: Path, headline: Path) -> int:
    """Gather the classifier's numbers and the generators'.

    Args:
        metrics: Folder of `classifier` and `distances`.
        headline: JSON file to write.

    Returns:
        The number of entries.

    Raises:
        FileNotFoundError: A file is missing.
        InputError: It is not JSON, or does not hold what its stage writes.
    """
    return _write(headline, metrics, _headline)


def write_trials(metrics: Path, trials: Path) -> int:
    """Gather the numbers of the detector's trials, as `write_headline` does.

    Args:
        metrics: Folder of `detectors.json`, `robustness.json`, `false_alarms.json`, `audit.json`.
        trials: JSON file to write.
    """
    return _write(trials, metrics, _trials)


def _headline(metrics: Path) -> Numbers:
    row = _read(metrics / f"classifier/{_ROW}.json")
    generators = {name: value for name, value in row.items() if isinstance(value, dict)}
    one = next(iter(generators.values()))
    numbers: Numbers = {
        "data": row["data"],
        "protocol": row["protocol"],
        "n_groups": one["n_groups"],
    }
    for number in ("auroc", "accuracy"):
        numbers |= {f"{number}_{name}": tested[number] for name, tested in generators.items()}
    numbers["decided_real"] = one["decided_real"]
    numbers["decided_fake"] = min(tested["decided_fake"] for tested in generators.values())
    for path in sorted((metrics / "distances").glob("*.json")):
        distances = _read(path)
        kid = next(key for key in distances if key.startswith("kid_"))
        numbers[f"lpips_min_{path.stem}"] = distances["lpips_min"]
        numbers[f"kid_{path.stem}"] = distances[kid]
    return numbers


def _trials(metrics: Path) -> Numbers:
    detectors, false_alarms = (
        _read(metrics / "detectors.json"),
        _read(metrics / "false_alarms.json"),
    )
    left_out = detectors["leave_one_out"]
    gates = _read(metrics / "audit.json")["gates"]
    return {
        "data": detectors["data"],
        "auroc_leave_one_out": left_out["npr"]["auroc"],
        "auroc_leave_one_out_best_baseline": left_out[detectors["best_baseline"]]["auroc"],
        "false_alarms": false_alarms["original"]["false_alarms"],
        "false_alarms_processed_worst": max(
            false_alarms[kinds]["false_alarms_worst"]
            for kinds in ("processed_calibrated", "processed_others")
            if false_alarms[kinds]["n_kinds"]
        ),
        "n_fragile": _read(metrics / "robustness.json")["n_fragile"],
        "red_gates": sum(gate["passed"] is not True for gate in gates.values()),
    }


def _write(path: Path, metrics: Path, gather: Callable[[Path], Numbers]) -> int:
    try:
        numbers = gather(metrics)
    except (KeyError, StopIteration, TypeError) as error:
        raise InputError(f"{metrics}: metrics of another version: no {error}") from error
    with atomic_file(path) as temporary:
        temporary.write_text(json.dumps(numbers, indent=2) + "\n")
    return len(numbers)


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; its stage writes it")
    try:
        found = json.loads(path.read_text())
    except ValueError as error:
        raise InputError(f"{path}: not JSON: {error}") from error
    if not isinstance(found, dict):
        raise InputError(f"{path}: not metrics")
    return found
