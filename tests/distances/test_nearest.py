import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from PIL import Image

from semforensics.distances.nearest import measure_folder, nearest, summarise_mse
from semforensics.params import MeasureDistancesParams

MATRICES = npst.arrays(
    np.float64,
    npst.array_shapes(min_dims=2, max_dims=2, max_side=8),
    elements=st.integers(0, 5).map(float),
)


@given(MATRICES)
def test_nearest_is_the_first_smallest(distances):
    """Every row's index points to its smallest distance, the lowest index at a tie."""
    found = nearest(distances)

    for row, distance, index, mean in zip(
        distances, found.distance, found.index, found.mean, strict=True
    ):
        assert distance == min(row)
        assert index == list(row).index(min(row))
        assert mean == pytest.approx(sum(row) / len(row))


@given(MATRICES, st.data())
def test_more_fakes_never_raise_a_minimum(mse, data):
    """With more fakes to choose from, no real has a farther nearest one."""
    more = data.draw(npst.arrays(np.float64, (len(mse), 3), elements=st.floats(0, 9)))

    alone, together = nearest(mse), nearest(np.hstack([mse, more]))

    assert (together.distance <= alone.distance).all()


@given(MATRICES)
def test_summary_is_in_order(mse):
    """Minimum, quartiles and mean of all pairs stand in their order, and minima are per real."""
    summary = summarise_mse(mse)

    keys = ("", "_lower_quartile_of_minima", "_median_of_minima", "_upper_quartile_of_minima")
    values = [summary["mse" + (key or "_min")] for key in keys]
    assert values == sorted(values)
    assert summary["mse_mean_of_minima"] == pytest.approx(np.mean([min(row) for row in mse]))
    assert summary["mse_mean_of_minima_per_fake"] == pytest.approx(
        np.mean([min(column) for column in mse.T])
    )
    assert summary["mse_mean_of_minima"] <= summary["mse_mean_all_pairs"] + 1e-12


def test_nothing_to_compare_is_refused():
    """A matrix without rows or columns has no nearest."""
    with pytest.raises(ValueError, match=r"\(3, 0\): nothing to compare"):
        nearest(np.zeros((3, 0)))


SIDES = ("train", "train", "train", "test", "test", "validation")


def save(path: Path, image: np.ndarray) -> None:
    """Write a grey PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)


@pytest.fixture
def reals() -> np.ndarray:
    """Six images of noise."""
    return np.random.default_rng(0).integers(0, 256, (6, 8, 10), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path: Path, reals: np.ndarray) -> Path:
    """Six reals on three sides; three fakes that are copies.

    Fake 0 is the test real 4, fake 1 the training real 1, fake 2 the training real 2 but for one
    grey level in one pixel.
    """
    for index, image in enumerate(reals):
        save(tmp_path / f"cropped/real_{index}.png", image)
    nearly = reals[2].copy()
    nearly[0, 0] ^= 1
    for seed, image in enumerate([reals[4], reals[1], nearly]):
        save(tmp_path / f"fakes/{seed:06d}.png", image)
    table = pd.DataFrame(
        {
            "file": [f"real_{i}.png" for i in range(6)],
            "micrograph": [f"m{i}.tif" for i in range(6)],
            "group": [f"g{i}" for i in range(6)],
            "label": "",
            "magnification_k": "",
            "kv": "",
            "top_px": 0,
            "left_px": 0,
            "side": SIDES,
        }
    )
    table.sample(frac=1, random_state=1).to_csv(tmp_path / "splits.csv", index=False)
    return tmp_path


def measure(folder: Path, protocol: str = "clean", block_size: int = 2) -> tuple:
    """Run the stage's function; give its metrics and tables."""
    measure_folder(
        folder / "cropped",
        folder / "splits.csv",
        folder / "fakes",
        folder / "metrics/fastgan.json",
        folder / "plots",
        gan="fastgan",
        params=MeasureDistancesParams(block_size=block_size),
        protocol=protocol,
        data="simulated",
        device=torch.device("cpu"),
    )
    metrics = json.loads((folder / "metrics/fastgan.json").read_text())
    tables = (pd.read_csv(folder / f"plots/fastgan_per_{kind}.csv") for kind in ("real", "fake"))
    return metrics, *tables


def test_copies_point_to_their_twins(folder):
    """A copied training real is at distance 0 in both tables, each side naming the other's file."""
    metrics, per_real, per_fake = measure(folder)

    assert list(per_real["file"]) == ["real_0.png", "real_1.png", "real_2.png"]
    assert list(per_real["mse_min"][1:]) == [0, 1 / 80]
    assert list(per_real["nearest"][1:]) == ["000001.png", "000002.png"]
    assert list(per_fake["file"]) == ["000000.png", "000001.png", "000002.png"]
    assert list(per_fake["mse_min"][1:]) == [0, 1 / 80]
    assert list(per_fake["nearest"][1:]) == ["real_1.png", "real_2.png"]
    assert metrics["mse_min"] == 0
    assert (metrics["n_real"], metrics["n_fake"]) == (3, 3)
    assert (metrics["protocol"], metrics["data"], metrics["reals"]) == (
        "clean",
        "simulated",
        "train",
    )


def test_clean_looks_at_the_reals_the_gan_has_seen(folder, reals):
    """Under `clean` a copy of a test real has no twin; under `thesis` it has."""
    _, _, clean = measure(folder)
    metrics, per_real, thesis = measure(folder, protocol="thesis")

    difference = reals[:3].astype(float) - reals[4].astype(float)
    expected = (difference**2).mean(axis=(1, 2))
    assert clean["mse_min"][0] == pytest.approx(expected.min(), rel=1e-14)
    assert clean["nearest"][0] == f"real_{expected.argmin()}.png"
    assert clean["mse_mean"][0] == pytest.approx(expected.mean(), rel=1e-14)
    assert (thesis["mse_min"][0], thesis["nearest"][0]) == (0, "real_4.png")
    assert (len(per_real), metrics["n_real"], metrics["reals"]) == (6, 6, "all")


def test_block_size_changes_no_byte(folder):
    """All three files are the same for every block size."""
    names = ("metrics/fastgan.json", "plots/fastgan_per_real.csv", "plots/fastgan_per_fake.csv")

    measure(folder, block_size=1)
    before = [(folder / name).read_bytes() for name in names]
    measure(folder, block_size=64)

    assert [(folder / name).read_bytes() for name in names] == before


def test_images_that_do_not_compare_are_refused(folder, reals):
    """An empty folder, a fake of another size and reals of other sizes are refused by name."""
    save(folder / "fakes/000003.png", reals[0][:6])
    with pytest.raises(ValueError, match=r"fakes/000003\.png: 10x6 px, expected 10x8"):
        measure(folder)

    for fake in (folder / "fakes").iterdir():
        save(fake, reals[0][:, :8])
    with pytest.raises(ValueError, match=r"images of 8x8 px, those of .*cropped have 10x8"):
        measure(folder)

    for fake in (folder / "fakes").iterdir():
        fake.unlink()
    with pytest.raises(ValueError, match="no PNG files, expected the fakes of fastgan"):
        measure(folder)
    assert not (folder / "metrics").exists()
    assert not (folder / "plots").exists()
