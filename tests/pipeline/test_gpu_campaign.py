"""The command for a lent GPU, on a CPU and a machine that has torch, numpy and Pillow alone."""

import contextlib
import csv
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest
from PIL import Image

from semforensics.core.checkpoints import load_checkpoint
from semforensics.generators.common.sampling import generate_grey
from semforensics.generators.generate_fakes import load_generator
from tests.generators.conftest import write_blobs, write_random_trunk

ROOT = Path(__file__).parents[2]
CAMPAIGN = ROOT / "tools/gpu_campaign.py"
BARE = """
import sys
from importlib.machinery import PathFinder

THERE = {"torch", "torchgen", "functorch", "numpy", "PIL", "typing_extensions"}
# What torch itself needs.
THERE |= {"filelock", "sympy", "mpmath", "networkx", "jinja2", "markupsafe", "fsspec"}

class Bare(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        spec = PathFinder.find_spec(name, path, target)
        places = [str(spec.origin), *(spec.submodule_search_locations or ())] if spec else []
        is_installed = any("site-packages" in place for place in places)
        return None if is_installed and name.split(".")[0] not in THERE else spec

sys.meta_path[:] = [Bare if finder is PathFinder else finder for finder in sys.meta_path]
"""
"""Hides all installed packages but a few from a process, as `sitecustomize`."""
STAND_INS = ["jaxtyping", "pandas", "pydantic", "rich", "safetensors", "tifffile", "yaml"]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """An archive of crops."""
    write_blobs(tmp_path / "data/cropped", tmp_path / "data/splits.csv", 24)
    write_random_trunk(tmp_path / "pretrained")
    archive = tmp_path / "crops.tar"
    command = [sys.executable, ROOT / "tools/gpu_data.py", tmp_path / "data", archive]
    subprocess.run([*command, "--weights", tmp_path / "pretrained/alex.safetensors"], check=True)
    return archive


@pytest.fixture
def bare(tmp_path: Path) -> dict[str, str]:
    """The environment of a machine that has hardly any package."""
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare/sitecustomize.py").write_text(BARE)
    return os.environ | {"PYTHONPATH": str(tmp_path / "bare"), "PYTHONDONTWRITEBYTECODE": "1"}


def check_whole(out: Path) -> None:
    """Every file can be read to its end."""
    for path in out.iterdir():
        assert path.is_file(), path
        match path.suffix:
            case ".json":
                json.loads(path.read_text())
            case ".csv":
                rows = list(csv.reader(path.read_text().splitlines()))
                assert len({len(row) for row in rows}) == 1
                assert path.read_text().endswith("\n")
            case ".png":
                with Image.open(path) as image:
                    assert image.size == (256, 256)
                    image.load()
            case ".safetensors":
                assert load_checkpoint(path)[1]["data"]["crops"]
            case _:
                assert path.name == "log.txt"


def running() -> dict[int, int]:
    """The processes that run, zombies left out, each with its parent."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended
            state, parent = path.read_text().rpartition(")")[2].split()[:2]
            found |= {int(path.parent.name): int(parent)} if state != "Z" else {}
    return found


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a process ends with its parent")
def test_a_campaign_that_is_killed_leaves_whole_files(
    tmp_path: Path, data: Path, bare: dict[str, str]
) -> None:
    """Right after a kill all files can be read, the processes end, and the generator draws."""
    out = tmp_path / "out"
    command = [sys.executable, CAMPAIGN, "--minutes", "5", "--data", data, "--out", out, "--tiny"]
    command += ["--parts", "train"]
    with (tmp_path / "said").open("w") as said:
        process = subprocess.Popen(command, env=bare, stdout=said, stderr=said)
    for _ in range(1200):
        if (out / "snapshots.csv").is_file() or process.poll() is not None:
            break
        time.sleep(0.1)
    assert process.poll() is None, (tmp_path / "said").read_text()
    children = {pid for pid, parent in running().items() if parent == process.pid}

    process.send_signal(signal.SIGKILL)
    process.wait()

    assert children
    for _ in range(100):
        if not children & running().keys():
            break
        time.sleep(0.1)
    assert not children & running().keys()
    check_whole(out)
    names = {"best.safetensors", "generator.safetensors", "grid.png", "snapshots.csv"}
    assert {path.name for path in out.iterdir()} - {"losses.csv"} == {*names, "report.json"}
    assert generate_grey(load_generator(out), [0]).shape == (1, 64, 64)


@pytest.mark.slow
def test_a_whole_campaign_runs_on_a_bare_machine(
    tmp_path: Path, data: Path, bare: dict[str, str]
) -> None:
    """In the time that it has it leaves timings, curves, a grid and generators, eight files."""
    out, begun = tmp_path / "out", time.monotonic()
    command = [sys.executable, CAMPAIGN, "--minutes", "1.5", "--data", data, "--out", out]

    subprocess.run([*command, "--tiny"], env=bare, check=True)

    assert time.monotonic() - begun < 100
    check_whole(out)
    report = json.loads((out / "report.json").read_text())["parts"]
    assert list(report) == ["tests", "timings", "train"]
    assert "failed" not in {entry["state"] for entry in report.values()}
    assert report["train"]["stand_ins"] == STAND_INS
    assert report["train"]["n_real"] == 18
    assert len(list(out.iterdir())) == 8
    with (out / "timings.csv").open() as file:
        timings = list(csv.DictReader(file))
    assert [row["gan"] for row in timings] == ["fastgan"] * 4 + ["stylegan2_ada"] * 4
    assert all(float(row["loss_difference"]) < 0.001 for row in timings)
    with (out / "losses.csv").open() as file:
        assert {"iteration", "loss_g", "diversity", "seconds"} <= set(next(csv.DictReader(file)))


def test_the_campaign_runs_the_tests_that_need_a_gpu(tmp_path: Path) -> None:
    """Those that are marked, and no others; one that fails makes the part fail."""
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests/test_some.py").write_text(
        "import pytest\n"
        "@pytest.mark.gpu\ndef test_good():\n    pass\n"
        "@pytest.mark.gpu\ndef test_bad():\n    assert False\n"
        "def test_other():\n    assert False\n"
    )
    command = [sys.executable, CAMPAIGN, "--part", "tests", "--tests", tmp_path / "tests"]
    command += ["--device", "cuda", "--data", tmp_path, "--out", tmp_path, "--unfinished", tmp_path]

    done = subprocess.run(command, capture_output=True, text=True)

    assert done.returncode == 1
    assert "1 failed, 1 passed, 1 deselected" in done.stdout
    assert json.loads((tmp_path / "tests.json").read_text())["exit_code"] == 1


def test_results_of_two_campaigns_are_not_mixed(tmp_path: Path) -> None:
    """A folder that holds anything is refused, and so is data that is not there."""
    (tmp_path / "report.json").touch()
    command = [sys.executable, CAMPAIGN, "--data", tmp_path, "--out", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert "not empty" in done.stderr

    command[3] = tmp_path / "none.tar"
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert "tools/gpu_data.py makes one" in done.stderr


def test_an_archive_writes_nothing_outside(tmp_path: Path) -> None:
    """A name that leads upwards ends in one sentence, and no file."""
    with tarfile.open(tmp_path / "bad.tar", "w") as archive:
        archive.add(ROOT / "Makefile", "../escaped")
    program = "import sys, pathlib as p; sys.path.insert(0, sys.argv[1]); import gpu_campaign as g"
    program += "; g.unpacked(*map(p.Path, sys.argv[2:]))"

    command = [sys.executable, "-c", program, ROOT / "tools", tmp_path / "bad.tar", tmp_path / "to"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert done.returncode == 1
    assert "holds ../escaped, which lies outside of the archive" in done.stderr
    assert not list(tmp_path.rglob("escaped"))
