"""Panels of one submission that show the same place, turned or mirrored, whole or in part.

Landmarks are extrema of the band-passed panel; the pattern around each, 8x8 samples over 64 px, is
compared with those of all other panels in the 8 flips and quarter turns. Landmarks that agree
on one shift propose an overlap. It is confirmed on native pixels: block by block of 64 px the high-
passed grey levels are correlated, and the median block decides. Black and white areas, such as a
label, an arrow or a scale bar, are left out, so that they neither make a finding nor hide one.

A lattice or a grating agrees with every other panel of itself, so agreement counts only where it is
much better than what the panel reaches with its own surroundings; and of landmarks that recur in
their own panel only a few are compared, which bounds time and memory.

Scale is not searched: a copy that was resized is not found. Nor are places that occur twice inside
one panel.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
from jaxtyping import Float32, Int
from scipy.ndimage import gaussian_filter, maximum_filter, minimum_filter
from scipy.signal import fftconvolve
from scipy.spatial import KDTree

from semforensics.core.errors import InputError
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
_RECURS = 4  # likenesses in its own panel above which a landmark says little: few outside lattices
_MOST_RECURRING = 32  # of such landmarks of a panel, so that whole copies of a lattice are found
_LEAST_VOTES = 3  # landmarks that agree on a shift
_NEAR = 4.0  # px within which they agree
_MOST_VOTING, _MOST_TRIED = 4000, 400  # shifts of a pair and transform
_HYPOTHESES = 3  # of a pair, confirmed one after the other
_MOST_IN_VAIN = 10  # pairs of a panel that are looked at and show two places, most votes first
_SEARCH = 3  # px around a proposed shift
_MIDDLE = 256  # px of an overlap that are looked at while searching
_BLOCK = 64  # px
_SMOOTH, _BACKGROUND = 1.0, 16.0  # sigmas in px: noise below, shading above
_BLACK, _WHITE = 5, 250  # areas beyond are printed, or saturated: they say nothing
_STROKE, _MARGIN = 5, 8  # px: the least side of such an area, and what is left out around it
_LEAST_SEEN = 0.25  # of a block, beside what is printed on it
_TEMPLATE, _AROUND = 128, 256  # px: most of a part that is looked for elsewhere, and how far
_ELSEWHERE = 16  # px from its own place
_UNEXPLAINED = 0.5  # of what disagrees elsewhere, that may disagree where panels show one place
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


@dataclass(frozen=True)
class Comparison:
    """What a comparison of all panels with each other found, and what it left out."""

    reuses: list[Reuse]
    n_panels: int
    n_recurring: int = 0
    """Pairs left out since their panels agree as well at other places, as lattices do."""
    n_unseen: int = 0
    """Pairs left out since likelier ones of the same panel had shown different places."""

    def note(self) -> str:
        """Say it for the report."""
        note = f"{self.n_panels} panels compared"
        if self.n_recurring:
            note += f"; {self.n_recurring} pairs of a recurring structure not told apart"
        if self.n_unseen:
            note += (
                f"; {self.n_unseen} pairs not looked at, {_MOST_IN_VAIN} likelier ones being none"
            )
        return note


def find_reuse(panels: Sequence[tuple[PanelName, GreyOfAnySize]]) -> Comparison:
    """Find pairs of panels that share a part of at least 96 x 96 px.

    Two panels that are both listed with the same earlier one are not listed again with each other,
    so a stack of n frames of one place makes n - 1 entries.

    Args:
        panels: Name and grey levels of each. They are asked for one at a time and not kept, so a
            sequence that reads them from disk needs little memory.

    Returns:
        One entry for each pair, in the order of the panels: the overlap in which most landmarks
        agree.

    Raises:
        InputError: There are more than `MOST_PANELS`.
    """
    n = len(panels)
    if n > MOST_PANELS:
        raise InputError(f"{n} panels to compare; expected at most {MOST_PANELS}")
    if n < 2:
        return Comparison([], n)
    landmarks, shapes = [], []
    for index in range(n):
        grey = panels[index][1]
        landmarks.append(find_landmarks(grey, min(_MOST_LANDMARKS, _ALL_LANDMARKS // n)))
        shapes.append(grey.shape)
    pixels = lru_cache(maxsize=8)(lambda index: _high_passed(panels[index][1]))
    reuses: list[Reuse] = []
    listed_with: defaultdict[int, set[int]] = defaultdict(set)  # earlier panels
    n_recurring = n_unseen = 0
    for first, pairs in enumerate(_propose(landmarks, shapes)):
        found: dict[int, Reuse] = {}
        in_vain = 0
        for hypotheses in sorted(pairs, key=lambda pair: -pair[0].votes):
            second = hypotheses[0].second
            if listed_with[first] & listed_with[second]:
                continue
            if in_vain == _MOST_IN_VAIN:
                n_unseen += 1
                continue
            reuse, recurs = _look_at(
                hypotheses[:_HYPOTHESES], panels, pixels(first), pixels(second)
            )
            if reuse is not None:
                found[second] = reuse
                listed_with[second].add(first)
            else:
                n_recurring += recurs
                in_vain += 1
        reuses += [found[second] for second in sorted(found)]
    return Comparison(reuses, n, n_recurring, n_unseen)


def _look_at(
    hypotheses: Sequence[_Proposal],
    panels: Sequence[tuple[PanelName, GreyOfAnySize]],
    first: _Detail,
    second: _Detail,
) -> tuple[Reuse | None, bool]:
    """Return the first hypothesis that holds, else whether one failed for recurring elsewhere."""
    recurs = False
    for proposal in hypotheses:
        turned, shift, box, correlation = _lay(proposal, first, second)
        if correlation < LEAST_CORRELATION:
            continue
        if _agrees_elsewhere(first.levels, turned.levels, box, shift):
            recurs = True
            continue
        names = panels[proposal.first][0], panels[proposal.second][0]
        return Reuse(*names, TRANSFORMS[proposal.transform], box, round(correlation, 4)), False
    return None, recurs


def find_landmarks(grey: Grey, most: int) -> Landmarks:
    """Find the strongest extrema of a panel between two blurs, and the pattern around each.

    Args:
        grey: Grey levels; a panel below 70 px in either direction has no landmarks.
        most: Number to keep; of those that recur in the panel no more than 32 are.
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
    patterns = (patterns / length).astype(np.float32)
    middle = (_BINNING - 1) / 2  # of a binned pixel, in native ones
    places = np.stack([rows, columns], axis=1) * _BINNING + middle
    flat = patterns.reshape(-1, _SIDE**2)
    recurs = (flat @ flat.T > _LEAST_LIKENESS).sum(axis=1) - 1 > _RECURS
    kept = ~recurs | (np.cumsum(recurs) <= _MOST_RECURRING)
    return Landmarks(patterns[kept], places[kept].astype(np.float32))


def turn(array: np.ndarray, transform: int) -> np.ndarray:
    """Mirror and turn the last two axes of an array, as `TRANSFORMS` says."""
    mirrored = array[..., ::-1] if transform >= 4 else array
    return np.rot90(mirrored, transform % 4, axes=(-2, -1))


def turn_places(
    places: Float32[np.ndarray, "n 2"], shape: tuple[int, int], transform: int
) -> Float32[np.ndarray, "n 2"]:
    """Return where places of an array of this shape are once it is turned."""
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
) -> Iterator[list[list[_Proposal]]]:
    """Return for each panel its pairs with later ones: the proposals of each, most votes first."""
    patterns = np.concatenate([one.patterns.reshape(-1, _SIDE**2) for one in landmarks])
    counts = [len(one.places) for one in landmarks]
    owner = np.repeat(np.arange(len(landmarks)), counts)
    turned_places = np.stack(
        [
            np.concatenate(
                [turn_places(one.places, s, t) for one, s in zip(landmarks, shapes, strict=True)]
            )
            for t in range(len(TRANSFORMS))
        ]
    )
    ends = np.cumsum(counts)
    for first, mine in enumerate(landmarks):
        pairs = []
        for part in _whole_panels(ends, first + 1):
            matches = []
            for transform in range(len(TRANSFORMS)):
                # Turning mine back is the same as turning all the others.
                back = turn(mine.patterns, _undone_by(transform)).reshape(-1, _SIDE**2)
                i, j = np.nonzero(back @ patterns[part].T > _LEAST_LIKENESS)
                j += part.start
                shift = np.rint(mine.places[i] - turned_places[transform, j])
                matches.append(np.column_stack([owner[j], np.full(len(i), transform), shift]))
            table = np.concatenate(matches).astype(np.int64)
            table = table[np.lexsort(table.T[::-1])]
            for pair in _groups(table, columns=1):
                proposals = [p for group in _groups(pair, columns=2) for p in _vote(first, group)]
                if proposals:
                    pairs.append(sorted(proposals, key=lambda one: -one.votes))
        yield pairs


def _whole_panels(ends: Int[np.ndarray, " panels"], start: int) -> Iterator[slice]:
    """Cut the landmarks from a panel on into parts of whole panels, each of about 8192."""
    begin = int(ends[start - 1])
    while begin < ends[-1]:
        last = max(
            np.searchsorted(ends, begin + 8192, "right") - 1, np.searchsorted(ends, begin, "right")
        )
        yield slice(begin, int(ends[last]))
        begin = int(ends[last])


def _thinned(rows: np.ndarray, most: int) -> np.ndarray:
    """Take rows at equal distances: of sorted shifts one that many share is hit all the same."""
    return rows[:: -(-len(rows) // most)]


def _undone_by(transform: int) -> int:
    """Return the transform that undoes one; mirroring ones undo themselves."""
    return transform if transform >= 4 else -transform % 4


def _groups(table: np.ndarray, columns: int) -> Iterator[np.ndarray]:
    """Split a sorted table into runs of equal first columns that are long enough for a vote."""
    changes = np.any(table[1:, :columns] != table[:-1, :columns], axis=1)
    bounds = np.concatenate([[0], np.nonzero(changes)[0] + 1, [len(table)]])
    for start, end in pairwise(bounds):
        if end - start >= _LEAST_VOTES:
            yield table[start:end]


def _vote(first: int, group: np.ndarray) -> list[_Proposal]:
    """Return the two shifts of a pair and transform on which most landmarks agree."""
    second, transform = (int(value) for value in group[0, :2])
    shifts = _thinned(group[:, 2:], _MOST_VOTING)
    proposals = []
    for _ in range(2):
        if len(shifts) < _LEAST_VOTES:
            break
        tried = _thinned(shifts, _MOST_TRIED)
        counts = KDTree(shifts).query_ball_point(tried, _NEAR, p=np.inf, return_length=True)
        votes = int(counts.max())
        if votes < _LEAST_VOTES:
            break
        near = np.abs(shifts - tried[counts.argmax()]).max(axis=1) <= _NEAR
        row, column = np.rint(np.median(shifts[near], axis=0)).astype(int)
        proposals.append(_Proposal(first, second, transform, (int(row), int(column)), votes))
        shifts = shifts[~near]
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


def _lay(
    proposal: _Proposal, first: _Detail, second: _Detail
) -> tuple[_Detail, tuple[int, int], Box, float]:
    """Lay the second panel on the first: it turned, its shift, the overlap, the correlation."""
    transform = proposal.transform
    turned = _Detail(turn(second.levels, transform), turn(second.weights, transform))
    shift = _refine(first, turned, proposal.shift)
    box = _overlap(first, turned, shift)
    return turned, shift, box, _agreement(first, turned, box, shift)


def _agreement(first: _Detail, turned: _Detail, box: Box, shift: tuple[int, int]) -> float:
    """Correlate two panels in an overlap: the median of blocks of 64 px; -1 where there is none.

    Blocks that are flat or mostly printed on are left out.
    """
    if min(box.size_px) < LEAST_OVERLAP_PX:
        return -1.0
    under = box.moved(-shift[0], -shift[1])
    mine, other = box.cut(first.levels), under.cut(turned.levels)
    seen = box.cut(first.weights) * under.cut(turned.weights) > 0
    values = []
    for top in range(0, mine.shape[0] - _BLOCK // 2 + 1, _BLOCK):
        for left in range(0, mine.shape[1] - _BLOCK // 2 + 1, _BLOCK):
            block = Box(top, left, top + _BLOCK, left + _BLOCK)
            pixels = block.cut(seen)
            if pixels.mean() < _LEAST_SEEN:
                continue
            a, b = block.cut(mine)[pixels], block.cut(other)[pixels]
            if min(a.std(), b.std()) >= _FLAT:
                values.append(_correlation(a, b))
    return float(np.median(values)) if values else -1.0


def _agrees_elsewhere(
    first: Float32[np.ndarray, "height width"],
    turned: Float32[np.ndarray, "other_height other_width"],
    box: Box,
    shift: tuple[int, int],
) -> bool:
    """Say whether the first panel has the second's best-marked part at other places too."""
    side = min(_TEMPLATE, min(box.size_px) // 2)
    back = -shift[0], -shift[1]
    squares = [
        Box(top, left, top + side, left + side)
        for top in range(box.top, box.bottom - side + 1, side // 2)
        for left in range(box.left, box.right - side + 1, side // 2)
    ]

    def detail(square: Box) -> float:
        parts = square.cut(first), square.moved(*back).cut(turned)
        return min(float((part**2).sum()) for part in parts)

    best = max(squares, key=detail)
    around = Box(
        max(0, best.top - _AROUND), max(0, best.left - _AROUND),
        best.bottom + _AROUND, best.right + _AROUND,
    )  # fmt: skip
    likeness = _slide(best.moved(*back).cut(turned), around.cut(first))
    row, column = best.top - around.top, best.left - around.left
    here = float(likeness[row, column])
    reach = _ELSEWHERE
    likeness[
        max(0, row - reach) : row + reach + 1, max(0, column - reach) : column + reach + 1
    ] = -1
    elsewhere = float(likeness.max())
    return elsewhere >= LEAST_CORRELATION and 1 - here > _UNEXPLAINED * (1 - elsewhere)


def _square_sums(values: np.ndarray, side: int) -> np.ndarray:
    """Sum every square of an area, by its upper left corner."""
    sums = np.pad(values, ((1, 0), (1, 0))).cumsum(axis=0, dtype=np.float64).cumsum(axis=1)
    rows = sums[side:] - sums[:-side]
    return np.asarray(rows[:, side:] - rows[:, :-side])


def _slide(
    template: Float32[np.ndarray, "side side"], around: Float32[np.ndarray, "height width"]
) -> Float32[np.ndarray, "rows columns"]:
    """Correlate a square with every square of an area, by its upper left corner."""
    template = template - template.mean()
    sums, squares = (_square_sums(values, len(template)) for values in (around, around**2))
    spread = np.maximum(squares - sums**2 / template.size, _FLAT * template.size)
    product = fftconvolve(around, template[::-1, ::-1], mode="valid")
    return np.asarray(product / np.sqrt(spread * max(float((template**2).sum()), 1e-6)))


def _refine(first: _Detail, turned: _Detail, shift: tuple[int, int]) -> tuple[int, int]:
    """Return the shift nearby under which the middle of the overlap correlates best."""
    best, best_shift = -2.0, shift
    for row in range(shift[0] - _SEARCH, shift[0] + _SEARCH + 1):
        for column in range(shift[1] - _SEARCH, shift[1] + _SEARCH + 1):
            box = _overlap(first, turned, (row, column))
            if min(box.size_px) < LEAST_OVERLAP_PX:
                continue
            top = max(box.top, (box.top + box.bottom - _MIDDLE) // 2)
            left = max(box.left, (box.left + box.right - _MIDDLE) // 2)
            middle = Box(top, left, min(box.bottom, top + _MIDDLE), min(box.right, left + _MIDDLE))
            other = middle.moved(-row, -column)
            value = _correlation(middle.cut(first.levels), other.cut(turned.levels))
            if value > best:
                best, best_shift = value, (row, column)
    return best_shift


def _overlap(first: _Detail, turned: _Detail, shift: tuple[int, int]) -> Box:
    """Return the part of the first panel that the second covers; empty or negative where none."""
    (height, width), (rows, columns) = first.levels.shape, turned.levels.shape
    top, left = max(0, shift[0]), max(0, shift[1])
    return Box(top, left, min(height, rows + shift[0]), min(width, columns + shift[1]))


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a - a.mean(), b - b.mean()
    length = np.sqrt(float((a * a).sum()) * float((b * b).sum()))
    return float((a * b).sum() / length) if length > 0 else 0.0
