"""Resampling by two with the binomial filter [1, 3, 3, 1], alone and joined with convolutions.

Karras et al., "Analyzing and Improving the Image Quality of StyleGAN", CVPR 2020, arXiv:1912.04958;
the filter is that of Zhang, "Making Convolutional Networks Shift-Invariant Again", ICML 2019,
arXiv:1904.11486. Filtering is linear, so its derivative is its adjoint, which is again a filter
with resampling; written so, second derivatives cost what first ones do. Precision of what is
filtered is the input's, also under autocast.

Composing filter and convolution to one kernel of 6x6, or to four of 3x3 on the smaller map, was
tried: with four times the arithmetic it is two to three times as slow from 32 channels on.
"""

import functools
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

TAPS = (1 / 8, 3 / 8, 3 / 8, 1 / 8)
"""The filter along one axis; sums to 1."""


def upsample(
    x: Float[Tensor, "batch channels height width"],
) -> Float[Tensor, "batch channels double_height double_width"]:
    """Double the sides; keeps the mean brightness."""
    return _filter(x, 2, 1, 1, 4.0)


def downsample(
    x: Float[Tensor, "batch channels height width"],
) -> Float[Tensor, "batch channels half_height half_width"]:
    """Halve even sides; keeps the mean brightness."""
    return _filter(x, 1, 2, 1, 1.0)


def conv_up(
    x: Float[Tensor, "batch in_channels height width"],
    weight: Float[Tensor, "out_channels in_channels 3 3"],
) -> Float[Tensor, "batch out_channels double_height double_width"]:
    """Double the sides: a transposed convolution, then the filter."""
    x = F.conv_transpose2d(x, weight.transpose(0, 1), stride=2)  # [batch, out, 2 h + 1, 2 w + 1]
    return _filter(x, 1, 1, 1, 4.0)


def conv_down(
    x: Float[Tensor, "batch in_channels height width"],
    weight: Float[Tensor, "out_channels in_channels 3 3"],
    bias: Float[Tensor, " out_channels"] | None = None,
) -> Float[Tensor, "batch out_channels half_height half_width"]:
    """Halve even sides: the filter, then a strided convolution."""
    return F.conv2d(_filter(x, 1, 1, 2, 1.0), weight, bias, stride=2)


class _Filter(torch.autograd.Function):
    """The filter between zero stuffing and skipping."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, up: int, down: int, padding: int, gain: float) -> Tensor:
        ctx.settings = up, down, padding, gain
        if up == 2:
            return _stuff_and_filter(x, gain)
        kernel = _kernel(x.shape[1], gain, x.dtype, x.device)
        with torch.autocast(x.device.type, enabled=False):
            return F.conv2d(x, kernel, None, down, padding, groups=x.shape[1])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None, None]:
        up, down, padding, gain = ctx.settings
        # A symmetric filter is its own adjoint, and zero stuffing that of skipping.
        adjoint = 3 - padding if up == down else padding
        return _filter(gradients[0], down, up, adjoint, gain), None, None, None, None


def _filter(x: Tensor, up: int, down: int, padding: int, gain: float) -> Tensor:
    """Filter with `up` or `down` 2 or neither, pixels of padding, gain."""
    out: Tensor = _Filter.apply(x, up, down, padding, gain)  # type: ignore[no-untyped-call]
    return out


def _stuff_and_filter(x: Tensor, gain: float) -> Tensor:
    """Stuff zeros and filter with padding 1.

    Except at the borders, beyond which it repeats the image, bilinear interpolation is this filter
    with gain 4. A transposed convolution per channel has no fast bf16 kernel.
    """
    x = F.interpolate(x, scale_factor=2, mode="bilinear")
    for border in (x[..., 0, :], x[..., -1, :], x[..., 0], x[..., -1]):
        border.mul_(3 / 4)  # the other quarter lies beyond, where zeros are
    return x if gain == 4 else x.mul_(gain / 4)


@functools.cache
def _kernel(channels: int, gain: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    # Cached, so that a GPU need not wait for it. Made in an inference, it serves trainings too: no
    # graph is recorded inside `_Filter`.
    taps = torch.tensor(TAPS, dtype=torch.float64)
    return (gain * taps.outer(taps)).to(device, dtype).repeat(channels, 1, 1, 1)
