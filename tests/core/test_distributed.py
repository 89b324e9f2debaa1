"""Several processes train as one, resume exactly, and end when one of them dies."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from tests.detector.conftest import write_data
from tests.generators.conftest import (
    Place,
    rows_of,
    tiny,
    tiny_style,
    write_blobs,
    write_random_trunk,
)

from semforensics.core import distributed

TRAININGS = ("fastgan", "stylegan2_ada", "classifier")


def make_root(root: Path) -> Path:
    """Write what the trainings read."""
    for name in ("fastgan", "stylegan2_ada"):
        write_blobs(root / name / "cropped", root / name / "splits.csv", 24)
        write_random_trunk(root / name / "pretrained")
    write_data(root / "data")
    return root


def together(
    checkout: Path, *arguments: object, script: str = "together.py"
) -> tuple[int, str, float]:
    """Run trainings in two processes; return exit code, what was said and the time."""
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, f"tests/{script}", *map(str, arguments)],
        cwd=checkout, env=os.environ | {"PYTHONPATH": f"{checkout}{os.pathsep}{checkout / 'src'}"},
        capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    return done.returncode, done.stderr, time.monotonic() - start


def outputs(root: Path) -> dict[str, bytes]:
    """All that the three trainings left."""
    left = {}
    for folder in ("fastgan/checkpoints", "fastgan/plots", "stylegan2_ada/checkpoints",
                   "stylegan2_ada/plots", "classifier"):  # fmt: skip
        for path in sorted((root / folder).rglob("*")):
            if path.is_file():
                left[str(path.relative_to(root))] = path.read_bytes()
    return left


@pytest.mark.timeout(400)
def test_two_processes_train_as_one_and_survive_their_deaths(root: Path, tmp_path: Path) -> None:
    """Both end with equal weights and a sane loss; killed in each training, with the same bytes."""
    whole, killed = make_root(tmp_path / "whole"), make_root(tmp_path / "killed")

    code, said, _ = together(root, whole)
    assert code == 0, said
    for name in TRAININGS:
        first, second = ((whole / f"{name}_{rank}.sha256").read_text() for rank in (0, 1))
        assert first == second, f"{name}: the processes hold different weights"

    for name, step in (("fastgan", 2), ("stylegan2_ada", 3), ("classifier", 2)):
        code, said, took = together(root, killed, name, step)
        assert code == 1, said
        assert "process 1 of 0 … 1 was killed (SIGKILL)" in said
        assert took < 60
        assert not [path for path in outputs(killed) if path.startswith(name)]
    code, said, _ = together(root, killed)
    assert code == 0, said
    assert "resuming at epoch" in said
    assert outputs(killed) == outputs(whole)

    # Against a single process: the same first losses but for the statistics over a batch.
    for name, params in (("fastgan", tiny()), ("stylegan2_ada", tiny_style())):
        alone = Place(make_root(tmp_path / f"alone_{name}") / name)
        alone.train(params)
        ours, theirs = (rows_of(place / "plots/losses.csv") for place in (whole / name, alone.root))
        for key in ("loss_g", "logit_real"):
            assert ours[0][key] == pytest.approx(theirs[0][key], rel=0.2, abs=0.2), (name, key)


@pytest.mark.timeout(240)
def test_the_others_wait_for_the_process_that_writes(root: Path, tmp_path: Path) -> None:
    """States and snapshots may take longer to write than a step may take."""
    patient, impatient = make_root(tmp_path / "one"), make_root(tmp_path / "two")

    code, said, _ = together(root, patient / "fastgan", script="slow_writing.py")
    assert code == 0, said
    assert (patient / "fastgan/checkpoints/generator.safetensors").is_file()

    code, said, _ = together(root, impatient / "fastgan", "impatient", script="slow_writing.py")
    assert code == 1, "without waiting, this test shows nothing"
    assert "Timed out" in said or "timeout" in said.lower(), said


@pytest.mark.timeout(120)
def test_bad_input_ends_all_processes_with_code_2(root: Path, tmp_path: Path) -> None:
    """A batch that cannot be divided is refused by the command, and nothing is written."""
    place = Place(make_root(tmp_path) / "fastgan")
    text = (root / "params.yaml").read_text()
    head, fastgan = text.split("  fastgan:", 1)
    lines = fastgan.splitlines(keepends=True)
    at = next(i for i, line in enumerate(lines) if line.strip().startswith("batch:"))
    lines[at] = "    batch: 7\n"
    (tmp_path / "params.yaml").write_text(head + "  fastgan:" + "".join(lines))

    done = subprocess.run(
        [sys.executable, str(root / "src/stage.py"), "train-gan", "fastgan",
         *(str(place.root / name) for name in
           ("cropped", "splits.csv", "pretrained", "checkpoints", "plots")),
         "--params", str(tmp_path / "params.yaml"), "--scratch", str(tmp_path / "scratch")],
        env=os.environ | {"SEMFORENSICS_PROCESSES": "2"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert done.returncode == 2, done.stderr
    assert "train_gan.fastgan.batch: 7 images, cannot be divided evenly among 2" in done.stderr
    assert place.outputs() == {}


def test_a_single_process_gets_its_own_back() -> None:
    """Without others, nothing is cut, copied or changed."""
    x = torch.arange(6.0)

    assert distributed.num_processes() == 1
    assert distributed.is_first()
    assert distributed.whole(6) == 6
    assert x[distributed.share(6)].tolist() == x.tolist()
    assert distributed.gather(x) is x
    assert distributed.average(x) is x
    distributed.check_batch(7, "batch")
