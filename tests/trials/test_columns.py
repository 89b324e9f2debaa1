"""Every column holds as many reals as others, and what was made of reals stands in their groups."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from tests.detector.conftest import Folders, write_data

from semforensics.trials.columns import CONTROLS, MADE_OF_REALS, Unseen, list_columns, note


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    """18 test reals of three groups and 18 test fakes of a GAN."""
    return write_data(tmp_path)


def save(folder: Path, names: list[str], size: int = 32) -> None:
    """Write grey images."""
    folder.mkdir(parents=True)
    for name in names:
        Image.fromarray(np.full((size, size), 99, dtype=np.uint8)).save(folder / name)


def list_all(folders: Folders) -> pd.DataFrame:
    """All reals and fakes with their splits."""
    return folders.corpus().list_images(("fastgan",))


def columns_of(
    folders: Folders, max_images: int = 100, under_trained: bool = True
) -> dict[str, object]:
    """List columns by name."""
    unseen = Unseen(folders.fakes.parent / "unseen", under_trained)
    found = list_columns(list_all(folders), unseen, max_images=max_images, seed=0)
    return {column.name: column for column in found}


def test_what_is_made_of_reals_stays_with_them(folders: Folders) -> None:
    """Re-synthesis and controls have their originals beside them, in the same groups."""
    table = list_all(folders)
    reals = table[(table["class"] == "real") & (table["split"] == "test")]
    for name in ("nearest", "denoised"):
        save(folders.fakes.parent / "unseen" / name, list(reals["file"]))

    columns = columns_of(folders, max_images=7)

    assert list(columns) == ["fastgan", "nearest", "denoised"]
    for name in ("nearest", "denoised"):
        rows = columns[name].table
        mine, others = rows[rows["class"] == "real"], rows[rows["class"] == "fake"]
        assert len(mine) == len(others) == 7
        assert mine["group"].nunique() == 3
        assert [f"{name}/{file}" for file in mine["file"]] == list(others["file"])
        assert list(mine["group"]) == list(others["group"])
    fakes = columns["fastgan"].table
    assert set(fakes["split"]) == {"test"}
    assert not set(fakes.loc[fakes["class"] == "fake", "group"]) & set(reals["group"])
    assert [c.is_control for c in columns.values()] == [False, False, True]


def test_small_images_set_the_size(folders: Folders) -> None:
    """The common size is the smaller one; a column of fewer images takes fewer reals."""
    save(folders.fakes.parent / "unseen/diffusion", [f"{i:06d}.png" for i in range(5)], 24)

    columns = columns_of(folders)

    assert columns["diffusion"].size_px == (24, 24)
    assert columns["fastgan"].size_px == (32, 32)
    assert columns["diffusion"].under_trained
    assert not columns["fastgan"].under_trained
    assert columns["diffusion"].table["class"].value_counts().to_dict() == {"real": 5, "fake": 5}
    assert not columns_of(folders, under_trained=False)["diffusion"].under_trained


def test_missing_and_foreign_images(folders: Folders) -> None:
    """No folder and one without images are no columns; other names than the reals' are refused."""
    (folders.fakes.parent / "unseen/diffusion").mkdir(parents=True)
    (folders.fakes.parent / "unseen/diffusion/off.json").write_text("{}")
    assert list(columns_of(folders)) == ["fastgan"]

    save(folders.fakes.parent / "unseen/resized", ["foreign.png"])
    with pytest.raises(ValueError, match="resized: not one image for each test crop, as S1-A6_0"):
        columns_of(folders)


def test_notes_say_what_a_cell_means(folders: Folders) -> None:
    """Only a row of one GAN leaves the other out; a bad generator counts for nothing."""
    table = list_all(folders)
    reals = table.loc[(table["class"] == "real") & (table["split"] == "test"), "file"]
    for name in MADE_OF_REALS:
        save(folders.fakes.parent / "unseen" / name, list(reals))
    save(folders.fakes.parent / "unseen/diffusion", ["0.png"])
    columns = columns_of(folders)

    assert note(("fastgan",), columns["fastgan"]) == "seen"
    assert note(("stylegan2_ada",), columns["fastgan"]) == "left out"
    assert note(("fastgan", "stylegan2_ada", "pseudo"), columns["fastgan"]) == "seen"
    assert note(("fastgan",), columns["nearest"]) == "unseen"
    assert note(("fastgan",), columns["diffusion"]) == "under-trained"
    for name in CONTROLS:
        assert note(("fastgan",), columns[name]) == "control"
