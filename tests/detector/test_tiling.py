"""Large images are cut at native resolution, and their tiles' logits become one."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semforensics.detector.tiling import Tiles, cut_tiles, pool


def put_together(tiles: Tiles, shape: tuple[int, int]) -> np.ndarray:
    """Lay tiles on an image of NaN."""
    image, size = np.full(shape, np.nan), tiles.pixels.shape[-1]
    for (top, left), pixels in zip(tiles.corners, tiles.pixels[:, 0].numpy(), strict=True):
        image[top : top + size, left : left + size] = pixels
    return image


@pytest.mark.parametrize("shape", [(64, 96), (70, 105), (71, 106), (32, 32), (33, 95), (65, 32)])
def test_tiles_cover_an_image(shape: tuple[int, int]) -> None:
    """Side by side first, then along the right and bottom edges; less than four rows are left."""
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)

    tiles = cut_tiles(image, 32)

    rows, columns = shape[0] // 32, shape[1] // 32
    side_by_side = [(32 * row, 32 * column) for row in range(rows) for column in range(columns)]
    assert tiles.corners[: rows * columns].tolist() == [list(corner) for corner in side_by_side]
    assert (tiles.areas[: rows * columns] == 32 * 32).all()
    assert (tiles.corners % 2 == 0).all()
    covered = put_together(tiles, shape)
    is_covered = ~np.isnan(covered)
    np.testing.assert_array_equal(covered[is_covered], image[is_covered])
    assert is_covered.sum() == tiles.areas.sum()
    assert is_covered.mean() >= (1 - 1 / 32) ** 2
    tiles.pixels[0] = 0
    assert image[:32, :32].any()


@settings(max_examples=40)
@given(st.integers(32, 150), st.integers(32, 150), st.integers(0, 2**32 - 1), st.integers(0, 4))
def test_no_tile_holds_what_is_drawn(height: int, width: int, seed: int, count: int) -> None:
    """Tiles are moved around drawn things, and areas add up to what they cover."""
    rng = np.random.default_rng(seed)
    drawn = np.zeros((height, width), dtype=bool)
    for _ in range(count):
        top, left = rng.integers(height), rng.integers(width)
        drawn[top : top + rng.integers(1, 20), left : left + rng.integers(1, 60)] = True

    tiles = cut_tiles(np.where(drawn, 255, 100).astype(np.uint8), 32, drawn)

    assert (tiles.pixels == 100).all()
    covered = ~np.isnan(put_together(tiles, drawn.shape))
    assert covered.sum() == tiles.areas.sum()
    assert (tiles.areas > 0).all()


def test_tiles_are_moved_around_a_letter() -> None:
    """Beside a small mark nearly all is covered, though four tiles side by side would hold it."""
    drawn = np.zeros((128, 128), dtype=bool)
    drawn[60:68, 60:68] = True

    tiles = cut_tiles(np.zeros(drawn.shape, np.uint8), 32, drawn)

    assert tiles.areas.sum() >= 0.97 * (~drawn).sum()


@pytest.mark.parametrize(("pooling", "expected"), [("mean", 2.0), ("median", 1.0), ("max", 7.0)])
def test_pooling_follows_its_name(pooling: str, expected: float) -> None:
    """Mean, median and maximum of the logits."""
    logits = np.array([-1, 7, 1, 3, 0], dtype=np.float32)

    assert pool(logits, pooling) == expected


@pytest.mark.parametrize(("pooling", "expected"), [("mean", 4.0), ("median", 7.0), ("max", 7.0)])
def test_tiles_count_by_their_areas(pooling: str, expected: float) -> None:
    """In a mean and a median; the largest is the largest."""
    logits, areas = np.array([1, 7, -5], dtype=np.float32), np.array([2.0, 4.0, 1.0])

    assert pool(logits, pooling, areas) == pytest.approx(25 / 7 if pooling == "mean" else expected)


def test_impossible_tiles_are_refused() -> None:
    """Odd tiles would move the 2x2 grid; an image smaller than a tile has none."""
    image = np.zeros((40, 30), dtype=np.uint8)

    with pytest.raises(ValueError, match="even"):
        cut_tiles(image, 15)
    with pytest.raises(ValueError, match="30x40 px: need at least 32x32"):
        cut_tiles(image, 32)
    with pytest.raises(ValueError, match="no tiles"):
        pool(np.array([], dtype=np.float32), "mean")
