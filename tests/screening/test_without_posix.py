"""Screening needs nothing that Windows lacks; limits of memory and CPU time are left out there."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

from tests.screening.stand_in import draw

POSIX_MODULES = {"fcntl", "grp", "pty", "pwd", "resource", "syslog", "termios", "tty"}
HIDE = """
import os, signal, sys
sys.modules["resource"] = None
for module, names in (
    (os, ("killpg", "setsid", "sched_getaffinity")),
    (signal, ("SIGHUP", "SIGXCPU")),
):
    for name in names:
        delattr(module, name)
"""


def test_pictures_are_screened_without_what_windows_lacks(tmp_path: Path, root: Path) -> None:
    """In all processes of a run: two judge, and each has a child that reads."""
    draw(tmp_path / "in", [80, 200])
    (tmp_path / "sitecustomize.py").write_text(HIDE)
    path = os.pathsep.join([str(tmp_path), str(root), *sys.path])
    arguments = [str(tmp_path / name) for name in ("in", "out", "scratch")]
    log = str(tmp_path / "log")

    done = subprocess.run(
        [sys.executable, "-m", "tests.screening.stand_in", *arguments, "2", "0", log],
        env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, timeout=200,
    )  # fmt: skip

    assert (done.returncode, done.stderr) == (0, "")
    report = json.loads((tmp_path / "out/report.json").read_text())
    verdicts = [image["panels"][0]["verdict"] for image in report["images"]]
    assert verdicts == ["consistent", "ai-suspected"]


def test_no_module_needs_a_module_of_posix(root: Path) -> None:
    """The only such import may fail."""
    found = {
        f"{path.name}: {alias.name}"
        for path in (root / "src").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
        if POSIX_MODULES & {alias.name, getattr(node, "module", None)}
    }

    assert found == {"worker.py: resource"}  # inside of `suppress(ImportError)`
