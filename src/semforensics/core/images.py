"""The canonicaliser: any image file to 8-bit grey, and 8-bit grey to tensors and back.

Nothing else in the project turns files into pixels.
"""

import os
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import torch
from jaxtyping import Float, UInt8
from PIL import Image, UnidentifiedImageError
from PIL.TiffImagePlugin import PHOTOMETRIC_INTERPRETATION, TiffImageFile
from torch import Tensor

from semforensics.core.errors import InputError
from semforensics.core.greys import Samples, deep_grey, orientation, to_8_bit, upright

MAX_MEGAPIXELS = 64.0
"""Of a file whose size no parameter bounds; a 6-inch micrograph scanned at 1200 dpi has 52."""

_COMPRESS_LEVEL = 6  # zlib's own default; part of "the same encoder for every image"
_FORMATS = ("TIFF", "PNG", "JPEG")
_MODES = ("L", "LA", "P", "PA", "RGB", "RGBA", "I;16", "I;16B", "I;16L")
_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_PNG_START = b"\x89PNG\r\n\x1a\n"
_PNG_END = b"\0\0\0\0IEND\xaeB`\x82"


def read_grey(
    path: Path, max_megapixels: float = MAX_MEGAPIXELS
) -> UInt8[np.ndarray, "height width"]:
    """Read a TIFF, PNG or JPEG file as 8-bit grey: `to_8_bit(read_samples(path))`.

    Raises:
        InputError: As `read_samples`.
    """
    return to_8_bit(read_samples(path, max_megapixels))


def read_samples(path: Path, max_megapixels: float = MAX_MEGAPIXELS) -> Samples:
    """Read a TIFF, PNG or JPEG file as grey of the file's depth, 8 or 16 bits.

    Colour becomes grey by ITU-R BT.601 luma, 0.299 R + 0.587 G + 0.114 B, rounded; equal channels
    are kept exactly, those of a TIFF file of 16 bits too. An opaque alpha channel is dropped. The
    picture is turned as its EXIF orientation says.

    Images of more megapixels are refused by their header, before they are decoded. Pillow's limit,
    89 megapixels, holds too.

    Raises:
        InputError: The file is empty, truncated, no TIFF, PNG or JPEG, has several pages or frames,
            transparency, or samples other than unsigned 8-bit grey or colour or 16-bit grey, or is
            too large; the message names file and reason.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            _refuse_by_encoding(path)
            return _decode(path, max_megapixels)
        except FileNotFoundError:
            raise
        except _RefusedError as error:
            raise InputError(f"{path}: {error}") from None
        except UnidentifiedImageError:
            raise InputError(f"{path}: not a TIFF, PNG or JPEG image") from None
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise InputError(f"{path}: too large: {error}") from error
        except Exception as error:  # a decoder may raise anything on bytes from outside
            reason = str(error) or type(error).__name__
            raise InputError(f"{path}: cannot be decoded: {reason}") from error


class _RefusedError(Exception):
    """An image, but of a kind that is not taken."""


def _refuse_by_encoding(path: Path) -> None:
    """Refuse what Pillow reads, but cuts to fewer bits, takes for unsigned or leaves unchecked."""
    with path.open("rb") as file:
        start = file.read(26)
        if not start:
            raise _RefusedError("empty file")
        if start.startswith(_PNG_START):
            bits, colour = start[24:26]
            if bits == 16 and colour != 0:
                raise _RefusedError("16 bits per colour channel, expected 8")
            file.seek(-len(_PNG_END), os.SEEK_END)
            if file.read() != _PNG_END:
                raise _RefusedError("truncated, or other bytes follow the image")
            with Image.open(path, formats=_FORMATS) as image:
                image.verify()  # the checksums of all chunks
    if start.startswith(_TIFF_STARTS):
        with tifffile.TiffFile(path) as tiff:
            page = tiff.pages.first
            if page.dtype not in (np.uint8, np.uint16):
                raise _RefusedError(f"samples of type {page.dtype}, expected uint8 or uint16")


def _decode(path: Path, max_megapixels: float) -> Samples:
    with Image.open(path, formats=_FORMATS) as image:
        _refuse_by_header(image, max_megapixels)
        if isinstance(image, TiffImageFile):
            with tifffile.TiffFile(path) as tiff:
                page = tiff.pages.first
                if page.dtype == np.uint16 and page.samplesperpixel > 1:
                    return _deep_grey_of(page)
        return upright(_samples_of(image), orientation(image))


def _deep_grey_of(page: Any) -> Samples:
    if (grey := deep_grey(page)) is None:
        raise _RefusedError("16 bits per colour channel that differ, expected 8")
    return grey


def _samples_of(image: Image.Image) -> Samples:
    image.load()
    if image.mode.startswith("I;16"):
        samples = np.asarray(image).astype(np.uint16)
        # Pillow turns 8-bit samples round by itself, but not these.
        tags = image.tag_v2 if isinstance(image, TiffImageFile) else {}
        white_is_zero = tags.get(PHOTOMETRIC_INTERPRETATION) == 0
        return np.invert(samples) if white_is_zero else samples
    if image.has_transparency_data:
        low, high = image.convert("RGBA").getchannel("A").getextrema()
        if (low, high) != (255, 255):
            raise _RefusedError(f"transparent: alpha from {low} to {high}, expected 255")
    colours = image.convert("RGB") if image.mode in ("P", "PA") else image
    return np.array(colours.convert("L"))


def _refuse_by_header(image: Image.Image, max_megapixels: float) -> None:
    width, height = image.size
    if width * height > max_megapixels * 1e6:
        raise _RefusedError(
            f"too large: {width}x{height} px, more than {max_megapixels:g} megapixels"
        )
    frames = getattr(image, "n_frames", 1)
    if frames > 1:
        raise _RefusedError(f"{frames} pages or frames, expected one")
    if image.mode not in _MODES:
        raise _RefusedError(
            f"samples of mode {image.mode}, expected 8- or 16-bit grey or 8-bit colour"
        )


def read_crop(path: Path) -> UInt8[np.ndarray, "height width"]:
    """Read a canonical crop: a PNG of 8-bit grey.

    Raises:
        InputError: The file is something else, or broken.
    """
    try:
        with Image.open(path) as image:
            if image.format == "PNG" and image.mode == "L":
                return np.array(image)
            found = f"{image.format} of mode {image.mode}"
    except FileNotFoundError:
        raise
    except OSError as error:
        found = str(error)
    raise InputError(f"{path}: {found}; expected an 8-bit grey PNG")


def stack_crops(paths: Iterable[Path]) -> UInt8[np.ndarray, "n height width"]:
    """Read canonical crops of one size.

    Raises:
        InputError: As for `read_crop`; or a crop is not as large as the first.
    """
    images: list[np.ndarray] = []
    first = None
    for path in paths:
        image = read_crop(path)
        if first and image.shape != images[0].shape:
            (height, width), (rows, columns) = image.shape, images[0].shape
            raise InputError(
                f"{path}: {width}x{height} px, expected {columns}x{rows} px as {first}"
            )
        first = first or path
        images.append(image)
    return np.stack(images)


def write_grey_png(path: Path, grey: UInt8[np.ndarray, "height width"]) -> None:
    """Write a canonical crop: the one encoder for reals and fakes, without metadata."""
    Image.fromarray(grey).save(path, format="PNG", compress_level=_COMPRESS_LEVEL)


def to_unit_range(grey: UInt8[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Map grey levels 0 … 255 to -1 … 1."""
    return grey.to(torch.float32) / 127.5 - 1


def to_uint8(images: Float[Tensor, "*shape"]) -> UInt8[Tensor, "*shape"]:
    """Map -1 … 1 to grey levels 0 … 255, inverting `to_unit_range`; values outside are clamped."""
    return ((images.to(torch.float32) + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
