"""Panels of one submission that show the same place: turned, mirrored, resized, whole or in part.

SIFT features of all panels (Lowe, "Distinctive image features from scale-invariant keypoints",
IJCV 2004; OpenCV's) are looked up in one index of nearest neighbours, as they are and mirrored.
Where several of two panels agree on scale and angle, RANSAC fits a similarity. It is confirmed on
pixels: the second panel is laid on the first, the high-passed grey levels are correlated in
blocks of 64 px, and the median block decides. Black and white areas, such as a label, an arrow or
a scale bar, are left out, so that they neither make a finding nor hide one.

A lattice or a grating agrees with every other panel of itself, so agreement counts only where it is
much better than what the panel reaches with its own surroundings. Places that occur twice inside
one panel are not searched.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from jaxtyping import Float32

from semforensics.core.errors import InputError
from semforensics.screening.records import Box, Grey, GreyOfAnySize, Reuse

PanelName = tuple[str, str, str]
"""Path, location and panel name."""

MOST_PANELS = 2000
"""Of one submission that are compared."""
LEAST_OVERLAP_PX = 96
"""Least height and width of a shared part that is reported."""
LEAST_CORRELATION = 0.5
"""Of the median block: see benchmarks/results/screening.md for what other areas reach."""

_MOST_FEATURES, _ALL_FEATURES = 400, 250_000  # of a panel, and of a submission
_NEIGHBOURS, _CHECKS = 6, 48  # of a feature, and leaves of the index that are looked at for them
_FAR = 0.30  # squared distance of two features, 0 ... 2, above which they are not alike
_TREES = 4
_ANGLE = 30
_HYPOTHESES = 2
_ITERATIONS, _STRAIGHT = 20, 0.01
_CONTRAST, _SPREAD, _LEAST_SIDE = 0.004, 40, 16
_SCALES = (0.5, 2.0)  # that are reported
_LEAST_VOTES, _LEAST_INLIERS = 3, 4  # features that agree, coarsely and within _NEAR
_NEAR = 3.0  # px
_MOST_IN_VAIN = 10  # pairs of a panel that are looked at and show two places, most votes first
_BLOCK = 64  # px
_SMOOTH, _BACKGROUND = 1.0, 16.0  # sigmas in px: noise below, shading above
_BLACK, _WHITE = 5, 250  # areas beyond are printed, or saturated: they say nothing
_STROKE, _MARGIN = 5, 8  # px: the least side of such an area, and what is left out around it
_LEAST_SEEN = 0.25  # of a block, beside what is printed on it
_FLAT = 1.0  # grey levels of spread below which a block says nothing
_TEMPLATE, _AROUND = 128, 256  # px: most of a part that is looked for elsewhere, and how far
_ELSEWHERE = 16  # px from its own place
_UNEXPLAINED = 0.5  # of what disagrees elsewhere, that may disagree where panels show one place
# Row by row of 4 x 4 cells of 8 directions: a mirrored patch has rows and directions reversed.
_MIRRORED = np.arange(128).reshape(4, 4, 8)[::-1][:, :, -np.arange(8) % 8].ravel()


@dataclass(frozen=True)
class _Features:
    """Features of one panel, or of several one after the other."""

    places: Float32[np.ndarray, "n 2"]
    """Column and row, in native pixels."""
    log_sizes: Float32[np.ndarray, " n"]
    """Logarithms to base 2."""
    angles: Float32[np.ndarray, " n"]
    """Degrees."""
    descriptors: Float32[np.ndarray, "n 128"]
    """Of length 1."""

    def mirrored(self, width: int) -> "_Features":
        """Return those of the panel of this width when it is flipped left to right."""
        places = self.places * (-1, 1) + (width - 1, 0)
        return _Features(
            places.astype(np.float32), self.log_sizes, 180 - self.angles,
            self.descriptors[:, _MIRRORED],
        )  # fmt: skip


@dataclass(frozen=True)
class _Detail:
    """A panel to correlate; weights are 0 where something is printed on it, else 1."""

    levels: Float32[np.ndarray, "height width"]
    weights: Float32[np.ndarray, "height width"]

    def mirrored(self) -> "_Detail":
        """Return it flipped left to right."""
        return _Detail(self.levels[:, ::-1].copy(), self.weights[:, ::-1].copy())

    def laid(self, matrix: np.ndarray, shape: tuple[int, int]) -> "_Detail":
        """Return it as a similarity lays it on a panel of a shape."""
        size = shape[::-1]
        return _Detail(
            cv2.warpAffine(self.levels, matrix, size),
            (cv2.warpAffine(self.weights, matrix, size) > 0.99).astype(np.float32),
        )


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


@dataclass(frozen=True)
class _Candidate:
    """Features of two panels that agree on scale and angle."""

    first: int
    second: int
    mirrored: bool
    """The second panel, and its places, are flipped left to right."""
    places: Float32[np.ndarray, "n 2"]
    """In the first panel."""
    others: Float32[np.ndarray, "n 2"]
    """In the second one."""
    votes: int


def find_reuse(panels: Sequence[tuple[PanelName, GreyOfAnySize]]) -> Comparison:
    """Find pairs of panels that share a part of at least 96 x 96 px, at 0.5 to 2 times its size.

    Two panels that are both listed with the same earlier one are not listed again with each other,
    so a stack of n frames of one place makes n - 1 entries.

    Args:
        panels: Name and grey levels of each. They are asked for one at a time and not kept, so a
            sequence that reads them from disk needs little memory.

    Returns:
        One entry for each pair, in the order of the panels: the overlap in which most features
        agree.

    Raises:
        InputError: There are more than `MOST_PANELS`.
    """
    n = len(panels)
    if n > MOST_PANELS:
        raise InputError(f"{n} panels to compare; expected at most {MOST_PANELS}")
    if n < 2:
        return Comparison([], n)
    cv2.setNumThreads(1)  # threads of a busy machine would wait for each other
    cv2.setRNGSeed(0)  # of the index
    most = min(_MOST_FEATURES, _ALL_FEATURES // n)
    features, widths = [], []
    for index in range(n):
        grey = panels[index][1]
        features.append(find_features(grey, most))
        widths.append(grey.shape[1])
    pixels = lru_cache(maxsize=8)(lambda index: _high_passed(panels[index][1]))
    reuses: dict[tuple[int, int], Reuse] = {}
    listed_with: defaultdict[int, set[int]] = defaultdict(set)  # earlier panels
    in_vain: defaultdict[int, int] = defaultdict(int)
    n_recurring = n_unseen = 0
    for candidates in _propose(features, widths):
        first, second = candidates[0].first, candidates[0].second
        if listed_with[first] & listed_with[second]:
            continue
        if in_vain[first] == _MOST_IN_VAIN:
            n_unseen += 1
            continue
        reuse, recurs = _look_at(
            candidates, (panels[first][0], panels[second][0]), pixels(first), pixels(second)
        )
        if reuse is None:
            n_recurring += recurs
            in_vain[first] += 1
        else:
            reuses[first, second] = reuse
            listed_with[second].add(first)
    return Comparison([reuses[pair] for pair in sorted(reuses)], n, n_recurring, n_unseen)


def find_features(grey: Grey, most: int) -> _Features:
    """Find the strongest SIFT features of a panel at half its size, `most` at most."""
    height, width = (side // 2 for side in grey.shape)
    keypoints, descriptors = (), np.empty((0, 128), np.float32)
    seen = ~_printed(grey)[: 2 * height : 2, : 2 * width : 2]
    if min(height, width) >= _LEAST_SIDE and seen.any():
        even = grey[: 2 * height, : 2 * width]
        half = cv2.resize(even, (width, height), interpolation=cv2.INTER_AREA).astype(np.float32)
        spread = half[seen].std()
        if spread >= _FLAT:
            levels = (half - half[seen].mean()) * (_SPREAD / spread) + 128
            sift = cv2.SIFT_create(most, contrastThreshold=_CONTRAST, enable_precise_upscale=True)
            keypoints, descriptors = sift.detectAndCompute(
                levels.round().clip(0, 255).astype(np.uint8), seen.astype(np.uint8)
            )
    keypoints, descriptors = keypoints[:most], descriptors[:most]
    roots = np.sqrt(descriptors / descriptors.sum(axis=1, keepdims=True))
    return _Features(
        np.array([k.pt for k in keypoints], np.float32).reshape(-1, 2) * 2 + 0.5,
        np.log2(np.array([k.size for k in keypoints], np.float32)),
        np.array([k.angle for k in keypoints], np.float32),
        roots.astype(np.float32),
    )


def _propose(features: Sequence[_Features], widths: Sequence[int]) -> list[list[_Candidate]]:
    """Return the candidates of pairs of panels, most votes first: by first panel, then by votes."""
    plain = _joined(features)
    flipped = _joined([one.mirrored(width) for one, width in zip(features, widths, strict=True)])
    owner = np.repeat(np.arange(len(features)), [len(one.places) for one in features])
    if len(owner) <= _NEIGHBOURS:
        return []
    index = cv2.flann_Index(plain.descriptors, {"algorithm": 1, "trees": _TREES})
    tables = []
    for mirrored, others in enumerate((plain, flipped)):
        near, far = index.knnSearch(others.descriptors, _NEIGHBOURS, params={"checks": _CHECKS})
        query, rank = np.nonzero(far < _FAR)
        found = near[query, rank]
        # Of features f and g the first panel has f; which of the two was mirrored is all the same.
        swapped = owner[query] < owner[found]
        f, g = np.where(swapped, query, found), np.where(swapped, found, query)
        f, g = f[owner[f] != owner[g]], g[owner[f] != owner[g]]
        angles = np.rint((plain.angles[f] - others.angles[g]) / _ANGLE) % (360 // _ANGLE)
        scales = np.rint((plain.log_sizes[f] - others.log_sizes[g]) * 2)
        panels = owner[f], owner[g], np.full(len(f), mirrored)
        tables.append(np.column_stack([*panels, angles, scales, f, g]).astype(np.int64))
    table = np.unique(np.concatenate(tables), axis=0)
    bins, votes = np.unique(table[:, :5], axis=0, return_counts=True)
    bins, votes = bins[votes >= _LEAST_VOTES], votes[votes >= _LEAST_VOTES]
    pairs: defaultdict[tuple[int, int], list[_Candidate]] = defaultdict(list)
    pair_of = table[:, 0] * len(features) + table[:, 1]
    for place in np.lexsort((-votes, bins[:, 0])):
        first, second, mirrored, angle, scale = map(int, bins[place])
        if len(pairs[first, second]) == _HYPOTHESES:
            continue
        start, end = np.searchsorted(pair_of, first * len(features) + second + np.arange(2))
        rows = table[start:end]
        turn = np.abs(rows[:, 3] - angle)
        turn = np.minimum(turn, 360 // _ANGLE - turn)
        rows = rows[(rows[:, 2] == mirrored) & (turn <= 1) & (np.abs(rows[:, 4] - scale) <= 1)]
        others = (plain, flipped)[mirrored]
        pairs[first, second].append(
            _Candidate(first, second, bool(mirrored), plain.places[rows[:, 5]],
                       others.places[rows[:, 6]], int(votes[place]))
        )  # fmt: skip
    return list(pairs.values())


def _joined(parts: Sequence[_Features]) -> _Features:
    """Put the features of panels one after the other."""
    columns = zip(*((p.places, p.log_sizes, p.angles, p.descriptors) for p in parts), strict=True)
    return _Features(*map(np.concatenate, columns))


def _look_at(
    candidates: Sequence[_Candidate],
    names: tuple[PanelName, PanelName],
    first: _Detail,
    second: _Detail,
) -> tuple[Reuse | None, bool]:
    """Return the first candidate that holds, else whether one failed for recurring elsewhere."""
    recurs = False
    for candidate in candidates:
        mine = second.mirrored() if candidate.mirrored else second
        if (matrix := _similarity(candidate)) is not None:
            matrix = _refine(matrix, first, mine)
            laid = mine.laid(matrix, first.levels.shape)
            box = _overlap(matrix, first.levels.shape, second.levels.shape)
            correlation = _agreement(first, laid, box)
            if correlation < LEAST_CORRELATION:
                continue
            if _agrees_elsewhere(first, laid, box):
                recurs = True
                continue
            scale = round(float(np.hypot(*matrix[:, 0])), 3)
            name = _name(matrix, candidate.mirrored)
            return Reuse(*names, name, scale, box, round(correlation, 4)), False
    return None, recurs


def _similarity(candidate: _Candidate) -> Float32[np.ndarray, "2 3"] | None:
    """Fit what lays the second panel on the first; None where too few features agree."""
    matrix, inliers = cv2.estimateAffinePartial2D(
        candidate.others, candidate.places, ransacReprojThreshold=_NEAR, maxIters=2000
    )
    if matrix is None:
        return None
    agreeing = candidate.others[inliers.ravel() > 0].round()
    if len(np.unique(agreeing, axis=0)) < _LEAST_INLIERS:
        return None
    return matrix if _SCALES[0] <= np.hypot(*matrix[:, 0]) <= _SCALES[1] else None


def _refine(matrix: np.ndarray, first: "_Detail", second: "_Detail") -> np.ndarray:
    """Improve a fit by the pixels (enhanced correlation); a quarter turn at one size is exact."""
    criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, _ITERATIONS, 1e-4)
    start = cv2.invertAffineTransform(matrix).astype(np.float32)
    try:
        _, back = cv2.findTransformECC(
            first.levels, second.levels, start, cv2.MOTION_AFFINE, criteria,
            (second.weights * 255).astype(np.uint8), 5,
        )  # fmt: skip
    except cv2.error:  # it does not converge
        return matrix
    matrix = cv2.invertAffineTransform(back).astype(np.float64)
    whole = np.rint(matrix[:, :2])
    if np.abs(matrix[:, :2] - whole).max() < _STRAIGHT and abs(np.linalg.det(whole)) == 1:
        middle = np.array(second.levels.shape[::-1]) / 2
        shift = (matrix[:, :2] - whole) @ middle + matrix[:, 2]
        return np.column_stack([whole, np.rint(shift)])
    return matrix


def _overlap(matrix: np.ndarray, shape: tuple[int, int], other: tuple[int, int]) -> Box:
    """Return the part of the first panel around what the second covers; empty where none."""
    height, width = other
    corners = np.array([[0, 0], [width - 1, 0], [0, height - 1], [width - 1, height - 1]])
    x, y = matrix[:, :2] @ corners.T + matrix[:, 2:]
    top, left = max(0, round(y.min())), max(0, round(x.min()))
    return Box(top, left, min(shape[0], round(y.max()) + 1), min(shape[1], round(x.max()) + 1))


def _agreement(first: _Detail, laid: _Detail, box: Box) -> float:
    """Correlate two panels in an overlap: the median of blocks of 64 px; -1 where there is none.

    Blocks that are flat or mostly printed on are left out.
    """
    if min(box.size_px) < LEAST_OVERLAP_PX:
        return -1.0
    values = [_correlation(first, laid, block) for block in _squares(box, _BLOCK, _BLOCK)]
    return float(np.median([v for v in values if v is not None] or [-1.0]))


def _squares(box: Box, side: int, step: int) -> list[Box]:
    """Cut a box into squares; at its lower and right border at least half of one."""
    return [
        Box(top, left, min(top + side, box.bottom), min(left + side, box.right))
        for top in range(box.top, box.bottom - side // 2 + 1, step)
        for left in range(box.left, box.right - side // 2 + 1, step)
    ]


def _correlation(first: _Detail, laid: _Detail, block: Box) -> float | None:
    """Correlate what is seen of both in a block; None where that is little or flat."""
    seen = block.cut(first.weights) * block.cut(laid.weights) > 0
    if seen.mean() < _LEAST_SEEN:
        return None
    a, b = block.cut(first.levels)[seen], block.cut(laid.levels)[seen]
    return float(np.corrcoef(a, b)[0, 1]) if min(a.std(), b.std()) >= _FLAT else None


def _agrees_elsewhere(first: _Detail, laid: _Detail, box: Box) -> bool:
    """Say whether the first panel has the second's best-marked part at other places too."""
    side = min(_TEMPLATE, min(box.size_px) // 2)
    shared = first.levels * laid.levels
    best = max(_squares(box, side, side // 2), key=lambda one: np.abs(one.cut(shared)).sum())
    around = Box(
        max(0, best.top - _AROUND), max(0, best.left - _AROUND),
        best.bottom + _AROUND, best.right + _AROUND,
    )  # fmt: skip
    template = best.cut(laid.levels) * best.cut(first.weights)
    likeness = cv2.matchTemplate(around.cut(first.levels), template, cv2.TM_CCOEFF_NORMED)
    cv2.circle(
        likeness, (best.left - around.left, best.top - around.top), _ELSEWHERE, -1, cv2.FILLED
    )
    here, elsewhere = _correlation(first, laid, best) or 0.0, float(likeness.max())
    return elsewhere >= LEAST_CORRELATION and 1 - here > _UNEXPLAINED * (1 - elsewhere)


def _printed(grey: Grey) -> np.ndarray:
    """Mark black and white areas, and what is near them; single pixels are noise."""
    printed = np.zeros(grey.shape, np.uint8)
    for saturated in (grey < _BLACK, grey > _WHITE):
        stroke = np.ones((_STROKE, _STROKE), np.uint8)
        printed |= cv2.morphologyEx(saturated.astype(np.uint8), cv2.MORPH_OPEN, stroke)
    return cv2.dilate(printed, np.ones((2 * _MARGIN + 1, 2 * _MARGIN + 1), np.uint8)) > 0


def _high_passed(grey: Grey) -> _Detail:
    """Take shading, the finest noise and what was printed on it from a panel."""
    weights = (~_printed(grey)).astype(np.float32)
    levels = grey * weights
    fine, background = (
        cv2.GaussianBlur(levels, (0, 0), sigma)
        / np.maximum(cv2.GaussianBlur(weights, (0, 0), sigma), 1e-3)
        for sigma in (_SMOOTH, _BACKGROUND)
    )
    return _Detail((fine - background) * weights, weights)


def _name(matrix: np.ndarray, mirrored: bool) -> str:
    """Say what is done to the second panel, anticlockwise, until it lies on the first."""
    angle = round(np.degrees(np.arctan2(-matrix[1, 0], matrix[0, 0]))) % 360
    turned = f"turned by {angle} degrees" if angle else ""
    if not mirrored:
        return turned or "as it is"
    return f"mirrored, then {turned}" if turned else "mirrored"
