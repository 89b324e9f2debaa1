"""Real crops refined by a diffusion model: noised a little, then denoised step by step.

What image-to-image programs do with a picture that they are given (Meng et al., "SDEdit", ICLR
2022, arXiv:2108.01073). The scene stays, the fine detail is the model's.
"""

import hashlib
import itertools
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import UInt8
from torch import Tensor

from semforensics.core.blocks import assemble, blocks_of, cut_of
from semforensics.core.files import atomic_folder
from semforensics.core.images import read_crop, to_uint8, to_unit_range, write_grey_png
from semforensics.core.progress import track
from semforensics.core.tables import is_measured, read_splits
from semforensics.generators.diffusion.networks import Denoiser
from semforensics.generators.diffusion.sampling import scheduler

STARTS = (0.03, 0.2)
"""Least and largest share of the noising process that a crop goes through; drawn by its logarithm.
At 0.2 the standard deviation of the noise is a sixth of the range of grey levels."""
STEPS = 5
"""Of the way back."""

Grey = UInt8[np.ndarray, "height width"]


@torch.inference_mode()
def refine(network: Denoiser, image: Grey, *, start: float, timesteps: int, seed: int) -> Grey:
    """Noise an image up to a share of the process, and denoise it.

    Args:
        network: A trained one.
        image: Grey levels 0 … 255, of any size; mirrored at its edges to what the network takes.
        start: Share of the process, 0 … 1.
        timesteps: Of the training.
        seed: Of the noise.

    Returns:
        A fake of the same size.
    """
    device = next(network.parameters()).device
    height, width = image.shape
    multiple = network.multiple
    x = to_unit_range(torch.from_numpy(image)).to(device)[None, None]
    x = F.pad(x, (0, -width % multiple, 0, -height % multiple), mode="reflect")
    process = scheduler(timesteps)
    first = max(1, round(start * timesteps))
    times = np.unique(np.linspace(0, first, min(STEPS, first) + 1).round().astype(int))[::-1]
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed)).to(device)
    shares = process.alphas_cumprod.to(device)
    x = shares[times[0]].sqrt() * x + (1 - shares[times[0]]).sqrt() * noise
    for now, then in itertools.pairwise(times):
        velocity = network(x, torch.tensor([now], device=device))
        x = _step(
            x, velocity, shares[now], shares[then] if then > 0 else torch.ones_like(shares[0])
        )
    return np.asarray(to_uint8(x[0, 0, :height, :width].cpu()).numpy())


def _step(x: Tensor, velocity: Tensor, share: Tensor, next_share: Tensor) -> Tensor:
    """Take a step of DDIM without noise, from one share of the signal's power to the next."""
    image = (share.sqrt() * x - (1 - share).sqrt() * velocity).clamp(-1, 1)
    noise = (1 - share).sqrt() * x + share.sqrt() * velocity
    return next_share.sqrt() * image + (1 - next_share).sqrt() * noise


def refine_crops(
    network: Denoiser, cropped: Path, splits: Path, folder: Path, *, timesteps: int, seed: int
) -> int:
    """Write one fake of every crop under the crop's name, and return how many there are.

    Crops that are for measuring only have none. Neighbouring crops of a micrograph are refined
    together, so no seam tells a fake. Each block draws from its own generator.

    Raises:
        FileNotFoundError: A crop is missing.
        InputError: A file is no canonical crop.
    """
    table = read_splits(splits)
    table = table[~is_measured(table)]
    size_px = len(read_crop(cropped / table["file"].iloc[0]))
    low, high = np.log(STARTS)
    with atomic_folder(folder) as temporary:
        for places in track(list(blocks_of(table, size_px)), "refined"):
            digest = hashlib.sha256(f"{seed}:{min(places.values())}".encode()).digest()
            rng = np.random.default_rng(int.from_bytes(digest[:16]))
            fake = refine(
                network,
                assemble(cropped, places),
                start=float(np.exp(rng.uniform(low, high))),
                timesteps=timesteps,
                seed=int(rng.integers(2**31)),
            )
            for place, file in places.items():
                write_grey_png(temporary / file, cut_of(fake, place, size_px).copy())
    return len(table)
