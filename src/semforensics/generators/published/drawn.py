"""Pictures for the published networks beside the crops: scenes drawn at random, micrographs redone.

Few collections are there to learn from, and each has its own content, noise and sharpness. Among
thousands of drawn ones none of that tells a fake from a real any more (domain randomisation: Tobin
et al., "Domain Randomization for Transferring Deep Neural Networks from Simulation to the Real
World", IROS 2017, arXiv:1703.06907; learning from drawn images: Baradad et al., "Learning to See by
Looking at Noise", NeurIPS 2021, arXiv:2106.05963). A drawn picture is no micrograph, but it is no
network's picture either, and its fake differs from it by the network's trace alone.

Ranges are chosen by eye, so that the pictures look like some micrograph, and on no detector.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float, UInt8
from PIL import Image
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree

from semforensics.core.images import read_crop, write_grey_png
from semforensics.core.processing import (
    contrast,
    gamma,
    gaussian_blur,
    jpeg,
    median,
    to_grey,
    unsharp,
)
from semforensics.core.tables import write_table

SIDE_PX = 256
"""Of a drawn picture: room for a crop that is shrunk."""

Rng = np.random.Generator
Grey = UInt8[np.ndarray, "height width"]
Picture = UInt8[np.ndarray, "side side"]
Levels = Float[np.ndarray, "side side"]
Part = Float[np.ndarray, "rows columns"]

_FOLDER, _TABLE = "drawn", "drawn.csv"  # beside the fakes of crops

_KERNELS = (
    Image.Resampling.BICUBIC,
    Image.Resampling.BILINEAR,
    Image.Resampling.BOX,
    Image.Resampling.LANCZOS,
)
_ROOM = (110, 512)  # px of a micrograph that are brought to the size of a picture


class Drawn(NamedTuple):
    """A drawn picture and its fake."""

    content: str
    """A kind of scene, or "micrograph"."""
    collection: str
    """Of the micrograph; empty for a scene."""
    real: Grey
    fake: Grey


def write_drawn(family: Path, pictures: Iterator[Drawn]) -> None:
    """Write drawn pictures into a folder of fakes, as `drawn/real`, `drawn/fake` and a table."""
    folder, rows = family / _FOLDER, []
    for kind in ("real", "fake"):
        (folder / kind).mkdir(parents=True)
    for index, one in enumerate(pictures):
        file = f"{index:05}.png"
        write_grey_png(folder / "real" / file, one.real)
        write_grey_png(folder / "fake" / file, one.fake)
        rows.append((file, one.content, one.collection))
    table = pd.DataFrame(rows, columns=["file", "content", "collection"])
    write_table(table, folder / _TABLE)


def read_drawn(family: Path) -> Iterator[Drawn]:
    """Read what `write_drawn` wrote; nothing where there is no such folder.

    Raises:
        FileNotFoundError: A picture is missing.
        InputError: One is no 8-bit grey PNG.
    """
    folder = family / _FOLDER
    if not folder.is_dir():
        return
    table = pd.read_csv(folder / _TABLE, dtype=str, keep_default_na=False)
    for row in table.itertuples():
        real, fake = (read_crop(folder / kind / str(row.file)) for kind in ("real", "fake"))
        yield Drawn(str(row.content), str(row.collection), real, fake)


def draw_scene(rng: Rng) -> tuple[str, Picture]:
    """Draw a scene as a microscope would show it; return which kind, and its grey levels."""
    kind = str(rng.choice(list(SCENES), p=_SHARES))
    return kind, _edit(rng, _expose(rng, SCENES[kind](rng)))


def redo(rng: Rng, micrograph: Grey) -> Picture:
    """Take a part of a micrograph at another size, often with other noise, and edit it.

    Args:
        rng: Of all draws.
        micrograph: Grey levels, no side shorter than 110 px.
    """
    height, width = micrograph.shape
    drawn = np.exp(rng.uniform(*np.log(_ROOM)))
    side = int(min(height, width, drawn))
    top, left = rng.integers(height - side + 1), rng.integers(width - side + 1)
    part = Image.fromarray(np.ascontiguousarray(micrograph[top : top + side, left : left + side]))
    image = np.array(part.resize((SIDE_PX, SIDE_PX), _KERNELS[rng.integers(len(_KERNELS))]))
    if rng.random() < 0.6:
        levels = gaussian_filter(image.astype(float), rng.uniform(0, 1.5))
        image = to_grey(_shot_noise(rng, levels, most=8.0))
    return _edit(rng, image)


def _field(rng: Rng, exponent: float) -> Levels:
    """Draw a random field of mean 0 and deviation 1, longer in some direction.

    Its power falls with the frequency to the power of `exponent`.
    """
    stretch, turn = np.exp(rng.uniform(-0.5, 0.5)), rng.uniform(0, np.pi)
    x, y = np.fft.fftfreq(SIDE_PX)[None], np.fft.fftfreq(SIDE_PX)[:, None]
    along, across = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    square = (along * stretch) ** 2 + (across / stretch) ** 2
    square[0, 0] = 1
    noise = np.fft.fft2(rng.standard_normal((SIDE_PX, SIDE_PX)))
    field = np.fft.ifft2(noise * square ** (-exponent / 4)).real
    return np.asarray((field - field.mean()) / field.std())


def _texture(rng: Rng, most: float) -> Levels:
    """Draw a field of up to `most` grey levels."""
    return _field(rng, rng.uniform(0.5, 3)) * rng.uniform(0, most)


def draw_leaves(rng: Rng) -> Levels:
    """Lay discs, ellipses, polygons or fibres over each other, lit from one side.

    The dead-leaves model: Lee, Mumford, Huang, "Occlusion Models for Natural Images: A Statistical
    Study of the Scale-Invariant Dead Leaves Model", IJCV 41, 2001.
    """
    image = _field(rng, rng.uniform(1, 3)) * rng.uniform(5, 30) + rng.uniform(40, 160)
    shape = rng.integers(4)
    largest = np.exp(rng.uniform(np.log(6), np.log(90)))
    alike, smaller_below = rng.random() < 0.3, rng.random() < 0.5
    number = int(min(900, rng.uniform(0.3, 4) * SIDE_PX**2 / (3 * largest**2) + 3))
    edge, lit = rng.uniform(0, 70), rng.uniform(-60, 60)
    texture = _texture(rng, 25.0)
    for index in range(number):
        radius = largest * (rng.uniform(0.8, 1.2) if alike else rng.uniform(0.05, 1) ** 1.2) + 1.5
        if smaller_below:
            radius *= 0.4 + 0.6 * index / number
        ratio = np.exp(rng.uniform(-0.7, 0.7)) if shape else 1.0
        half = np.array([radius * ratio**0.5, radius / ratio**0.5])
        if shape == 3:  # a fibre
            radius = max(1.2, radius / 6)
            half = np.array([radius * rng.uniform(5, 40), radius])
        u, v, inside = _within(rng, half)
        if not u.size:
            continue
        if shape == 2:
            corners = rng.integers(3, 8)
            angle = np.arctan2(v, u) % (2 * np.pi / corners) - np.pi / corners
            distance = np.hypot(u, v) * np.cos(angle) / np.cos(np.pi / corners)
        else:
            distance = np.maximum(abs(u), abs(v)) if shape == 3 else np.hypot(u, v)
        depth = np.clip(1 - distance, 0, 9)
        cover = np.clip((1 - distance) / max(1.4 / radius, 0.02) + 0.5, 0, 1)
        level = rng.normal(150, 15) if alike else rng.uniform(20, 230)
        rim = edge * np.exp(-depth * radius / rng.uniform(2, 6))
        shade = level + lit * 0.7 * (u + v) * np.minimum(depth, 1) + rim + texture[inside]
        image[inside] = image[inside] * (1 - cover) + shade * cover
    return image


def _within(rng: Rng, half: Float[np.ndarray, " 2"]) -> tuple[Part, Part, tuple[slice, slice]]:
    """Draw place and turn of a shape; return the coordinates around it, 1 at its ends."""
    x0, y0 = rng.uniform(-0.1 * SIDE_PX, 1.1 * SIDE_PX, 2)
    turn, reach = rng.uniform(0, np.pi), float(half.max()) + 3
    ends = np.clip([y0 - reach, y0 + reach, x0 - reach, x0 + reach], 0, SIDE_PX).astype(int)
    rows, columns = slice(*ends[:2]), slice(*ends[2:])
    y, x = np.mgrid[rows, columns]
    x, y = x - x0, y - y0
    u = (x * np.cos(turn) + y * np.sin(turn)) / half[0]
    v = (y * np.cos(turn) - x * np.sin(turn)) / half[1]
    return u, v, (rows, columns)


def draw_cells(rng: Rng) -> Levels:
    """Draw grains or cells: points with what lies nearest to each, and walls between."""
    number = int(np.exp(rng.uniform(np.log(8), np.log(500))))
    points = rng.uniform(0, SIDE_PX, (number, 2))
    distance, nearest = cKDTree(points).query(_warped(rng, 6.0).reshape(-1, 2), k=2)
    distance, nearest = (x.reshape(SIDE_PX, SIDE_PX, 2) for x in (distance, nearest))
    levels = rng.normal(130, rng.uniform(0, 50), number)[nearest[..., 0]]
    inner = np.clip((distance[..., 1] - distance[..., 0]) / rng.uniform(0.8, 6), 0, 1)
    return np.asarray(levels * inner + rng.uniform(0, 255) * (1 - inner) + _texture(rng, 25.0))


def draw_relief(rng: Rng) -> Levels:
    """Draw a rough surface: as heights, as slopes, in ridges or in two levels."""
    field = _field(rng, rng.uniform(1.2, 3.6))
    if rng.random() < 0.5:
        field = abs(field)
    if rng.random() < 0.3:
        down, right = np.gradient(gaussian_filter(field, rng.uniform(0, 3)))
        slope = right * rng.uniform(-1, 1) + down * rng.uniform(-1, 1)
        field = slope / (slope.std() + 1e-6)
    if rng.random() < 0.3:
        field = np.sign(field - rng.uniform(-0.5, 0.5)) + 0.2 * field
    return np.asarray(128 + field * rng.uniform(15, 60))


def draw_lattice(rng: Rng) -> Levels:
    """Add one to three bent gratings."""
    rows, columns = np.moveaxis(_warped(rng, 8.0), -1, 0)
    image = np.zeros((SIDE_PX, SIDE_PX))
    for _ in range(rng.integers(1, 4)):
        period, turn = np.exp(rng.uniform(np.log(3), np.log(60))), rng.uniform(0, np.pi)
        wave = np.cos(2 * np.pi * (columns * np.cos(turn) + rows * np.sin(turn)) / period)
        image += np.sign(wave) * abs(wave) ** np.exp(rng.uniform(-1.5, 1))
    return np.asarray(128 + image * rng.uniform(15, 50) + _texture(rng, 25.0))


def _warped(rng: Rng, most_px: float) -> Float[np.ndarray, "side side 2"]:
    """Return row and column of each pixel, moved by up to about `most_px`."""
    grid = np.mgrid[:SIDE_PX, :SIDE_PX]
    moved = [of + _field(rng, 3.0) * rng.uniform(0, most_px) for of in grid]
    return np.stack(moved, axis=-1)


SCENES: Mapping[str, Callable[[Rng], Levels]] = {
    "leaves": draw_leaves,
    "cells": draw_cells,
    "relief": draw_relief,
    "lattice": draw_lattice,
}
_SHARES = (0.5, 0.2, 0.2, 0.1)


def _expose(rng: Rng, scene: Levels) -> Picture:
    """Blur by a beam, set brightness and contrast, add the noise of a dose and of electronics."""
    if rng.random() < 0.9:
        scene = gaussian_filter(scene, np.exp(rng.uniform(np.log(0.3), np.log(2.5))))
    black, white = np.percentile(scene, [0.5, 99.5])
    levels = (scene - black) / (white - black + 1e-6) * rng.uniform(90, 235) + rng.uniform(0, 60)
    if rng.random() < 0.9:
        levels = _shot_noise(rng, levels, most=12.0)
        levels += rng.normal(0, rng.uniform(0, 8) if rng.random() < 0.5 else 0.5, levels.shape)
        if rng.random() < 0.3:  # a slow detector, along the lines of the scan
            levels = gaussian_filter(levels, [0, rng.uniform(0.2, 0.7)])
    return to_grey(levels)


def _shot_noise(rng: Rng, levels: Part, *, most: float) -> Part:
    """Count electrons, of which each is worth 0.02 to `most` grey levels."""
    gain = np.exp(rng.uniform(np.log(0.02), np.log(most)))
    return np.asarray(rng.poisson(np.clip(levels, 1, 255) / gain) * gain)


def _edit(rng: Rng, image: Picture) -> Picture:
    """Do what may have been done before someone takes the picture in hand."""
    if rng.random() < 0.35:
        image = unsharp(image, float(rng.uniform(0.6, 2)), float(rng.uniform(0.3, 2.5)))
    if rng.random() < 0.25:
        smooth = rng.random() < 0.5
        image = gaussian_blur(image, float(rng.uniform(0.4, 1))) if smooth else median(image, 3)
    if rng.random() < 0.25:
        image = contrast(image, float(rng.uniform(0.7, 1.6)))
    if rng.random() < 0.25:
        invert = rng.random() < 0.3
        image = 255 - image if invert else gamma(image, float(rng.uniform(0.6, 1.6)))
    if rng.random() < 0.45:
        image = jpeg(image, int(rng.integers(60, 99)))
    return image
