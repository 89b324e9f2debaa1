"""Blocks of neighbouring crops."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from semforensics.core.blocks import assemble, blocks_of, cut_of, largest_square
from semforensics.core.images import write_grey_png


@pytest.fixture
def table(tmp_path: Path) -> pd.DataFrame:
    """Crops of 8 px of a frame of 5x6 crops, one of which is missing, and of a small one."""
    rows = []
    for micrograph, height, width in (("a.tif", 5, 6), ("b.tif", 1, 1)):
        for row in range(height):
            for column in range(width):
                if (micrograph, row, column) == ("a.tif", 0, 3):
                    continue
                file = f"{micrograph[0]}_{row}_{column}.png"
                write_grey_png(tmp_path / file, np.full((8, 8), 10 * row + column, np.uint8))
                place = {"top_px": 8 * row, "left_px": 8 * column}
                rows.append({"file": file, "micrograph": micrograph, **place})
    return pd.DataFrame(rows)


def test_blocks_hold_every_crop_once(table: pd.DataFrame) -> None:
    """At most 4x4 of one micrograph, from its top left."""
    blocks = list(blocks_of(table, 8))

    files = [file for places in blocks for file in places.values()]
    assert sorted(files) == sorted(table["file"])
    assert [len(places) for places in blocks] == [15, 8, 4, 2, 1]


def test_a_block_is_put_together_where_its_crops_were(table: pd.DataFrame, tmp_path: Path) -> None:
    """A missing crop is grey; each crop can be cut out again."""
    places = next(iter(blocks_of(table, 8)))

    image = assemble(tmp_path, places)

    assert image.shape == (32, 32)
    assert (image[8:16, 16:24] == 12).all()
    assert (cut_of(image, (3, 1), 8) == 31).all()
    assert (cut_of(image, (0, 3), 8) == round(np.mean(list(grey_of(places))))).all()


def grey_of(places: dict[tuple[int, int], str]) -> list[int]:
    """The levels of the crops."""
    return [10 * row + column for row, column in places]


def test_the_largest_square_has_all_its_crops(table: pd.DataFrame, tmp_path: Path) -> None:
    """Around the missing crop 3x3 are left; a single crop is a square."""
    blocks = list(blocks_of(table, 8))

    square = largest_square(blocks[0])

    assert len(square) == 9
    assert assemble(tmp_path, square).shape == (24, 24)
    assert square[0, 0] == "a_0_0.png"
    assert len(largest_square(blocks[-1])) == 1
