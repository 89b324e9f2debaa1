"""Baselines measure what they say, at any size, and learn from one split alone."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.detector.conftest import original, upsampled

from semforensics.trials.baselines import (
    BASELINES,
    fit_features,
    measure_features,
    residual_filters,
    spread_tiles,
)
from semforensics.trials.metrics import auroc

N_FILTERS = 30


def both(count: int, seed: int, size: int = 32) -> tuple[np.ndarray, np.ndarray]:
    """As many originals as images that were up-sampled by nearest neighbours."""
    rng = np.random.default_rng(seed)
    images = [original(rng, size) for _ in range(count)] + [
        upsampled(rng, size) for _ in range(count)
    ]
    return np.stack(images), np.repeat([False, True], count)


def groups_of(is_fake: np.ndarray) -> np.ndarray:
    """Reals in six groups, each fake in its own."""
    return np.array([f"f{i}" if fake else f"g{i // 2 % 6}" for i, fake in enumerate(is_fake)])


@pytest.mark.parametrize("name", BASELINES)
def test_every_baseline_tells_upsampling(name):
    """Fresh images are told apart at the size of the training, and larger and odd ones too."""
    images, is_fake = both(40, 0)
    features = measure_features(name, images, 32)
    model = fit_features(name, features, is_fake, groups_of(is_fake))

    for size in (32, 72):
        fresh, labels = both(30, 1, size)
        scores = model.score(measure_features(name, fresh, 32))

        assert scores.dtype == np.float32
        assert auroc(scores, labels) > 0.97
    blank = np.zeros((1, 40, 50), dtype=np.uint8)
    assert np.isfinite(model.score(measure_features(name, blank, 32))).all()


@pytest.mark.parametrize("name", BASELINES)
def test_features_are_means_over_tiles(name):
    """Features of four tiles side by side are the mean of the tiles' own, whatever the chunks."""
    tiles, _ = both(80, 2)
    wholes = np.stack([np.block([[a, b], [c, d]]) for a, b, c, d in tiles.reshape(40, 4, 32, 32)])

    features = measure_features(name, wholes, 32)

    own = measure_features(name, tiles, 32).reshape(40, 4, -1)
    np.testing.assert_allclose(features, own.mean(axis=1), atol=2e-5)


@pytest.mark.parametrize("name", BASELINES)
def test_what_holds_no_tile_is_refused(name):
    """Small images and none at all are named."""
    with pytest.raises(ValueError, match="5 images of 40x30 px, no tile of 32 px"):
        measure_features(name, np.zeros((5, 30, 40), dtype=np.uint8), 32)
    with pytest.raises(ValueError, match="0 images"):
        measure_features(name, np.zeros((0, 64, 64), dtype=np.uint8), 32)


@given(st.integers(16, 50), st.integers(16, 50))
def test_tiles_do_not_overlap(height, width):
    """Tiles are disjoint, as many as fit, and the margins on both sides differ by a few pixels."""
    image = np.arange(height * width).reshape(1, height, width)
    low, high = (image % 256).astype(np.uint8), (image // 256).astype(np.uint8)

    tiles = spread_tiles(low, 16).astype(int) + 256 * spread_tiles(high, 16).astype(int)

    assert len(tiles) == (height // 16) * (width // 16)
    assert len(np.unique(tiles)) == tiles.size
    first, last = divmod(int(tiles.min()), width), divmod(int(tiles.max()), width)
    for start, end, side in ((first[0], last[0], height), (first[1], last[1], width)):
        assert abs(start - (side - 1 - end)) <= 2


def test_filters_predict_what_they_should():
    """30 different filters; an order kills the polynomials below it, squares have no direction."""
    filters = residual_filters()

    assert len({kernel.tobytes() for kernel in filters}) == N_FILTERS
    np.testing.assert_array_equal(filters.sum(axis=(1, 2)), 0)
    down, right = np.mgrid[-2:3, -2:3]
    ramp = 3 * down - 5 * right
    first, second, third, rest = np.split(filters, [8, 12, 20])
    assert np.abs((first * ramp).sum(axis=(1, 2))).min() > 0
    for kernels in (second, third):
        np.testing.assert_array_equal((kernels * ramp).sum(axis=(1, 2)), 0)
    for kernel in third:
        assert (kernel * ramp**2).sum() == 0
    for square, edges in ((rest[0], rest[1:5]), (rest[5], rest[6:])):
        np.testing.assert_array_equal(square, np.rot90(square))
        np.testing.assert_array_equal(square, square.T)
        for edge, turned in zip(edges, (*edges[1:], edges[0]), strict=True):
            np.testing.assert_array_equal(np.rot90(edge), turned)
        # Two opposite halves share the middle line.
        middle = np.zeros((5, 5))
        middle[2] = square[2]
        np.testing.assert_array_equal(edges[0] + edges[2], square + middle)


def test_residuals_know_no_sign():
    """A negative has the same shares of pairs and the opposite skewness; shares add up to one."""
    images, _ = both(3, 4)

    features, negative = (measure_features("srm", part, 32) for part in (images, 255 - images))

    kinds = np.split(features, [30, 60, 90, 360], axis=1)
    opposite = np.split(negative, [30, 60, 90, 360], axis=1)
    for index in (0, 2, 3, 4):
        np.testing.assert_allclose(opposite[index], kinds[index], atol=1e-5)
    np.testing.assert_allclose(opposite[1], -kinds[1], atol=1e-4)
    for shares in kinds[3:]:
        np.testing.assert_allclose(shares.reshape(6, N_FILTERS, 9).sum(axis=2), 1, atol=1e-5)


def test_white_noise_has_a_flat_spectrum():
    """All rings hold the variance; so do all cosines, but for the mean of a logarithm."""
    images = np.random.default_rng(5).normal(128, 10, (60, 64, 64)).round().astype(np.uint8)

    rings = measure_features("spectrum", images).mean(axis=0)
    cosines = measure_features("dct", images).mean()

    # Around the mean and towards the corner rings hold few points, and a logarithm of few is low.
    np.testing.assert_allclose(rings[8:32], 2, atol=0.05)
    # The logarithm of a squared normal number is on the mean well below that of its mean.
    drawn = np.random.default_rng(0).normal(0, np.sqrt(100 + 1 / 12), 100_000)
    assert cosines == pytest.approx(np.log10(np.square(drawn) + 1 / 12).mean(), abs=0.01)


def test_a_cosine_stands_at_its_place():
    """A pattern of the transform itself is its largest feature."""
    y, x = np.mgrid[:64, :64] + 0.5
    wave = 128 + 60 * np.cos(np.pi * 12 * y / 64) * np.cos(np.pi * 5 * x / 64)

    features = measure_features("dct", wave.round().astype(np.uint8)[None])

    assert features.argmax() + 1 == 12 * 64 + 5  # the mean is left out


def test_noise_features_follow_the_physics():
    """Each number grows with what it is named after, and with that alone."""
    rng = np.random.default_rng(6)
    ramp = np.tile(np.linspace(40, 200, 64), (200, 64, 1))
    white = rng.normal(0, 1, ramp.shape)
    counted = ramp + white * np.sqrt(0.5 * ramp + 9)
    even = ramp + 8 * white

    def means(levels: np.ndarray) -> np.ndarray:
        return measure_features("noise", levels.round().clip(0, 255).astype(np.uint8)).mean(axis=0)

    slope, intercept, along_rows, along_columns, ratio, rows, columns, comb = means(counted)
    # The median over 16 coefficients is a few per cent low.
    assert slope == pytest.approx(0.5, rel=0.15)
    assert abs(np.sinh(intercept)) < 15  # of 9, as uncertain as an extrapolation from 40 is
    assert means(even)[0] == pytest.approx(0, abs=0.03)
    assert np.sinh(means(even)[1]) == pytest.approx(64, rel=0.15)

    # White noise: a mean of 5x5 leaves -1/25 over its own remainder.
    assert along_rows == pytest.approx(along_columns, abs=0.01)
    smeared = means(ramp + 6 * (white + np.roll(white, 1, axis=2)))
    assert smeared[2] > along_rows + 0.3
    assert smeared[3] < along_columns
    assert smeared[4] > ratio + 0.2

    offset = means(counted + rng.normal(0, 4, (200, 64, 1)))
    assert offset[5] > rows + 0.5
    assert abs(offset[6] - columns) < 0.05

    stretched = means((counted / 2).round() * 2)
    assert stretched[7] > comb + 0.5
    assert comb == pytest.approx(0, abs=0.1)


def test_the_same_images_give_the_same_scores():
    """Two fits on the same images agree bit by bit; a constant feature does no harm."""
    images, is_fake = both(20, 7)

    features = [measure_features("srm", images, 32) for _ in range(2)]
    first, second = (fit_features("srm", f, is_fake, groups_of(is_fake)) for f in features)

    assert first.score(features[0]).tobytes() == second.score(features[1]).tobytes()
