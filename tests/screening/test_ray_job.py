"""A Ray job gives the scores that one machine gives."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
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


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Start a cluster as docs/use/screen.md says; yield its address and the environment."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "HOME": str(tmp_path), "RAY_AUTH_MODE": "token"}
    generate = [str(Path(sys.executable).with_name("ray")), "get-auth-token", "--generate"]
    subprocess.run(generate, env=environment, check=True, capture_output=True)
    ray = [str(Path(sys.executable).with_name("ray")), "start", "--head", "--block"]
    options = ["--port", str(port), "--num-cpus", "2", "--disable-usage-stats"]
    with (tmp_path / "ray.log").open("wb") as log:
        head = subprocess.Popen([*ray, *options], env=environment, stdout=log, stderr=log)
        deadline = time.monotonic() + 60
        while b"Ray runtime started" not in (tmp_path / "ray.log").read_bytes():
            assert head.poll() is None, "Ray did not start"
            assert time.monotonic() < deadline, "Ray did not start in time"
            time.sleep(0.5)
        yield f"127.0.0.1:{port}", environment
        head.terminate()
        head.wait(60)


@pytest.mark.slow
def test_a_cluster_that_asks_for_a_token(
    tmp_path: Path, root: Path, cluster: tuple[str, dict[str, str]]
) -> None:
    """With the token the cluster screens; without it the error says what is missing."""
    address, environment = cluster
    draw(tmp_path / "in", [80, 130])
    command = [str(Path(sys.executable).with_name("semforensics")), "screen", str(tmp_path / "in")]
    command += ["--no-maps", "--ray", address, "--out", str(tmp_path / "out")]

    def run(mode: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            cwd=root,
            env={**environment, "RAY_AUTH_MODE": mode},
            timeout=200,
        )

    refused = run("disabled")
    assert refused.returncode == 2
    assert "RAY_AUTH_MODE=token" in refused.stderr
    assert not (tmp_path / "out/report.html").exists()
    done = run("token")
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads((tmp_path / "out/report.json").read_text())["summary"]["n_pictures"] == 2
