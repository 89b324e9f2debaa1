"""Augment training images: tone, filters, noise, JPEG, turns, phase; each image separately.

Reals and fakes alike, so that neither class is known by its processing: a detector that saw clean
images only takes a denoised, noisier or turned real for a fake. Blur and JPEG follow Wang et al.,
"CNN-Generated Images Are Surprisingly Easy to Spot... for Now", CVPR 2020, arXiv:1912.11035,
section 3. Ours differs: one JPEG encoder (Pillow's), separate chances, and more kinds.
"""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from semforensics.core.processing import gamma, gaussian_blur, gaussian_noise, jpeg, median
from semforensics.detector.npr import random_phases
from semforensics.params import TrainClassifierParams

Grey = UInt8[np.ndarray, "height width"]
Batch = UInt8[Tensor, "n 1 height width"]

_MEDIAN_PX = 3


def augment_crops(
    images: Batch, params: TrainClassifierParams, rng: torch.Generator
) -> UInt8[Tensor, "n 1 new_height new_width"]:
    """Process, turn, flip and shift training images at random, in this order.

    Processing is tone, median, blur, noise, JPEG: as from the instrument to the file. A turn is by
    none to three quarters, a flip left to right, all equally likely. A random phase cuts two rows
    and columns; it comes last, so that neither the 2x2 grid nor the JPEG's 8x8 grid begins at a
    fixed place.

    Args:
        images: Grey levels 0 … 255; square, where turns are drawn.
        params: Chances and strengths. What has no chance draws nothing from `rng`.
        rng: On the CPU.
    """
    largest, lowest = np.log(params.gamma_max), params.jpeg_quality_min

    def change(chance: float, function: Callable[[Grey, float], Grey]) -> None:
        nonlocal images
        images = _change_some(images, chance, rng, function)

    change(params.tone_chance, lambda x, u: gamma(x, float(np.exp((2 * u - 1) * largest))))
    change(params.median_chance, lambda x, _u: median(x, _MEDIAN_PX))
    change(params.blur_chance, lambda x, u: gaussian_blur(x, u * params.blur_sigma_max))
    if params.noise_chance > 0:
        noise = np.random.default_rng(int(torch.randint(2**62, (), generator=rng)))
        change(
            params.noise_chance, lambda x, u: gaussian_noise(x, noise, u * params.noise_sigma_max)
        )
    change(params.jpeg_chance, lambda x, u: jpeg(x, lowest + int(u * (101 - lowest))))
    if params.turn:
        turns = torch.randint(4, (len(images),), generator=rng).tolist()
        turned = [x.rot90(k, (1, 2)) for x, k in zip(images, turns, strict=True)]
        images = torch.stack(turned)
    if params.flip:
        flips = torch.rand(len(images), generator=rng) < 0.5
        images = torch.where(flips.view(-1, 1, 1, 1), images.flip(-1), images)
    if params.random_phase:
        images = random_phases(images, rng)
    return images


def _change_some(
    images: Batch, chance: float, rng: torch.Generator, change: Callable[[Grey, float], Grey]
) -> Batch:
    """Change each image with a chance; the function gets a random strength from 0 to 1."""
    if chance == 0:
        return images
    chosen = torch.rand(len(images), generator=rng) < chance
    strengths = torch.rand(len(images), generator=rng, dtype=torch.float64).tolist()
    result = images.clone()
    for index in chosen.nonzero().flatten().tolist():
        changed = change(images[index, 0].numpy(), strengths[index])
        result[index, 0] = torch.from_numpy(changed)
    return result
