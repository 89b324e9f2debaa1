"""Insets: smaller pictures laid over a micrograph, with a drawn frame around them or none.

At each side of an inset everything changes at once, as at a seam (`seams`), but along a part of the
line only. Edges are searched in both directions; four of them that enclose a rectangle, or fewer
where it touches the ends of the part, make an inset. A frame drawn around a detail is none: the
picture inside of it resembles the one outside.
"""

from dataclasses import dataclass
from itertools import combinations, product

import numpy as np
from scipy.ndimage import uniform_filter1d

from semforensics.screening.records import Box, Grey
from semforensics.screening.split.seams import Lines, Profile

LEAST_PX = 96
"""Least side of an inset."""
MOST = 0.8
"""Largest share of the part's height and width."""
SIDE, SIDE_BRIDGED = 2.5, 0.7
"""Least score of the sides, whole and with the lines at them left out, on average."""
ALONG = 0.85
"""Least share of each side's stretches at which the picture changes: things have a ragged edge."""
FLAT = 0.5
"""Share of one grey level from which on a rectangle is a legend."""

_STRETCHES = 80
_EDGE = 2.0  # least score of a stretch of an edge, averaged with its neighbours
_CHANGE = 1.5  # the same where the sides are examined
_STRETCHES_OF_EDGE = 3
_EDGES = 10  # of each direction
_BESIDE = 60  # lines around a side that are looked at again


@dataclass(frozen=True)
class _Edge:
    line: int
    first: int
    last: int
    """Pixels along the line, the last one left out."""
    score: float


def find_insets(part: Grey) -> list[tuple[Box, Box]]:
    """Find the insets of a part that no seam divides.

    Returns:
        The box of each inset's pixels, and the same with its frame.
    """
    if min(part.shape) < 2 * LEAST_PX:
        return []
    grey = part.astype(np.float32)
    rows, columns = _edges(grey), _edges(np.ascontiguousarray(grey.T))
    found: list[tuple[float, Box, Box]] = []
    for (top, bottom), (left, right) in product(_pairs(rows), _pairs(columns)):
        box = Box(top, left, bottom, right)
        if _may_be_inset(box, part.shape, rows, columns):
            inset = _examined(grey, box)
            if inset is not None:
                found.append(inset)
    kept: list[tuple[Box, Box]] = []
    for _, inside, outside in sorted(found, key=lambda one: -one[0]):
        if not any(_overlap(outside, other) for _, other in kept):
            level = np.bincount(inside.cut(part).ravel()).max()
            if level < FLAT * inside.cut(part).size:
                kept.append((inside, outside))
    return kept


def _edges(lines: Lines) -> list[_Edge]:
    """Find lines at which the picture changes along a part of the line, and the ends of the part.

    The ends have no score.
    """
    n, width = lines.shape
    steps = np.abs(np.diff(lines, axis=0, append=lines[-1:]))
    along = np.abs(np.diff(lines, axis=1, append=lines[:, -1:]))
    scores = uniform_filter1d(Profile.of(lines, steps, along, _STRETCHES).scores, 3, axis=1)
    stretch = width / scores.shape[1]
    found = []
    for line in np.flatnonzero((scores >= _EDGE).sum(axis=1) >= _STRETCHES_OF_EDGE).tolist():
        is_edge = np.concatenate([[False], scores[line] >= _EDGE, [False]])
        ends = np.flatnonzero(np.diff(is_edge.astype(np.int8)))
        for first, last in zip(ends[::2], ends[1::2], strict=True):
            if last - first >= _STRETCHES_OF_EDGE:
                score = float(scores[line, first:last].sum())
                found.append(_Edge(line, int(first * stretch), int(last * stretch), score))
    kept: list[_Edge] = []
    for edge in sorted(found, key=lambda one: -one.score):
        is_new = all(
            abs(edge.line - k.line) > 8 or edge.first >= k.last or k.first >= edge.last
            for k in kept
        )
        if is_new and len(kept) < _EDGES:
            kept.append(edge)
    return [*kept, _Edge(0, 0, width, 0.0), _Edge(n, 0, width, 0.0)]


def _pairs(edges: list[_Edge]) -> list[tuple[int, int]]:
    """List the pairs of lines that may be two sides of an inset."""
    lines = sorted({edge.line for edge in edges})
    return [(a, b) for a, b in combinations(lines, 2) if LEAST_PX <= b - a <= MOST * lines[-1]]


def _may_be_inset(box: Box, size: tuple[int, int], rows: list[_Edge], columns: list[_Edge]) -> bool:
    """Say whether edges lie along all sides of a box, and two at least are not of the part."""
    own = 0
    for edges, line, first, last, end in (
        (rows, box.top, box.left, box.right, size[0]),
        (rows, box.bottom, box.left, box.right, size[0]),
        (columns, box.left, box.top, box.bottom, size[1]),
        (columns, box.right, box.top, box.bottom, size[1]),
    ):
        if line in (0, end):
            continue
        own += 1
        covered = sum(
            max(min(e.last, last) - max(e.first, first), 0)
            for e in edges
            if abs(e.line - line) <= 8
        )
        if covered < 0.6 * (last - first):
            return False
    return own >= 2


def _examined(grey: Lines, box: Box) -> tuple[float, Box, Box] | None:
    """Measure the sides of an inset; return its score, its box, and that with its frame."""
    inside, outside, scores = list(_sides(box)), list(_sides(box)), []
    for index, (line, first, last) in enumerate(
        (
            (box.top, box.left, box.right),
            (box.left, box.top, box.bottom),
            (box.bottom, box.left, box.right),
            (box.right, box.top, box.bottom),
        )
    ):
        lines = grey if index % 2 == 0 else grey.T
        if line in (0, len(lines)):
            continue
        low, high = max(line - _BESIDE, 0), min(line + _BESIDE, len(lines))
        window = np.ascontiguousarray(lines[low:high, first:last])
        steps = np.abs(np.diff(window, axis=0, append=window[-1:]))
        along = np.abs(np.diff(window, axis=1, append=window[:, -1:]))
        profile = Profile.of(window, steps, along)
        end, start, score, bridged = profile.examine(line - low)
        changes = profile.scores[line - low - 1 : line - low + 2].max(axis=0) >= _CHANGE
        if changes.mean() < ALONG:
            return None
        scores.append((score, bridged))
        near, far = (low + start, low + end) if index < 2 else (low + end, low + start)
        inside[index], outside[index] = near, far
    mean = np.mean(scores, axis=0)
    if mean[0] < SIDE or mean[1] < SIDE_BRIDGED:
        return None
    return float(mean.sum()) * len(scores), Box(*inside), Box(*outside)


def _sides(box: Box) -> tuple[int, int, int, int]:
    return box.top, box.left, box.bottom, box.right


def _overlap(one: Box, other: Box) -> bool:
    return (
        one.top < other.bottom
        and other.top < one.bottom
        and one.left < other.right
        and other.left < one.right
    )
