"""`semforensics screen` as a script meets it; the model is a stand-in."""

import sys
import tomllib
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from semforensics.cli.main import main
from semforensics.core.errors import InputError
from semforensics.screening.store import Store
from tests.screening.stand_in import StandIn, Together, draw


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Puts the stand-in in the place of the model; holds what `Screener.load` is asked for."""
    asked: dict[str, Any] = {}

    def load(model: str | None, **settings: Any) -> StandIn:
        asked.update(settings, model=model)
        return StandIn(settings["alpha"], settings["prevalence"], settings["pooling"])

    module = SimpleNamespace(Screener=SimpleNamespace(load=load))
    monkeypatch.setitem(sys.modules, "semforensics.screening.screener", module)
    return asked


def screen(*arguments: object, command: str = "screen") -> int:
    """Run the command in this process and give its exit code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["semforensics", command, *map(str, arguments)])
        try:
            main()
        except SystemExit as end:
            return int(end.code or 0)
    return 0


def test_counts_and_the_place_of_the_report_are_printed(
    tmp_path: Path, asked: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """One line for each verdict, then reuse, then the report; exit code 0."""
    draw(tmp_path / "in", [80, 130, 200, 90])

    code = screen(tmp_path / "in", "--out", tmp_path / "report", "--prevalence", 0.01)

    assert code == 0
    assert capsys.readouterr().out.splitlines() == [
        "2 consistent with a real micrograph",
        "1 inconclusive",
        "1 AI-suspected: ask for the instrument files",
        "0 not judged",
        "0 pairs of panels that may show the same place",
        f"report: {tmp_path / 'report/report.html'}",
    ]
    assert (asked["alpha"], asked["prevalence"], asked["evidence"]) == (0.05, 0.01, True)
    assert sorted(p.name for p in (tmp_path / "report").iterdir()) == [
        "report.csv",
        "report.html",
        "report.json",
    ]


def test_threads_are_pictures_that_are_judged_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many of one input as the option says."""
    together = Together(2)
    module = SimpleNamespace(Screener=SimpleNamespace(load=lambda *_, **__: together))
    monkeypatch.setitem(sys.modules, "semforensics.screening.screener", module)
    with zipfile.ZipFile(tmp_path / "four.zip", "w") as archive:
        for file in draw(tmp_path / "in", [80, 130, 200, 90]):
            archive.write(file, file.name)

    assert screen(tmp_path / "four.zip", "--out", tmp_path / "report", "--threads", 2) == 0

    assert together.most == 2


@pytest.mark.parametrize(
    ("level", "fail_on", "code"),
    [
        (80, "refused", 0),
        (200, "never", 0),
        (200, "ai-suspected", 1),
        (130, "ai-suspected", 0),
        (130, "inconclusive", 1),
    ],
)
@pytest.mark.usefixtures("asked")
def test_a_script_is_told_by_the_exit_code(
    tmp_path: Path, level: int, fail_on: str, code: int
) -> None:
    """1 where what `--fail-on` names was found, with the report written all the same."""
    (file,) = draw(tmp_path / "in", [level])

    assert screen(file, "--out", tmp_path / "report", "--fail-on", fail_on) == code
    assert (tmp_path / "report/report.html").is_file()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["nowhere.png"], "nowhere.png"),
        (["{file}", "--info-bar", "much"], "'much': expected auto or a number of rows"),
        (["{file}", "--alpha", "2"], "alpha"),
        (["{file}", "--fail-on", "anything"], "anything"),
        (["{file}", "--device", "abacus"], "abacus"),
        (["{empty}"], "nothing to screen"),
    ],
)
@pytest.mark.usefixtures("asked")
def test_bad_input_ends_with_2_and_no_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    """The message names what is wrong, and nothing is written."""
    (file,) = draw(tmp_path / "in", [80])
    (tmp_path / "empty").mkdir()
    places = {"file": file, "empty": tmp_path / "empty"}

    code = screen(*(o.format(**places) for o in options), "--out", tmp_path / "report")

    assert code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "report").exists()


@pytest.mark.usefixtures("asked")
def test_without_ray_the_extra_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--ray` where Ray is not installed ends with 2 before anything is read."""
    (file,) = draw(tmp_path / "in", [80])
    monkeypatch.setattr("semforensics.screening.ray_job.find_spec", lambda _name: None)

    assert screen(file, "--out", tmp_path / "report", "--ray", "auto") == 2

    assert "pip install 'semforensics[ray]'" in capsys.readouterr().err
    assert not (tmp_path / "report").exists()


def test_the_address_of_a_ray_cluster_reaches_its_runner(
    tmp_path: Path, asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--ray ADDRESS` judges all inputs there, on as many workers as are asked for."""
    del asked
    (file,) = draw(tmp_path / "in", [200])
    used: list[Any] = []

    def run(self: Any, job: Any, inputs: dict[Path, str], options: Any, keep: Any) -> None:
        used.append((self.address, options.workers))
        for path, name in inputs.items():
            keep(path, job(path, name))

    monkeypatch.setattr("semforensics.screening.ray_job.RayRunner.__call__", run)

    options = ("--ray", "10.0.0.1:6379", "--workers", 3, "--fail-on", "ai-suspected")
    assert screen(file, "--out", tmp_path / "report", *options) == 1
    assert used == [("10.0.0.1:6379", 3)]


@pytest.mark.usefixtures("asked")
def test_a_second_run_on_one_folder_ends_with_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """While one run is at work there, the other one is told so and writes nothing."""
    (file,) = draw(tmp_path / "in", [80])

    with Store.open(tmp_path / "report/.unfinished", {}).locked():
        code = screen(file, "--out", tmp_path / "report")

    assert code == 2
    assert "another screening is at work there" in capsys.readouterr().err
    assert not (tmp_path / "report/report.html").exists()


@pytest.mark.parametrize(("error", "told"), [(TypeError("oh"), "oh"), (MemoryError(), "memory")])
def test_a_mistake_of_the_program_is_no_finding(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    error: Exception, told: str,
) -> None:  # fmt: skip
    """It ends with 3: 1 would say that what `--fail-on` names was found."""
    (file,) = draw(tmp_path / "in", [80])

    def load(_model: str | None, **_settings: Any) -> StandIn:
        raise error

    module = SimpleNamespace(Screener=SimpleNamespace(load=load))
    monkeypatch.setitem(sys.modules, "semforensics.screening.screener", module)

    assert screen(file, "--out", tmp_path / "report", "--fail-on", "refused") == 3
    assert told in capsys.readouterr().err
    assert not (tmp_path / "report").exists()


def test_options_that_cannot_work_are_told_before_a_page_opens(
    monkeypatch: pytest.MonkeyPatch, asked: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """`serve` tries its model and options first: a wrong one ends with 2, and no page answers."""
    opened: list[Any] = []
    monkeypatch.setattr(
        "semforensics.screening.page.serve_page", lambda job, **_options: opened.append(job)
    )

    assert screen("--alpha", 0.1, command="serve") == 0
    assert asked["alpha"] == 0.1
    assert "--alpha 0.1 " in opened.pop().command([])

    def refuse(_model: str | None, **settings: Any) -> None:
        raise InputError(f"alpha {settings['alpha']} needs more images")

    module = SimpleNamespace(Screener=SimpleNamespace(load=refuse))
    monkeypatch.setitem(sys.modules, "semforensics.screening.screener", module)
    assert screen("--alpha", 1e-6, command="serve") == 2
    assert "alpha 1e-06 needs more images" in capsys.readouterr().err
    assert opened == []


def test_an_info_bar_of_known_height_is_passed_on(tmp_path: Path, asked: dict[str, Any]) -> None:
    """`--info-bar` and `--no-maps` reach the screener and the settings of the report."""
    (file,) = draw(tmp_path / "in", [80])

    assert screen(file, "--out", tmp_path / "report", "--info-bar", 20, "--no-maps") == 0

    assert asked["evidence"] is False
    text = (tmp_path / "report/report.json").read_text()
    assert '"info_bar": "20 rows"' in text
    assert '"bottom": 140' in text


def test_help_documents_the_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    """`--help` says what 0, 1, 2 and 3 mean."""
    assert screen("--help") == 0

    text = " ".join(capsys.readouterr().out.split())
    assert "Exit code 0: done. 1: done, and what --fail-on names was found. 2: bad input" in text
    assert "no report. 3: out of memory, or a mistake of this program" in text


def test_the_installed_command_is_the_one_with_exit_codes(root: Path) -> None:
    """The entry point is `main`, which turns expected errors into exit code 2."""
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]

    assert project["scripts"] == {"semforensics": "semforensics.cli.main:main"}
