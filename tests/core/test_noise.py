import numpy as np
import pytest

from semforensics.core.noise import mse_noise_floor, noise_sigma


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
