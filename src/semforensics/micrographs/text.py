"""Find what is drawn into a micrograph: info bars, scale bars, letters, arrows, frames, legends.

What a program draws differs from what a microscope records in three ways. It has one grey level
(exactly in a raw file, nearly after JPEG). Its edges are one or two pixels wide all around. It is
made of strokes: letters of equal height along a line, scale bars and frames with straight sides.
A bright particle or a dark pore can be saturated too, but part of its outline is soft, and
particles rarely lie along a line.

No text is read: the finder knows strokes, not characters. Its numbers were chosen on the
micrographs and published panels of 25 collections, by looking at what it finds.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Literal, Self

import numpy as np
from jaxtyping import Bool, Float, Int, Int32, UInt8
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from semforensics.micrographs.drawn import DrawnBox, mask_of
from semforensics.micrographs.info_bar import MIN_ROWS, UnsureError, find_info_bar

LEVELS = (248, 215, 180)
"""Thresholds between ink and image, for light ink; 255 minus these for dark ink."""
STEP = 60
"""Least difference of grey levels between ink and the image 2 or 3 pixels away."""
MIN_AREA = 10
MIN_GLYPH_PX = 6
MAX_GLYPH_PX = 110
"""Heights of letters, from 6 px to the panel letters of a magnified figure."""
COMPANIONS = 3
"""Times that less certain shapes are added beside certain ones."""
CROWD = 55.0
"""Letter-like shapes outside of lines of text, per megapixel; more are texture."""
MAX_SHAPES = 400
"""Letter-like shapes of one ink that are compared with each other; more are texture."""
MAX_SINGLES = 6
"""Large letter-like shapes outside of lines of text; more are particles or pores."""
MIN_TICKS = 5
"""Of the ruler that some instruments draw beside their text."""
MAX_LEGEND = 8.0
"""Largest area of a legend, as a multiple of the area of its text."""
BAR_SHARE = 0.3
"""Largest share of a frame's rows in an info bar."""
MIN_BAR_ROWS = 12
BAR_LEVEL = 0.45
"""Least share of a bar that is nearly of one grey level; 72 real ones: 0.56 and more. Panels in a
row at the edge of a figure have less."""
LEAST_STEP, LEAST_RISE = 0.15, 0.25
"""Of the share of pixels of few grey levels, where a bar may begin: over three rows, and over as
many rows as are below."""

Grey = UInt8[np.ndarray, "height width"]
Mask = Bool[np.ndarray, "height width"]
Chosen = Bool[np.ndarray, " n"]
Box = Int[np.ndarray, " 4"]
"""First row, first column, end row, end column; ends are exclusive."""
Boxes = Int[np.ndarray, "n 4"]


@dataclass(frozen=True)
class Drawn:
    """What is drawn into a micrograph."""

    mask: Mask
    """Pixels of drawn things, with a margin of `MARGIN_PX` around all but info bars."""
    boxes: tuple[DrawnBox, ...]
    """From top to bottom, then from left to right."""
    info_bar: tuple[int, int] | None
    """First and last row of an info bar over the whole width, at the bottom or the top."""
    doubt: UnsureError | None
    """Why the image may have an info bar that was not found, and from which row on."""


def find_drawn(grey: Grey, *, with_bar: bool = True) -> Drawn:
    """Find info bars, text, scale bars, arrows, frames and legends.

    Not found are letters lower than `MIN_GLYPH_PX`, letters whose contrast to the image is below
    `STEP`, ink of a middle grey, and marks larger than `MAX_GLYPH_PX` that are not straight. A
    single letter away from the corners is found only if its outline is sharp all around.

    Args:
        grey: The whole frame, or one panel of a figure.
        with_bar: Whether it may have an info bar.

    Returns:
        Mask, boxes and info bar; an empty mask if nothing is drawn.
    """
    height, width = grey.shape
    rows, doubt = _info_bar(grey) if with_bar else (None, None)
    first, end = 0, height
    if rows is not None:
        first, end = (0, rows[0]) if rows[0] > 0 else (rows[1] + 1, height)
    found = [
        box.moved(first)
        for box in (_drawn_shapes(grey[first:end]) if end - first >= MIN_GLYPH_PX else [])
    ]
    if rows is not None:
        found.append(DrawnBox("bar", rows[0], 0, rows[1] + 1, width))
    mask = mask_of(found, grey.shape)
    if doubt is not None:
        doubt = _doubt_left(_without(grey, mask))
    return Drawn(mask, tuple(sorted(found, key=lambda box: box[1:])), rows, doubt)


def find_bar(grey: Grey) -> tuple[int, int] | None:
    """Find the first and last row of an info bar at the bottom or the top; None if there is none.

    Finds more than `find_info_bar`, which is sure of what it finds.
    """
    return _info_bar(grey)[0]


def _without(grey: Grey, mask: Mask) -> Grey:
    """Put the mirrored pixels above each masked stretch of a column in its place."""
    filled = grey.copy()
    rows = np.arange(len(grey))[:, None]
    above = np.maximum.accumulate(np.where(mask, -1, rows), axis=0)  # last row not masked
    sources = np.abs(2 * above + 1 - rows)
    for row in np.flatnonzero(mask.any(axis=1)):  # from the top: what is above is filled already
        columns = np.flatnonzero(mask[row] & (above[row] >= 0))
        filled[row, columns] = filled[sources[row, columns], columns]
    return filled


@dataclass(frozen=True)
class _Shapes:
    """Connected pixels of one ink; each array has one entry for each of them.

    Ink is bright here: dark ink is measured in the negative.
    """

    boxes: Boxes
    area: Float[np.ndarray, " n"]
    """Pixels."""
    edges: Float[np.ndarray, " n"]
    """Sides of its pixels towards other pixels, without those along the border of the image."""
    sharp: Float[np.ndarray, " n"]
    """Share of edges over which the grey level falls by `STEP` within 3 px."""
    level: Float[np.ndarray, " n"]
    """Mean level of the ink along the edges."""
    spread: Float[np.ndarray, " n"]
    """Standard deviation of that level."""
    step: Float[np.ndarray, " n"]
    """Mean fall of the grey level over an edge."""

    def __getitem__(self, chosen: np.ndarray | slice) -> Self:
        """Choose shapes by a mask, by indices or by a slice."""
        return type(self)(*(getattr(self, field.name)[chosen] for field in fields(self)))

    def __len__(self) -> int:
        return len(self.area)

    @property
    def height(self) -> Int[np.ndarray, " n"]:
        """Rows of the box."""
        return np.asarray(self.boxes[:, 2] - self.boxes[:, 0])

    @property
    def width(self) -> Int[np.ndarray, " n"]:
        """Columns of the box."""
        return np.asarray(self.boxes[:, 3] - self.boxes[:, 1])

    @property
    def fullness(self) -> Float[np.ndarray, " n"]:
        """Share of the box that is ink; 1 for a rectangle."""
        return np.asarray(self.area / (self.height * self.width))

    @property
    def slenderness(self) -> Float[np.ndarray, " n"]:
        """Length of a stroke over its width, if it is one; 4 for a square, 5 for a disc."""
        return np.asarray(self.edges**2 / (4 * self.area))

    @property
    def stroke(self) -> Float[np.ndarray, " n"]:
        """Mean width of the stroke, in pixels."""
        return np.asarray(2 * self.area / self.edges)

    def inside(self, top: float, left: float, end: float, right: float) -> Chosen:
        """Choose those whose centre is in a rectangle."""
        y, x = self.boxes[:, 0::2].mean(axis=1), self.boxes[:, 1::2].mean(axis=1)
        return np.asarray((y >= top) & (y < end) & (x >= left) & (x < right))


def _drawn_shapes(grey: Grey) -> list[DrawnBox]:
    """Find everything drawn but info bars."""
    lines: list[DrawnBox] = []
    text: list[Box] = []
    for ink in (grey, 255 - grey):
        every = _shapes(ink)
        plates = _plates(every, ink)
        certain = (_rectangles(every, grey.shape) & ~plates) | _frames(every, ink)
        certain_lines = _distinct(every[certain])
        shapes = _distinct(_joined([certain_lines, every]))
        is_line = np.arange(len(shapes)) < len(certain_lines)
        is_line |= _ticks(shapes)
        is_text, crowded = _glyphs(shapes, is_line, grey.shape)
        if not crowded:
            is_text, is_line = _companions(shapes, is_text, is_line)
        lines += [_drawn_box("line", box) for box in shapes.boxes[is_line]]
        text += [*every[plates].boxes]
        text += [_legend(grey, box) for box in _merged(shapes.boxes[is_text])]
    merged = _merged(np.array(text, dtype=int).reshape(-1, 4))
    return lines + [_drawn_box("text", box) for box in merged]


def _drawn_box(kind: Literal["text", "line"], box: Box) -> DrawnBox:
    return DrawnBox(kind, *(int(value) for value in box))


def _shapes(ink: Grey) -> _Shapes:
    """Find what is brighter than its surroundings by a step, at each threshold, best first."""
    values = np.pad(ink, 4, mode="edge").ravel()
    shapes = _joined([_shapes_above(ink, values, level) for level in LEVELS])
    return shapes[np.argsort(shapes.spread / 40 - shapes.sharp, kind="stable")]


def _joined(parts: list[_Shapes]) -> _Shapes:
    return _Shapes(
        *(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(_Shapes))
    )


def _distinct(shapes: _Shapes) -> _Shapes:
    """Keep the first of those that overlap: one thing is found at several thresholds."""
    shapes = shapes[: 3 * MAX_SHAPES]
    kept = np.ones(len(shapes), dtype=bool)
    for i in range(len(shapes)):
        if kept[i]:
            kept[i + 1 :] &= _overlap(shapes.boxes[i], shapes.boxes[i + 1 :]) < 0.3
    return shapes[kept]


def _overlap(box: Box, boxes: Boxes) -> Float[np.ndarray, " n"]:
    """Intersection over union of one box with others."""
    sides = np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2])
    common = np.clip(sides, 0, None).prod(axis=1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1) + (box[2:] - box[:2]).prod()
    return np.asarray(common / (areas - common))


def _shapes_above(ink: Grey, values: UInt8[np.ndarray, " padded"], level: int) -> _Shapes:
    """Measure the connected pixels at or above a level, without specks and backgrounds.

    Args:
        ink: Bright where something is drawn.
        values: The same with 4 px more on each side, row after row.
        level: Least level of ink.
    """
    height, width = ink.shape
    labels, _ = ndimage.label(ink >= level, np.ones((3, 3), dtype=int))
    # Specks first: noise has ten thousands, and each costs more than its pixels.
    labels, _ = _renumbered(labels, np.bincount(labels.ravel())[1:] >= MIN_GLYPH_PX)
    slices = ndimage.find_objects(labels)
    boxes = np.array([(y.start, x.start, y.stop, x.stop) for y, x in slices], dtype=int)
    boxes = boxes.reshape(-1, 4)
    rows, columns = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    large = (rows > 0.6 * height) & (columns > 0.6 * width)
    plausible = (np.maximum(rows, columns) >= MIN_GLYPH_PX) & ~large
    labels, n = _renumbered(labels, plausible)
    boxes = boxes[plausible]

    sums = np.zeros((5, n + 1))  # edges, sharp edges, ink, ink squared, step
    padded = np.pad(labels, 4, mode="edge").ravel()
    interior = np.flatnonzero(labels)
    interior += (interior // width) * 8 + 4 * (width + 8) + 4  # where they are in `padded`
    for offset in (1, -1, width + 8, -width - 8):
        edge = interior[padded[interior + offset] == 0]
        inner = np.maximum(values[edge], values[edge - offset])
        inner = np.maximum(inner, values[edge - 2 * offset]).astype(float)
        step = inner - np.minimum(values[edge + 2 * offset], values[edge + 3 * offset])
        for row, weights in enumerate((None, step >= STEP, inner, inner**2, step)):
            sums[row] += np.bincount(padded[edge], weights, minlength=n + 1)
    edges, sharp, mean, squares, step = sums[:, 1:]
    area = np.bincount(padded[interior], minlength=n + 1)[1:].astype(float)
    edges = np.maximum(edges, 1)
    spread = np.sqrt(np.maximum(squares / edges - (mean / edges) ** 2, 0))
    shapes = _Shapes(boxes, area, edges, sharp / edges, mean / edges, spread, step / edges)
    return shapes[(shapes.sharp >= 0.5) & (shapes.area >= MIN_AREA)]


def _renumbered(
    labels: Int32[np.ndarray, "height width"], kept: Chosen
) -> tuple[Int32[np.ndarray, "height width"], int]:
    """Remove the labels that are not kept, and number the others from 1; return their number."""
    numbers = np.concatenate([[0], np.cumsum(kept) * kept]).astype(np.int32)
    return numbers[labels], int(kept.sum())


def _rectangles(shapes: _Shapes, size: tuple[int, ...]) -> Chosen:
    """Choose scale bars: full rectangles that are long and thin."""
    short = np.minimum(shapes.height, shapes.width)
    long = np.maximum(shapes.height, shapes.width)
    # A bar laid over a bright particle has no step there; its shape is enough if it is large.
    sharp = np.where((long >= 40) & (short >= 4) & (shapes.fullness >= 0.9), 0.6, 0.85)
    usual = (
        (shapes.fullness >= 0.86) & (short >= 2) & (shapes.spread <= 20) & (shapes.sharp >= sharp)
    )
    long_and_even = (long >= 40) & (shapes.fullness >= 0.6) & (shapes.spread <= 4)
    long_and_even &= (long >= 8 * short) & (shapes.sharp >= 0.93)
    long_and_even &= (short >= 2) | _within(shapes, size)  # a white row along the border is none
    return np.asarray(
        (usual | long_and_even) & (long >= 4 * short) & (long >= max(18, 0.03 * size[1]))
    )


def _within(shapes: _Shapes, size: tuple[int, ...]) -> Chosen:
    """Choose those that do not touch the border of the image."""
    top, left, end, right = shapes.boxes.T
    return np.asarray((top > 0) & (left > 0) & (end < size[0]) & (right < size[1]))


def _frames(shapes: _Shapes, ink: Grey) -> Chosen:
    """Choose hollow rectangles: thin strokes along all four sides of their box."""
    thin = (shapes.sharp >= 0.8) & (shapes.spread <= 22) & (shapes.fullness <= 0.4)
    return _along_sides(shapes, thin & (shapes.slenderness >= 40), ink)


def _plates(shapes: _Shapes, ink: Grey) -> Chosen:
    """Choose rectangles with text in them: legends of one grey level."""
    full = (shapes.spread <= 15) & (shapes.fullness >= 0.5)
    full &= (shapes.sharp >= 0.8) | (_within(shapes, ink.shape) & (shapes.height >= 30))
    return _along_sides(shapes, full & (shapes.slenderness >= 7), ink)


def _along_sides(shapes: _Shapes, chosen: Chosen, ink: Grey) -> Chosen:
    """Choose those of at least 16 px that reach all four sides of their box nearly everywhere."""
    chosen = chosen & (np.minimum(shapes.height, shapes.width) >= 16)
    for i in np.flatnonzero(chosen):
        top, left, end, right = shapes.boxes[i]
        inside = ink[top:end, left:right] >= max(LEVELS[-1], shapes.level[i] - 30)
        t = 2 + min(2, int(shapes.stroke[i]))
        sides = (inside[:t].any(0), inside[-t:].any(0), inside[:, :t].any(1), inside[:, -t:].any(1))
        chosen[i] = min(side.mean() for side in sides) >= 0.93
    return np.asarray(chosen)


def _ticks(shapes: _Shapes) -> Chosen:
    """Choose the ticks of a ruler: like upright strokes at equal distances along a line."""
    chosen = np.zeros(len(shapes), dtype=bool)
    upright = (shapes.fullness >= 0.6) & (shapes.height >= 1.3 * shapes.width)
    upright &= (shapes.sharp >= 0.8) & (shapes.height <= MAX_GLYPH_PX / 2)
    stroke = np.flatnonzero(upright)[:MAX_SHAPES]
    if len(stroke) < MIN_TICKS:
        return chosen
    top, left, end, _ = shapes.boxes[stroke].T
    level = np.abs(top[:, None] - top) <= 2
    for group in _connected(level & (np.abs(end[:, None] - end) <= 2)):
        gaps = np.diff(np.sort(left[group]))
        if len(group) >= MIN_TICKS and (np.abs(gaps - np.median(gaps)) <= 2).mean() >= 0.75:
            chosen[stroke[group]] = True
    return chosen


def _glyphs(shapes: _Shapes, lines: Chosen, size: tuple[int, ...]) -> tuple[Chosen, bool]:
    """Choose letters: like shapes along a line, and single ones that are beyond doubt.

    Returns:
        The letters, and whether the image is crowded with shapes like letters: then only what is
        certain is chosen.
    """
    height, width = size
    inky = (shapes.sharp >= 0.8) & (shapes.spread <= 26) & (shapes.step >= 50) & ~lines
    inky &= (shapes.slenderness >= 5) & (shapes.height <= MAX_GLYPH_PX)
    glyph = np.flatnonzero(
        inky & (shapes.height >= MIN_GLYPH_PX) & (shapes.width <= 2.5 * shapes.height)
    )[:MAX_SHAPES]
    groups = [glyph[group] for group in _groups(shapes[glyph])]
    alone = len(glyph) - sum(len(group) for group in groups if len(group) >= 3)
    crowded = alone > max(CROWD * height * width / 1e6, 20)

    text = np.zeros(len(shapes), dtype=bool)
    for members in groups:
        if _is_line_of_text(shapes[members], crowded):
            text[members] = True
    return text | _single_glyphs(shapes, inky & ~text, crowded, size), crowded


def _single_glyphs(shapes: _Shapes, inky: Chosen, crowded: bool, size: tuple[int, ...]) -> Chosen:
    """Choose single letters: sharp all around, less strictly in the corners of the image."""
    height, width = size
    top, left, end, right = shapes.boxes.T
    corner = ((end <= 0.25 * height) | (top >= 0.75 * height)) & (
        (right <= 0.25 * width) | (left >= 0.75 * width)
    )
    single = inky & (shapes.height >= max(12, 0.02 * height)) & (shapes.slenderness >= 9)
    single &= (shapes.width >= 5) & (shapes.width <= 0.6 * width)
    if single.sum() > MAX_SINGLES:
        single &= corner & (shapes.height >= 0.04 * height) & (shapes.sharp >= 0.9)
    strict = single & (shapes.sharp >= 0.95) & (shapes.spread <= 10) & (shapes.step >= 90)
    if crowded:
        certain = strict & corner
        return np.asarray(certain & (certain.sum() <= MAX_SINGLES / 2))
    anywhere = strict & (shapes.sharp >= 0.97) & (shapes.spread <= 7) & (shapes.step >= 110)
    relaxed = single & (shapes.sharp >= 0.85) & (shapes.spread <= 16) & (shapes.step >= 60)
    return np.asarray(anywhere | (corner & (strict | relaxed)))


def _groups(glyphs: _Shapes) -> list[Int[np.ndarray, " m"]]:
    """Group shapes of like height, ink and stroke that follow each other along a line."""
    top, left, end, right = glyphs.boxes.T
    low, high = _least_and_most(glyphs.height)
    common = np.minimum(end[:, None], end) - np.maximum(top[:, None], top)
    gap = np.maximum(left[:, None], left) - np.minimum(right[:, None], right)
    thin, thick = _least_and_most(glyphs.stroke)
    linked = (
        (common >= 0.6 * low)
        & (gap <= high)
        & (gap >= -0.2 * high)
        & (low >= 0.55 * high)
        & (np.abs(glyphs.level[:, None] - glyphs.level) <= 20)
        & (thin >= 0.5 * thick)
    )
    return _connected(linked)


def _connected(linked: Bool[np.ndarray, "n n"]) -> list[Int[np.ndarray, " m"]]:
    """Indices of each set of things that are linked, directly or by others."""
    if not len(linked):
        return []
    count, group = connected_components(coo_array(linked), directed=False)
    return [np.flatnonzero(group == k) for k in range(count)]


def _least_and_most(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Smaller and larger value of each pair."""
    return np.minimum(values[:, None], values), np.maximum(values[:, None], values)


def _is_line_of_text(glyphs: _Shapes, crowded: bool) -> bool:
    """Say if at least two shapes have tops or feet at one height, as particles rarely do."""
    tolerance = max(1.5, 0.1 * float(np.median(glyphs.height)))
    aligned = max(
        float((np.abs(edge[:, None] - edge) <= tolerance).mean(axis=0).max())
        for edge in (glyphs.boxes[:, 0], glyphs.boxes[:, 2])
    )
    strict = float((glyphs.sharp >= 0.93).mean())
    if len(glyphs) <= 2:
        return len(glyphs) == 2 and not crowded and aligned == 1 and strict == 1
    return aligned >= 0.6 and (not crowded or strict > 0.6)


def _companions(shapes: _Shapes, text: Chosen, lines: Chosen) -> tuple[Chosen, Chosen]:
    """Add what is less certain alone but lies beside text or a scale bar of the same ink."""
    bar_like = (shapes.fullness >= 0.8) & (shapes.width >= 1.8 * shapes.height)
    for _ in range(COMPANIONS):
        added_text, added_lines = np.zeros_like(text), np.zeros_like(lines)
        for i in np.flatnonzero(text | lines):
            top, left, end, right = shapes.boxes[i]
            rows = end - top if text[i] else min(max(2 * (end - top), 12), 60)
            like = np.abs(shapes.level - shapes.level[i]) <= 30
            like &= (shapes.height <= 1.4 * rows) & ~text & ~lines
            if text[i]:
                beside = shapes.inside(
                    top - 0.3 * rows, left - 1.5 * rows, end + 0.3 * rows, right + 1.5 * rows
                )
                below = shapes.inside(top - rows, left - 3 * rows, end + rows, right + 3 * rows)
                added_text |= like & beside & ~bar_like & (shapes.width <= 6 * rows)
                added_lines |= like & below & bar_like & (shapes.sharp >= 0.6)
            else:
                near = shapes.inside(top - 2 * rows, left - rows, end + 2 * rows, right + rows)
                near &= (shapes.sharp >= 0.8) & (shapes.width <= right - left) & ~bar_like
                added_text |= like & near
        text, lines = text | added_text, lines | added_lines
    return text, lines


def _merged(boxes: Boxes) -> list[Box]:
    """Join boxes that touch once half of the height of a letter is added around them."""
    while len(boxes):
        pad = np.minimum((boxes[:, 2] - boxes[:, 0]) // 2, 20)
        top, left, end, right = (boxes + np.stack([-pad // 2, -pad, pad // 2, pad], axis=1)).T
        touch = (top[:, None] < end) & (top < end[:, None])
        touch &= (left[:, None] < right) & (left < right[:, None])
        joined = [boxes[group] for group in _connected(touch)]
        if len(joined) == len(boxes):
            break
        boxes = np.array([[*b[:, :2].min(axis=0), *b[:, 2:].max(axis=0)] for b in joined])
    return list(boxes)


def _legend(grey: Grey, box: Box) -> Box:
    """Grow the box of a text to the box of one grey level that it is written into, if it is."""
    height, width = grey.shape
    top, left, end, right = (int(v) for v in box + np.array([-2, -2, 2, 2]))
    top, left, end, right = max(top, 0), max(left, 0), min(end, height), min(right, width)
    sides = [grey[top, left:right], grey[end - 1, left:right]]
    sides += [grey[top:end, left], grey[top:end, right - 1]]
    ring = np.concatenate(sides).astype(int)
    level = int(np.median(ring))

    def share(line: np.ndarray, tolerance: int) -> float:
        return float((np.abs(line.astype(int) - level) <= tolerance).mean())

    if share(ring, 10) < 0.8:
        return box
    largest = min(0.25 * grey.size, MAX_LEGEND * (end - top) * (right - left))
    grown = True
    while grown and (end - top) * (right - left) < largest:
        before = (top, left, end, right)
        top -= top > 0 and share(grey[top - 1, left:right], 10) >= 0.4
        end += end < height and share(grey[end, left:right], 10) >= 0.4
        left -= left > 0 and share(grey[top:end, left - 1], 10) >= 0.4
        right += right < width and share(grey[top:end, right], 10) >= 0.4
        grown = before != (top, left, end, right)
    # An edge blurred by resampling lies between: look 3 px outside.
    outer = [grey[top - 3, left:right]] if top > 2 else []
    outer += [grey[end + 2, left:right]] if end < height - 2 else []
    outer += [grey[top:end, left - 3]] if left > 2 else []
    outer += [grey[top:end, right + 2]] if right < width - 2 else []
    is_legend = not grown and all(share(line, 25) <= 0.2 for line in outer)
    return np.array([top, left, end, right]) if is_legend else box


def _info_bar(grey: Grey) -> tuple[tuple[int, int] | None, UnsureError | None]:
    """First and last row of an info bar at the bottom or the top, and what casts doubt on none."""
    last, doubts = len(grey) - 1, []
    for image in (grey, grey[::-1]):
        top, doubt = _ask(image)
        doubts.append(doubt)
        top = _strip(image) if top is None else top
        if top is not None and _level_share(image[top:]) >= BAR_LEVEL:
            return ((top, last) if image is grey else (0, last - top)), None
    return None, doubts[0]


def _level_share(rows: Grey) -> float:
    """Return the largest share of pixels that are within 8 grey levels of one level."""
    counts = np.bincount(rows.ravel(), minlength=256)
    return float(np.convolve(counts, np.ones(17), "same").max() / rows.size)


def _doubt_left(grey: Grey) -> UnsureError | None:
    """Say what still speaks for an info bar in an image without what is drawn into it.

    A doubt about the whole frame stays. Fewer rows than a bar has are a line at the edge, and of
    other rows those from the place on must have fewer grey levels than those above.
    """
    top, doubt = _ask(grey)
    if top is not None:
        doubt = UnsureError(f"it may begin at row {top}", top)
    if doubt is None or doubt.row == 0:
        return doubt
    if not 3 <= doubt.row <= len(grey) - MIN_ROWS:
        return None
    for shares in _few_levels(grey):
        above, strip = shares[: doubt.row], shares[doubt.row :]
        step = strip[:3].min() - above[-3:].max()
        rise = np.median(strip) - np.median(above[-len(strip) - 8 :])
        if step >= LEAST_STEP and rise >= LEAST_RISE and np.quantile(strip, 0.1) >= 0.2:
            return doubt
    return None


def _ask(grey: Grey) -> tuple[int | None, UnsureError | None]:
    """First row of an info bar at the bottom, and what casts doubt on none."""
    try:
        return find_info_bar(grey), None
    except UnsureError as error:
        return None, error


def _strip(grey: Grey) -> int | None:
    """First row of a strip at the bottom that has few grey levels and text.

    Weaker than `find_info_bar`: rows may hold lines and fields of a second level, and the image
    above may be as dark as the strip if it is noisy and the strip is not.
    """
    height, width = grey.shape
    if height < 4 * MIN_BAR_ROWS or width < 2 * MIN_BAR_ROWS:
        return None
    first = int(height * (1 - 2 * BAR_SHARE))
    steep = np.abs(np.diff(grey[first:].astype(np.int16), axis=1)) >= 48
    tops = []
    for shares in _few_levels(grey):
        top = _onset(shares[first:])
        # Text has steep sides in every row; the lower end of a particle or a scale bar has few.
        if top is not None and steep[top + 3 :].mean() >= 0.004:
            tops.append(first + top)
    return min(tops) if tops else None


def _few_levels(grey: Grey) -> Iterator[Float[np.ndarray, " rows"]]:
    """Measure in four ways how few grey levels each row has: 1 in a constant row.

    Near the most frequent level at the bottom, or like their neighbours; loosely and strictly.
    """
    level = int(np.bincount(grey[-max(len(grey) // 50, 8) :].ravel(), minlength=256).argmax())
    levels = grey.astype(np.int16)
    away, quiet = np.abs(levels - level), np.abs(np.diff(levels, axis=1))
    for few in (away <= 16, away <= 4, quiet == 0, quiet <= 2):
        yield few.mean(axis=1)


def _onset(shares: Float[np.ndarray, " rows"]) -> int | None:
    """First row, of the lower half, from which on a share is large, if it sets in at once."""
    for top in range(len(shares) // 2, len(shares) - MIN_BAR_ROWS):
        just_above, first_rows = shares[top - 8 : top].max(), shares[top : top + 3]
        strip = shares[top:]
        if first_rows.max() - just_above < 0.3 or strip.min() < 0.2:
            continue
        # As many rows above: a scale bar ends at once too, but the image goes on above it.
        above = shares[max(top - len(strip) - 8, 0) : top]
        rises = first_rows.max() - above.max() >= 0.3
        if rises and np.median(strip) >= max(0.4, float(np.median(above)) + 0.25):
            # A resampled edge is spread over two rows: the first with a quarter of the step.
            steps = first_rows - just_above
            return top + int(np.argmax(steps >= 0.25 * steps.max()))
    return None
