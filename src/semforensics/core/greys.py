"""Decoded samples → upright 8-bit grey; without torch, so that decoding starts fast."""

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import UInt8, UInt16
from PIL import ExifTags, Image
from PIL.TiffImagePlugin import TiffImageFile

Samples = UInt8[np.ndarray, "height width"] | UInt16[np.ndarray, "height width"]

_PERCENTILES = (0.1, 99.9)  # become black and white when 16 bits become 8
_FACTORS_OF_8_BIT = (257, 256, 16, 1)  # by which programs widen 8-bit samples to 16 bits
_SEPARATE = 2  # planes of a TIFF file, one after the other
_ORIENTATIONS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: np.fliplr,
    3: lambda x: np.rot90(x, 2),
    4: np.flipud,
    5: np.transpose,
    6: lambda x: np.rot90(x, -1),
    7: lambda x: np.rot90(np.transpose(x), 2),
    8: np.rot90,
}
"""EXIF orientation → how stored pixels become the picture (EXIF 2.32, tag 0x0112)."""


def to_8_bit(samples: Samples) -> UInt8[np.ndarray, "height width"]:
    """Reduce 16-bit grey to 8 bits; 8-bit grey comes back as it is.

    8-bit samples that a program has widened to 16 bits come back as they were. Else the 0.1th
    percentile becomes 0, the 99.9th 255, linear between, rounded and clipped. Where the two
    coincide, minimum and maximum take their places; a constant image keeps its share of full scale.
    """
    if samples.dtype == np.uint8:
        return samples
    if (narrow := narrowed(samples)) is not None:
        return narrow
    low, high = np.percentile(samples, _PERCENTILES)
    if low == high:
        low, high = float(samples.min()), float(samples.max())
    if low == high:
        return np.round(samples / 257).astype(np.uint8)
    scaled = (samples.astype(np.float64) - low) * (255 / (high - low))
    return np.asarray(scaled.round().clip(0, 255), dtype=np.uint8)


def narrowed(samples: Samples) -> UInt8[np.ndarray, "height width"] | None:
    """Undo the widening of 8-bit samples to 16 bits, times 257, 256, 16 or 1.

    Returns:
        The 8-bit samples; None where the samples need more than 8 bits, or are all equal.
    """
    highest = int(samples.max())
    if highest == samples.min():
        return None
    for factor in _FACTORS_OF_8_BIT:
        if highest <= 255 * factor and not (samples % factor).any():
            return (samples // factor).astype(np.uint8)
    return None


def deep_grey(page: Any) -> UInt16[np.ndarray, "height width"] | None:
    """Return the grey of a page of 16-bit colour, which Pillow would cut to 8 bits.

    Args:
        page: A `tifffile.TiffPage`.

    Returns:
        None where the channels differ, or it is not opaque.
    """
    samples = page.asarray()
    if page.planarconfig == _SEPARATE:
        samples = np.moveaxis(samples, 0, -1)
    grey = equal_grey(samples) if samples.shape[-1] >= 3 else None
    turned = page.tags.valueof(ExifTags.Base.Orientation, 1)
    return grey if grey is None else upright(grey, turned if turned in _ORIENTATIONS else 1)


def equal_grey(
    samples: UInt16[np.ndarray, "height width channels"],
) -> UInt16[np.ndarray, "height width"] | None:
    """Return the grey of 16-bit colours, or of grey and alpha; None unless equal and opaque."""
    n_colours = 1 if samples.shape[-1] == 2 else 3
    grey, alpha = samples[..., 0], samples[..., n_colours:]
    is_grey = all((samples[..., channel] == grey).all() for channel in range(1, n_colours))
    return grey.astype(np.uint16) if is_grey and (alpha == 65535).all() else None


def orientation(image: Image.Image) -> int:
    """Return the EXIF orientation of a picture; 1 where none is to be applied.

    Pillow turns TIFF files by itself.
    """
    if isinstance(image, TiffImageFile):
        return 1
    try:
        found = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # a broken EXIF block says nothing
        return 1
    return found if found in _ORIENTATIONS else 1


def upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Turn stored pixels to the picture that the EXIF orientation says; 1: as they are."""
    if orientation == 1:
        return pixels
    return np.ascontiguousarray(_ORIENTATIONS[orientation](pixels))
