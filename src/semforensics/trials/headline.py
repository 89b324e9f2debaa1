"""The few numbers that say whether a change was for the better: what `dvc metrics` shows.

All others, with intervals and counts, stay in the files that these are taken from. The numbers of
the trials have another file, because an experiment need not run them to be compared.
"""

from collections.abc import Callable
from pathlib import Path

from semforensics.core.errors import InputError
from semforensics.core.files import read_json, write_json

_DETECTOR = "both"  # the classifier that `screen` uses

Numbers = dict[str, float | int | str | None]


def headline(metrics: Path, out: Path) -> int:
    """Gather the classifier's numbers and the generators' in a JSON file; return how many.

    Raises:
        FileNotFoundError: A file of the folder `metrics` is missing.
        InputError: It is not JSON, or does not hold what its stage writes.
    """
    return _write(out, metrics, _headline)


def headline_trials(metrics: Path, out: Path) -> int:
    """Gather the numbers of the detector's trials, as `headline` does."""
    return _write(out, metrics, _trials)


def _headline(metrics: Path) -> Numbers:
    detector = read_json(metrics / f"classifier/{_DETECTOR}.json")
    generators = {name: value for name, value in detector.items() if isinstance(value, dict)}
    one = next(iter(generators.values()))
    numbers: Numbers = {
        "data": detector["data"],
        "protocol": detector["protocol"],
        "n_groups": one["n_groups"],
    }
    for number in ("auroc", "accuracy"):
        numbers |= {f"{number}_{name}": tested[number] for name, tested in generators.items()}
    numbers["decided_real"] = one["decided_real"]
    numbers["decided_fake"] = min(tested["decided_fake"] for tested in generators.values())
    for path in sorted((metrics / "distances").glob("*.json")):
        distances = read_json(path)
        kid = next(key for key in distances if key.startswith("kid_"))
        numbers[f"lpips_min_{path.stem}"] = distances["lpips_min"]
        numbers[f"kid_{path.stem}"] = distances[kid]
    return numbers


def _trials(metrics: Path) -> Numbers:
    detectors, false_alarms, robustness, audit = (
        read_json(metrics / f"{name}.json")
        for name in ("detectors", "false_alarms", "robustness", "audit")
    )
    left_out = detectors["leave_one_out"]
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
        "n_fragile": robustness["n_fragile"],
        "red_gates": sum(gate["passed"] is not True for gate in audit["gates"].values()),
    }


def _write(out: Path, metrics: Path, numbers_of: Callable[[Path], Numbers]) -> int:
    try:
        numbers = numbers_of(metrics)
    except (KeyError, StopIteration, TypeError) as error:
        raise InputError(f"{metrics}: metrics of another version: no {error}") from error
    write_json(out, numbers)
    return len(numbers)
