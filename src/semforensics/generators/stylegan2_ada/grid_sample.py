"""Bilinear sampling of images at given places, differentiable as often as one likes.

torch's own grid_sample has no second derivative, which the R1 penalty through augmented images
needs. Sampling is linear in the image: its derivative is its transpose, whose derivative is the
sampling again. So two functions that name each other are enough.
"""

from typing import Any, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from semforensics.core.errors import InputError


def grid_sample(
    images: Float[Tensor, "batch channels height width"],
    grid: Float[Tensor, "batch out_height out_width 2"],
) -> Float[Tensor, "batch channels out_height out_width"]:
    """Read images at places between their pixels, 0 outside.

    The grid says where each output pixel is read, x before y; -1 and 1 are the outer edges of the
    image's outermost pixels (`align_corners=False`). The result can be differentiated any number
    of times in the images.

    Raises:
        InputError: The grid requires a gradient, which is not computed.
    """
    if grid.requires_grad:
        raise InputError("the grid requires a gradient; only the images get one")
    return _sample(images, grid)


class _Sample(torch.autograd.Function):
    """Images and a grid to the images' values there."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, grid: Tensor) -> Tensor:
        ctx.save_for_backward(grid)
        ctx.size = images.shape[2:]
        return F.grid_sample(images, grid, "bilinear", "zeros", align_corners=False)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (grid,) = ctx.saved_tensors
        return _scatter(gradient, grid, *ctx.size), None


class _Scatter(torch.autograd.Function):
    """The transpose of `_Sample`: spread values over the pixels they would be read from."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, grid: Tensor, height: int, width: int) -> Tensor:
        ctx.save_for_backward(grid)
        # Only the shape of the images matters to the derivative in them: one number, expanded.
        images = values.new_zeros(()).expand(*values.shape[:2], height, width)
        bilinear, zeros = 0, 0
        scattered, _ = torch.ops.aten.grid_sampler_2d_backward(
            values, images, grid, bilinear, zeros, False, (True, False)
        )
        return cast(Tensor, scattered)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        (grid,) = ctx.saved_tensors
        return _sample(gradient, grid), None, None, None


# torch's Function.apply has no types.
def _sample(images: Tensor, grid: Tensor) -> Tensor:
    return cast(Tensor, _Sample.apply(images, grid))  # type: ignore[no-untyped-call]


def _scatter(values: Tensor, grid: Tensor, height: int, width: int) -> Tensor:
    return cast(Tensor, _Scatter.apply(values, grid, height, width))  # type: ignore[no-untyped-call]
