"""The wheel: what is in it, and that it screens a picture where there is no checkout."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

MODELS = [
    f"semforensics/models/{name}/model.safetensors" for name in ("screening_model", "world_model")
]
NOT_INSTALLED = (
    "beartype", "diffusers", "dvc", "lpips", "matplotlib", "pandas", "requests", "skimage",
    "sklearn", "tabulate", "torchvision", "vl_convert",
)  # fmt: skip
"""Modules that the extras `pipeline` and `dev` bring."""


def build(source: Path, wheels: Path) -> subprocess.CompletedProcess[str]:
    """Build the wheel of a source tree with what is installed here."""
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(wheels)]
    command = [sys.executable, "-m", "pip", "wheel", "-q", *options, str(source)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what a wheel is built from, with the model's files alone in its store."""
    root = Path(__file__).parents[1]
    copy = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(root / name, copy)
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    shutil.copytree(root / "src", copy / "src", ignore=ignored)
    released, store = Path("data/released"), Path("store/files/md5")
    (copy / released).mkdir(parents=True)
    for name in ("screening_model.dvc", "world_model.dvc"):
        pointer = shutil.copy(root / released / name, copy / released / name)
        listing = pointer.read_text().split("md5: ")[1].split()[0]
        files = json.loads((root / store / listing[:2] / listing[2:]).read_text())
        for md5 in (listing, *(file["md5"] for file in files)):
            target = copy / store / md5[:2] / md5[2:]
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(root / store / md5[:2] / md5[2:], target)
    return copy


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout."""
    folder = tmp_path_factory.mktemp("wheels")
    done = build(source, folder)
    assert done.returncode == 0, done.stderr
    (path,) = folder.glob("*.whl")
    return path


def test_the_wheel_holds_the_released_model_and_all_data_files(root: Path, wheel: Path) -> None:
    """Model, its card, templates and styles are packed; nothing beside the package is."""
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())

    sources = root / "src"
    files = {p.relative_to(sources).as_posix() for p in sources.glob("semforensics/**/*.*")}
    assert {f for f in files if "__pycache__" not in f} - names == set()
    assert {model.replace("model.safetensors", "README.md") for model in MODELS} < names
    assert set(MODELS) < names
    assert {name.split("/")[0] for name in names} == {
        "semforensics",
        wheel.name.removesuffix("-py3-none-any.whl") + ".dist-info",
    }


def test_the_wheel_screens_a_picture_without_a_checkout(wheel: Path, tmp_path: Path) -> None:
    """With what screening needs and nothing of the pipeline, it finds its model and reports."""
    site, work = tmp_path / "site", tmp_path / "work"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    work.mkdir()
    rng = np.random.default_rng(7)
    levels = rng.normal(120, 20, (260, 300)).clip(0, 255).astype(np.uint8)
    Image.fromarray(levels).save(work / "figure.png")
    hidden = ("SEMFORENSICS_", "PYTHONPATH", "PYTHONHOME")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(hidden)}

    code = (
        "import sys, semforensics\n"
        f"sys.modules.update(dict.fromkeys({NOT_INSTALLED}))  # importing them fails\n"
        "print(semforensics.__file__, file=sys.stderr)\n"
        "from semforensics.cli.main import main\n"
        "main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "screen", "figure.png"],
        capture_output=True,
        text=True,
        cwd=work,
        env={**environment, "PYTHONPATH": str(site)},
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert str(site) in done.stderr
    report = json.loads((work / "report/report.json").read_text())
    assert report["model"]["training_domain"]["data"] == "folder"
    assert "report: report/report.html" in done.stdout


def test_a_store_without_the_model_stops_the_build(source: Path, tmp_path: Path) -> None:
    """A wheel without its model is never built: the message names the file that is missing."""
    copy = tmp_path / "source"
    shutil.copytree(source, copy)
    stored = max(copy.glob("store/files/md5/*/*.dir"))
    stored.unlink()

    done = build(copy, tmp_path / "wheels")

    assert done.returncode != 0
    assert f"{stored.relative_to(copy)}: missing" in done.stderr
    assert "the released models cannot be packed" in done.stderr
