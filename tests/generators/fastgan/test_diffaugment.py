"""Augmentations keep what they should; parity with the public ones is in tests/parity."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from semforensics.generators.fastgan import diffaugment


def draws_of(batch: int, side_px: int, seed: int) -> diffaugment.Draws:
    """Random numbers of a seed."""
    return diffaugment.draw(batch, side_px, torch.Generator().manual_seed(seed))


@given(seed=st.integers(0, 1000))
def test_draws_stay_in_their_ranges(seed: int) -> None:
    """Uniform numbers lie in 0 … 1, shifts within an eighth of the side."""
    draws = draws_of(16, 64, seed)

    for uniform in draws[:3]:
        assert bool(((uniform >= 0) & (uniform < 1)).all())
    assert int(draws.shift.abs().max()) <= 8


@given(seed=st.integers(0, 100), grey=st.floats(-1, 1))
def test_companions_do_not_change_an_augmented_image(seed: int, grey: float) -> None:
    """An image with its random numbers comes out the same alone and in a batch."""
    x = torch.randn(3, 1, 16, 16, generator=torch.Generator().manual_seed(seed)) + grey
    draws = draws_of(3, 16, seed)
    last = diffaugment.Draws(*(d[..., 2:] for d in draws))

    together, alone = diffaugment.diff_augment(x, draws)[2:], diffaugment.diff_augment(x[2:], last)

    torch.testing.assert_close(together, alone)


def test_both_scales_are_augmented_alike() -> None:
    """Shrinking an augmented image by averaging gives the augmented small image."""
    x = torch.randn(4, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    small = torch.nn.functional.avg_pool2d(x, 2)
    draws = draws_of(4, 32, 1)

    big_first = torch.nn.functional.avg_pool2d(diffaugment.diff_augment(x, draws.at_scale(2)), 2)

    torch.testing.assert_close(big_first, diffaugment.diff_augment(small, draws))


def test_saturation_leaves_grey_alone() -> None:
    """An image of three equal channels has no saturation to change."""
    x = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0)).expand(-1, 3, -1, -1)

    torch.testing.assert_close(diffaugment.saturation(x, torch.tensor([0.1, 0.9])), x)


def test_augmentation_is_differentiable() -> None:
    """Gradients reach the image; pixels that were moved out get none."""
    x = torch.zeros(1, 1, 4, 4).requires_grad_()

    diffaugment.translation(x, torch.tensor([[1], [0]])).sum().backward()

    assert x.grad is not None
    assert bool((x.grad[0, 0, 0] == 0).all())
    assert bool((x.grad[0, 0, 1:] == 1).all())
