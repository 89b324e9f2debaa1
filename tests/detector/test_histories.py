"""Processing draws: what they do, and that a real and its fake go through the same."""

import numpy as np
import pytest

from semforensics.core.processing import jpeg
from semforensics.detector.histories import UNTOUCHED, History, draw_history, resample


def grey(side: int = 64) -> np.ndarray:
    """A smooth image with noise."""
    y, x = np.mgrid[:side, :side]
    noise = np.random.default_rng(0).normal(0, 6, (side, side))
    return (127 + 80 * np.sin(x / 9 + y / 13) + noise).clip(0, 255).astype(np.uint8)


def test_a_history_of_nothing_changes_nothing() -> None:
    """The default gives the image back."""
    image = grey()

    assert History().does_nothing()
    np.testing.assert_array_equal(History().apply(image, 0), image)
    assert not History(gamma=1.2).does_nothing()


def test_jpeg_grids_begin_where_the_history_says() -> None:
    """Rows and columns are cut off before each compression."""
    image = grey()

    found = History(qualities=(80, 60), shifts=((3, 5), (0, 2))).apply(image, 0)

    expected = jpeg(np.ascontiguousarray(jpeg(image[3:, 5:].copy(), 80)[:, 2:]), 60)
    np.testing.assert_array_equal(found, expected)
    assert History(qualities=(80, 60), shifts=((3, 5), (0, 2))).rows_lost == 7


@pytest.mark.parametrize("kernel", ["bicubic", "lanczos", "bilinear", "area"])
def test_resampling_changes_the_size_and_keeps_the_mean(kernel: str) -> None:
    """Every kernel shrinks and enlarges without a change of brightness."""
    image = grey()

    for factor in (0.5, 1.25):
        found = resample(image, factor, kernel)
        assert found.shape == (round(64 * factor), round(64 * factor))
        assert abs(found.mean() - image.mean()) < 1


def test_noise_depends_on_its_seed_alone() -> None:
    """The same seed gives the same noise, another seed another."""
    history = History(noise=4.0)

    first, again, other = (history.apply(grey(), seed) for seed in (1, 1, 2))

    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_draws_cover_what_publishers_do() -> None:
    """Three in ten draws do nothing; the others stay in their ranges."""
    draws = [draw_history(np.random.default_rng(seed), 0.5) for seed in range(600)]

    untouched = np.mean([draw.does_nothing() for draw in draws])
    assert UNTOUCHED - 0.05 < untouched < UNTOUCHED + 0.1
    assert all(0.5 <= draw.factor <= 1.6 for draw in draws)
    assert all(60 <= quality <= 98 for draw in draws for quality in draw.qualities)
    assert {len(draw.qualities) for draw in draws} == {0, 1, 2}
    assert {shift % 8 for d in draws for pair in d.shifts for shift in pair} == set(range(8))
    assert len({draw.kernel for draw in draws}) == 4
