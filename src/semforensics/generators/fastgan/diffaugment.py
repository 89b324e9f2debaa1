"""DiffAugment: differentiable augmentation of all that a discriminator sees.

Zhao et al., "Differentiable Augmentation for Data-Efficient GAN Training", NeurIPS 2020,
arXiv:2006.10738. Policy "color,translation". Ours differs: the random numbers are drawn apart from
their use, so that both scales of an image can take the same ones.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

Images = Float[Tensor, "batch channels height width"]
PerImage = Float[Tensor, " batch"]

_LARGEST_SHIFT = 0.125
"""Share of the side by which an image is translated at most."""


class Draws(NamedTuple):
    """The random numbers of one batch of images, per sample."""

    brightness: PerImage
    saturation: PerImage
    contrast: PerImage
    shift: Int64[Tensor, "2 batch"]
    """Rows and columns by which the image moves, in pixels."""

    def at_scale(self, factor: int) -> "Draws":
        """Return the same augmentation for images that are `factor` times as large."""
        return self._replace(shift=self.shift * factor)

    def of(self, images: slice) -> "Draws":
        """Return the random numbers of some of the images."""
        return Draws(*(numbers[..., images] for numbers in self))


def draw(batch: int, side_px: int, rng: torch.Generator) -> Draws:
    """Draw the random numbers for a batch of images of this side, from a CPU generator."""
    brightness, saturation, contrast = torch.rand(3, batch, generator=rng)
    most = int(_LARGEST_SHIFT * side_px + 0.5)
    shift = torch.randint(-most, most + 1, (2, batch), generator=rng)
    return Draws(brightness, saturation, contrast, shift)


def diff_augment(x: Images, draws: Draws) -> Images:
    """Change brightness, saturation, contrast and place of each image; values are not clipped."""
    x = brightness(x, draws.brightness)
    x = saturation(x, draws.saturation)
    x = contrast(x, draws.contrast)
    return translation(x, draws.shift)


def brightness(x: Images, u: PerImage) -> Images:
    """Add -0.5 … 0.5, for `u` in 0 … 1."""
    return x + (_per_sample(u, x) - 0.5)


def saturation(x: Images, u: PerImage) -> Images:
    """Scale the distance from grey by 0 … 2, for `u` in 0 … 1; leaves grey images as they are."""
    if x.shape[1] == 1:
        return x
    grey = x.mean(dim=1, keepdim=True)
    return (x - grey) * (2 * _per_sample(u, x)) + grey


def contrast(x: Images, u: PerImage) -> Images:
    """Scale the distance from the image's mean by 0.5 … 1.5, for `u` in 0 … 1."""
    mean = x.mean(dim=(1, 2, 3), keepdim=True)
    return (x - mean) * (_per_sample(u, x) + 0.5) + mean


def translation(x: Images, shift: Int64[Tensor, "2 batch"]) -> Images:
    """Return `out[y, x] = in[y + dy, x + dx]`, and mid-grey, 0, where that lies outside."""
    # Negative padding crops: one operation, whose gradient is one operation.
    moved = [
        F.pad(image, (-dx, dx, -dy, dy)) for image, dy, dx in zip(x, *shift.tolist(), strict=True)
    ]
    return torch.stack(moved)


def _per_sample(u: Tensor, x: Tensor) -> Tensor:
    return u.to(x.device).view(-1, 1, 1, 1)
