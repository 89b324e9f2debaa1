"""Panels of one submission that show the same place, turned or mirrored, whole or in part.

Landmarks are extrema of the band-passed panel; the pattern around each, 8x8 samples over 64 px, is
compared with those of all other panels in the 8 flips and quarter turns. Landmarks that agree
on one shift propose an overlap. It is confirmed on native pixels: block by block of 64 px the high-
passed grey levels are correlated, and the median block decides. Black and white areas, such as a
label, an arrow or a scale bar, are left out, so that they neither make a finding nor hide one.

Scale is not searched: a copy that was resized is not found. Nor are places that occur twice inside
one panel.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
from jaxtyping import Float32, Int
from scipy.ndimage import gaussian_filter, maximum_filter, minimum_filter

from semforensics.screening.records import Box, Grey, GreyOfAnySize, Reuse

PanelName = tuple[str, str, str]
"""Path, location and panel name."""

MOST_PANELS = 2000
"""Of one submission that are compared; the time grows with the square of the landmarks."""
LEAST_OVERLAP_PX = 96
"""Least height and width of a shared part that is reported."""
LEAST_CORRELATION = 0.5
"""Of the median block: see benchmarks/results/screening.md for what other areas reach."""
TRANSFORMS = (
    "as it is",
    "turned by 90 degrees",
    "turned by 180 degrees",
    "turned by 270 degrees",
    "mirrored",
    "mirrored, then turned by 90 degrees",
    "mirrored, then turned by 180 degrees",
    "mirrored, then turned by 270 degrees",
)
"""What is done to the second panel, anticlockwise, until it lies on the first."""

_BINNING = 2  # landmarks are looked for at half size: four times less to filter
_REACH = 14  # of a landmark's pattern to each side, in binned pixels
_STEP = 4  # between its samples; symmetric, so that turning the samples turns the pattern
_SIDE = 2 * _REACH // _STEP + 1  # 8 samples
_APART = 7  # binned pixels between landmarks
_MOST_LANDMARKS = 500  # of a panel
_ALL_LANDMARKS = 60_000  # of a submission; panels of a larger one have fewer each
_LEAST_LIKENESS = 0.8  # of two patterns, as a correlation
_LEAST_VOTES = 3  # landmarks that agree on a shift
_NEAR = 4.0  # px within which they agree
_HYPOTHESES = 3  # of a pair, confirmed one after the other
_SEARCH = 3  # px around a proposed shift
_BLOCK = 64  # px
_SMOOTH, _BACKGROUND = 1.0, 16.0  # sigmas in px: noise below, shading above
_BLACK, _WHITE = 5, 250  # areas beyond are printed, or saturated: they say nothing
_STROKE, _MARGIN = 5, 8  # px: the least side of such an area, and what is left out around it
_LEAST_SEEN = 0.25  # of a block, beside what is printed on it
_FLAT = 1.0  # grey levels of spread below which a block says nothing


@dataclass(frozen=True)
class Landmarks:
    """Places of a panel that can be recognised, strongest first."""

    patterns: Float32[np.ndarray, "n 8 8"]
    """Of mean 0 and length 1."""
    places: Float32[np.ndarray, "n 2"]
    """Row and column, in native pixels."""


@dataclass(frozen=True)
class _Proposal:
    """The second panel, turned by `transform`, lies at `shift` (rows, columns) on the first."""

    first: int
    second: int
    transform: int
    shift: tuple[int, int]
    votes: int


@dataclass(frozen=True)
class _Detail:
    """A panel to correlate; weights are 0 where something is printed on it, else 1."""

    levels: Float32[np.ndarray, "height width"]
    weights: Float32[np.ndarray, "height width"]


def find_reuse(panels: Sequence[tuple[PanelName, GreyOfAnySize]]) -> list[Reuse]:
    """Find pairs of panels that share a part of at least 96 x 96 px.

    Args:
        panels: Name and grey levels of each. They are asked for one at a time and not kept, so a
            sequence that reads them from disk needs little memory.

    Returns:
        One entry for each pair, in the order of the panels: the overlap in which most landmarks
        agree.

    Raises:
        ValueError: There are more than `MOST_PANELS`.
    """
    n = len(panels)
    if n > MOST_PANELS:
        raise ValueError(f"{n} panels to compare; expected at most {MOST_PANELS}")
    if n < 2:
        return []
    each = min(_MOST_LANDMARKS, _ALL_LANDMARKS // n)
    landmarks, shapes = [], []
    for index in range(n):
        grey = panels[index][1]
        landmarks.append(find_landmarks(grey, each))
        shapes.append(grey.shape)
    if not any(len(one.places) for one in landmarks):
        return []
    pixels = lru_cache(maxsize=8)(lambda index: _high_passed(panels[index][1]))
    found = []
    for hypotheses in _propose(landmarks, shapes):
        for proposal in hypotheses[:_HYPOTHESES]:
            confirmed = _confirm(proposal, pixels(proposal.first), pixels(proposal.second))
            if confirmed is not None:
                overlap, correlation = confirmed
                names = panels[proposal.first][0], panels[proposal.second][0]
                name = TRANSFORMS[proposal.transform]
                found.append(Reuse(*names, name, overlap, correlation))
                break
    return found


def find_landmarks(grey: Grey, most: int) -> Landmarks:
    """Find the strongest extrema of a panel between two blurs, and the pattern around each.

    Args:
        grey: Grey levels; a panel below 70 px in either direction has no landmarks.
        most: Number to keep.
    """
    height, width = (side // _BINNING for side in grey.shape)
    if min(height, width) <= 2 * _REACH + 2:
        return Landmarks(np.empty((0, _SIDE, _SIDE), np.float32), np.empty((0, 2), np.float32))
    whole = grey[: height * _BINNING, : width * _BINNING].astype(np.float32)
    binned = whole.reshape(height, _BINNING, width, _BINNING).mean(axis=(1, 3))
    fine = gaussian_filter(binned, 1.5, mode="reflect")
    band = fine - gaussian_filter(binned, 6.0, mode="reflect")
    strength = np.abs(band)
    inner = (slice(_REACH, height - _REACH), slice(_REACH, width - _REACH))
    is_peak = strength == maximum_filter(strength, 2 * _APART + 1, mode="nearest")
    rows, columns = np.nonzero(is_peak[inner] & (strength[inner] > 0))
    rows, columns = rows + _REACH, columns + _REACH
    order = np.argsort(-strength[rows, columns], kind="stable")[:most]
    rows, columns = rows[order], columns[order]
    offsets = np.arange(-_REACH, _REACH + 1, _STEP)
    patterns = band[
        rows[:, None, None] + offsets[None, :, None], columns[:, None, None] + offsets[None, None]
    ]
    patterns = patterns - patterns.mean(axis=(1, 2), keepdims=True)
    length = np.sqrt((patterns**2).sum(axis=(1, 2), keepdims=True))
    middle = (_BINNING - 1) / 2  # of a binned pixel, in native ones
    places = np.stack([rows, columns], axis=1) * _BINNING + middle
    return Landmarks((patterns / length).astype(np.float32), places.astype(np.float32))


def turn(array: np.ndarray, transform: int) -> np.ndarray:
    """Mirror and turn the last two axes of an array, as `TRANSFORMS` says."""
    mirrored = array[..., ::-1] if transform >= 4 else array
    return np.rot90(mirrored, transform % 4, axes=(-2, -1))


def turn_places(
    places: Float32[np.ndarray, "n 2"], shape: tuple[int, int], transform: int
) -> Float32[np.ndarray, "n 2"]:
    """Give where places of an array of this shape are once it is turned."""
    height, width = shape
    rows, columns = places[:, 0], places[:, 1]
    if transform >= 4:
        columns = width - 1 - columns
    for _ in range(transform % 4):
        rows, columns = width - 1 - columns, rows
        height, width = width, height
    return np.stack([rows, columns], axis=1).astype(np.float32)


def _propose(
    landmarks: Sequence[Landmarks], shapes: Sequence[tuple[int, int]]
) -> Iterator[list[_Proposal]]:
    """Give the proposals of each pair of panels that has some, most votes first."""
    owner = np.repeat(np.arange(len(landmarks)), [len(one.places) for one in landmarks])
    patterns = np.concatenate([one.patterns for one in landmarks])
    places = np.concatenate([one.places for one in landmarks])
    ends = np.searchsorted(owner, np.arange(len(landmarks)), side="right")
    matches = []
    for transform in range(len(TRANSFORMS)):
        turned = turn(patterns, transform).reshape(len(patterns), -1)
        turned_places = np.concatenate(
            [
                turn_places(one.places, s, transform)
                for one, s in zip(landmarks, shapes, strict=True)
            ]
        )
        for i, j in _alike(patterns.reshape(len(patterns), -1), turned, owner, ends):
            shift = places[i] - turned_places[j]
            labels = np.full(len(i), transform)
            matches.append(np.column_stack([owner[i], owner[j], labels, np.rint(shift)]))
    if not matches:
        return
    table = np.concatenate(matches).astype(np.int64)
    table = table[np.lexsort(table.T[::-1])]
    for pair in _groups(table, columns=2):
        proposals = []
        for group in _groups(pair, columns=3):
            proposals += _vote(group)
        if proposals:
            yield sorted(proposals, key=lambda one: -one.votes)


def _alike(
    patterns: Float32[np.ndarray, "n samples"],
    turned: Float32[np.ndarray, "n samples"],
    owner: Int[np.ndarray, " n"],
    ends: Int[np.ndarray, " panels"],
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Give pairs of like patterns, the second one of a later panel, some at a time."""
    rows_at_once, columns_at_once = 2048, 8192  # 64 MB of products
    for top in range(0, len(patterns), rows_at_once):
        block = patterns[top : top + rows_at_once]
        for left in range(int(ends[owner[top]]), len(patterns), columns_at_once):
            likeness = block @ turned[left : left + columns_at_once].T
            i, j = np.nonzero(likeness > _LEAST_LIKENESS)
            i, j = i + top, j + left
            later = owner[j] > owner[i]
            if later.any():
                yield i[later], j[later]


def _groups(table: np.ndarray, columns: int) -> Iterator[np.ndarray]:
    """Split a sorted table into runs of equal first columns that are long enough for a vote."""
    changes = np.any(table[1:, :columns] != table[:-1, :columns], axis=1)
    bounds = np.concatenate([[0], np.nonzero(changes)[0] + 1, [len(table)]])
    for start, end in pairwise(bounds):
        if end - start >= _LEAST_VOTES:
            yield table[start:end]


def _vote(group: np.ndarray) -> list[_Proposal]:
    """Give the two shifts of a pair and transform on which most landmarks agree."""
    shifts = group[:, 3:]
    proposals = []
    for _ in range(2):
        if len(shifts) < _LEAST_VOTES:
            break
        tried = shifts[:400]  # enough to hit a shift that many share
        near = np.abs(tried[:, None] - shifts[None]).max(axis=2) <= _NEAR
        best = near[near.sum(axis=1).argmax()]
        if best.sum() < _LEAST_VOTES:
            break
        row, column = np.rint(np.median(shifts[best], axis=0)).astype(int)
        first, second, transform = (int(value) for value in group[0, :3])
        proposals.append(
            _Proposal(first, second, transform, (int(row), int(column)), int(best.sum()))
        )
        shifts = shifts[~best]
    return proposals


def _high_passed(grey: Grey) -> _Detail:
    """Take shading, the finest noise and what was printed on it from a panel."""
    printed = np.zeros(grey.shape, bool)
    for saturated in (grey < _BLACK, grey > _WHITE):  # areas of it: single pixels are noise
        area = maximum_filter(minimum_filter(saturated, _STROKE), _STROKE)
        printed |= maximum_filter(area, 2 * _MARGIN + 1)
    weights = (~printed).astype(np.float32)
    levels = grey.astype(np.float32) * weights
    fine, background = (
        gaussian_filter(levels, sigma) / np.maximum(gaussian_filter(weights, sigma), 1e-3)
        for sigma in (_SMOOTH, _BACKGROUND)
    )
    return _Detail((fine - background) * weights, weights)


def _confirm(
    proposal: _Proposal,
    first: _Detail,
    second: _Detail,
) -> tuple[Box, float] | None:
    """Correlate two panels where they should overlap; None where they do not show one place."""
    turned = _Detail(*(turn(part, proposal.transform) for part in (second.levels, second.weights)))
    shift = _refine(first, turned, proposal.shift)
    box = _overlap(first.levels.shape, turned.levels.shape, shift)
    if min(box.size_px) < LEAST_OVERLAP_PX:
        return None
    mine, other = _cut(first.levels, turned.levels, box, shift)
    my_weights, other_weights = _cut(first.weights, turned.weights, box, shift)
    blocks = _block_correlations(mine, other, my_weights * other_weights)
    if not blocks or np.median(blocks) < LEAST_CORRELATION:
        return None
    return box, round(float(np.median(blocks)), 4)


def _refine(first: _Detail, turned: _Detail, shift: tuple[int, int]) -> tuple[int, int]:
    """Give the shift nearby under which the middle of the overlap correlates best."""
    best, best_shift = -2.0, shift
    for row in range(shift[0] - _SEARCH, shift[0] + _SEARCH + 1):
        for column in range(shift[1] - _SEARCH, shift[1] + _SEARCH + 1):
            box = _overlap(first.levels.shape, turned.levels.shape, (row, column))
            if min(box.size_px) < LEAST_OVERLAP_PX:
                continue
            middle = _middle(box, 256)
            value = _correlation(*_cut(first.levels, turned.levels, middle, (row, column)))
            if value > best:
                best, best_shift = value, (row, column)
    return best_shift


def _middle(box: Box, most: int) -> Box:
    top = max(box.top, (box.top + box.bottom - most) // 2)
    left = max(box.left, (box.left + box.right - most) // 2)
    return Box(top, left, min(box.bottom, top + most), min(box.right, left + most))


def _overlap(shape: tuple[int, ...], other: tuple[int, ...], shift: tuple[int, int]) -> Box:
    """Give the part of the first panel that the second covers; empty or negative where none."""
    top, left = max(0, shift[0]), max(0, shift[1])
    return Box(top, left, min(shape[0], other[0] + shift[0]), min(shape[1], other[1] + shift[1]))


def _cut(
    first: np.ndarray, turned: np.ndarray, box: Box, shift: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    mine = first[box.top : box.bottom, box.left : box.right]
    other = turned[
        box.top - shift[0] : box.bottom - shift[0], box.left - shift[1] : box.right - shift[1]
    ]
    return mine, other


def _block_correlations(
    mine: Float32[np.ndarray, "height width"],
    other: Float32[np.ndarray, "height width"],
    weights: Float32[np.ndarray, "height width"],
) -> list[float]:
    """Correlate blocks of 64 px; those that are flat or mostly printed on are left out."""
    values = []
    for top in range(0, mine.shape[0] - _BLOCK // 2 + 1, _BLOCK):
        for left in range(0, mine.shape[1] - _BLOCK // 2 + 1, _BLOCK):
            part = (slice(top, top + _BLOCK), slice(left, left + _BLOCK))
            seen = weights[part] > 0
            if seen.mean() < _LEAST_SEEN:
                continue
            a, b = mine[part][seen], other[part][seen]
            if min(a.std(), b.std()) >= _FLAT:
                values.append(_correlation(a, b))
    return values


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a - a.mean(), b - b.mean()
    length = np.sqrt(float((a * a).sum()) * float((b * b).sum()))
    return float((a * b).sum() / length) if length > 0 else 0.0
