"""Large images are cut at native resolution, and their tiles' logits become one."""

import numpy as np
import pytest

from semforensics.detector.tiling import cut_tiles, pool


def test_tiles_put_together_give_the_image() -> None:
    """Every pixel but those left at the right and bottom edges stands in exactly one tile."""
    image = np.random.default_rng(0).integers(0, 256, (70, 105), dtype=np.uint8)

    tiles = cut_tiles(image, 32)

    assert tiles.shape == (6, 1, 32, 32)
    rows = [np.concatenate(list(tiles[row * 3 : row * 3 + 3, 0].numpy()), axis=1) for row in (0, 1)]
    assert np.array_equal(np.concatenate(rows), image[:64, :96])
    tiles[0] = 0
    assert image[:32, :32].any()


@pytest.mark.parametrize(("pooling", "expected"), [("mean", 2.0), ("median", 1.0), ("max", 7.0)])
def test_pooling_follows_its_name(pooling: str, expected: float) -> None:
    """Mean, median and maximum of the logits."""
    logits = np.array([-1, 7, 1, 3, 0], dtype=np.float32)

    assert pool(logits, pooling) == expected


def test_impossible_tiles_are_refused() -> None:
    """Odd tiles would move the 2x2 grid; an image smaller than a tile has none."""
    image = np.zeros((40, 30), dtype=np.uint8)

    with pytest.raises(ValueError, match="even"):
        cut_tiles(image, 15)
    with pytest.raises(ValueError, match="30x40 px: need at least 32x32"):
        cut_tiles(image, 32)
    with pytest.raises(ValueError, match="no tiles"):
        pool(np.array([], dtype=np.float32), "mean")
