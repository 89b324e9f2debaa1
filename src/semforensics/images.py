"""The canonicaliser: any image file to 8-bit grey, and 8-bit grey to tensors and back.

Nothing else in the project turns files into pixels.
"""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor


def read_crop(path: Path) -> UInt8[np.ndarray, "height width"]:
    """Read a canonical crop: a PNG of 8-bit grey.

    Raises:
        ValueError: The file is something else.
    """
    with Image.open(path) as image:
        if image.format != "PNG" or image.mode != "L":
            raise ValueError(
                f"{path}: {image.format} of mode {image.mode}, expected an 8-bit grey PNG"
            )
        return np.asarray(image)


def to_unit_range(grey: UInt8[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Map grey levels 0 … 255 to -1 … 1."""
    return grey.to(torch.float32) / 127.5 - 1


def to_uint8(images: Float[Tensor, "*shape"]) -> UInt8[Tensor, "*shape"]:
    """Map -1 … 1 to grey levels 0 … 255, the inverse of `to_unit_range`; values outside are clamped."""
    return ((images.to(torch.float32) + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
