"""All distances between two sets of images, by matrix products."""

from collections.abc import Callable

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

# Grey levels less 128 are integers up to 128 in size, so 1024 of their products add up to 2^24 at
# most, the last number to which float32 counts by ones.
_EXACT_PIXELS = 1024


def pairwise_mse(
    a: UInt8[Tensor, "n_a height width"],
    b: UInt8[Tensor, "n_b height width"],
    *,
    block_size: int,
    device: torch.device,
    advance: Callable[[int], None] = lambda _pairs: None,
) -> Float[Tensor, "n_a n_b"]:
    """Give the mean squared error of every image of `a` against every image of `b`.

    |x - y|^2 = |x|^2 + |y|^2 - 2 x.y, where the x.y of many pairs are one matrix product. Grey
    levels are integers, and the product takes no more pixels at a time than float32 adds exactly;
    float64 carries the sum on. So no digit is lost between near images, and neither the block size
    nor the order of the images nor the machine changes a bit of the result.

    Args:
        a: Grey levels.
        b: Grey levels of images of the same size.
        block_size: Images of each set that are compared at a time. Bounds memory.
        device: Where to multiply.
        advance: Told the number of pairs of each block when it is done.

    Returns:
        Float64 on the CPU, in grey levels squared, 0 … 65025; 0 only between identical images.
    """
    mse = torch.empty(len(a), len(b), dtype=torch.float64)
    for i in range(0, len(a), block_size):
        x = a[i : i + block_size].to(device).flatten(1)
        for j in range(0, len(b), block_size):
            y = b[j : j + block_size].to(device).flatten(1)
            mean = _squared_distances(x, y) / x.shape[1]
            mse[i : i + block_size, j : j + block_size] = mean.cpu()
            advance(len(x) * len(y))
    return mse


def _squared_distances(
    a: UInt8[Tensor, "n_a pixels"], b: UInt8[Tensor, "n_b pixels"]
) -> Float[Tensor, "n_a n_b"]:
    """Give |x - y|^2 of all pairs of rows, exactly, in float64."""
    norm_a = torch.zeros(len(a), 1, dtype=torch.float64, device=a.device)
    norm_b = torch.zeros(1, len(b), dtype=torch.float64, device=a.device)
    dot = torch.zeros(len(a), len(b), dtype=torch.float64, device=a.device)
    for start in range(0, a.shape[1], _EXACT_PIXELS):
        x, y = (levels[:, start : start + _EXACT_PIXELS].float() - 128 for levels in (a, b))
        norm_a += x.square().sum(dim=1, keepdim=True)
        norm_b += y.square().sum(dim=1)
        dot += x @ y.T
    return norm_a + norm_b - 2 * dot
