"""What a published panel has gone through: resampling, filters, noise, JPEG, drawn at random.

One draw is applied to a real and to its fake alike, so that neither class is known by its
processing: smoothing by a publisher looks much like smoothing by a decoder.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Literal

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from semforensics.core.processing import (
    gamma,
    gaussian_blur,
    gaussian_noise,
    jpeg,
    median,
    resize_and_back,
    unsharp,
    wiener,
)

Grey = UInt8[np.ndarray, "height width"]
NewGrey = UInt8[np.ndarray, "new_height new_width"]
Kernel = Literal["bicubic", "lanczos", "bilinear", "area"]

KERNELS: Mapping[Kernel, Image.Resampling] = {
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "bilinear": Image.Resampling.BILINEAR,
    "area": Image.Resampling.BOX,
}
GRID_PX = 8
"""Side of a block of JPEG."""
UNTOUCHED = 0.3
"""Share of the draws that change nothing."""


@dataclass(frozen=True)
class History:
    """What is done to an image, in the order of the fields; the defaults do nothing."""

    gamma: float = 1.0
    shrunk: float = 1.0
    """Shrunk to so much of its size, and enlarged again."""
    blur: float = 0.0
    """Standard deviation of a Gaussian, in pixels."""
    median_px: int = 0
    wiener: float = 0.0
    """Noise that an adaptive filter of 3x3 takes away, in medians of the local variance."""
    sharpen: float = 0.0
    """Share of the difference from a Gaussian blur of 1 px that is added; below 0: taken away."""
    factor: float = 1.0
    """Of the height and the width."""
    kernel: Kernel = "bicubic"
    noise: float = 0.0
    """Standard deviation, in grey levels."""
    qualities: tuple[int, ...] = ()
    """Of the JPEG files it was, one after the other."""
    shifts: tuple[tuple[int, int], ...] = ()
    """Rows and columns cut off before each JPEG, so that its grid begins elsewhere."""

    def apply(self, image: Grey, seed: int) -> NewGrey:
        """Return an image after this history.

        Args:
            image: Grey levels 0 … 255.
            seed: Of the noise.
        """
        if self.gamma != 1:
            image = gamma(image, self.gamma)
        if self.shrunk != 1:
            image = resize_and_back(image, self.shrunk)
        if self.blur > 0:
            image = gaussian_blur(image, self.blur)
        if self.median_px:
            image = median(image, self.median_px)
        if self.wiener > 0:
            image = wiener(image, self.wiener)
        if self.sharpen != 0:
            image = unsharp(image, 1.0, self.sharpen)
        if self.factor != 1:
            image = resample(image, self.factor, self.kernel)
        if self.noise > 0:
            image = gaussian_noise(image, np.random.default_rng(seed), self.noise)
        for quality, (rows, columns) in zip(self.qualities, self.shifts, strict=True):
            image = jpeg(np.ascontiguousarray(image[rows:, columns:]), quality)
        return image

    @property
    def rows_lost(self) -> int:
        """Most rows or columns that the shifts cut off."""
        return max(sum(rows for rows, _ in self.shifts), sum(c for _, c in self.shifts))

    def does_nothing(self) -> bool:
        """Whether an image comes back as it was."""
        return all(getattr(self, f.name) == f.default for f in fields(self) if f.name != "kernel")


def resample(image: Grey, factor: float, kernel: Kernel) -> NewGrey:
    """Resample to `factor` times the size, rounded; kernels widen where they shrink (Pillow's)."""
    height, width = (max(1, round(side * factor)) for side in image.shape)
    return np.array(Image.fromarray(image).resize((width, height), KERNELS[kernel]))


def draw_smoothing(rng: np.random.Generator) -> History:
    """Draw one of five ways in which an instrument or its owner takes noise away."""
    return (
        History(blur=float(rng.uniform(0.35, 1.0))),
        History(median_px=3),
        History(wiener=float(rng.uniform(0.5, 2.5))),
        History(sharpen=-float(rng.uniform(0.2, 0.9))),
        History(shrunk=float(rng.uniform(0.5, 0.9))),
    )[rng.integers(5)]


def draw_history(rng: np.random.Generator, least_factor: float = 0.4) -> History:
    """Draw what an image goes through.

    Args:
        rng: Where the draws come from.
        least_factor: Least factor of the resampling; small images cannot be shrunk far.
    """
    if rng.random() < UNTOUCHED:
        return History()
    chances = rng.random(6)
    qualities = rng.integers(60, 99, size=rng.choice(3, p=(0.35, 0.45, 0.2)))
    factor = float(np.exp(rng.uniform(np.log(least_factor), np.log(1.6))))
    return History(
        gamma=float(np.exp(rng.uniform(-0.5, 0.5))) if chances[0] < 0.15 else 1.0,
        blur=float(rng.uniform(0.3, 1.2)) if chances[1] < 0.12 else 0.0,
        median_px=3 if chances[2] < 0.06 else 0,
        sharpen=float(rng.uniform(0.3, 1.5)) if chances[3] < 0.12 else 0.0,
        factor=factor if chances[4] < 0.55 else 1.0,
        kernel=list(KERNELS)[rng.integers(len(KERNELS))],
        noise=float(rng.uniform(1, 8)) if chances[5] < 0.12 else 0.0,
        qualities=tuple(int(quality) for quality in qualities),
        shifts=tuple((int(r), int(c)) for r, c in rng.integers(0, GRID_PX, (len(qualities), 2))),
    )
