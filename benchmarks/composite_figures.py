"""Draw figures out of micrographs and generated images, with the boxes of their panels.

What `benchmarks/composites.py` measures on. A figure has 2 to 9 panels in rows, in columns, or one
large panel beside small ones; a gutter of 0 to 12 px that is white, black or grey, and no margin;
letters, scale bars and an inset in some.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw

from semforensics.core.processing import jpeg
from semforensics.screening.records import Box

Grey = UInt8[np.ndarray, "height width"]
GUTTERS_PX = (0, 1, 2, 3, 4, 6, 8, 12)
LEVELS = {"white": 255, "black": 0, "grey": 128}
SIDES_PX = (150, 420)
"""Of a panel; a model of 128 px tiles judges the smallest, too."""
INSET_PX = 132
JPEG_QUALITY = 85


@dataclass
class Part:
    """One micrograph or generated image of a figure."""

    box: Box
    """Of its pixels, without the frame around an inset."""
    is_generated: bool
    inset: Literal["", "framed", "not framed"] = ""


@dataclass
class Figure:
    """A drawn figure and what is in it."""

    grey: Grey
    gutter_px: int
    level: str
    """Of the gutter; the key of `LEVELS`."""
    is_one_collection: bool
    """All real panels are of one collection, so that they look alike."""
    is_jpeg: bool
    parts: list[Part] = field(default_factory=list)


def draw_figure(
    reals: dict[str, Sequence[Grey]],
    fakes: Sequence[Grey],
    rng: np.random.Generator,
    index: int,
) -> Figure:
    """Draw one figure.

    Args:
        reals: Micrographs without text and info bar, by collection.
        fakes: Generated images; smaller ones are continued by their mirror images. May be empty.
        rng: Draws all but the kind.
        index: Chooses the kind, so that each gutter and level is as frequent as the others.
    """
    gutter = GUTTERS_PX[index % len(GUTTERS_PX)]
    level = list(LEVELS)[index // len(GUTTERS_PX) % len(LEVELS)]
    is_one = bool(rng.random() < 0.5)
    one = str(rng.choice(list(reals)))
    boxes = _layout(rng, gutter)
    height, width = max(box.bottom for box in boxes), max(box.right for box in boxes)
    figure = Figure(
        np.full((height, width), LEVELS[level], np.uint8),
        gutter,
        level,
        is_one,
        bool(rng.random() < 0.25),
    )
    has_letters, has_bars = rng.random() < 0.6, rng.random() < 0.5

    def fill(box: Box, inset: Literal["", "framed", "not framed"] = "") -> Grey:
        is_generated = bool(fakes) and rng.random() < 0.25
        collection = one if is_one else str(rng.choice(list(reals)))
        sources = fakes if is_generated else reals[collection]
        figure.parts.append(Part(box, is_generated, inset))
        return _crop(sources, *box.size_px, rng)

    for letter, box in zip("abcdefghi", boxes, strict=False):
        panel = fill(box)
        if has_letters:
            _write_letter(panel, letter, rng)
        if has_bars:
            _draw_scale_bar(panel, rng)
        figure.grey[box.top : box.bottom, box.left : box.right] = panel
    host = boxes[int(rng.integers(len(boxes)))]
    if index % 3 == 0 and min(host.size_px) > 2 * INSET_PX:
        _draw_inset(figure, host, fill, rng)
    if figure.is_jpeg:
        figure.grey = jpeg(figure.grey, JPEG_QUALITY)
    return figure


def _draw_inset(figure: Figure, host: Box, fill, rng: np.random.Generator) -> None:  # type: ignore[no-untyped-def]
    """Put a smaller image into a panel: in a corner, near to one, or anywhere."""
    sides = [int(rng.integers(INSET_PX, side // 2 + 1)) for side in host.size_px]
    frame = int(rng.integers(4))
    away = [int(rng.choice([0, 8, rng.integers(20, 60)])) for _ in sides]
    starts = [
        (a + frame if rng.random() < 0.5 else host_side - side - a - frame)
        for a, side, host_side in zip(away, sides, host.size_px, strict=True)
    ]
    top, left = host.top + starts[0], host.left + starts[1]
    box = Box(top, left, top + sides[0], left + sides[1])
    inside = fill(box, "framed" if frame else "not framed")
    figure.grey[top - frame : box.bottom + frame, left - frame : box.right + frame] = rng.choice(
        [0, 255]
    )
    figure.grey[top : box.bottom, left : box.right] = inside


def _layout(rng: np.random.Generator, gutter: int) -> list[Box]:
    """Draw the boxes of 2 to 9 panels."""
    boxes = _large_and_small(rng, gutter) if rng.random() < 0.3 else _rows(rng, gutter)
    if rng.random() < 0.5:
        boxes = [Box(b.left, b.top, b.right, b.bottom) for b in boxes]
    return boxes


def _rows(rng: np.random.Generator, gutter: int) -> list[Box]:
    counts = [int(rng.integers(1, 4)) for _ in range(rng.integers(1, 4))]
    if rng.random() < 0.5:
        counts = [counts[0]] * len(counts)
    if sum(counts) < 2:
        counts = [2]
    width = int(rng.integers(*SIDES_PX)) * max(counts) + gutter * (max(counts) - 1)
    boxes, top = [], 0
    for count in counts:
        bottom = top + int(rng.integers(*SIDES_PX))
        boxes += [Box(top, a, bottom, b) for a, b in _spans(width, count, gutter, rng)]
        top = bottom + gutter
    return boxes


def _large_and_small(rng: np.random.Generator, gutter: int) -> list[Box]:
    """Draw one large panel with two or three below each other at its side."""
    count = int(rng.integers(2, 4))
    height = int(rng.integers(count * SIDES_PX[0] + gutter * (count - 1), 640))
    large, small = int(rng.integers(300, 640)), int(rng.integers(*SIDES_PX))
    is_left = rng.random() < 0.5
    at = (0, large + gutter) if is_left else (small + gutter, 0)
    beside = [Box(a, at[1], b, at[1] + small) for a, b in _spans(height, count, gutter, rng)]
    return [Box(0, at[0], height, at[0] + large), *beside]


def _spans(length: int, count: int, gutter: int, rng: np.random.Generator) -> list[tuple[int, int]]:
    """Divide a length into equal or unequal spans, none shorter than the least side."""
    inner = length - gutter * (count - 1)
    shares = np.ones(count) if rng.random() < 0.5 else rng.dirichlet([6.0] * count)
    free = inner - SIDES_PX[0] * count
    sides = SIDES_PX[0] + (shares / shares.sum() * free).astype(int)
    sides[-1] += inner - sides.sum()
    starts = np.concatenate([[0], np.cumsum(sides + gutter)[:-1]])
    return [(int(a), int(a + side)) for a, side in zip(starts, sides, strict=True)]


def _crop(sources: Sequence[Grey], height: int, width: int, rng: np.random.Generator) -> Grey:
    """Cut a part out of an image, not an even one; mirror images continue what is too small."""
    for _ in range(100):
        grey = sources[int(rng.integers(len(sources)))]
        short = [
            max(want - have, 0) for want, have in zip((height, width), grey.shape, strict=True)
        ]
        grey = np.pad(grey, [(0, more) for more in short], mode="symmetric")
        top = int(rng.integers(grey.shape[0] - height + 1))
        left = int(rng.integers(grey.shape[1] - width + 1))
        part = grey[top : top + height, left : left + width]
        if np.bincount(part.ravel()).max() < part.size / 2:
            return part.copy()
    raise ValueError("all micrographs are nearly of one grey level")


def _write_letter(panel: Grey, letter: str, rng: np.random.Generator) -> None:
    image = Image.fromarray(panel)
    draw = ImageDraw.Draw(image)
    ink = int(rng.choice([0, 255]))
    size = int(rng.integers(18, 34))
    text = str(rng.choice([letter, f"({letter})", letter.upper()]))
    if rng.random() < 0.3:
        draw.rectangle((0, 0, size * 1.6, size * 1.5), fill=255 - ink)
    draw.text((6, 2), text, fill=ink, font_size=size)
    panel[:] = np.asarray(image)


def _draw_scale_bar(panel: Grey, rng: np.random.Generator) -> None:
    image = Image.fromarray(panel)
    draw = ImageDraw.Draw(image)
    ink = int(rng.choice([0, 255]))
    height, width = panel.shape
    length, thick = int(rng.integers(30, width // 3)), int(rng.integers(2, 7))
    left, top = width - length - 10, height - 12 - thick
    if rng.random() < 0.3:
        draw.rectangle((left - 6, top - 26, width - 5, height - 7), fill=255 - ink)
    draw.rectangle((left, top, left + length, top + thick - 1), fill=ink)
    draw.text((left, top - 22), "500 nm", fill=ink, font_size=16)
    panel[:] = np.asarray(image)
