"""Neighbouring crops of one micrograph, put together again.

What looks beyond a crop, a decoder or a resampling, needs more room than the crops that the other
stages work with.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import UInt8

from semforensics.core.images import read_crop

Grey = UInt8[np.ndarray, "height width"]
Places = dict[tuple[int, int], str]
"""Files of crops by their row and column in a block."""

BLOCK_CROPS = 4
"""Most crops along a side of a block: 512 px where they have 128."""


def blocks_of(table: pd.DataFrame, size_px: int) -> Iterator[Places]:
    """Divide crops into blocks of at most 4x4 neighbours of one micrograph.

    Args:
        table: Of crops, with `micrograph`, `top_px` and `left_px`.
        size_px: Side of a crop.
    """
    rows, columns = table["top_px"] // size_px, table["left_px"] // size_px
    keys = [table["micrograph"], rows // BLOCK_CROPS, columns // BLOCK_CROPS]
    for _, crops in table.assign(row=rows, column=columns).sort_values("file").groupby(keys):
        first_row, first_column = crops["row"].min(), crops["column"].min()
        yield {
            (int(row - first_row), int(column - first_column)): file
            for row, column, file in zip(crops["row"], crops["column"], crops["file"], strict=True)
        }


def assemble(folder: Path, places: Places) -> Grey:
    """Put the crops of a block together; where one is missing the mean of the others stands."""
    crops = {place: read_crop(folder / file) for place, file in places.items()}
    size_px = len(next(iter(crops.values())))
    rows, columns = (max(place[axis] for place in crops) + 1 for axis in (0, 1))
    mean = np.mean([crop.mean() for crop in crops.values()])
    image = np.full((rows * size_px, columns * size_px), round(mean), dtype=np.uint8)
    for place, crop in crops.items():
        cut_of(image, place, size_px)[:] = crop
    return image


def cut_of(image: Grey, place: tuple[int, int], size_px: int) -> UInt8[np.ndarray, "side side"]:
    """Return the part of an assembled block that a crop has."""
    top, left = place[0] * size_px, place[1] * size_px
    return image[top : top + size_px, left : left + size_px]


def largest_square(places: Places) -> Places:
    """Return the largest square of a block that has all its crops, the first of its size."""
    for side in range(BLOCK_CROPS, 0, -1):
        for row, column in sorted(places):
            square = {
                (i, j): places.get((row + i, column + j), "")
                for i in range(side)
                for j in range(side)
            }
            if all(square.values()):
                return square
    raise AssertionError("one crop is a square")
