"""Resampling and the convolutions joined with it are what their definition says."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from semforensics.generators.stylegan2_ada.resampling import (
    TAPS,
    conv_down,
    conv_up,
    downsample,
    upsample,
)


def upfirdn(
    x: Tensor,
    kernel: Tensor,
    *,
    up: tuple[int, int] = (1, 1),
    down: tuple[int, int] = (1, 1),
    padding: tuple[int, int, int, int],
    gain: float = 1.0,
    flip: bool = False,
) -> Tensor:
    """The definition, step by step: stuff zeros, pad or crop, convolve, skip; x before y."""
    batch, channels, height, width = x.shape
    stuffed = x.new_zeros(batch, channels, height * up[1], width * up[0])
    stuffed[:, :, :: up[1], :: up[0]] = x
    padded = F.pad(stuffed, padding)
    # torch correlates; a true convolution flips.
    kernel = kernel if flip else kernel.flip(0, 1)
    filtered = F.conv2d(padded.flatten(0, 1)[:, None], gain * kernel[None, None])
    filtered = filtered.view(batch, channels, *filtered.shape[2:])
    return filtered[:, :, :: down[1], :: down[0]]


def binomial(dtype: torch.dtype = torch.float32) -> Tensor:
    """The filter in two dimensions."""
    taps = torch.tensor(TAPS, dtype=torch.float64)
    return taps.outer(taps).to(dtype)


def plain_up(x: Tensor) -> Tensor:
    """Double the sides by the definition."""
    return upfirdn(x, binomial(x.dtype), up=(2, 2), padding=(2, 1, 2, 1), gain=4)


def plain_down(x: Tensor) -> Tensor:
    """Halve the sides by the definition."""
    return upfirdn(x, binomial(x.dtype), down=(2, 2), padding=(1, 1, 1, 1))


def plain_conv_up(x: Tensor, weight: Tensor) -> Tensor:
    """Convolve transposed, then filter by the definition."""
    x = F.conv_transpose2d(x, weight.transpose(0, 1), stride=2)
    return upfirdn(x, binomial(x.dtype), padding=(1, 1, 1, 1), gain=4)


def plain_conv_down(x: Tensor, weight: Tensor) -> Tensor:
    """Filter by the definition, then convolve."""
    return F.conv2d(upfirdn(x, binomial(x.dtype), padding=(2, 2, 2, 2)), weight, stride=2)


def random_maps(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Normal numbers, the same for the same shape."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=dtype)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    ("ours", "plain"), [(upsample, plain_up), (downsample, plain_down)], ids=["up", "down"]
)
def test_resampling_is_its_definition(
    ours: Callable[[Tensor], Tensor],
    plain: Callable[[Tensor], Tensor],
    memory_format: torch.memory_format,
) -> None:
    """Maps of any layout, square or not, give what zero stuffing, filter and skipping give."""
    for shape in ((2, 3, 6, 10), (1, 1, 2, 2), (3, 20, 8, 4)):
        x = random_maps(*shape).contiguous(memory_format=memory_format)

        torch.testing.assert_close(ours(x), plain(x))


@pytest.mark.parametrize(
    ("ours", "plain"),
    [(conv_up, plain_conv_up), (conv_down, plain_conv_down)],
    ids=["up", "down"],
)
def test_joined_convolutions_are_their_definition(
    ours: Callable[[Tensor, Tensor], Tensor], plain: Callable[[Tensor, Tensor], Tensor]
) -> None:
    """Filter and strided or transposed convolution come one after the other."""
    x, weight = random_maps(2, 3, 6, 10), random_maps(5, 3, 3, 3)

    torch.testing.assert_close(ours(x, weight), plain(x, weight))


@pytest.mark.parametrize("operation", [upsample, downsample], ids=["up", "down"])
def test_resampling_has_all_derivatives(operation: Callable[[Tensor], Tensor]) -> None:
    """First and second derivatives agree with finite differences."""
    x = random_maps(1, 2, 4, 6).requires_grad_()

    # Squared, because the second derivative of something linear is zero.
    assert torch.autograd.gradcheck(lambda t: operation(t).square(), x)
    assert torch.autograd.gradgradcheck(lambda t: operation(t).square(), x)


@pytest.mark.parametrize("operation", [conv_up, conv_down], ids=["up", "down"])
def test_joined_convolutions_have_all_derivatives(
    operation: Callable[[Tensor, Tensor], Tensor],
) -> None:
    """So do those in map and weights."""
    x, weight = random_maps(1, 2, 4, 4), random_maps(2, 2, 3, 3)

    inputs = (x.requires_grad_(), weight.requires_grad_())
    assert torch.autograd.gradcheck(lambda *t: operation(*t).square(), inputs)
    assert torch.autograd.gradgradcheck(lambda *t: operation(*t).square(), inputs)


@pytest.mark.parametrize("operation", [upsample, downsample], ids=["up", "down"])
def test_brightness_stays(operation: Callable[[Tensor], Tensor]) -> None:
    """A constant map keeps its value, but near the border, beyond which there is nothing."""
    y = operation(torch.full((1, 1, 12, 12), 0.7))

    torch.testing.assert_close(y[..., 1:-1, 1:-1], torch.full_like(y[..., 1:-1, 1:-1], 0.7))
    assert float(y[0, 0, 0, 0]) < 0.6


def test_precision_is_the_inputs_also_under_autocast() -> None:
    """A float32 image stays float32, and a bf16 map bf16."""
    x = random_maps(1, 1, 4, 4, dtype=torch.float32)

    with torch.autocast("cpu", torch.bfloat16):
        for operation in (upsample, downsample):
            assert operation(x).dtype == torch.float32
            assert operation(x.bfloat16()).dtype == torch.bfloat16


def test_resampling_in_inference_does_not_spoil_later_training() -> None:
    """What inference mode leaves behind can be differentiated through."""
    x = random_maps(1, 77, 4, 4)  # a channel count that no other test has used
    with torch.inference_mode():
        downsample(x)

    downsample(x.requires_grad_()).sum().backward()

    assert x.grad is not None
