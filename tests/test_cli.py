"""The command line as a user meets it."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from semforensics import cli


def stage(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command the way dvc.yaml does."""
    command = [sys.executable, str(root / "src/stage.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=root)


def test_help_answers_without_torch(root: Path) -> None:
    """`--help` imports nothing heavy."""
    code = (
        "import sys; sys.argv = ['semforensics', '--help']\n"
        "from semforensics.cli import app\n"
        "try: app()\n"
        "except SystemExit: pass\n"
        "print('heavy:', sorted({'torch', 'matplotlib', 'pandas', 'scipy'} & set(sys.modules)))"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root)

    assert "train-gan" in done.stdout
    assert "heavy: []" in done.stdout


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
    package = tmp_path / "src/semforensics"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "cli.py").write_text("def main(): print('the copy ran')\n")
    (tmp_path / "src/stage.py").write_text((root / "src/stage.py").read_text())

    done = subprocess.run(
        [sys.executable, "src/stage.py"], capture_output=True, text=True, cwd=tmp_path
    )

    assert done.stdout == "the copy ran\n"


def test_what_the_system_refuses_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A full disk ends in one line that names it and exit code 2, without a traceback."""

    def fail() -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "data/cropped/000.png")

    monkeypatch.setattr(cli, "app", fail)

    with pytest.raises(SystemExit) as stopped:
        cli.main()

    assert stopped.value.code == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ")
    assert "No space left on device: 'data/cropped/000.png'" in message
    assert message.count("\n") == 1
