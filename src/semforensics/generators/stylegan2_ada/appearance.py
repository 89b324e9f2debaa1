"""Augmentation of what images look like: colours, frequency bands, noise, a hole.

Karras et al., "Training Generative Adversarial Networks with Limited Data", NeurIPS 2020,
arXiv:2006.06676, appendix B. All numbers are per image and on the CPU, where it costs nothing to
see that an operation touches no image and can be left out.
"""

from functools import lru_cache
from math import sqrt

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from semforensics.generators.stylegan2_ada.wavelets import band_matrices, map_axes

Images = Float[Tensor, "batch channels height width"]
ColourMap = Float[Tensor, "batch 4 4"]
PerImage = Float[Tensor, " batch"]

NUM_CHANNELS = (1, 3)
_CUTOUT_SHARE = 0.5
"""Side of the hole over that of the image."""
_BAND_POWER = tuple(share / 13 for share in (10, 1, 1, 1))
"""Expected share of each band, lowest first, in the power of an image with a 1/f spectrum."""


def brighten(offset: PerImage) -> ColourMap:
    """Return the map that adds to all colours."""
    colours = torch.eye(4, dtype=offset.dtype).repeat(len(offset), 1, 1)
    colours[:, :3, 3] = offset[:, None]
    return colours


def scale_contrast(factor: PerImage) -> ColourMap:
    """Return the map that multiplies all colours."""
    return _affine(factor[:, None, None] * torch.eye(3, dtype=factor.dtype))


def flip_luma(flips: Bool[Tensor, " batch"]) -> ColourMap:
    """Return the map that reflects grey at 0 and keeps hues: of grey images the negative."""
    grey, hues = _grey_and_hues()
    return _affine(hues + (1 - 2 * flips.double())[:, None, None] * grey)


def turn_hue(angle: PerImage) -> ColourMap:
    """Return the map that turns colours about the axis of greys, by radians, red towards green."""
    grey, hues = _grey_and_hues()
    axis = torch.full((3, 3), 1 / sqrt(3), dtype=angle.dtype)
    quarter = torch.linalg.cross(axis, torch.eye(3, dtype=angle.dtype)).mT
    angle = angle[:, None, None]
    return _affine(grey + angle.cos() * hues + angle.sin() * quarter)  # Rodrigues


def saturate(factor: PerImage) -> ColourMap:
    """Return the map that multiplies a colour's distance from grey."""
    grey, hues = _grey_and_hues()
    return _affine(grey + factor[:, None, None] * hues)


@lru_cache(maxsize=1)
def _grey_and_hues() -> tuple[Float[Tensor, "3 3"], Float[Tensor, "3 3"]]:
    """Return the projections of a colour on the axis of greys, and at right angles to it."""
    grey = torch.full((3, 3), 1 / 3, dtype=torch.float64)
    return grey, torch.eye(3, dtype=torch.float64) - grey


def _affine(linear: Tensor) -> Tensor:
    colours = torch.eye(4, dtype=linear.dtype).repeat(len(linear), 1, 1)
    colours[:, :3, :3] = linear
    return colours


def change_colours(images: Images, colours: ColourMap) -> Images:
    """Apply an affine map of (red, green, blue, 1) to each image's colours.

    A grey image is taken for one of three equal channels, and seen through their mean.
    """
    if bool((colours == torch.eye(4, dtype=colours.dtype)).all()):
        return images
    linear, offset = colours[:, :3, :3], colours[:, :3, 3]
    if images.shape[1] == 1:
        factor, offset = linear.sum((1, 2)) / 3, offset.mean(1)
        return images * _per_image(factor, images) + _per_image(offset, images)
    # A sum of products: autocast leaves it, and its derivatives, in float32.
    mixed = (images[:, None] * linear.to(images)[:, :, :, None, None]).sum(2)
    return mixed + offset.to(images)[:, :, None, None]


def filter_bands(images: Images, gains: Float[Tensor, "batch bands"]) -> Images:
    """Amplify frequency bands, lowest first, along both axes; borders are reflected.

    Each gain on its own is evened out: an image with a 1/f spectrum keeps its expected power.
    """
    if bool((gains == 1).all()):
        return images
    power = torch.tensor(_BAND_POWER, dtype=torch.float64)
    kept = (1 - power + power * gains.double() ** 2).rsqrt()  # [batch, bands]
    amplitudes = (gains.double() * kept.prod(1, keepdim=True)).to(images)
    rows, columns = (
        torch.tensordot(amplitudes, band_matrices(side, images.dtype, images.device), 1)[:, None]
        for side in images.shape[2:]
    )
    return map_axes(images, rows, columns)


def add_noise(images: Images, std: PerImage, noise: Images) -> Images:
    """Add noise, given with standard deviation 1, of another one for each image."""
    if not bool(std.any()):
        return images
    return images + _per_image(std, images) * noise.to(images)


def cut_out(
    images: Images,
    which: Bool[Tensor, " batch"],
    centre: Float[Tensor, "batch 2"],
) -> Images:
    """Set a rectangle of half the sides to 0, mid-grey, as far as it lies in the image.

    The centre is in shares of width and height, x before y.
    """
    if not bool(which.any()):
        return images
    height, width = images.shape[2:]
    x, y = ((torch.arange(side) + 0.5) / side for side in (width, height))
    in_columns = (x - centre[:, :1]).abs() < _CUTOUT_SHARE / 2  # [batch, width]
    in_rows = (y - centre[:, 1:]).abs() < _CUTOUT_SHARE / 2  # [batch, height]
    hole = in_rows[:, :, None] & in_columns[:, None, :] & which[:, None, None]
    return images.masked_fill(hole[:, None].to(images.device), 0)


def _per_image(values: Tensor, images: Tensor) -> Tensor:
    return values.to(images).view(-1, 1, 1, 1)
