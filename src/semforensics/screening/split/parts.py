"""Composite figures → the boxes of their parts.

A figure is cut along its gutters, again and again, until no part has one; then along its seams
(`seams`), where two pictures meet with a thin gutter between them or none.

A gutter is a strip of at least 4 rows (or columns) across the whole part, all of one grey level
that is white, black or exactly constant, and on one side at least a part begins abruptly. Margins
of the same kind are cut off. A micrograph has noise in every row, so it has no gutters; where its
background is clipped to black or white, things rise from it little by little. One with an info bar
is one part, whatever the bar looks like.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Bool

from semforensics.micrographs import text
from semforensics.screening.records import Box, Grey
from semforensics.screening.split.insets import find_insets
from semforensics.screening.split.seams import EVEN, Seam, find_seams, scatter

GUTTER_PX = 4
"""Least thickness of a gutter."""
PART_PX = 24
"""Least side of a part: a cut that leaves less is a label or a rule."""
ABRUPT = 0.2
"""Least share of the line beside a gutter that is of another level."""
MAX_PARTS = 200
WHITE, BLACK = 248, 7
"""From and up to which a level counts as white or black: JPEG leaves gutters a few levels off."""

_THICK_BAR = 0.15  # share of the rows; info bars of instruments have up to 0.13
_DRAWN = 0.3  # least share of neighbours in a bar that are equal; panels taken for bars: to 0.15
_NOISE = 6.0  # range of grey levels in a line of a gutter, most of it
_WHITE_NOISE = 28.0  # the same in a white one: JPEG rings beside a picture
_LINE_SHARE = 0.98  # of a line's pixels within that range: specks of JPEG or a scan are let pass
_RINGING = 4.0  # mean distance from a strip's level that a lossy codec leaves in a line
_STRIP_PX = 64  # a thicker one is a background
_MIXED_PX = 5
_BESIDE = 20  # lines of the pictures on either side of a strip


@dataclass(frozen=True)
class Part:
    """A part of a figure that no gutter and no certain seam divides."""

    box: Box
    doubts: tuple[tuple[str, int], ...] = ()
    """Where two pictures may meet: "row" or "column", and its number in the figure."""
    insets: tuple[tuple[Box, Box], ...] = ()
    """The boxes of smaller pictures inside of it, without and with their frames."""


def find_parts(grey: Grey, frame: Box) -> list[Part]:
    """Cut a figure into its parts, in reading order.

    Args:
        grey: The picture.
        frame: The part of it that is the figure, without an info bar that belongs to all of it.
    """
    waiting = [_trimmed(grey, frame)]
    found: list[Part] = []
    while waiting and len(found) + len(waiting) <= MAX_PARTS:
        box = waiting.pop(0)
        pieces = _cut(grey, box)
        if len(pieces) > 1 and _is_one_with_bar(grey, box):
            pieces = [box]
        doubts: list[tuple[str, int]] = []
        if len(pieces) == 1:
            is_composite = bool(found) or bool(waiting)
            pieces, doubts = _cut_at_seams(grey, box, is_composite)
        if len(pieces) == 1:
            found.append(_part(grey, box, doubts))
        else:
            waiting = pieces + waiting
    return list(_in_reading_order([*found, *map(Part, waiting)]))


def _part(grey: Grey, box: Box, doubts: Sequence[tuple[str, int]]) -> Part:
    """Find the insets of a part; a seam that is the side of one is not in doubt."""
    insets = tuple(
        (inside.moved(box.top, box.left), frame.moved(box.top, box.left))
        for inside, frame in find_insets(box.cut(grey))
    )
    sides = [
        side
        for _, frame in insets
        for side in (
            ("row", frame.top),
            ("row", frame.bottom),
            ("column", frame.left),
            ("column", frame.right),
        )
    ]
    left = tuple(
        (kind, line)
        for kind, line in doubts
        if not any(kind == other and abs(line - side) <= GUTTER_PX for other, side in sides)
    )
    return Part(box, left, insets)


def _in_reading_order(parts: list[Part]) -> Iterator[Part]:
    """Sort parts: those that overlap in height are a row, from left to right."""
    left = sorted(parts, key=lambda part: part.box.top)
    while left:
        first = left[0].box
        row = [part for part in left if part.box.top < (first.top + first.bottom) / 2]
        yield from sorted(row, key=lambda part: part.box.left)
        left = [part for part in left if part not in row]


def find_bar(part: Grey) -> tuple[int, int] | None:
    """Find the first and last row of an info bar, as `text.find_bar` does, but no dark panel."""
    rows = text.find_bar(part)
    return rows if rows is not None and is_bar(part, rows) else None


def is_bar(part: Grey, rows: tuple[int, int]) -> bool:
    """Say whether rows taken for an info bar are thin, or drawn: noise differs from row to row."""
    strip = part[rows[0] : rows[1] + 1]
    is_thin = len(strip) <= _THICK_BAR * len(part)
    return is_thin or bool((strip[:, 1:] == strip[:, :-1]).mean() >= _DRAWN)


def _without_bar(grey: Grey, box: Box) -> Box:
    """Leave the rows of an info bar out of a part."""
    rows = find_bar(box.cut(grey))
    if rows is None:
        return box
    first, last = (box.top + row for row in rows)
    if first > box.top:
        return Box(box.top, box.left, first, box.right)
    return Box(last + 1, box.left, box.bottom, box.right)


def _is_one_with_bar(grey: Grey, box: Box) -> bool:
    """Say whether a part is one image with an info bar, whose black rows are no gutters."""
    rest = _without_bar(grey, box)
    return rest != box and rest.size_px[0] >= PART_PX and len(_cut(grey, rest)) == 1


def _cut_at_seams(
    grey: Grey, box: Box, is_composite: bool
) -> tuple[list[Box], list[tuple[str, int]]]:
    """Cut a part along its certain seams of one direction; list those in doubt if there are none.

    The rows of an info bar have no seams, and the edge of one is none.
    """
    bare = _without_bar(grey, box)
    rows, columns = find_seams(bare.cut(grey), is_composite)
    rows = _no_tops_of_bars(grey, bare, rows)
    certain = [[seam for seam in seams if seam.is_certain] for seams in (rows, columns)]
    best = max((seam for seams in certain for seam in seams), key=lambda s: s.score, default=None)
    if best is None:
        doubts = [("row", bare.top + seam.end) for seam in rows]
        return [box], [*doubts, *(("column", bare.left + seam.end) for seam in columns)]
    if best in certain[0]:
        edges = [bare.top + edge for seam in certain[0] for edge in (seam.end, seam.start)]
        pairs = zip([box.top, *edges[1::2]], [*edges[::2], box.bottom], strict=True)
        pieces = [Box(top, box.left, bottom, box.right) for top, bottom in pairs]
    else:
        edges = [bare.left + edge for seam in certain[1] for edge in (seam.end, seam.start)]
        pairs = zip([box.left, *edges[1::2]], [*edges[::2], box.right], strict=True)
        pieces = [Box(box.top, left, box.bottom, right) for left, right in pairs]
    return [_trimmed(grey, piece) for piece in pieces], []


def _no_tops_of_bars(grey: Grey, box: Box, seams: Sequence[Seam]) -> list[Seam]:
    """Leave out the seams above the info bar of an upper picture of several."""
    part, kept = box.cut(grey), []
    ends = [*(seam.end for seam in seams[1:]), len(part)]
    for seam, end in zip(seams, ends, strict=False):
        rows = find_bar(part[:end])
        if rows is None or abs(rows[0] - seam.end) > 2 * GUTTER_PX:
            kept.append(seam)
    return kept


def _cut(grey: Grey, box: Box) -> list[Box]:
    """Cut a part along its gutters of one direction, rows first; margins of the pieces go too."""
    part = box.cut(grey)
    for axis in (0, 1):
        lines = part if axis == 0 else part.T
        spans = [(a, b) for a, b in _between(lines) if b - a >= PART_PX]
        if len(spans) > 1:
            level = float(np.median(lines[spans[0][1] : spans[1][0]]))
            pieces = [
                Box(box.top + a, box.left, box.top + b, box.right)
                if axis == 0
                else Box(box.top, box.left + a, box.bottom, box.left + b)
                for a, b in spans
            ]
            return [_trimmed(grey, piece, level) for piece in pieces]
    return [box]


def _between(lines: Grey) -> list[tuple[int, int]]:
    """List the stretches of lines between the gutters from which a picture begins at once."""
    is_gutter = _is_gutter(lines)
    is_strip = is_gutter.copy()
    for start, stop in _strips(lines, is_gutter):
        level = float(np.median(lines[start:stop]))
        first, last = _widened(lines, start, stop, level)
        if first == 0 or last == len(lines):
            is_gutter[first:last] = True
            continue
        # A strip of another level is no picture that could begin.
        beside = [line for line in (first - 1, last) if not is_strip[line]]
        away = [(np.abs(lines[line] - level) > _NOISE).mean() for line in beside]
        is_gutter[first:last] = max(away, default=1.0) >= ABRUPT
    return _runs(~is_gutter)


def _trimmed(grey: Grey, box: Box, level: float | None = None) -> Box:
    """Cut off margins; between gutters of a level, margins of that level."""
    part = box.cut(grey)
    top, bottom = _ends(part, level)
    left, right = _ends(part.T, level)
    if bottom - top < PART_PX or right - left < PART_PX:
        return box
    return Box(box.top + top, box.left + left, box.top + bottom, box.left + right)


def _ends(lines: Grey, level: float | None) -> tuple[int, int]:
    """Find the first line and the last one, the latter left out, between margins of a level."""
    n = len(lines)
    first, last = 0, n
    for start, stop in _runs(_is_gutter(lines)):
        own = float(np.median(lines[start:stop]))
        if level is not None and abs(own - level) > _WHITE_NOISE / 2:
            continue  # a background
        if start == 0 or stop == n:
            start, stop = _widened(lines, start, stop, own)
        if start == 0:
            first = stop
        elif stop == n:
            last = start
    return (first, last) if first < last else (0, 0)


def _is_gutter(part: Grey) -> Bool[np.ndarray, " lines"]:
    """Say which rows of a part are of one level that micrographs do not fill whole rows with."""
    is_line = part.max(axis=1) == part.min(axis=1)
    white, black = part >= WHITE - _WHITE_NOISE / 2, part <= BLACK + _NOISE / 2
    near = (white.mean(axis=1) >= _LINE_SHARE) | (black.mean(axis=1) >= _LINE_SHARE)
    for index in np.flatnonzero(near & ~is_line):  # hardly ever one, so no more is asked of others
        line = part[index].astype(np.int16)
        middle = np.median(line)
        noise = _WHITE_NOISE if middle >= WHITE else _NOISE
        is_flat = (np.abs(line - middle) <= noise / 2).mean() >= _LINE_SHARE
        is_line[index] = is_flat and not BLACK < middle < WHITE
    # Lines that belong to no strip of the least thickness are of the image.
    for start, stop in _runs(is_line):
        if stop - start < GUTTER_PX:
            is_line[start:stop] = False
    return np.asarray(is_line | _is_grey_strip(part))


def _is_grey_strip(part: Grey) -> Bool[np.ndarray, " lines"]:
    """Say which rows belong to a strip of any one level that a lossy codec left a little noisy."""
    sample = part[:, ::3].astype(np.int16)
    level = np.median(sample, axis=1)
    is_flat = (np.abs(sample - level[:, None]) <= _WHITE_NOISE / 2).mean(axis=1) >= _LINE_SHARE
    for start, stop in _runs(is_flat):
        is_thin = GUTTER_PX <= stop - start <= _STRIP_PX and np.ptp(level[start:stop]) <= 4
        middle = float(np.median(level[start:stop]))
        is_flat[start:stop] = is_thin and _stands_out(part, start, stop, middle)
    return np.asarray(is_flat)


def _stands_out(part: Grey, start: int, stop: int, level: float) -> bool:
    """Say whether lines of a level end abruptly, and are more even than what is on both sides."""
    first, last = _widened(part, start, stop, level)
    if first == 0 or last == len(part):  # one at an edge may be an info bar
        return False
    away = [(np.abs(part[line] - level) > _WHITE_NOISE / 2).mean() for line in (first - 1, last)]
    if max(away) < 0.5 or min(away) < ABRUPT:
        return False
    if np.abs(part[start:stop] - level).mean(axis=1).max() > _RINGING:
        return False
    usual = min(scatter(part[max(start - _BESIDE, 0) : start]), scatter(part[stop:][:_BESIDE]))
    return scatter(part[start:stop]) <= EVEN * usual


def _widened(lines: Grey, start: int, stop: int, level: float) -> tuple[int, int]:
    """Add the lines beside a strip that a lossy codec mixed with the picture: at most half a block.

    Of these, the picture begins where the distance from the strip's level grows most.
    """
    is_constant = bool((lines[start:stop] == level).all())
    return (
        start - _mixed(lines[max(start - _MIXED_PX, 0) : start + 1][::-1], level, is_constant),
        stop + _mixed(lines[stop - 1 : stop + _MIXED_PX], level, is_constant),
    )


def _mixed(lines: Grey, level: float, is_constant: bool) -> int:
    """Count the lines after the first one that still belong to a strip.

    Beside a constant strip, which may have gone through no codec, all of their pixels are near.
    """
    distance = np.abs(lines - level)
    away = distance.mean(axis=1)
    if len(away) < 2 or (is_constant and distance[1].max() > _WHITE_NOISE / 2):
        return 0
    count = int(np.diff(away).argmax())
    is_theirs = away[: count + 1].max() <= min(away[count + 1] / 3, _NOISE)
    return count if is_theirs else 0


def _strips(lines: Grey, is_gutter: Bool[np.ndarray, " lines"]) -> Iterator[tuple[int, int]]:
    """Yield runs of gutter lines, each of one level: a black background may touch a gutter."""
    for start, stop in _runs(is_gutter):
        levels = np.median(lines[start:stop], axis=1)
        edges = np.flatnonzero(np.abs(np.diff(levels)) > _WHITE_NOISE / 2) + start + 1
        ends = [start, *edges.tolist(), stop]
        yield from pairwise(ends)


def _runs(mask: Bool[np.ndarray, " lines"]) -> list[tuple[int, int]]:
    """List the stretches of lines for which a mask is true: begin, and end left out."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(np.int8), [0]])))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))
