"""The few numbers that say whether a change was for the better: what `dvc metrics` shows.

All others, with intervals and counts, stay in the files that these are taken from. The numbers of
the trials have another file, because an experiment need not run them to be compared.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from semforensics.core.errors import InputError
from semforensics.core.files import read_json, write_json

_DETECTOR = "classifier/both"  # the classifier that `screen` uses

Read = Callable[[str], Mapping[str, Any]]
"""Returns the content of a metrics file, by its path below `metrics` without the suffix."""


@dataclass(frozen=True)
class Source:
    """A number of the headline, and where it is taken from."""

    name: str
    """In the headline's file."""
    words: str
    """What readers see."""
    file: str
    """Below `metrics`, without the suffix."""
    key: str | None
    """There, with dots; the interval is beside it, `<key>_low` and `<key>_high`. None: a count."""
    value: float | int | None


def headline(metrics: Path, out: Path) -> int:
    """Gather the classifier's numbers and the generators' in a JSON file; return how many.

    Raises:
        FileNotFoundError: A file of the folder `metrics` is missing.
        InputError: It is not JSON, or does not hold what its stage writes.
    """

    def content(read: Read) -> dict[str, Any]:
        detector = read(_DETECTOR)
        one = next(iter(_generators(detector).values()))
        facts = {"data": detector["data"], "protocol": detector["protocol"]}
        return facts | {"n_groups": one["n_groups"]} | _values(headline_sources(read))

    return _write(out, metrics, content)


def headline_trials(metrics: Path, out: Path) -> int:
    """Gather the numbers of the detector's trials, as `headline` does."""

    def content(read: Read) -> dict[str, Any]:
        numbers = _values(trials_sources(read))
        return {"data": read("detectors")["data"]} | numbers

    return _write(out, metrics, content)


def headline_sources(read: Read) -> list[Source]:
    """Find the numbers of the classifier and of the generators.

    Of a number per generator, the lowest: the classifier's worst, and the distance of the fake that
    is nearest to a real.

    Raises:
        KeyError, TypeError, ValueError: The files do not hold what their stages write.
    """
    generators = _generators(read(_DETECTOR))

    def of_classifier(name: str, words: str) -> Source:
        lowest = min(generators, key=lambda generator: generators[generator][name])
        value = generators[lowest][name]
        return Source(name, words, _DETECTOR, f"{lowest}.{name}", value)

    def of_reals(name: str, words: str) -> Source:
        one = next(iter(generators))  # all share the reals
        return Source(name, words, _DETECTOR, f"{one}.{name}", generators[one][name])

    def of_fakes(name: str, words: str) -> Source:
        values = {gan: read(f"distances/{gan}")[name] for gan in generators}
        nearest = min(values, key=lambda gan: values[gan])
        return Source(name, words, f"distances/{nearest}", name, values[nearest])

    return [
        of_classifier("accuracy", "accuracy (lowest of the GANs)"),
        of_classifier("average_precision", "average precision (lowest of the GANs)"),
        of_reals("decided_real", "reals decided"),
        of_classifier("decided_fake", "fakes decided (lowest of the GANs)"),
        of_reals("false_alarms_of_decided", "false alarms among decided reals"),
        of_fakes("mse_min", "smallest MSE of a fake to a real"),
        of_fakes("lpips_min", "smallest LPIPS of a fake to a real"),
    ]


def trials_sources(read: Read) -> list[Source]:
    """Find the numbers of the trials, as `headline_sources` does."""
    detectors, alarms, gates = read("detectors"), read("false_alarms"), read("audit")["gates"]

    def left_out(name: str, words: str, method: str) -> Source:
        value = detectors["leave_one_out"][method]["auroc"]
        return Source(name, words, "detectors", f"leave_one_out.{method}.auroc", value)

    worst = max(
        (kind for kind in ("processed_calibrated", "processed_others") if alarms[kind]["n_kinds"]),
        key=lambda kind: alarms[kind]["false_alarms_worst"],
    )
    return [
        left_out("auroc_leave_one_out", "AUROC on a GAN left out of the training", "npr"),
        left_out(
            "auroc_leave_one_out_best_baseline",
            "AUROC of the best baseline on it",
            detectors["best_baseline"],
        ),
        Source(
            "false_alarms_processed_worst",
            "false alarms after the worst benign processing",
            "false_alarms",
            f"{worst}.false_alarms_worst",
            alarms[worst]["false_alarms_worst"],
        ),
        Source(
            "red_gates",
            "red gates of the shortcut audit",
            "audit",
            None,
            sum(gate["passed"] is not True for gate in gates.values()),
        ),
    ]


def _generators(detector: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    return {name: value for name, value in detector.items() if isinstance(value, dict)}


def _values(sources: list[Source]) -> dict[str, float | int | None]:
    return {source.name: source.value for source in sources}


def _write(out: Path, metrics: Path, content_of: Callable[[Read], dict[str, Any]]) -> int:
    try:
        content = content_of(lambda name: read_json(metrics / f"{name}.json"))
    except InputError:
        raise
    except (KeyError, StopIteration, TypeError, ValueError) as error:
        raise InputError(f"{metrics}: metrics of another version: no {error}") from error
    write_json(out, content)
    return len(content)
