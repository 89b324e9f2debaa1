"""All distances between two sets of images, by matrix products."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, UInt8, UInt16
from torch import Tensor

from semforensics.core.types import FLIPS, Flip
from semforensics.perceptual.lpips import Embedding

BLOCK_SIZE = 256
"""Images compared at a time, at most."""
# Grey levels less 128 are integers up to 128 in size, so 1024 of their products add up to 2^24 at
# most, the last number to which float32 counts by ones.
_EXACT_PIXELS = 1024
# Numbers of a code that are multiplied at a time; as many as the caches hold.
_CODE_NUMBERS = 4096
_KEPT_SHARE = 0.75  # of the memory; the rest is for codes that pass by
_NEAR_LPIPS = 0.01  # below, the rounding of the codes may show in the fourth digit


def pairwise_mse(
    a: UInt8[Tensor, "n_a height width"],
    b: UInt8[Tensor, "n_b height width"],
    *,
    block_size: int = BLOCK_SIZE,
    device: torch.device,
    advance: Callable[[int], None] = lambda _pairs: None,
) -> Float[Tensor, "n_a n_b"]:
    """Return the mean squared error of every image of `a` against every image of `b`.

    |x - y|^2 = |x|^2 + |y|^2 - 2 x.y, where the x.y of many pairs are one matrix product. Grey
    levels are integers, and the product takes no more pixels at a time than float32 adds exactly;
    float64 carries the sum on. So no digit is lost between near images, and neither the block size
    nor the order of the images nor the machine changes a bit of the result.

    `block_size` images of each set are compared at a time, which bounds memory. `advance` is told
    the number of pairs of each block when it is done.

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
    """Return |x - y|^2 of all pairs of rows, exactly, in float64."""
    norm_a = torch.zeros(len(a), 1, dtype=torch.float64, device=a.device)
    norm_b = torch.zeros(1, len(b), dtype=torch.float64, device=a.device)
    dot = torch.zeros(len(a), len(b), dtype=torch.float64, device=a.device)
    for start in range(0, a.shape[1], _EXACT_PIXELS):
        x, y = (levels[:, start : start + _EXACT_PIXELS].float() - 128 for levels in (a, b))
        norm_a += x.square().sum(dim=1, keepdim=True)
        norm_b += y.square().sum(dim=1)
        dot += x @ y.T
    return norm_a + norm_b - 2 * dot


def pairwise_lpips(
    a: UInt8[Tensor, "n_a channels height width"],
    b: UInt8[Tensor, "n_b channels height width"],
    *,
    embedding: Embedding,
    flips: Sequence[Flip] = ("none",),
    block_size: int = BLOCK_SIZE,
    memory_gb: float,
    advance: Callable[[int], None] = lambda _passes: None,
) -> Float[Tensor, "flips n_a n_b"]:
    """Return LPIPS of every image of `a` against every image of `b`, turned each way.

    The codes of `a` are kept, as many as the memory holds, while those of `b` pass by; where not
    all of `a` fits, `b` passes again for the next part (`trunk_passes` counts). Distances between
    codes are exact, and pairs nearer than 0.01 are measured once more without codes, at the cost
    of a trunk pass or two each. So neither the block size nor the memory nor the order of the
    images changes a bit of the result.

    At most `block_size` images of `b` are compared at a time; `memory_gb` are for codes, on the
    embedding's device. `advance` is told the number of images that passed the trunk.

    Returns:
        Float64 on the CPU, 0 or more; 0 between identical images.
    """
    lpips = torch.zeros(len(flips), len(a), len(b), dtype=torch.float64)
    if not lpips.numel():
        return lpips
    kept_size, passing_size = _block_sizes(embedding, a[0], memory_gb)
    passing_size = min(passing_size, block_size)
    for i in range(0, len(a), kept_size):
        kept = _Codes(embedding, a[i : i + kept_size], advance)
        for index, flip in enumerate(flips):
            for j in range(0, len(b), passing_size):
                images = b[j : j + passing_size].flip(FLIPS[flip])
                block = kept.distances(_Codes(embedding, images, advance))
                for x, y in (block < _NEAR_LPIPS).nonzero().tolist():
                    pair = a[i + x], images[y]
                    block[x, y] = 0.0 if torch.equal(*pair) else embedding.distance(*pair)
                lpips[index, i : i + kept_size, j : j + passing_size] = block
    return lpips


def trunk_passes(
    n_a: int,
    n_b: int,
    image: UInt8[Tensor, "channels height width"],
    *,
    embedding: Embedding,
    num_flips: int,
    memory_gb: float,
) -> int:
    """Return how many images pass the trunk in `pairwise_lpips`, near pairs not counted."""
    kept_size, _ = _block_sizes(embedding, image, memory_gb)
    return n_a + -(-n_a // kept_size) * n_b * num_flips


class _Codes:
    """The codes of many images."""

    def __init__(
        self,
        embedding: Embedding,
        images: UInt8[Tensor, "n channels height width"],
        advance: Callable[[int], None],
    ) -> None:
        self.layers: list[UInt16[Tensor, "n numbers"]] = []
        for start in range(0, len(images), embedding.batch):
            batch = images[start : start + embedding.batch]
            codes = embedding.codes(batch)
            if not self.layers:
                self.scales = embedding.scales(codes)
                self.layers = [code.new_empty(len(images), code.shape[1]) for code in codes]
            for layer, code in zip(self.layers, codes, strict=True):
                layer[start : start + len(batch)] = code
            advance(len(batch))
        self.norms = [_squared_lengths(layer) for layer in self.layers]

    def distances(self, others: "_Codes") -> Float[Tensor, "n_a n_b"]:
        """Return the squared distances of all pairs, each layer on its scale."""
        total = torch.zeros(len(self.norms[0]), len(others.norms[0]), dtype=torch.float64)
        for x, y, norm_x, norm_y, scale in zip(
            self.layers, others.layers, self.norms, others.norms, self.scales, strict=True
        ):
            dot = torch.zeros(len(x), len(y), dtype=torch.float64, device=x.device)
            for start in range(0, x.shape[1], _CODE_NUMBERS):
                part = slice(start, start + _CODE_NUMBERS)
                dot.addmm_(x[:, part].double(), y[:, part].double().T)
            # Whole numbers up to here. Not in one operation with the sum: a fused one rounds less,
            # and not everywhere alike.
            term = (norm_x[:, None] + norm_y - 2 * dot) * scale
            total += term.cpu()
        return total


def _squared_lengths(codes: UInt16[Tensor, "n numbers"]) -> Float[Tensor, " n"]:
    """Return |x|^2 of all rows, exactly: at each position it is 65535^2 or less."""
    lengths = torch.zeros(len(codes), dtype=torch.float64, device=codes.device)
    for start in range(0, codes.shape[1], _CODE_NUMBERS):
        part = codes[:, start : start + _CODE_NUMBERS].double()
        lengths += torch.linalg.vecdot(part, part)
    return lengths


def _block_sizes(
    embedding: Embedding, image: UInt8[Tensor, "channels height width"], memory_gb: float
) -> tuple[int, int]:
    """Return how many codes to keep, and how many to let pass at a time."""
    size = sum(2 * code.shape[1] for code in embedding.codes(image[None]))  # 2 bytes a number
    kept = int(memory_gb * 1e9 * _KEPT_SHARE / size)
    passing = int(memory_gb * 1e9 * (1 - _KEPT_SHARE) / size)
    return max(1, kept), max(1, passing)
