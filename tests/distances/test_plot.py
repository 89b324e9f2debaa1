from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from semforensics.distances.plot import plot
from semforensics.figures.losses import COLUMNS
from semforensics.figures.style import source_line

WITHOUT_REALS = ("distances_lpips", "distances_mse", "fakes", "losses", "memorisation")
WITH_REALS = ("nearest_pairs_lpips", "nearest_pairs_mse", "reals", "spectra", "suspicious")
FIGURES = sorted(WITHOUT_REALS + WITH_REALS)


def save_noise(folder: Path, names: list[str], seed: int) -> None:
    """Write images of noise."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(seed)
    for name in names:
        Image.fromarray(rng.integers(0, 256, (32, 32), dtype=np.uint8)).save(folder / name)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What the stages before leave: 3 reals and 5 fakes of noise, their distances, the losses."""
    reals, fakes = [f"real_{i}.png" for i in range(3)], [f"{i:06d}.png" for i in range(5)]
    save_noise(tmp_path / "cropped", reals, seed=0)
    save_noise(tmp_path / "fakes", fakes, seed=1)
    for name in ("training", "distances"):
        (tmp_path / name).mkdir()
    tables = {}
    for kind, files, nearest in (("real", reals, fakes[3]), ("fake", fakes, reals[1])):
        table = pd.DataFrame({"file": files})
        twins = table.assign(kind=kind, by="mse")
        for name in ("mse", "lpips"):
            table[f"{name}_min"] = twins[name] = range(len(files), 0, -1)
            table[f"{name}_nearest"] = twins[f"{name}_nearest"] = nearest
            twins[f"{name}_flip"] = "left-right"
        table.to_csv(tmp_path / f"distances/fastgan_per_{kind}.csv", index=False)
        tables[kind] = twins
    tables["fake"].to_csv(tmp_path / "distances/fastgan_suspicious.csv", index=False)
    pd.concat(tables.values()).to_csv(tmp_path / "distances/fastgan_memorisation.csv", index=False)
    losses = pd.DataFrame({column: [1.0, 2.0, 3.0] for column in COLUMNS})
    losses.to_csv(tmp_path / "training/losses.csv", index=False)
    return tmp_path


def draw(folder: Path, name: str = "figures") -> dict[str, bytes]:
    """Run the stage's function; give the files."""
    count = plot(
        "fastgan",
        folder / "cropped",
        folder / "fakes",
        folder / "training",
        folder / "distances",
        folder / name,
        data="simulated",
    )
    files = {path.stem: path.read_bytes() for path in (folder / name).iterdir()}
    assert count == len(files)
    return files


def test_same_input_gives_the_same_bytes(folder):
    """Exactly ten figures are written, without date or version, twice the same."""
    first, second = draw(folder, "first"), draw(folder, "second")

    assert sorted(first) == FIGURES
    assert first == second
    with Image.open(folder / "first/fakes.png") as image:
        assert set(image.info) <= {"dpi"}


def test_figures_for_all_hold_no_pixel_of_a_real(folder):
    """Other reals change only the figures that are said to show them, and the spectra's curve."""
    before = draw(folder)
    save_noise(folder / "cropped", [f"real_{i}.png" for i in range(3)], seed=9)

    after = draw(folder)

    assert {name for name in FIGURES if before[name] == after[name]} == set(WITHOUT_REALS)


def test_the_source_stands_in_every_figure(folder):
    """Simulated data are called so; other data change every figure."""
    simulated = draw(folder)
    plot(
        "fastgan",
        *(folder / name for name in ("cropped", "fakes", "training", "distances", "figures")),
        data="boiko",
    )

    assert source_line("fastgan", "simulated") == "fastgan · Simulated micrographs"
    assert source_line("fastgan", "boiko") == "fastgan · Boiko et al. 2020"
    for name in FIGURES:
        assert (folder / f"figures/{name}.png").read_bytes() != simulated[name], name


def test_foreign_tables_are_refused(folder):
    """A table without its columns is refused by name, and no folder is left."""
    path = folder / "training/losses.csv"
    pd.read_csv(path).drop(columns="loss_g").to_csv(path, index=False)

    with pytest.raises(ValueError, match=r"losses\.csv: no column loss_g; found iteration"):
        draw(folder)

    assert not (folder / "figures").exists()
