"""What is released can be pulled from the repository itself, and used."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.pipeline.conftest import ROOT, Run

RELEASED = "data/released/real_subset"


@pytest.fixture
def pulled(checkout: Path, run: Run) -> Path:
    """A scratch checkout with the released files, pulled from its own store."""
    shutil.copytree(ROOT / "store", checkout / "store", dirs_exist_ok=True)
    run("dvc", "pull", "-q", f"{RELEASED}.dvc")
    return checkout


@pytest.mark.parametrize("gan", ["fastgan", "stylegan2_ada", "stylegan2_ada_best"])
def test_the_released_generators_draw_fakes(pulled: Path, run: Run, gan: str) -> None:
    """Fakes of a released generator are 128 px, differ by seed, and come again."""
    from semforensics.core.images import read_crop

    (pulled / "generator").mkdir()
    for name in ("generator", "best"):
        shutil.copy(
            pulled / RELEASED / f"{gan}.safetensors", pulled / f"generator/{name}.safetensors"
        )
    text = (pulled / "params.yaml").read_text().replace("num_images: 400", "num_images: 2")
    (pulled / "two.yaml").write_text(text)
    command = ["python", "src/stage.py", "generate-fakes", gan.removesuffix("_best"), "generator"]

    for folder in ("fakes", "again"):
        run(*command, folder, "--params", "two.yaml")

    first, second = (read_crop(pulled / f"fakes/{seed:06d}.png") for seed in range(2))
    assert first.shape == (128, 128)
    assert first.std() > 3
    assert (first != second).mean() > 0.5
    assert sorted(p.name for p in (pulled / "fakes").iterdir()) == ["000000.png", "000001.png"]
    assert (read_crop(pulled / "again/000001.png") == second).all()


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


def test_the_released_detectors_give_verdicts(pulled: Path, run: Run) -> None:
    """They carry calibration and domain: their fakes are suspected, noise is not judged."""
    from semforensics.core.images import read_crop
    from semforensics.detector.detector import Detector

    run("dvc", "pull", "-q", f"{RELEASED}_detector.dvc")
    folder = pulled / f"{RELEASED}_detector"
    shutil.copytree(pulled / RELEASED, pulled / "generator")
    (pulled / "generator/fastgan.safetensors").rename(pulled / "generator/generator.safetensors")
    text = (pulled / "params.yaml").read_text().replace("num_images: 400", "num_images: 8")
    (pulled / "few.yaml").write_text(text)
    run(
        *("python", "src/stage.py", "generate-fakes", "fastgan", "generator", "fakes"),
        *("--params", "few.yaml"),
    )
    fakes = torch.from_numpy(np.stack([read_crop(p) for p in sorted((pulled / "fakes").iterdir())]))
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
