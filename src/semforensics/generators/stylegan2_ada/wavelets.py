"""The augmentations' wavelets, and the linear maps of image axes that are made of them.

Daubechies, "Ten Lectures on Wavelets", 1992: sym6 (table 6.3) resamples for the geometric
augmentations, sym2 (which equals db2) splits an image into four bands. Karras et al., "Training
Generative Adversarial Networks with Limited Data", NeurIPS 2020, arXiv:2006.06676, appendix B.

An image axis is mapped by one dense matrix that holds reflection at the border, resampling and
filtering together: no padded image is ever made, and at 64 to 128 px on a CPU the products are
three times as fast as strided convolutions of single channels (forward and backward; at 512 px they
are still no slower).
"""

from functools import lru_cache
from math import sqrt
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor

_SYM6 = (
    0.015404109327027373,
    0.0034907120842174702,
    -0.11799011114819057,
    -0.048311742585633,
    0.4910559419267466,
    0.787641141030194,
    0.3379294217276218,
    -0.07263752278646252,
    -0.021060292512300564,
    0.04472490177066578,
    0.0017677118642428036,
    -0.007800708325034148,
)
_SYM2 = tuple(n / (4 * sqrt(2)) for n in (1 - sqrt(3), 3 - sqrt(3), 3 + sqrt(3), 1 + sqrt(3)))
NUM_BANDS = 4


def resampling_filter() -> Float[Tensor, " 12"]:
    """Return sym6's low-pass filter, of sum 1, in float64."""
    taps = torch.tensor(_SYM6, dtype=torch.float64)
    return taps / taps.sum()


@lru_cache(maxsize=1)
def band_filters() -> Float[Tensor, "4 43"]:
    """Return four filters, lowest octave first, that split a signal into bands, in float64.

    They are symmetric, and sum to a single one in the middle: the bands' sum is the signal.
    """
    low = torch.tensor(_SYM2, dtype=torch.float64)
    signs = (-1.0) ** torch.arange(low.numel(), dtype=torch.float64)
    low_pass = _convolve(low, low.flip(0)) / 2
    high_pass = _convolve(low * signs, (low * signs).flip(0)) / 2
    bank = torch.eye(NUM_BANDS, 1, dtype=torch.float64)
    for band in range(1, NUM_BANDS):
        spread = bank.new_zeros(NUM_BANDS, 2 * bank.shape[1] - 1)
        spread[:, ::2] = bank
        bank = torch.stack([_convolve(row, low_pass) for row in spread])
        start = (bank.shape[1] - high_pass.numel()) // 2
        bank[band, start : start + high_pass.numel()] += high_pass
    return bank


def _convolve(a: Tensor, b: Tensor) -> Tensor:
    padded = torch.nn.functional.pad(a, (b.numel() - 1, b.numel() - 1))
    return padded.unfold(0, b.numel(), 1) @ b.flip(0)


def upsampling(side: int, before: int, after: int, like: Tensor) -> Float[Tensor, "doubled {side}"]:
    """Return the matrix that reflects an axis at its ends and doubles its samples.

    `before` and `after` samples are reflected at its two ends, at most `side - 1`; `like` has the
    dtype and the device. Sample 2 i of the result lies at sample i of the reflected axis;
    amplitudes are kept.
    """
    taps = 2 * resampling_filter().to(like)
    padded = side + before + after
    source = _reflect(torch.arange(-before, side + after, device=like.device), side)
    at = torch.arange(taps.numel(), device=like.device)
    target = 2 * torch.arange(padded, device=like.device)[:, None] + at - 5  # [padded, taps]
    inside = (target >= 0) & (target < 2 * padded)
    source, values = source[:, None].expand_as(target), taps.expand_as(target)
    matrix = like.new_zeros(2 * padded, side)
    # Reflected samples meet the samples they are copies of: their shares add up.
    return matrix.index_put_((target[inside], source[inside]), values[inside], accumulate=True)


def downsampling(side: int, crop: int, like: Tensor) -> Float[Tensor, "{side} doubled"]:
    """Return the matrix that undoes `upsampling`: it halves the samples and crops both ends.

    `side` samples are left; `crop`, at least 3, are left out at either end of the halved axis.
    """
    taps = resampling_filter().to(like)
    target = torch.arange(side, device=like.device)[:, None]  # [side, 1]
    source = 2 * (target + crop) - 5 + torch.arange(taps.numel(), device=like.device)
    matrix = like.new_zeros(side, 2 * (side + 2 * crop))
    return matrix.scatter_(1, source, taps.expand_as(source))


@lru_cache(maxsize=8)
def band_matrices(
    side: int, dtype: torch.dtype, device: torch.device
) -> Float[Tensor, "4 {side} {side}"]:
    """Return, for each band, the matrix that filters an axis, reflected at its ends."""
    filters = band_filters()
    reach = filters.shape[1] // 2
    target = torch.arange(side)[:, None]  # [side, 1]
    source = _reflect(target + torch.arange(-reach, reach + 1), side)  # [side, taps]
    target = target.expand_as(source)
    matrices = torch.stack(
        [
            torch.zeros(side, side, dtype=torch.float64).index_put_(
                (target, source), taps.expand(side, -1), accumulate=True
            )
            for taps in filters
        ]
    )
    return matrices.to(device, dtype)


def _reflect(index: Tensor, side: int) -> Tensor:
    """Fold indices outside 0 … side - 1 back, as often as needed; the end itself is not doubled."""
    period = max(2 * (side - 1), 1)
    index = index.remainder(period)
    return torch.minimum(index, period - index)


def map_axes(
    images: Float[Tensor, "batch channels height width"], rows: Tensor, columns: Tensor
) -> Float[Tensor, "batch channels out_height out_width"]:
    """Apply one matrix to the vertical and one to the horizontal axis.

    Differentiable any number of times in the images. Autocast does not reach these products, nor
    their derivatives. The matrices are [out_height, height] and [out_width, width], or a batch of
    these, [batch, 1, ...], of the images' dtype.
    """
    # torch's Function.apply has no types.
    return cast(Tensor, _MapAxes.apply(images, rows, columns))  # type: ignore[no-untyped-call]


class _MapAxes(torch.autograd.Function):
    """A linear map, whose derivative is the same with both matrices transposed."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        ctx.save_for_backward(rows, columns)
        (out_height, height), (out_width, width) = rows.shape[-2:], columns.shape[-2:]
        columns_first = width * height * out_width + height * out_height * out_width
        rows_first = height * width * out_height + width * out_width * out_height
        with torch.autocast(images.device.type, enabled=False):
            if columns_first <= rows_first:
                return rows @ (images @ columns.mT)
            return (rows @ images) @ columns.mT

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        rows, columns = ctx.saved_tensors
        return map_axes(gradient, rows.mT, columns.mT), None, None
