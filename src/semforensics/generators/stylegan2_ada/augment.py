"""StyleGAN2-ADA's augmentations: what the discriminator sees of reals and fakes alike.

Karras et al., "Training Generative Adversarial Networks with Limited Data", NeurIPS 2020,
arXiv:2006.06676, section 2.2 and appendix B. Eighteen operations, each applied to each image with
probability p. Ours differs: the random numbers are drawn apart from their use; an operation that
touches no image of the batch is left out, which changes nothing beyond rounding; operations that
turn an image can be left out for data with an orientation.
"""

from dataclasses import dataclass, fields, replace
from functools import reduce
from math import pi, sqrt
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from semforensics.core.errors import InputError
from semforensics.generators.stylegan2_ada import appearance
from semforensics.generators.stylegan2_ada.geometry import rotate, scale, translate, warp
from semforensics.generators.stylegan2_ada.wavelets import NUM_BANDS

Kind = Literal[
    "bg", "bgc", "bgcf", "bgcfn", "bgcfnc", "blit", "geom", "color", "filter", "noise", "cutout"
]
"""Groups of operations: blit, geometric, colour, filter, noise, cutout; or one of them alone."""
Orientation = Literal["free", "fixed"]
"""Whether the data look alike from every side, or "up" means something in them.

Rotations leak into fakes of data that have an orientation when p grows: fixed leaves out quarter
turns and rotations. Mirroring left to right stays.
"""

_GROUPS: dict[str, tuple[str, ...]] = {
    "bg": ("blit", "geom"),
    "bgc": ("blit", "geom", "color"),
    "bgcf": ("blit", "geom", "color", "filter"),
    "bgcfn": ("blit", "geom", "color", "filter", "noise"),
    "bgcfnc": ("blit", "geom", "color", "filter", "noise", "cutout"),
}
_SHIFT_SHARE = 0.125
_SCALE_STD = 0.2
_DRIFT_STD = 0.125
_BRIGHTNESS_STD = 0.2
_CONTRAST_STD = 0.5
_SATURATION_STD = 1.0
_BAND_STD = 1.0
_NOISE_STD = 0.1
"""Appendix B, tables: shares of the side; standard deviations, of scales in octaves."""


@dataclass(frozen=True)
class Draws:
    """The random numbers of one batch, per image, on the CPU.

    An operation that is not applied to an image has the value that changes nothing.
    """

    flip: Bool[Tensor, " batch"]
    quarter_turns: Int64[Tensor, " batch"]
    shift_px: Float[Tensor, "batch 2"]
    """Whole pixels, x before y."""
    scale: Float[Tensor, " batch"]
    rotation_before: Float[Tensor, " batch"]
    """Radians, before stretching, so that images are stretched along any direction."""
    stretch: Float[Tensor, " batch"]
    """Width over height, square root."""
    rotation_after: Float[Tensor, " batch"]
    drift_px: Float[Tensor, "batch 2"]
    brightness: Float[Tensor, " batch"]
    contrast: Float[Tensor, " batch"]
    luma_flip: Bool[Tensor, " batch"]
    hue: Float[Tensor, " batch"]
    """Radians; hue and saturation leave grey images alone."""
    saturation: Float[Tensor, " batch"]
    band_gains: Float[Tensor, "batch 4"]
    """Amplitude of each frequency band, lowest first, before the power is evened out."""
    noise_std: Float[Tensor, " batch"]
    noise: Float[Tensor, "batch channels height width"] | None
    """Standard normal noise; None without the operation."""
    cutout: Bool[Tensor, " batch"]
    cutout_centre: Float[Tensor, "batch 2"]
    """Shares of width and height, x before y."""

    def of(self, images: slice | Int64[Tensor, " some"]) -> "Draws":
        """Return the random numbers of some of the images."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{k: v[images] for k, v in values.items() if v is not None})


@runtime_checkable
class _Source(Protocol):
    """Where random numbers come from."""

    def uniform(self, *shape: int) -> Tensor: ...

    def normal(self, *shape: int) -> Tensor: ...


class _Random:
    def __init__(self, rng: torch.Generator) -> None:
        self.rng = rng

    def uniform(self, *shape: int) -> Tensor:
        return torch.rand(shape, generator=self.rng)

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.rng)


@dataclass(frozen=True)
class _Dice:
    """Draws for a batch, each number applied to an image with probability p."""

    source: _Source
    p: float
    batch: int

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * self.source.uniform(self.batch, *shape)

    def octaves(self, std: float) -> Tensor:
        return torch.exp2(std * self.source.normal(self.batch))

    def pick(self, value: Tensor, neutral: float, probability: float | None = None) -> Tensor:
        """Keep an image's value with a probability, p unless said, else the neutral one."""
        applied = self.source.uniform(self.batch) < (self.p if probability is None else probability)
        applied = applied.view(self.batch, *[1] * (value.ndim - 1))
        return torch.where(applied, value, torch.full_like(value, neutral))


def draw(
    kind: Kind,
    p: float,
    batch: int,
    channels: int,
    height: int,
    width: int,
    rng: torch.Generator,
    orientation: Orientation = "free",
) -> Draws:
    """Draw the random numbers for a batch of images.

    The probability p of each operation is 0 or more; above 1 is as 1. How many numbers are drawn
    does not depend on it.

    Raises:
        InputError: A number of channels other than 1 or 3, or p is negative or not a number.
    """
    return _draw(_Random(rng), kind, p, (batch, channels, height, width), orientation)


def _draw(
    source: _Source,
    kind: Kind,
    p: float,
    shape: tuple[int, int, int, int],
    orientation: Orientation,
) -> Draws:
    """Draw in the public program's order: an operation's values, then the images it applies to."""
    batch, channels, height, width = shape
    if channels not in appearance.NUM_CHANNELS:
        raise InputError(f"images of {channels} channels; can augment 1 or 3")
    if not p >= 0:
        raise InputError(f"augmentation probability {p}, expected 0 or more")
    groups = _GROUPS.get(kind, (kind,))
    dice = _Dice(source, p, batch)
    sides = torch.tensor([width, height])
    can_turn = orientation == "free"

    values: dict[str, Tensor] = {}
    if "blit" in groups:
        values |= _draw_blit(dice, sides, can_turn)
    if "geom" in groups:
        values |= _draw_geometry(dice, sides, can_turn)
    if "color" in groups:
        values |= _draw_colour(dice, has_hue=channels == 3)
    if "filter" in groups:
        gains = [dice.pick(dice.octaves(_BAND_STD), 1.0) for _ in range(NUM_BANDS)]
        values |= {"band_gains": torch.stack(gains, dim=1)}
    if "noise" in groups:
        std = dice.pick((_NOISE_STD * source.normal(batch)).abs(), 0.0)
        values |= {"noise_std": std, "noise": source.normal(*shape)}
    if "cutout" in groups:
        cutout = dice.pick(torch.ones(batch), 0.0).bool()
        values |= {"cutout": cutout, "cutout_centre": dice.uniform(0.0, 1.0, 2)}
    return replace(_neutral(batch), **values)


def _draw_blit(dice: _Dice, sides: Tensor, can_turn: bool) -> dict[str, Tensor]:
    values = {"flip": dice.pick(dice.uniform(0.0, 2.0).floor(), 0.0).bool()}
    if can_turn:
        values["quarter_turns"] = dice.pick(dice.uniform(0.0, 4.0).floor(), 0.0).long()
    shift = (dice.uniform(-_SHIFT_SHARE, _SHIFT_SHARE, 2) * sides).round()
    return values | {"shift_px": dice.pick(shift, 0.0)}


def _draw_geometry(dice: _Dice, sides: Tensor, can_turn: bool) -> dict[str, Tensor]:
    p_rotation = 1 - sqrt(max(1 - dice.p, 0))  # one of the two rotations at least: probability p
    values = {"scale": dice.pick(dice.octaves(_SCALE_STD), 1.0)}
    if can_turn:
        values["rotation_before"] = dice.pick(dice.uniform(-pi, pi), 0.0, p_rotation)
    values["stretch"] = dice.pick(dice.octaves(_SCALE_STD), 1.0)
    if can_turn:
        values["rotation_after"] = dice.pick(dice.uniform(-pi, pi), 0.0, p_rotation)
    drift = _DRIFT_STD * dice.source.normal(dice.batch, 2) * sides
    return values | {"drift_px": dice.pick(drift, 0.0)}


def _draw_colour(dice: _Dice, has_hue: bool) -> dict[str, Tensor]:
    values = {
        "brightness": dice.pick(_BRIGHTNESS_STD * dice.source.normal(dice.batch), 0.0),
        "contrast": dice.pick(dice.octaves(_CONTRAST_STD), 1.0),
        "luma_flip": dice.pick(dice.uniform(0.0, 2.0).floor(), 0.0).bool(),
    }
    if has_hue:
        values["hue"] = dice.pick(dice.uniform(-pi, pi), 0.0)
        values["saturation"] = dice.pick(dice.octaves(_SATURATION_STD), 1.0)
    return values


def _neutral(batch: int) -> Draws:
    """Return the draws that change nothing."""
    never, zero, one = torch.zeros(batch, dtype=torch.bool), torch.zeros(batch), torch.ones(batch)
    return Draws(
        flip=never,
        quarter_turns=zero.long(),
        shift_px=torch.zeros(batch, 2),
        scale=one,
        rotation_before=zero,
        stretch=one,
        rotation_after=zero,
        drift_px=torch.zeros(batch, 2),
        brightness=zero,
        contrast=one,
        luma_flip=never,
        hue=zero,
        saturation=one,
        band_gains=torch.ones(batch, NUM_BANDS),
        noise_std=zero,
        noise=None,
        cutout=never,
        cutout_centre=torch.zeros(batch, 2),
    )


def augment(
    images: Float[Tensor, "batch channels height width"], draws: Draws
) -> Float[Tensor, "batch channels height width"]:
    """Augment each image, in [-1, 1], with its random numbers; values are not clipped.

    Differentiable any number of times in the images. Autocast does not reach inside: images of
    16 bits are augmented, and come back, in float32.

    An image comes out the same beside other images to about 1e-4: how far images are reflected
    beyond their border is decided for the batch, as the one that reads farthest asks, and places
    are rounded accordingly; of an image that is made smaller, the outermost 3 pixels read a little
    beyond what is reflected for it alone.

    Raises:
        InputError: The draws are for another number of images.
    """
    if len(draws.flip) != len(images):
        raise InputError(f"random numbers for {len(draws.flip)} images, got {len(images)} images")
    if images.dtype in (torch.bfloat16, torch.float16):
        images = images.float()
    with torch.autocast(images.device.type, enabled=False):
        images = warp(images, _inverse_geometry(draws))
        images = appearance.change_colours(images, _colour_map(draws))
        images = appearance.filter_bands(images, draws.band_gains)
        if draws.noise is not None:
            images = appearance.add_noise(images, draws.noise_std, draws.noise)
        return appearance.cut_out(images, draws.cutout, draws.cutout_centre)


def _inverse_geometry(draws: Draws) -> Float[Tensor, "batch 3 3"]:
    """Return the map from a place in the output to the place in the image, in pixels, float64."""
    steps = (
        scale(1 - 2 * draws.flip.double(), torch.ones_like(draws.scale).double()),
        rotate(draws.quarter_turns.double() * (pi / 2)),
        translate(*(-draws.shift_px.double()).unbind(1)),
        scale(1 / draws.scale.double(), 1 / draws.scale.double()),
        rotate(draws.rotation_before.double()),
        scale(1 / draws.stretch.double(), draws.stretch.double()),
        rotate(draws.rotation_after.double()),
        translate(*(-draws.drift_px.double()).unbind(1)),
    )
    return reduce(torch.matmul, steps)


def _colour_map(draws: Draws) -> Float[Tensor, "batch 4 4"]:
    """Return the affine map of (red, green, blue, 1), in float64."""
    steps = (
        appearance.brighten(draws.brightness.double()),
        appearance.scale_contrast(draws.contrast.double()),
        appearance.flip_luma(draws.luma_flip),
        appearance.turn_hue(draws.hue.double()),
        appearance.saturate(draws.saturation.double()),
    )
    return reduce(lambda colours, step: step @ colours, steps)
