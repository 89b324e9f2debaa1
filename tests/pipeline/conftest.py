"""Scratch checkouts, so that no test touches the one it runs from."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

Run = Callable[..., subprocess.CompletedProcess[str]]


def copy_checkout(target: Path) -> None:
    """Copy the working tree's tracked and new files into a Git repository of its own."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    for name in filter(None, listing.split("\0")):
        if (ROOT / name).is_file() and not name.startswith("store/"):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)


def runner(root: Path) -> Run:
    """Make what runs commands in `root/checkout`, with the tests' interpreter first on the path."""

    def run(*command: str, expect: int = 0, **more: str) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "DVC_SITE_CACHE_DIR": str(root / "site-cache"),
            "DVC_NO_ANALYTICS": "1",
            "SEMFORENSICS_THREADS": "1",  # tiny networks; a second thread only waits
            **more,
        }
        environment.pop("PYTEST_CURRENT_TEST", None)
        done = subprocess.run(
            command, cwd=root / "checkout", env=environment, capture_output=True, text=True
        )
        assert done.returncode == expect, (
            f"{command}: {done.returncode}\n{done.stdout}{done.stderr}"
        )
        return done

    return run


def start_checkout(root: Path) -> Path:
    """Make `root/checkout`, a scratch checkout with one commit and no result."""
    folder, run = root / "checkout", runner(root)
    folder.mkdir()
    copy_checkout(folder)
    (folder / "dvc.lock").unlink(missing_ok=True)
    run("git", "init", "-q", "-b", "main")
    run("git", "config", "user.email", "test@example.org")
    run("git", "config", "user.name", "Test")
    run("git", "add", "-A")
    run("git", "commit", "-qm", "Start")
    return folder


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run a command in the scratch checkout."""
    return runner(tmp_path)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A scratch checkout of one test."""
    return start_checkout(tmp_path)
