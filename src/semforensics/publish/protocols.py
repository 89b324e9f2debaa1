"""One table out of two experiments: the thesis's protocol beside the clean one.

The numbers are read from the metrics that Git keeps of each experiment. Intervals of a difference
are put together from those of its two terms (Zou and Donner, "Construction of confidence limits
about effect measures", Statistics in Medicine 27, 2008, equation 5). They take the two experiments
as independent. Both cut up the same micrographs, so a true interval is rather narrower.
"""

import json
import math
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, get_args

from semforensics.core.errors import InputError
from semforensics.core.files import atomic_file
from semforensics.core.markdown import markdown_table
from semforensics.params import Protocol

CLASSIFIERS = "metrics/classifier"
DETECTORS = "metrics/detectors.json"

_NUMBERS = {
    "accuracy_at_half": "accuracy at 0.5",
    "accuracy": "accuracy",
    "accuracy_real": "accuracy real",
    "accuracy_fake": "accuracy fake",
    "average_precision": "average precision",
    "auroc": "AUROC",
}

Estimate = tuple[float, float, float]
"""A value with the bounds of its interval."""
Key = tuple[str, str, str, str]
"""Detector, learned from, tested on, number."""


@dataclass(frozen=True)
class Experiment:
    """What one revision says."""

    revision: str
    commit: str
    protocol: Protocol
    data: str
    numbers: dict[Key, Estimate]
    counts: str

    def describe(self) -> str:
        """Say which revision it is, and on how many images it was tested."""
        return f"{self.protocol.capitalize()}: {self.revision} ({self.commit[:10]}), {self.counts}."


def compare_protocols(revision_a: str, revision_b: str, out: Path, repository: Path) -> int:
    """Write the results of two experiments side by side, in per cent with 95 % intervals.

    Their metrics say which one is clean and which one the thesis's; the order does not matter. A
    revision is one of Git, or the name of a DVC experiment. A detector that only one experiment has
    is shown without a difference. Returns the number of lines made of measurements.

    Raises:
        InputError: A revision is unknown or ambiguous, holds no metrics or not those of this
            project, or both have the same protocol or different data.
    """
    experiments = [read_experiment(name, repository) for name in (revision_a, revision_b)]
    by_protocol = {experiment.protocol: experiment for experiment in experiments}
    if len(by_protocol) == 1:
        raise InputError(
            f"{revision_a} and {revision_b}: both of protocol {experiments[0].protocol}, expected "
            "clean and thesis"
        )
    clean, thesis = by_protocol["clean"], by_protocol["thesis"]
    if clean.data != thesis.data:
        raise InputError(
            f"different data: {clean.data} in {clean.revision}, {thesis.data} in {thesis.revision}"
        )
    lines = []
    for key in dict.fromkeys([*clean.numbers, *thesis.numbers]):
        a, b = clean.numbers.get(key), thesis.numbers.get(key)
        difference = difference_interval(b, a) if a and b else None
        lines.append([*key, _cell(a), _cell(b), _cell(difference, sign="+")])
    names = ["detector", "learned from", "tested on", "number", "clean", "thesis", "difference"]
    head = f"Per cent, 95 % interval; difference: thesis minus clean. Data: {clean.data}."
    text = f"{head} {clean.describe()} {thesis.describe()}\n\n{markdown_table(names, lines)}"
    with atomic_file(out) as path:
        path.write_text(text)
    return len(lines)


def read_experiment(revision: str, repository: Path) -> Experiment:
    """Read the metrics of one revision or DVC experiment.

    Raises:
        InputError: There is no such revision, or it does not hold whole metrics of one protocol.
    """
    commit = _commit(revision, repository)
    listing = _git(
        repository, "ls-tree", "-z", "--full-name", "--name-only", commit, f":/{CLASSIFIERS}/"
    )
    files = sorted(name for name in (listing or "").split("\0") if name.endswith(".json"))
    if not files:
        raise InputError(f"{revision}: no {CLASSIFIERS}/*.json")
    metrics = {file: _read(commit, file, revision, repository) for file in files}
    found = {(str(row.get("protocol")), str(row.get("data"))) for row in metrics.values()}
    (protocol, data), *others = sorted(found)
    if others or protocol not in get_args(Protocol):
        raise InputError(
            f"{revision}: metrics of {', '.join(f'protocol {p} and data {d}' for p, d in found)}, "
            "expected one protocol and one kind of data"
        )
    numbers: dict[Key, Estimate] = {}
    for file, row in metrics.items():
        numbers |= dict(_classifier_numbers(row, f"{revision}: {file}"))
    if _git(repository, "cat-file", "-e", f"{commit}:{DETECTORS}") is not None:
        compared = _read(commit, DETECTORS, revision, repository).get("leave_one_out", {})
        for method, measured in compared.items():
            key = (method, "one generator", "the other", "mean AUROC")
            numbers[key] = _estimate(measured, "auroc")
    first = next(value for value in metrics[files[0]].values() if isinstance(value, dict))
    counts = f"{first['n_real']} test reals of {first['n_groups']} groups"
    return Experiment(revision, commit, cast(Protocol, protocol), data, numbers, counts)


def _commit(revision: str, repository: Path) -> str:
    """Find the commit of a revision or experiment."""
    # An experiment is no branch: DVC keeps it under refs/exps/<two>/<rest of its base>/<name>.
    listed = _git(repository, "for-each-ref", "--format=%(refname)", "refs/exps") or ""
    refs = [ref for ref in listed.split() if ref.rsplit("/", 1)[-1] == revision]
    if len(refs) > 1:
        raise InputError(f"{revision}: {len(refs)} experiments of this name; give the commit")
    name = refs[0] if refs else revision
    options = ("rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
    found = _git(repository, *options)
    if not found:
        raise InputError(f"{revision}: no such revision or experiment in {repository}")
    return found.strip()


def _read(commit: str, file: str, revision: str, repository: Path) -> dict[str, Any]:
    try:
        content = json.loads(_git(repository, "show", f"{commit}:{file}") or "")
    except ValueError as error:
        raise InputError(f"{revision}: {file}: not JSON: {error}") from error
    if not isinstance(content, dict):
        raise InputError(f"{revision}: {file}: not metrics")
    return content


def _git(repository: Path, *arguments: str) -> str | None:
    """Return what a Git command prints; None where it fails."""
    command = ["git", "-C", str(repository), *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    return result.stdout if result.returncode == 0 else None


def _classifier_numbers(row: dict[str, Any], where: str) -> Iterator[tuple[Key, Estimate]]:
    tests = {name: value for name, value in row.items() if isinstance(value, dict)}
    if not tests or "detector" not in row:
        raise InputError(f"{where}: not the metrics of a classifier")
    for generator, measured in tests.items():
        for number, title in _NUMBERS.items():
            if number not in measured:
                raise InputError(f"{where}: no number {number} for {generator}")
            if measured[number] is not None:
                key = ("NPR", row["detector"], generator, title)
                yield key, _estimate(measured, number)


def _estimate(measured: dict[str, Any], number: str) -> Estimate:
    value, low, high = (float(measured[f"{number}{end}"]) for end in ("", "_low", "_high"))
    return value, low, high


def difference_interval(minuend: Estimate, subtrahend: Estimate) -> Estimate:
    """Subtract two independent estimates, and put an interval together from theirs.

    The lower bound lies as far below the difference as the lower bound of the one and the upper
    bound of the other are from their values, as the two legs of a right triangle.
    """
    a, a_low, a_high = minuend
    b, b_low, b_high = subtrahend
    below = math.hypot(a - a_low, b_high - b)
    above = math.hypot(a_high - a, b - b_low)
    return a - b, a - b - below, a - b + above


def _cell(estimate: Estimate | None, sign: str = "") -> str:
    if estimate is None:
        return "-"
    value, low, high = (f"{100 * number:{sign}.1f}" for number in estimate)
    return f"{value} ({low} to {high})"
