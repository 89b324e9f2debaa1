"""A Ray job gives the scores that one machine gives."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.screening.stand_in import RAISES, draw
from tests.screening.test_submission import screen

pytest.importorskip("ray")


def test_two_ray_workers_give_the_same_report(tmp_path: Path, root: Path) -> None:
    """Verdicts, numbers and refusals are those of `screen_submission`; nothing is left behind."""
    draw(tmp_path / "in", [80, 130, 200, 90, 60])
    draw(tmp_path / "in", [80], first=RAISES)
    (tmp_path / "in/broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    command = [sys.executable, "-m", "tests.screening.ray_run"]
    command += [str(tmp_path / name) for name in ("in", "out", "scratch", "log")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), *sys.path])}

    done = subprocess.run(
        command, capture_output=True, text=True, cwd=root, env=environment, timeout=200
    )

    assert done.returncode == 0, done.stderr[-3000:]
    printed = json.loads(done.stdout.splitlines()[-1])
    assert printed == {
        "stats": "0", "consistent": 3, "inconclusive": 1, "ai-suspected": 1, "refused": 2
    }  # fmt: skip
    _, whole = screen([tmp_path / "in"], tmp_path / "one")
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert report["images"] == whole["images"]
    assert report["refusals"] == whole["refusals"]
    assert report["summary"] == whole["summary"]
    assert not (tmp_path / "scratch").exists()
    assert len((tmp_path / "log").read_text().splitlines()) == 5  # no picture was judged twice
