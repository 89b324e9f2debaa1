"""Sampling gives torch's values and has every derivative in the images."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from semforensics.generators.stylegan2_ada.grid_sample import grid_sample


@pytest.fixture
def images() -> Tensor:
    """Two small images of two channels, not square."""
    rng = torch.Generator().manual_seed(0)
    return torch.randn(2, 2, 4, 5, generator=rng, dtype=torch.float64).requires_grad_()


@pytest.fixture
def grid() -> Tensor:
    """Places in the images and a little outside."""
    rng = torch.Generator().manual_seed(1)
    return 2.6 * torch.rand(2, 3, 6, 2, generator=rng, dtype=torch.float64) - 1.3


def test_values_and_gradients_are_torchs(images: Tensor, grid: Tensor) -> None:
    """Values and first derivatives equal those of torch's own function."""
    ours, theirs = (
        grid_sample(images, grid),
        F.grid_sample(images, grid, align_corners=False),
    )
    weights = torch.randn_like(ours)

    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(
        *(torch.autograd.grad((values * weights).sum(), images) for values in (ours, theirs))
    )


def test_derivatives_are_right(images: Tensor, grid: Tensor) -> None:
    """First and second derivatives agree with finite differences."""

    def squared(x: Tensor) -> Tensor:
        return grid_sample(x, grid).square()  # its second derivative is not zero

    assert torch.autograd.gradcheck(squared, images)
    assert torch.autograd.gradgradcheck(squared, images)


def test_every_image_keeps_to_its_own_places(images: Tensor, grid: Tensor) -> None:
    """A gradient reaches only the image that was read."""
    (gradient,) = torch.autograd.grad(grid_sample(images, grid)[0].sum(), images)

    assert bool(gradient[0].any())
    assert not bool(gradient[1].any())


def test_a_grid_with_a_gradient_is_refused(images: Tensor, grid: Tensor) -> None:
    """Nobody waits for a gradient that never comes."""
    with pytest.raises(ValueError, match="grid requires a gradient"):
        grid_sample(images, grid.requires_grad_())


@pytest.mark.gpu
def test_a_gpu_gives_the_same(images: Tensor, grid: Tensor) -> None:
    """Values, first and second derivatives are the CPU's."""

    def derivatives(device: str) -> list[Tensor]:
        x = images.detach().to(device).requires_grad_()
        values = grid_sample(x, grid.to(device)).pow(3)
        (first,) = torch.autograd.grad(values.sum(), x, create_graph=True)
        (second,) = torch.autograd.grad(first.square().sum(), x)
        return [tensor.cpu() for tensor in (values, first, second)]

    for ours, theirs in zip(derivatives("cuda"), derivatives("cpu"), strict=True):
        torch.testing.assert_close(ours, theirs)
