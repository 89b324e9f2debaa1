"""What is released can be pulled from the repository itself, and used."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.conftest import Call
from tests.pipeline.conftest import ROOT, runner, start_checkout

RELEASED = "data/released/real_subset"


@pytest.fixture(scope="module")
def pulled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scratch checkout with the released files, pulled from its own store."""
    root = tmp_path_factory.mktemp("released")
    checkout = start_checkout(root)
    shutil.copytree(ROOT / "store", checkout / "store", dirs_exist_ok=True)
    runner(root)("dvc", "pull", "-q", f"{RELEASED}.dvc", f"{RELEASED}_detector.dvc")
    return checkout


def draw(call: Call, gan: str, checkpoints: Path, fakes: Path, count: int) -> None:
    """Draw fakes by the command of the pipeline."""
    text = (ROOT / "params.yaml").read_text().replace("num_images: 400", f"num_images: {count}")
    params = fakes.with_suffix(".yaml")
    params.write_text(text)
    options = ("--params", params, "--device", "cpu", "--threads", 1)
    done = call("generate-fakes", gan, checkpoints, fakes, *options)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("gan", ["fastgan", "stylegan2_ada", "stylegan2_ada_best"])
def test_the_released_generators_draw_fakes(
    pulled: Path, tmp_path: Path, call: Call, gan: str
) -> None:
    """Fakes of a released generator are 128 px, differ by seed, and come again."""
    from semforensics.core.images import read_crop

    (tmp_path / "generator").mkdir()
    for name in ("generator", "best"):
        released = pulled / RELEASED / f"{gan}.safetensors"
        shutil.copy(released, tmp_path / f"generator/{name}.safetensors")

    for folder in ("fakes", "again"):
        draw(call, gan.removesuffix("_best"), tmp_path / "generator", tmp_path / folder, 2)

    first, second = (read_crop(tmp_path / f"fakes/{seed:06d}.png") for seed in range(2))
    assert first.shape == (128, 128)
    assert first.std() > 3
    assert (first != second).mean() > 0.5
    assert sorted(p.name for p in (tmp_path / "fakes").iterdir()) == ["000000.png", "000001.png"]
    assert (read_crop(tmp_path / "again/000001.png") == second).all()


@pytest.mark.parametrize("name", ["fastgan", "stylegan2_ada", "both"])
def test_the_released_classifiers_say_what_they_were_trained_on(pulled: Path, name: str) -> None:
    """The model carries its training domain, protocol and threshold."""
    from semforensics.core.checkpoints import load_checkpoint

    _, meta = load_checkpoint(pulled / RELEASED / f"npr_tiny_{name}.safetensors")

    assert meta["detector"] == name
    assert meta["data"] == "folder"
    assert meta["protocol"] == "clean"
    assert meta["size_px"] == [128, 128]
    assert set(meta["thresholds"]) == {"1", "4"}


def test_the_released_detectors_give_verdicts(pulled: Path, tmp_path: Path, call: Call) -> None:
    """They carry calibration and domain: their fakes are suspected, noise is not judged."""
    from semforensics.core.images import read_crop
    from semforensics.detector.detector import Detector

    folder = pulled / f"{RELEASED}_detector"
    (tmp_path / "generator").mkdir()
    generator = tmp_path / "generator/generator.safetensors"
    shutil.copy(pulled / RELEASED / "fastgan.safetensors", generator)
    draw(call, "fastgan", tmp_path / "generator", tmp_path / "fakes", 8)
    files = sorted((tmp_path / "fakes").iterdir())
    fakes = torch.from_numpy(np.stack([read_crop(path) for path in files]))
    noise = torch.randint(0, 256, (8, 1, 128, 128), dtype=torch.uint8)

    for name in ("both", "both_pseudo", "fastgan"):
        detector = Detector.load(folder / name, phases=4, device=torch.device("cpu"))
        assert (detector.verdicts(fakes[:, None], 0.05) == "ai-suspected").mean() >= 0.75
        assert set(detector.verdicts(noise, 0.05)) == {"inconclusive"}
    listed = (folder / "README.md").read_text()
    assert all(path.name in listed for path in folder.iterdir())


def test_released_files_stay_small(pulled: Path) -> None:
    """No released generator is above 10 MB, and all files are named in the README beside them."""
    folder = pulled / RELEASED
    listed = (folder / "README.md").read_text()

    for path in folder.iterdir():
        assert path.stat().st_size <= 10e6
        assert path.name in listed
