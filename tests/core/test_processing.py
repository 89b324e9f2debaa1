"""Processing leaves the scene and takes the noise; the noise is found."""

import numpy as np
import pytest

from semforensics.core.processing import (
    mse_noise_floor,
    noise_sigma,
    non_local_means,
    resize_and_back,
)

RNG = np.random.default_rng(0)
SCENE = np.where(np.hypot(*(np.mgrid[:64, :64] - 30)) < 14, 170.0, 70.0)
NOISY = (SCENE + RNG.normal(0, 10, SCENE.shape)).round().clip(0, 255).astype(np.uint8)


def test_denoising_takes_noise_and_leaves_the_scene() -> None:
    """The result is nearer to the scene, its noise a fraction; more strength takes more."""
    mild, strong = non_local_means(NOISY, 0.4), non_local_means(NOISY, 1.0)

    assert noise_sigma(mild[None]) < 0.8 * noise_sigma(NOISY[None])
    assert noise_sigma(strong[None]) < 0.4 * noise_sigma(NOISY[None])
    assert np.abs(strong - SCENE).mean() < 0.5 * np.abs(NOISY - SCENE).mean()
    assert strong.dtype == np.uint8


def test_an_image_without_noise_stays_as_it_is() -> None:
    """There is nothing to remove."""
    flat = np.full((32, 32), 90, dtype=np.uint8)

    np.testing.assert_array_equal(non_local_means(flat, 0.8), flat)


@pytest.mark.parametrize("factor", [0.5, 0.75, 1.5])
def test_resizing_keeps_size_and_scene(factor: float) -> None:
    """The finest detail is lost, the mean stays."""
    image = resize_and_back(NOISY, factor)

    assert image.shape == NOISY.shape
    assert image.mean() == pytest.approx(NOISY.mean(), abs=0.5)
    assert noise_sigma(image[None]) < 0.6 * noise_sigma(NOISY[None])


def test_the_factor_decides_how_much_is_lost() -> None:
    """Nothing at 1; the more, the smaller the image becomes in between."""
    lost = [
        np.abs(resize_and_back(NOISY, factor).astype(float) - NOISY).mean()
        for factor in (1.0, 0.75, 0.5)
    ]

    assert lost[0] == 0 < lost[1] < lost[2]


def test_a_factor_that_leaves_nothing_is_refused() -> None:
    """An image has at least one pixel."""
    with pytest.raises(ValueError, match=r"64x64 px: nothing is left at a factor of 0\.001"):
        resize_and_back(NOISY, 0.001)


@pytest.mark.parametrize("size", [(64, 64), (63, 65)])
@pytest.mark.parametrize("sigma", [4, 10])
def test_noise_is_found_under_a_scene(size, sigma):
    """Slopes and edges hardly change the estimate of the noise on them."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[: size[0], : size[1]]
    scene = 60 + rows + 60.0 * (np.hypot(rows - 30, columns - 30) < 12)
    noisy = (scene + rng.normal(0, sigma, (20, *size))).round().clip(0, 255).astype(np.uint8)

    assert noise_sigma(noisy) == pytest.approx(np.full(20, sigma), rel=0.2)
    assert noise_sigma(noisy).mean() == pytest.approx(sigma, rel=0.06)


def test_floor_is_the_distance_of_two_exposures():
    """Two exposures of one scene are as far apart as the floor says."""
    rng = np.random.default_rng(1)
    rows, _ = np.mgrid[:64, :64]
    exposures = (70 + rows + rng.normal(0, 8, (2, 30, 64, 64))).round().astype(np.uint8)

    between = np.square(exposures[0].astype(float) - exposures[1]).mean()

    assert mse_noise_floor(exposures[0]) == pytest.approx(between, rel=0.05)


def test_an_image_without_noise_has_none():
    """A uniform image has no noise."""
    assert noise_sigma(np.full((1, 16, 16), 80, np.uint8)) == [0]
