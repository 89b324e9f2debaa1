"""Training images are changed by their draws alone, and reals and fakes alike."""

import numpy as np
import pytest
import torch

from semforensics.core.processing import gaussian_blur, jpeg
from semforensics.detector.augment import augment_crops
from semforensics.detector.npr import random_phases
from semforensics.params import TrainClassifierParams
from tests.detector.conftest import recipe as short_recipe


def recipe(**changes: object) -> TrainClassifierParams:
    """No augmentation at all, but for the changes."""
    return short_recipe(**({"flip": False, "random_phase": False} | changes))


def images(count: int, size: int = 32) -> torch.Tensor:
    """Grey noise, every image another."""
    rng = np.random.default_rng(0)
    return torch.from_numpy(rng.integers(0, 256, (count, 1, size, size), dtype=np.uint8))


def changed(before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
    """Which images are not what they were."""
    return (before != after).flatten(1).any(dim=1)


def test_no_chance_draws_nothing() -> None:
    """Without blur and JPEG the draws of flip and phase are those of a training without them."""
    reals = images(64)
    expected_rng = torch.Generator().manual_seed(3)
    flips = torch.rand(64, generator=expected_rng) < 0.5
    flipped = torch.where(flips.view(-1, 1, 1, 1), reals.flip(-1), reals)
    expected = random_phases(flipped, expected_rng)

    rng = torch.Generator().manual_seed(3)
    found = augment_crops(reals, recipe(flip=True, random_phase=True), rng)

    assert torch.equal(found, expected)
    assert torch.equal(rng.get_state(), expected_rng.get_state())


@pytest.mark.parametrize(
    "name", ["tone_chance", "median_chance", "noise_chance", "blur_chance", "jpeg_chance"]
)
def test_the_chance_is_the_share_of_changed_images(name: str) -> None:
    """A chance of 0.3 changes 0.3 of many images, and none of the others by a grey level."""
    batch = images(800, size=16)

    found = augment_crops(batch, recipe(**{name: 0.3}), torch.Generator().manual_seed(0))

    share = changed(batch, found).float().mean()
    # 3 standard deviations of 800 draws; a blur below 0.25 px of sigma changes nothing, nor does a
    # gamma of almost 1
    assert share == pytest.approx(0.3, abs=0.05)


def test_the_same_draws_give_the_same_images() -> None:
    """All steps are a function of the generator's state; the input is left alone."""
    batch = images(32)
    copy = batch.clone()
    chances = dict.fromkeys(
        ("tone_chance", "median_chance", "noise_chance", "blur_chance", "jpeg_chance"), 0.5
    )
    params = recipe(flip=True, turn=True, random_phase=True, **chances)

    one, two, other = (
        augment_crops(batch, params, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )

    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    assert torch.equal(batch, copy)
    assert one.shape == (32, 1, 30, 30)


def test_blur_comes_before_jpeg() -> None:
    """The result is the JPEG of the blurred image, at strengths within their bounds."""
    batch = images(8)
    params = recipe(blur_chance=1.0, blur_sigma_max=2.0, jpeg_chance=1.0, jpeg_quality_min=60)

    found = augment_crops(batch, params, torch.Generator().manual_seed(5))

    rng = torch.Generator().manual_seed(5)
    torch.rand(8, generator=rng)
    sigmas = torch.rand(8, generator=rng, dtype=torch.float64) * 2.0
    torch.rand(8, generator=rng)
    strengths = torch.rand(8, generator=rng, dtype=torch.float64)
    for index in range(8):
        blurred = gaussian_blur(batch[index, 0].numpy(), float(sigmas[index]))
        expected = jpeg(blurred, 60 + int(strengths[index] * 41))
        assert np.array_equal(found[index, 0].numpy(), expected)


def test_turns_are_quarters_each_as_likely_as_the_others() -> None:
    """Every image is turned by none to three quarters, its pixels kept."""
    batch = images(400, size=8)

    found = augment_crops(batch, recipe(turn=True), torch.Generator().manual_seed(0))

    turned = torch.stack([batch.rot90(k, (2, 3)) for k in range(4)])
    is_turn = (turned == found).flatten(2).all(dim=2)
    assert is_turn.any(dim=0).all()
    # 4 standard deviations of 400 draws of one in four
    assert is_turn.sum(dim=1).float().sub(100).abs().max() < 35


def test_noise_has_the_strength_that_is_drawn() -> None:
    """Standard deviations are uniform up to the largest."""
    flat = torch.full((300, 1, 32, 32), 128, dtype=torch.uint8)
    params = recipe(noise_chance=1.0, noise_sigma_max=10.0)

    found = augment_crops(flat, params, torch.Generator().manual_seed(0))

    sigmas = found.float().flatten(1).std(dim=1)
    assert sigmas.max() == pytest.approx(10, abs=0.7)
    assert sigmas.mean() == pytest.approx(5, abs=0.6)


def test_a_blur_keeps_the_mean_and_takes_the_variance() -> None:
    """White noise under a Gaussian of sigma s keeps 1 / (4 pi s^2) of its variance."""
    noise = np.random.default_rng(0).normal(128, 20, (256, 256)).clip(0, 255).astype(np.uint8)

    blurred = gaussian_blur(noise, 2.0).astype(float)

    assert blurred.mean() == pytest.approx(noise.mean(), abs=0.2)
    # + 1/12: the rounding to grey levels
    assert blurred.var() == pytest.approx(noise.var() / (16 * np.pi) + 1 / 12, rel=0.1)
    assert np.array_equal(gaussian_blur(noise, 0.0), noise)


def test_a_better_jpeg_is_nearer() -> None:
    """The error falls with the quality; a constant image stays one."""
    ramp = np.tile(np.arange(0, 256, 4, dtype=np.uint8), (64, 1)) // 2
    ramp = ramp + np.random.default_rng(0).integers(0, 40, ramp.shape, dtype=np.uint8)

    errors = [float(((jpeg(ramp, q).astype(float) - ramp) ** 2).mean()) for q in (30, 60, 90, 100)]

    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.5
    # at quality 50 a block's mean has steps of 2 grey levels: 16 / 8
    constant = jpeg(np.full((16, 16), 77, dtype=np.uint8), 50)
    assert len(np.unique(constant)) == 1
    assert abs(int(constant[0, 0]) - 77) <= 1
