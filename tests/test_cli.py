"""The command line as a user meets it."""

import errno
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pytest
import typer

from semforensics.cli import main as module
from semforensics.cli.frame import expand_options
from semforensics.core.errors import InputError


def stage(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command the way dvc.yaml does."""
    command = [sys.executable, str(root / "src/stage.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=root)


def test_help_answers_without_torch(root: Path) -> None:
    """`--help` imports nothing heavy."""
    code = (
        "import sys; sys.argv = ['semforensics', '--help']\n"
        "from semforensics.cli.main import app\n"
        "try: app()\n"
        "except SystemExit: pass\n"
        "print('heavy:', sorted({'torch', 'matplotlib', 'pandas', 'scipy'} & set(sys.modules)))"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root)

    assert "train-gan" in done.stdout
    assert "heavy: []" in done.stdout


def test_screening_loads_only_what_it_needs(root: Path) -> None:
    """Libraries of the pipeline and of the comparison of panels take no time at the start."""
    code = (
        "import sys, semforensics.screening.screener, semforensics.screening.submission\n"
        "heavy = {'cv2', 'matplotlib', 'pandas', 'sklearn', 'scipy.optimize', 'torchvision'}\n"
        "print('heavy:', sorted(heavy & set(sys.modules)))"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root)

    assert done.stdout == "heavy: []\n", done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["crop", "nowhere", "nothing.csv", "out", "out.csv"], "nowhere"),
        (["train-gan", "biggan", "src", "README.md", "src", "out", "out"], "biggan"),
        (["split", "README.md", "out.csv", "--params", "pyproject.toml"], "pyproject.toml"),
    ],
)
def test_bad_input_is_one_message_and_exit_code_2(
    root: Path, arguments: list[str], message: str
) -> None:
    """What a user can cause ends without a traceback."""
    done = stage(root, *arguments)

    assert done.returncode == 2
    assert message in done.stderr.replace("\n", "")
    assert "Traceback" not in done.stderr


def test_stage_runs_the_code_beside_it(root: Path, tmp_path: Path) -> None:
    """A copy of the checkout runs its own package, not the installed one."""
    package = tmp_path / "src/semforensics/cli"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").write_text("")
    (package / "__init__.py").write_text("")
    (package / "main.py").write_text("def main(): print('the copy ran')\n")
    (tmp_path / "src/stage.py").write_text((root / "src/stage.py").read_text())

    done = subprocess.run(
        [sys.executable, "src/stage.py"], capture_output=True, text=True, cwd=tmp_path
    )

    assert done.stdout == "the copy ran\n"


def run_failing(
    monkeypatch: pytest.MonkeyPatch, error: BaseException, *options: str, **environment: str
) -> int:
    """Run a command that raises; return its exit code."""

    def fail(*_arguments: object) -> None:
        raise error

    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("semforensics.publish.protocols.compare_protocols", fail)
    words = ["semforensics", *options, "compare-protocols", "one", "two", "table.md"]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as stopped:
        module.main()
    return int(stopped.value.code or 0)


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (InputError("params.yaml: seed: expected a number"), 2, "params.yaml: seed: expected"),
        (
            OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "data/cropped/000.png"),
            2,
            "No space left on device: 'data/cropped/000.png'",
        ),
        (MemoryError(), 3, "not enough memory"),
        (ModuleNotFoundError("no", name="lpips"), 2, "pip install 'semforensics[pipeline]'"),
    ],
)
def test_what_a_user_can_mend_is_one_line(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
    code: int,
    message: str,
) -> None:
    """Bad input and what the system refuses end in one line on stderr, without a traceback."""
    assert run_failing(monkeypatch, error) == code

    told = capsys.readouterr().err
    assert told.startswith("error: ")
    assert message in told
    assert told.count("\n") == 1


@pytest.mark.parametrize(
    "error",
    [
        ValueError("operands could not be broadcast"),
        RuntimeError("oh"),
        ModuleNotFoundError("no module", name="semforensics.lost"),
    ],
)
def test_a_mistake_of_the_program_keeps_its_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception
) -> None:
    """Any other exception, a plain ValueError of a library too, ends with 3 and its traceback."""
    assert run_failing(monkeypatch, error) == 3

    told = capsys.readouterr().err
    assert "Traceback (most recent call last)" in told
    assert repr(error.args[0])[1:-1] in told


@pytest.mark.parametrize(
    ("options", "environment"), [(["--debug"], {}), ([], {"SEMFORENSICS_DEBUG": "1"})]
)
@pytest.mark.parametrize("error", [InputError("seed"), OSError("full"), MemoryError()])
def test_debug_shows_the_traceback_of_every_error(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    environment: dict[str, str],
    error: Exception,
) -> None:
    """`--debug` or its variable shows where an error came from; message and code stay."""
    assert run_failing(monkeypatch, error, *options, **environment) in (2, 3)

    told = capsys.readouterr().err
    assert "Traceback (most recent call last)" in told
    assert told.splitlines()[-1].startswith("error: ")


def test_debug_does_not_outlast_its_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A second run in the same process without `--debug` is quiet again."""
    run_failing(monkeypatch, InputError("first"), "--debug")
    capsys.readouterr()

    run_failing(monkeypatch, InputError("second"))

    assert "Traceback" not in capsys.readouterr().err


def test_help_has_three_panels(root: Path) -> None:
    """What most people want comes first."""
    lines = stage(root, "--help").stdout.splitlines()

    assert [line.strip("╭─╮ ") for line in lines if line.startswith("╭─")] == [
        "Options",
        "Screen figures",
        "Run the pipeline",
        "Review and publish",
    ]


@dataclass(frozen=True)
class Options:
    """Two options, one of them with a name that differs from its field."""

    level: Annotated[int, typer.Option("--grey", min=0)] = 3
    names: Annotated[list[str] | None, typer.Option()] = None


def test_a_dataclass_becomes_options(capsys: pytest.CaptureFixture[str]) -> None:
    """Its fields are options of the command, and the function gets the object that they fill."""
    app = typer.Typer()
    seen: list[tuple[Path, Options]] = []

    @app.command()
    @expand_options
    def command(path: Path, options: Options) -> str:
        seen.append((path, options))
        return f"level {options.level}"

    app(["a.png"], standalone_mode=False)
    app(["a.png", "--grey", "7", "--names", "x", "--names", "y"], standalone_mode=False)

    assert seen == [(Path("a.png"), Options()), (Path("a.png"), Options(7, ["x", "y"]))]
    assert capsys.readouterr().out == "level 3\nlevel 7\n"
