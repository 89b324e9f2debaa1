"""Augmentations keep what they should; parity with the public ones is in tests/parity."""

from collections.abc import Callable
from dataclasses import fields, replace
from math import pi, sqrt
from typing import get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from semforensics.generators.stylegan2_ada.augment import (
    Draws,
    Kind,
    _inverse_geometry,
    _neutral,
    augment,
    draw,
)

KINDS = get_args(Kind)
ALL: Kind = "bgcfnc"
MANY = 20_000
TOLERANCE = 1e-4
"""Places are float32; what a pixel's place is rounded to depends on the batch's margin."""


def rng_of(seed: int) -> torch.Generator:
    """A CPU generator of a seed."""
    return torch.Generator().manual_seed(seed)


def images_of(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Noise between -1 and 1."""
    return torch.rand(shape, generator=rng_of(0), dtype=dtype) * 2 - 1


def many_draws(p: float) -> Draws:
    """Random numbers for many small images in colour."""
    return draw(ALL, p, MANY, 3, 4, 4, rng_of(1))


def assert_rate(befalls: Tensor, probability: float) -> None:
    """The share of images lies within five standard deviations of the probability."""
    share = float(befalls.double().mean())
    assert abs(share - probability) <= 5 * sqrt(probability * (1 - probability) / MANY)


@pytest.mark.parametrize("p", [0.0, 0.15, 0.6, 1.0, 3.0])
def test_every_operation_befalls_its_share_of_images(p: float) -> None:
    """Each operation's rate is p, that of at least one of two rotations too; above 1 is as 1."""
    draws = many_draws(p)
    p = min(p, 1.0)

    for applied in (
        draws.scale != 1,
        (draws.rotation_before != 0) | (draws.rotation_after != 0),
        draws.stretch != 1,
        draws.drift_px.ne(0).any(1),
        draws.brightness != 0,
        draws.contrast != 1,
        draws.hue != 0,
        draws.saturation != 1,
        *(draws.band_gains != 1).unbind(1),
        draws.noise_std != 0,
        draws.cutout,
    ):
        assert_rate(applied, p)
    for rotation in (draws.rotation_before, draws.rotation_after):
        assert_rate(rotation != 0, 1 - sqrt(1 - p))
    # One in two, or in four, of the values changes nothing.
    assert_rate(draws.flip, p / 2)
    assert_rate(draws.luma_flip, p / 2)
    for turns in (1, 2, 3):
        assert_rate(draws.quarter_turns == turns, p / 4)


def test_operations_befall_images_independently() -> None:
    """That an image is scaled says nothing about its other operations."""
    draws = many_draws(0.5)

    for other in (draws.stretch != 1, draws.contrast != 1, draws.cutout, draws.drift_px[:, 0] != 0):
        assert_rate((draws.scale != 1) & other, 0.25)


def test_shifts_are_whole_and_within_an_eighth() -> None:
    """Both axes move together, each by its own side."""
    shift = draw("blit", 1.0, MANY, 1, 64, 128, rng_of(2)).shift_px

    assert torch.equal(shift, shift.round())
    assert shift.abs().amax(0).tolist() == [16.0, 8.0]
    assert_rate((shift == 0).all(1), 1 / 16 / 32)


@pytest.mark.parametrize(
    ("name", "values", "std"),
    [
        ("scale, octaves", lambda draws: draws.scale.log2(), 0.2),
        ("stretch, octaves", lambda draws: draws.stretch.log2(), 0.2),
        ("drift, share of the side", lambda draws: draws.drift_px / 4, 0.125),
        ("brightness", lambda draws: draws.brightness, 0.2),
        ("contrast, octaves", lambda draws: draws.contrast.log2(), 0.5),
        ("saturation, octaves", lambda draws: draws.saturation.log2(), 1.0),
        ("bands, octaves", lambda draws: draws.band_gains.log2(), 1.0),
        ("noise", lambda draws: draws.noise_std * draws.noise_std.new_tensor([1.0, -1.0]).repeat(
            MANY // 2), 0.1),
        ("rotation", lambda draws: draws.rotation_before, pi / sqrt(3)),
        ("second rotation", lambda draws: draws.rotation_after, pi / sqrt(3)),
        ("hue", lambda draws: draws.hue, pi / sqrt(3)),
        ("cutout", lambda draws: draws.cutout_centre - 0.5, 0.5 / sqrt(3)),
    ],
)  # fmt: skip
def test_sizes_are_the_papers(name: str, values: Callable[[Draws], Tensor], std: float) -> None:
    """Means are 0 and standard deviations as in appendix B, within five of their own."""
    drawn = values(many_draws(1.0)).flatten().double()

    assert abs(float(drawn.mean())) < 5 * std / sqrt(MANY), name
    assert float(drawn.std()) == pytest.approx(std, rel=5 / sqrt(2 * MANY)), name


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_happens_at_p_0(kind: Kind) -> None:
    """With probability 0 images come back as they are, to the bit."""
    x = images_of(3, 3, 24, 24)

    assert torch.equal(augment(x, draw(kind, 0.0, 3, 3, 24, 24, rng_of(0))), x)


@pytest.mark.parametrize("kind", KINDS)
def test_every_group_changes_images(kind: Kind) -> None:
    """With probability 1 no image stays as it is; values need not stay in -1 … 1."""
    x = images_of(3, 1, 24, 30)

    changed = augment(x, draw(kind, 1.0, 3, 1, 24, 30, rng_of(5)))

    assert changed.shape == x.shape
    assert bool((changed != x).flatten(1).any(1).all())


@pytest.mark.parametrize(
    ("kind", "touched"),
    [
        ("blit", {"flip", "quarter_turns", "shift_px"}),
        ("geom", {"scale", "rotation_before", "stretch", "rotation_after", "drift_px"}),
        ("color", {"brightness", "contrast", "luma_flip", "hue", "saturation"}),
        ("filter", {"band_gains"}),
        ("noise", {"noise_std", "noise"}),
        ("cutout", {"cutout", "cutout_centre"}),
    ],
)
def test_groups_hold_their_operations(kind: Kind, touched: set[str]) -> None:
    """A group draws for its own operations and leaves the others neutral."""
    draws, neutral = draw(kind, 1.0, 64, 3, 32, 32, rng_of(0)), _neutral(64)

    changed = set()
    for field in fields(Draws):
        ours, none = getattr(draws, field.name), getattr(neutral, field.name)
        if (none is None) != (ours is None) or (none is not None and not torch.equal(ours, none)):
            changed.add(field.name)
    assert changed == touched


@pytest.mark.parametrize("kind", KINDS)
def test_the_generator_advances_alike_for_every_p(kind: Kind) -> None:
    """How many random numbers are taken does not depend on p; a seed gives the same ones again."""
    states = []
    for p in (0.0, 0.5, 0.5, 1.0):
        rng = rng_of(3)
        draw(kind, p, 4, 3, 16, 16, rng)
        states.append(rng.get_state())

    assert all(torch.equal(state, states[0]) for state in states)
    again = (draw(kind, 0.5, 4, 3, 16, 16, rng_of(3)) for _ in range(2))
    torch.testing.assert_close(*({f.name: getattr(d, f.name) for f in fields(d)} for d in again))


def test_data_with_an_orientation_are_not_turned() -> None:
    """Fixed orientation leaves out quarter turns and rotations, and nothing else."""
    draws = draw(ALL, 1.0, 64, 3, 32, 32, rng_of(0), "fixed")

    inverse = _inverse_geometry(draws)

    assert not bool(inverse[:, 0, 1].any() or inverse[:, 1, 0].any())
    assert bool((inverse[:, 1, 1] > 0).all())  # upright
    assert draws.flip.unique().tolist() == [False, True]
    for applied in (draws.scale != 1, draws.stretch != 1, draws.drift_px[:, 0] != 0):
        assert bool(applied.all())


@given(seed=st.integers(0, 1000))
def test_companions_do_not_change_an_augmented_image(seed: int) -> None:
    """An image with its random numbers comes out the same alone and in a batch."""
    x = images_of(4, 1, 20, 28)
    draws = draw(ALL, 0.7, 4, 1, 20, 28, rng_of(seed))
    last = torch.tensor([2, 3])

    together, alone = augment(x, draws)[2:], augment(x[2:], draws.of(last))

    # Where a low band is raised, so is the rounding.
    tolerance = TOLERANCE * max(1.0, float(together.abs().max()))
    torch.testing.assert_close(together, alone, rtol=0, atol=tolerance)


@given(seed=st.integers(0, 1000))
def test_an_image_that_nothing_befalls_stays(seed: int) -> None:
    """Beside others that change, it comes back to the bit."""
    x = images_of(2, 3, 16, 16)
    draws = draw("bgc", 1.0, 2, 3, 16, 16, rng_of(seed))
    neutral = _neutral(2)
    spared = replace(
        draws,
        **{
            f.name: torch.stack([getattr(draws, f.name)[0], getattr(neutral, f.name)[1]])
            for f in fields(Draws)
            if getattr(draws, f.name) is not None
        },
    )

    y = augment(x, spared)

    assert not torch.equal(y[0], x[0])
    assert torch.equal(y[1], x[1])


@given(seed=st.integers(0, 1000))
def test_grey_is_augmented_as_three_equal_channels(seed: int) -> None:
    """With the same random numbers; hue and saturation leave grey alone."""
    x = images_of(2, 1, 22, 22)
    draws = draw("bgcf", 0.8, 2, 3, 22, 22, rng_of(seed))

    grey, colour = augment(x, draws), augment(x.expand(-1, 3, -1, -1), draws)

    torch.testing.assert_close(grey.expand(-1, 3, -1, -1), colour, rtol=1e-4, atol=1e-4)


def test_colour_operations_follow_one_another() -> None:
    """Brightness, then contrast, then the luma flip: of grey, -c (x + b)."""
    x = images_of(1, 1, 4, 4)
    draws = replace(
        _neutral(1),
        brightness=torch.tensor([0.25]),
        contrast=torch.tensor([3.0]),
        luma_flip=torch.tensor([True]),
    )

    torch.testing.assert_close(augment(x, draws), -3 * (x + 0.25))


def test_hue_turns_and_saturation_stretches_about_grey() -> None:
    """A third of a turn of hue moves red to green; without saturation only the mean is left."""
    x = images_of(1, 3, 4, 4)
    third = replace(_neutral(1), hue=torch.tensor([2 * pi / 3]))
    grey = replace(_neutral(1), saturation=torch.tensor([0.0]))

    torch.testing.assert_close(augment(x, third), x.roll(1, dims=1))
    torch.testing.assert_close(augment(x, grey), x.mean(1, keepdim=True).expand(-1, 3, -1, -1))


def test_bands_are_raised_at_equal_power() -> None:
    """Raising the lowest band scales a constant; raising another lowers it, both axes alike."""
    x = torch.ones(2, 1, 24, 24)
    gains = torch.tensor([[2.0, 1, 1, 1], [1.0, 1, 2, 1]])

    y = augment(x, replace(_neutral(2), band_gains=gains))

    # Power 1/f: ten thirteenths in the lowest band, one in each other.
    low, high = 2 / sqrt(4 * 10 / 13 + 3 / 13), 1 / sqrt(12 / 13 + 4 / 13)
    torch.testing.assert_close(y[0], low**2 * x[0])
    torch.testing.assert_close(y[1], high**2 * x[1])


def test_noise_has_its_strength() -> None:
    """Noise is added with its own standard deviation for every image."""
    x = torch.zeros(2, 1, 64, 64)
    draws = draw("noise", 1.0, 2, 1, 64, 64, rng_of(0))

    y = augment(x, replace(draws, noise_std=torch.tensor([0.0, 0.3])))

    assert not bool(y[0].any())
    assert float(y[1].std()) == pytest.approx(0.3, rel=0.05)


def test_a_hole_has_half_the_sides() -> None:
    """A quarter of the image is cut out around its middle, a sixteenth around a corner."""
    x = torch.ones(3, 1, 16, 32)
    centre = torch.tensor([[0.5, 0.5], [0.0, 1.0], [0.5, 0.5]])
    cutout = torch.tensor([True, True, False])

    y = augment(x, replace(_neutral(3), cutout=cutout, cutout_centre=centre))

    assert not bool(y[0, 0, 4:12, 8:24].any())
    assert not bool(y[1, 0, 12:, :8].any())
    assert y.sum((1, 2, 3)).tolist() == [512 * 3 / 4, 512 * 15 / 16, 512]


@pytest.mark.parametrize("shape", [(2, 1, 4, 5), (2, 3, 3, 3)])
def test_derivatives_are_right(shape: tuple[int, int, int, int]) -> None:
    """First and second derivatives through the whole pipe agree with finite differences."""
    x = images_of(*shape, dtype=torch.float64).requires_grad_()
    # Every operation befalls the first image, all but the cutout the second.
    draws = draw(ALL, 1.0, *shape, rng_of(4))
    draws = replace(draws, cutout=torch.tensor([True, False]))

    def cubed(x: Tensor) -> Tensor:
        return augment(x, draws).pow(3)  # its second derivative depends on the image

    assert torch.autograd.gradcheck(cubed, x)
    assert torch.autograd.gradgradcheck(cubed, x)


def test_the_r1_penalty_reaches_the_weights() -> None:
    """The gradient of a penalty on gradients through the pipe is that of finite differences."""
    x = images_of(2, 1, 12, 12, dtype=torch.float64)
    draws = draw(ALL, 1.0, 2, 1, 12, 12, rng_of(6))
    weight = images_of(1, 1, 3, 3, dtype=torch.float64).requires_grad_()

    def penalty(weight: Tensor) -> Tensor:
        at = x.clone().requires_grad_()
        logits = torch.nn.functional.conv2d(augment(at, draws), weight).pow(2).sum()
        (gradient,) = torch.autograd.grad(logits, at, create_graph=True)
        return gradient.square().sum()

    assert torch.autograd.gradcheck(penalty, weight, rtol=1e-3)


def test_autocast_does_not_reach_inside() -> None:
    """Images and gradients are those of float32, also where both are computed under autocast."""
    x = images_of(3, 3, 24, 24).requires_grad_()
    draws = draw(ALL, 1.0, 3, 3, 24, 24, rng_of(7))

    def both() -> tuple[Tensor, Tensor]:
        y = augment(x, draws)
        (gradient,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
        return y, gradient

    plain = both()
    with torch.autocast("cpu", torch.bfloat16):
        inside = both()

    for ours, expected in zip(inside, plain, strict=True):
        assert ours.dtype == torch.float32
        assert torch.equal(ours, expected)


def test_16_bit_images_are_augmented_in_float32() -> None:
    """The result is that of the same images in float32."""
    x = images_of(2, 1, 16, 16).bfloat16()
    draws = draw("bgc", 1.0, 2, 1, 16, 16, rng_of(0))

    assert torch.equal(augment(x, draws), augment(x.float(), draws))


def test_what_cannot_be_augmented_is_refused() -> None:
    """Two channels, a probability below 0, random numbers for other images."""
    with pytest.raises(ValueError, match="2 channels"):
        draw("bgc", 0.5, 4, 2, 16, 16, rng_of(0))
    for p in (-0.1, float("nan")):
        with pytest.raises(ValueError, match="expected 0 or more"):
            draw("bgc", p, 4, 1, 16, 16, rng_of(0))
    with pytest.raises(ValueError, match="for 4 images, got 3"):
        augment(images_of(3, 1, 16, 16), draw("bgc", 0.5, 4, 1, 16, 16, rng_of(0)))


@pytest.mark.gpu
def test_a_gpu_gives_the_same() -> None:
    """Images, and gradients of a penalty on gradients, are the CPU's."""
    draws = draw(ALL, 1.0, 4, 3, 32, 32, rng_of(0))

    def both(device: str) -> tuple[Tensor, Tensor]:
        x = images_of(4, 3, 32, 32).to(device).requires_grad_()
        y = augment(x, draws)
        (first,) = torch.autograd.grad(y.pow(3).sum(), x, create_graph=True)
        (second,) = torch.autograd.grad(first.square().sum(), x)
        return y.cpu(), second.cpu()

    (ours, our_second), (theirs, their_second) = both("cuda"), both("cpu")

    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    scale = float(their_second.abs().max())
    torch.testing.assert_close(our_second, their_second, rtol=0, atol=1e-3 * scale)
