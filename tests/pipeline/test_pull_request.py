"""The report on a change: what it says of two branches, and what it makes of hostile names."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from PIL import Image

from semforensics.publish import review as pull_request
from semforensics.publish.dvc_plots import DrawnPlot
from semforensics.publish.review import stale_stages, write_report
from tests.detector.conftest import SHARES, recipe, write_data
from tests.pipeline.conftest import ROOT

STAGE = f"{sys.executable} {ROOT / 'src/stage.py'}"
STAGES = {
    "stages": {
        "train_classifier": {
            "cmd": f"{STAGE} train-classifier fastgan data/cropped data/splits.csv data/fakes "
            "data/classifier",
            "deps": ["data/cropped", "data/splits.csv", "data/fakes"],
            "params": ["train_classifier"],
            "outs": ["data/classifier"],
        },
        "evaluate_classifier": {
            "cmd": f"{STAGE} evaluate-classifier fastgan data/classifier data/cropped "
            "data/splits.csv data/fakes metrics/classifier/fastgan.json plots",
            "deps": ["data/classifier"],
            "params": ["evaluate_classifier"],
            "outs": ["plots", {"metrics/classifier/fastgan.json": {"cache": False}}],
        },
    },
    "plots": [
        {
            "losses": {
                "template": "simple",
                "x": "epoch",
                "y": {"data/classifier/losses.csv": ["train_loss", "validation_loss"]},
            }
        }
    ],
}


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout with a good classifier on `main`, and one that learned nothing on `change`."""
    folder = tmp_path_factory.mktemp("pull_request")
    write_data(folder / "data")
    (folder / "dvc.yaml").write_text(yaml.safe_dump(STAGES))
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["train_classifier"] = json.loads(recipe(epochs=40).model_dump_json())
    params["split"] = SHARES.model_dump()
    params["evaluate_classifier"] |= {"bootstrap_resamples": 100, "alpha": 0.4}
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    (folder / ".gitignore").write_text("/data\n/plots\n/.scratch\n")
    for command in (
        ("git", "init", "-q", "-b", "main"),
        ("git", "config", "user.email", "test@example.org"),
        ("git", "config", "user.name", "Test"),
        ("dvc", "init", "-q"),
        ("dvc", "repro", "-q"),
        ("git", "add", "-A"),
        ("git", "commit", "-qm", "Good"),
        ("git", "checkout", "-qb", "change"),
    ):
        run(folder, *command)
    params["train_classifier"] |= {"lr": 1e-7, "epochs": 1}
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    assert stale_stages(folder) == ["train_classifier"]
    for command in (
        ("dvc", "repro", "-q"),
        ("git", "commit", "-qam", "Learn hardly anything"),
    ):
        run(folder, *command)
    return folder


@pytest.fixture(scope="module", autouse=True)
def _environment(tmp_path_factory: pytest.TempPathFactory) -> object:
    """DVC of this environment first on the path, with a site cache of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
        patch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path_factory.mktemp("site-cache")))
        patch.setenv("DVC_NO_ANALYTICS", "1")
        yield


def run(folder: Path, *command: str) -> None:
    """Run a command that has to end well."""
    one_thread = os.environ | {"SEMFORENSICS_THREADS": "1"}  # a second one only waits
    done = subprocess.run(command, cwd=folder, env=one_thread, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"


def test_a_worse_classifier_is_reported_as_such(repository: Path, tmp_path: Path) -> None:
    """A warning for each result that left its interval, a row with both intervals, pictures."""
    out = tmp_path / "report"

    count = write_report("main", "change", out, repository)

    page = re.sub(" +", " ", (out / "report.md").read_text())  # columns of tables are padded
    old, new = (accuracy(repository, revision) for revision in ("main", "change"))
    assert new["accuracy_at_half"] < old["accuracy_at_half_low"]
    assert old["accuracy_at_half"] > new["accuracy_at_half_high"]
    assert count >= 1
    assert f"⚠ **Worse by more than the interval: {count} results in all.**" in page
    assert "`train_classifier.lr` 0.005 → 1e-07" in page
    assert "`train_classifier.epochs` 40 → 1" in page
    before, after = (
        f"{n['accuracy_at_half']:.3g} ({n['accuracy_at_half_low']:.3g} to "
        f"{n['accuracy_at_half_high']:.3g})"
        for n in (old, new)
    )
    row = f"| `fastgan.accuracy_at_half` | {before} | {after} | ⚠ **worse** |"
    first, _, folded = page.partition("<details>")
    assert row in folded
    (line,) = (line for line in first.splitlines() if line.startswith("| `fastgan`"))
    assert re.match(rf"\| `fastgan` \| {count} / \d+ \| `fastgan\.", line), (
        "one line for a detector"
    )
    assert "| ⚠ |" in line
    assert "train_classifier.batch" not in page, "what did not change is left out"
    for what in ("_low`", "_high`", "threshold", "temperature", "`alpha`"):
        assert what not in page, "what is no result is left out"
    assert len(first.splitlines()) < 30, "one screen before the fold"
    assert first.count("<img ") == 1
    pictures = sorted((out / "plots").iterdir())
    assert [p.name for p in pictures] == ["changes.png", "losses.png"]
    for path in pictures:
        with Image.open(path) as picture:
            assert picture.format == "PNG"
            assert len(picture.convert("L").getcolors(256)) > 20, "marks, not an empty frame"
        assert f'src="plots/{path.name}"' in page


def test_a_revision_beside_itself_has_nothing_to_report(repository: Path, tmp_path: Path) -> None:
    """No warning, no result, and no plot of twice the same curves."""
    run(repository, "git", "tag", "-f", "same", "main")

    count = write_report("main", "same", tmp_path / "report", repository)

    page = (tmp_path / "report/report.md").read_text()
    assert count == 0
    assert "No result got worse by more than its interval." in page
    assert "<details>" not in page
    assert [path.name for path in (tmp_path / "report/plots").iterdir()] == ["changes.png"]


def accuracy(repository: Path, revision: str) -> dict[str, float]:
    """The numbers that one revision's metrics hold."""
    shown = subprocess.run(
        ["git", "show", f"{revision}:metrics/classifier/fastgan.json"],
        cwd=repository, check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    return json.loads(shown)["fastgan"]


def test_a_better_classifier_raises_no_warning(repository: Path, tmp_path: Path) -> None:
    """The other way round, the same numbers are better."""
    count = write_report("change", "main", tmp_path / "report", repository)

    page = re.sub(" +", " ", (tmp_path / "report/report.md").read_text())
    (row,) = (one for one in page.splitlines() if one.startswith("| `fastgan.accuracy_at_half`"))
    assert row.endswith(" better |")
    assert (count == 0) == ("No result got worse" in page)


def test_the_headline_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its numbers with the intervals of the files they are from, a line per detector, a picture."""
    main, change = (
        {
            str(path.relative_to(ROOT)): json.loads(path.read_text())
            for path in (ROOT / "metrics").rglob("*.json")
        }
        for _ in range(2)
    )
    for metrics, share in ((main, 0.4), (change, 0.1)):
        tested = metrics["metrics/classifier/both.json"]["stylegan2_ada"]
        ends = {"decided_fake_low": share - 0.05, "decided_fake_high": share + 0.05}
        tested |= {"decided_fake": share, "threshold": share} | ends
        metrics["metrics/audit.json"]["gates"]["permuted_labels"]["passed"] = share > 0.2
    monkeypatch.setattr(
        pull_request, "_read_metrics", lambda _, name: {"a": main, "b": change}[name]
    )
    monkeypatch.setattr(pull_request, "_params", lambda *_: [])
    monkeypatch.setattr(pull_request, "render_plots", lambda *_: [])

    count = write_report("a", "b", tmp_path / "report", tmp_path)

    page = re.sub(" +", " ", (tmp_path / "report/report.md").read_text())
    first = page.partition("<details>")[0]
    table = [line for line in first.splitlines() if line.startswith("| ")]
    assert count == 2
    assert (
        "⚠ **Worse by more than the interval: 2 of 11 headline numbers, 2 results in all.**" in page
    )
    assert "decided" in table[1]
    assert "| 0.4 (0.35 to 0.45) | 0.1 (0.05 to 0.15) | ⚠ **worse** |" in table[1]
    assert table[2] == "| red gates of the shortcut audit | 0 | 1 | ⚠ **worse** |"
    detectors = sorted(path.stem for path in (ROOT / "metrics/classifier").glob("*.json"))
    assert [line.split("`")[1] for line in table[4:]] == detectors
    worst = "`stylegan2_ada.decided_fake` | 0.4 (0.35 to 0.45) | 0.1 (0.05 to 0.15) | ⚠ |"
    assert worst in table[4]
    assert first.count("<img ") == 1
    assert len(first.splitlines()) < 30, "one screen"


def test_a_revision_that_does_not_exist_leaves_nothing(repository: Path, tmp_path: Path) -> None:
    """The error names it, and no folder is left behind."""
    with pytest.raises(ValueError, match="nowhere"):
        write_report("main", "nowhere", tmp_path / "report", repository)

    assert list(tmp_path.iterdir()) == []


def test_a_lock_file_of_other_parameters_is_named(repository: Path) -> None:
    """Stages whose parameters changed are stale, with and without their data; else none is."""
    params, original = repository / "params.yaml", (repository / "params.yaml").read_text()
    assert stale_stages(repository) == []

    try:
        changed = yaml.safe_load(original)
        changed["evaluate_classifier"]["alpha"] = 0.3
        params.write_text(yaml.safe_dump(changed))
        with_data = stale_stages(repository)
        (repository / "plots").rename(repository / "elsewhere")
        without = stale_stages(repository)
    finally:
        params.write_text(original)
        (repository / "elsewhere").rename(repository / "plots")

    assert with_data == ["evaluate_classifier"]
    assert without == ["evaluate_classifier"]


def test_names_from_a_stranger_do_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Markdown, HTML and mentions in revisions, files, keys and values come out as text."""
    evil = "a|b`c`<img src=x>@all\n# x"
    metrics = {
        evil: {evil: 0.1, "data": evil},
        f"metrics/classifier/{evil[:-4]}.json": {evil: {"accuracy": 0.9, evil: 1.0}},
    }
    changed = {
        evil: {evil: 0.2, "data": "b"},
        f"metrics/classifier/{evil[:-4]}.json": {evil: {"accuracy": 0.1, evil: 2.0}},
    }
    read = {evil: metrics, "head": changed}
    monkeypatch.setattr(pull_request, "_read_metrics", lambda _, revision: read[revision])
    monkeypatch.setattr(pull_request, "_params", lambda *_: [(evil, evil, evil)] * 2)
    monkeypatch.setattr(pull_request, "render_plots", lambda *_: [])

    write_report(evil, "head", tmp_path / "report", tmp_path)

    page = (tmp_path / "report/report.md").read_text()
    harmless = re.sub("`[^`\n]*`", "", page)  # code is shown as it is
    assert harmless.count("<img") == 1, "the picture of changes"
    assert "@all" not in harmless
    assert "\n# x" not in page
    assert page.startswith("# a\\|b")
    rows = [line for line in page.splitlines() if line.startswith("| `a b")]
    assert rows
    assert all(line.replace("\\|", "").count("|") in (5, 7) for line in rows)


@pytest.mark.parametrize("path", sorted(ROOT.glob(".github/workflows/*.yml")), ids=lambda p: p.stem)
def test_workflows_are_valid_and_safe(path: Path) -> None:
    """Both linters agree; the workflow that runs a stranger's code may not write."""
    schema = ["check-jsonschema", "--builtin-schema", "vendor.github-workflows", str(path)]
    run(ROOT, *schema)
    run(ROOT, "zizmor", "--offline", "--quiet", str(path))

    workflow = yaml.safe_load(path.read_text())
    triggers = workflow[True]  # YAML 1.1 reads the key `on` so
    if "pull_request" in triggers:
        assert workflow["permissions"] == {"contents": "read"}
        assert not any("permissions" in job for job in workflow["jobs"].values())
    else:
        used = str(workflow["jobs"])
        assert "checkout" not in used
        assert "'run':" not in used


def test_pictures_that_did_not_change_are_left_out(tmp_path: Path) -> None:
    """A pair of the same bytes and curves of the same values are deleted; all else stays."""
    names = {
        "same": (b"1", b"1"), "other": (b"1", b"2"), "curves": (b"1",), "same curves": (b"1",)
    }  # fmt: skip
    drawn = []
    for name, contents in names.items():
        for index, content in enumerate(contents):
            path = tmp_path / f"{name}_{index}.png"
            path.write_bytes(content)
            revisions = ("a", "b") if len(contents) == 1 else (("a", "b")[index],)
            drawn.append(DrawnPlot(name, revisions, path, is_same=name == "same curves"))

    kept = pull_request._changed_plots(drawn)

    assert [plot.name for plots in kept.values() for plot in plots] == ["other", "other", "curves"]
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == ["curves_0.png", "other_0.png", "other_1.png"]
