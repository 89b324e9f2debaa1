"""NPR: neighbouring pixel relationships, the residue that up-sampling layers leave behind.

Tan et al., "Rethinking the Up-Sampling Operations in CNN-based Generative Network for
Generalizable Deepfake Detection", CVPR 2024, arXiv:2312.10461, section 3.2. The image is sampled
*down* by 2 with nearest neighbours, then up again, and taken from itself: the other order gives
zero everywhere. Ours differs in one way: an image of odd size is refused with a clear error.
"""

from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from semforensics.core.errors import InputError

_Images = TypeVar("_Images", Tensor, np.ndarray)

IMAGENET_STD = (0.229, 0.224, 0.225)
"""Of the three channels, on a scale of 0 … 1. NPR cancels the means, so only these remain."""
GREY_STD = sum(IMAGENET_STD) / 3
"""What stands in their place where the network has one channel."""
GAIN = 2 / 3
"""The network sees NPR times this, as the reference does."""

PHASES = ((0, 0), (0, 1), (1, 0), (1, 1))
"""Row and column shifts of the 2x2 grid."""


def npr(
    images: Float[Tensor, "batch channels height width"],
) -> Float[Tensor, "batch channels height width"]:
    """Take from every pixel the top-left one of its 2x2 cell.

    One quarter of the result is exactly zero; the rest are the horizontal, vertical and diagonal
    differences inside the cells.

    Raises:
        InputError: Height or width is odd, so that the last cells are not whole.
    """
    height, width = images.shape[-2:]
    if height % 2 or width % 2:
        raise InputError(f"NPR of {width}x{height} px: both sides must be even")
    corners = images[..., ::2, ::2]
    return images - corners.repeat_interleave(2, dim=-2).repeat_interleave(2, dim=-1)


def network_input(
    images: Float[Tensor, "batch 1 height width"], channels: int
) -> Float[Tensor, "batch channels height width"]:
    """Return what the first convolution sees of grey images.

    NPR is linear and blind to constants, so the reference's normalisation of images on 0 … 1 by the
    ImageNet means and deviations is a division by the deviations alone.

    Args:
        images: Grey, -1 … 1, of even size.
        channels: 3: the grey one three times, as the reference sees a grey file. 1: once, divided
            by the mean of the three deviations.

    Returns:
        NPR of the normalised images times 2/3.
    """
    std = images.new_tensor((GREY_STD,) if channels == 1 else IMAGENET_STD)
    # / 2: from -1 … 1 to steps of 0 … 1
    return npr(images) * (GAIN / 2 / std).view(1, channels, 1, 1)


def phase_crop(
    images: Shaped[Tensor, "*batch height width"], row_shift: int, column_shift: int
) -> Shaped[Tensor, "*batch cropped_height cropped_width"]:
    """Cut two rows and two columns off so that the 2x2 grid starts at another pixel.

    A generator ties its own grid to even coordinates, a cut-out need not. The crop of height - 2
    and width - 2 starts `row_shift` and `column_shift` pixels in, so all four phases have one size,
    even where the image's is.

    Args:
        images: At least 4 pixels high and wide.
        row_shift: 0 or 1.
        column_shift: 0 or 1.
    """
    height, width = images.shape[-2] - 2, images.shape[-1] - 2
    return images[..., row_shift : row_shift + height, column_shift : column_shift + width]


def centre_crop(images: _Images, new_height: int, new_width: int) -> _Images:
    """Cut images to their centre, from an even row and column on: the 2x2 grid keeps its phase."""
    height, width = images.shape[-2:]
    top, left = (height - new_height) // 4 * 2, (width - new_width) // 4 * 2
    cropped: _Images = images[..., top : top + new_height, left : left + new_width]
    return cropped


def random_phases(
    images: Shaped[Tensor, "batch channels height width"], rng: torch.Generator
) -> Shaped[Tensor, "batch channels cropped_height cropped_width"]:
    """Cut every image to one of the four phases, all equally likely."""
    picks = torch.randint(len(PHASES), (len(images),), generator=rng).tolist()
    return torch.stack(
        [phase_crop(image, *PHASES[pick]) for image, pick in zip(images, picks, strict=True)]
    )
