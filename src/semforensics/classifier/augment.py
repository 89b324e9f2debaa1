"""Augment training images: blur, JPEG, flip, phase; each image by its own draws.

Blur and JPEG follow Wang et al., "CNN-Generated Images Are Surprisingly Easy to Spot... for Now",
CVPR 2020, arXiv:1912.11035, section 3: reals and fakes alike, so that neither class is known by
its processing. Ours differs: one JPEG encoder (Pillow's), and chances of their own.
"""

import io

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from scipy.ndimage import gaussian_filter
from torch import Tensor

from semforensics.classifier.npr import random_phases
from semforensics.params import TrainClassifierParams

Grey = UInt8[np.ndarray, "height width"]
Batch = UInt8[Tensor, "n 1 height width"]


def augment(
    images: Batch,
    params: TrainClassifierParams,
    rng: torch.Generator,
) -> UInt8[Tensor, "n 1 new_height new_width"]:
    """Blur, compress, flip and shift training images at random, in this order.

    A flip is left to right, with a chance of one half. A random phase cuts two rows and columns; it
    comes last, so that neither the 2x2 grid nor the JPEG's 8x8 grid begins at a fixed place.

    Args:
        images: Grey levels 0 … 255.
        params: Chances and strengths. What has no chance draws nothing from `rng`.
        rng: On the CPU.
    """
    images = _blur_some(images, params, rng)
    images = _compress_some(images, params, rng)
    if params.flip:
        flips = torch.rand(len(images), generator=rng) < 0.5
        images = torch.where(flips.view(-1, 1, 1, 1), images.flip(-1), images)
    if params.random_phase:
        images = random_phases(images, rng)
    return images


def _blur_some(images: Batch, params: TrainClassifierParams, rng: torch.Generator) -> Batch:
    if params.blur_chance == 0:
        return images
    chosen = torch.rand(len(images), generator=rng) < params.blur_chance
    sigmas = torch.rand(len(images), generator=rng) * params.blur_sigma_max
    result = images.clone()
    for index in chosen.nonzero().flatten().tolist():
        blurred = gaussian_blur(images[index, 0].numpy(), float(sigmas[index]))
        result[index, 0] = torch.from_numpy(blurred)
    return result


def _compress_some(images: Batch, params: TrainClassifierParams, rng: torch.Generator) -> Batch:
    if params.jpeg_chance == 0:
        return images
    chosen = torch.rand(len(images), generator=rng) < params.jpeg_chance
    qualities = torch.randint(params.jpeg_quality_min, 101, (len(images),), generator=rng)
    result = images.clone()
    for index in chosen.nonzero().flatten().tolist():
        compressed = jpeg(images[index, 0].numpy(), int(qualities[index]))
        result[index, 0] = torch.from_numpy(compressed)
    return result


def gaussian_blur(image: Grey, sigma: float) -> Grey:
    """Blur with a Gaussian of `sigma` pixels, mirrored at the edges; 0 changes nothing."""
    blurred = gaussian_filter(image.astype(np.float32), sigma, mode="reflect")
    return np.asarray(blurred.round().clip(0, 255), dtype=np.uint8)


def jpeg(image: Grey, quality: int) -> Grey:
    """Write as grey JPEG and read again; the 8x8 grid begins at the top-left pixel.

    Args:
        image: Grey levels 0 … 255.
        quality: Of Pillow's encoder, 1 … 100.
    """
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality)
    with Image.open(buffer) as decoded:
        return np.array(decoded)
