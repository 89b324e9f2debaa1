"""Two experiments of one repository become one table, or a clear refusal."""

import json
import re
import subprocess
from pathlib import Path

import pytest

from semforensics.publish.protocols import (
    compare_protocols,
    difference_interval,
    read_experiment,
)

NUMBERS = (
    "accuracy_at_half", "accuracy", "accuracy_real", "accuracy_fake", "average_precision", "auroc"
)  # fmt: skip


def git(repository: Path, *arguments: str) -> str:
    """Run Git as nobody in particular."""
    who = ["-c", "user.name=Nobody", "-c", "user.email=nobody@example.org"]
    command = ["git", "-C", str(repository), *who, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def commit(repository: Path, row: str, protocol: str, value: float, **changes: object) -> str:
    """Commit the metrics of one classifier; give the commit."""
    measured = {"n_real": 100, "n_fake": 100, "n_groups": 7}
    for name in NUMBERS:
        measured |= {name: value, f"{name}_low": value - 0.02, f"{name}_high": value + 0.01}
    metrics = {"detector": row, "protocol": protocol, "data": "simulated", "fastgan": measured}
    folder = repository / "metrics/classifier"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{row}.json").write_text(json.dumps(metrics | changes))
    git(repository, "add", "-A")
    git(repository, "commit", "-q", "--allow-empty", "-m", protocol)
    return git(repository, "rev-parse", "HEAD")


def protocols_table(revision_a: str, revision_b: str, repository: Path) -> str:
    """Compare two revisions; give the page, with the columns of its table not padded."""
    compare_protocols(revision_a, revision_b, repository / "table.md", repository)
    return re.sub(" +", " ", (repository / "table.md").read_text())


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """An empty repository."""
    git(tmp_path, "init", "-q", "-b", "main")
    return tmp_path


def cells(text: str, *beginning: str) -> list[str]:
    """Return the cells of the line that begins so."""
    (line,) = [ln for ln in text.splitlines() if ln.startswith(f"| {' | '.join(beginning)} |")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_revisions_stand_side_by_side_whatever_their_order(repository: Path) -> None:
    """Values, intervals and differences of both; the metrics say which one is which."""
    commit(repository, "fastgan", "clean", 0.95)
    git(repository, "tag", "before")
    commit(repository, "fastgan", "thesis", 0.98)

    text = protocols_table("before", "HEAD", repository)
    swapped = protocols_table("HEAD", "before", repository)

    assert cells(text, "NPR", "fastgan", "fastgan", "AUROC") == [
        "NPR", "fastgan", "fastgan", "AUROC",
        "95.0 (93.0 to 96.0)", "98.0 (96.0 to 99.0)", "+3.0 (+0.8 to +5.2)",
    ]  # fmt: skip
    assert swapped == text
    assert text.count("\n| NPR") == len(NUMBERS)
    assert "Clean: before (" in text
    assert "100 test reals of 7 groups" in text


def test_an_experiment_is_found_by_its_name(repository: Path) -> None:
    """DVC keeps experiments under refs of their own, which are no branches."""
    base = commit(repository, "fastgan", "clean", 0.95)
    made = commit(repository, "fastgan", "thesis", 0.98)
    git(repository, "update-ref", f"refs/exps/{base[:2]}/{base[2:]}/flaky-gnat", made)
    git(repository, "reset", "-q", "--hard", base)

    experiment = read_experiment("flaky-gnat", repository)

    assert experiment.protocol == "thesis"
    assert experiment.commit == made
    git(repository, "update-ref", f"refs/exps/{made[:2]}/{made[2:]}/flaky-gnat", made)
    with pytest.raises(ValueError, match="2 experiments of this name"):
        read_experiment("flaky-gnat", repository)


def test_what_one_experiment_lacks_has_no_difference(repository: Path) -> None:
    """A classifier of one revision only, or a number that could not be measured, leaves a dash."""
    commit(repository, "fastgan", "clean", 0.95)
    git(repository, "tag", "before")
    commit(repository, "fastgan", "thesis", 0.98)
    commit(repository, "both", "thesis", 0.97)

    text = protocols_table("before", "HEAD", repository)

    assert cells(text, "NPR", "both", "fastgan", "accuracy")[4:] == [
        "-",
        "97.0 (95.0 to 98.0)",
        "-",
    ]


def test_all_detectors_are_compared_where_they_were_measured(repository: Path) -> None:
    """The mean over left-out generators stands beside the classifiers."""
    measured = {"auroc": 0.9, "auroc_low": 0.8, "auroc_high": 0.95}
    for name, protocol in (("before", "clean"), ("after", "thesis")):
        (repository / "metrics").mkdir(exist_ok=True)
        detectors = {"protocol": protocol, "leave_one_out": {"spectrum": measured}}
        (repository / "metrics/detectors.json").write_text(json.dumps(detectors))
        commit(repository, "fastgan", protocol, 0.95)
        git(repository, "tag", name)

    text = protocols_table("before", "after", repository)

    line = cells(text, "spectrum", "one generator", "the other", "mean AUROC")
    assert line[4:] == ["90.0 (80.0 to 95.0)", "90.0 (80.0 to 95.0)", "+0.0 (-11.2 to +11.2)"]


@pytest.mark.parametrize(
    ("second", "changes", "message"),
    [
        ("clean", {}, "both of protocol clean, expected clean and thesis"),
        ("thesis", {"data": "boiko"}, "different data: simulated in before, boiko in HEAD"),
        ("other", {}, "protocol other"),
        ("thesis", {"fastgan": {"auroc": 1}}, "no number accuracy_at_half for fastgan"),
        ("thesis", {"fastgan": 3}, "not the metrics of a classifier"),
    ],
)
def test_metrics_that_do_not_fit_are_refused(
    repository: Path, second: str, changes: dict, message: str
) -> None:
    """One protocol twice, other data, or files of another kind are no comparison."""
    commit(repository, "fastgan", "clean", 0.95)
    git(repository, "tag", "before")
    commit(repository, "fastgan", second, 0.98, **changes)

    with pytest.raises(ValueError, match=message):
        protocols_table("before", "HEAD", repository)


@pytest.mark.parametrize("revision", ["nowhere", "--all", ""])
def test_an_unknown_revision_is_named(repository: Path, revision: str) -> None:
    """Also one that looks like an option."""
    commit(repository, "fastgan", "clean", 0.95)

    with pytest.raises(ValueError, match="no such revision or experiment"):
        protocols_table("HEAD", revision, repository)


def test_a_revision_without_metrics_is_refused(repository: Path) -> None:
    """There is nothing to compare."""
    git(repository, "commit", "-q", "--allow-empty", "-m", "Begin")

    with pytest.raises(ValueError, match=r"HEAD: no metrics/classifier/\*\.json"):
        protocols_table("HEAD", "HEAD", repository)


def test_the_table_is_written_from_below_the_root_too(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The present folder says which repository; lines of measurements are counted."""
    commit(repository, "fastgan", "clean", 0.95)
    git(repository, "tag", "before")
    commit(repository, "fastgan", "thesis", 0.98)
    monkeypatch.chdir(repository / "metrics")

    count = compare_protocols("before", "HEAD", repository / "out/table.md", Path.cwd())

    text = (repository / "out/table.md").read_text()
    assert count == len(NUMBERS)
    assert re.sub(" +", " ", text) == protocols_table("before", "HEAD", repository)


def test_intervals_of_differences_hold_what_they_promise() -> None:
    """Of two wide intervals the wider legs count; equal estimates differ by nothing."""
    value, low, high = difference_interval((0.9, 0.6, 0.94), (0.5, 0.47, 0.9))

    assert value == pytest.approx(0.4)
    assert low == pytest.approx(0.4 - 0.5)
    assert high == pytest.approx(0.4 + 0.05)
