"""Panels of one submission that show the same place: turned, mirrored, resized, whole or in part.

OpenCV finds SIFT features (Lowe, IJCV 2004) in each panel, looks up the nearest neighbours of all,
as they are and mirrored, and fits a similarity where several of two panels agree (RANSAC). Pixels
confirm it: the second panel is laid on the first, grey levels without shading are correlated block
by block, and the median block decides. Black and white areas, such as labels and scale bars, are
left out. A lattice agrees with every view of itself, so agreement counts only where it is much
better than at other places of the first panel. Places that occur twice in one panel are not sought.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from semforensics.core.errors import InputError
from semforensics.screening.records import Box, Grey, GreyOfAnySize, PanelName, Reuse

MOST_PANELS = 2000
"""Of one submission that are compared."""
LEAST_OVERLAP_PX = 96
"""Least height and width of a shared part that is reported."""
LEAST_CORRELATION = 0.5
"""Of the median block: see benchmarks/results/screening.md for what other areas reach."""

_FEATURES, _ALL_FEATURES = 500, 160_000  # at most, of a panel and of a submission
_FEW = 100  # where a panel has fewer, straight lines count as features
_LARGE_PX = 400  # panels from this height and width on are searched at half the size
_NEIGHBOURS, _FAR = 6, 0.3  # of a feature, and the squared distance (0 ... 2) of unlike ones
_VOTES, _NEAR_PX = 3, 3.0  # features that agree on the place of the second panel, and how well
_SCALES = (0.5, 2.0)  # of a copy
_IN_VAIN = 10  # pairs of a panel whose pixels disagree, after which no more are looked at
_BLOCK, _TEMPLATE, _AROUND = 64, 128, 256  # px: of a correlation; of what is sought elsewhere
_ROUGH = 0.1  # correlation of a fit that is worth improving; chance reaches less
_OFF = 3  # px that a fit may be off
_MARGIN = 8  # px around what is printed
_MOST_PRINTED = 0.25  # of a panel, in black or in white
_FLAT = 1.0  # grey levels of spread below which a block says nothing
# A descriptor has 4 x 4 cells of 8 directions: mirroring reverses the rows and the directions.
_MIRRORED = np.arange(128).reshape(4, 4, 8)[::-1][:, :, -np.arange(8) % 8].ravel()


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
            note += f"; {self.n_unseen} pairs not looked at, {_IN_VAIN} likelier ones being none"
        return note


def find_reuse(panels: Sequence[tuple[PanelName, GreyOfAnySize]]) -> Comparison:
    """Find pairs of panels that share a part of at least 96 x 96 px, at 0.5 to 2 times its size.

    Two panels that are both listed with the same earlier one are not listed again with each other,
    so a stack of n frames of one place makes n - 1 entries.

    Args:
        panels: Name and grey levels of each. They are asked for one at a time and not kept, so a
            sequence that reads them from disk needs little memory.

    Raises:
        InputError: There are more than `MOST_PANELS`.
    """
    n = len(panels)
    if n > MOST_PANELS:
        raise InputError(f"{n} panels to compare; expected at most {MOST_PANELS}")
    if n < 2:
        return Comparison([], n)
    cv2.setNumThreads(1)  # on a busy machine threads wait for each other
    cv2.setRNGSeed(0)  # the index draws
    most = min(_FEATURES, _ALL_FEATURES // n)
    features = [find_features(panels[index][1], most) for index in range(n)]
    levels = lru_cache(maxsize=8)(lambda index: _without_shading(panels[index][1]))
    found: dict[tuple[int, int], Reuse] = {}
    listed_with: defaultdict[int, set[int]] = defaultdict(set)  # earlier panels
    in_vain: defaultdict[int, set[int]] = defaultdict(set)  # later panels
    recurring, unseen = set(), set()
    for first, second, is_mirrored, fit in _fits(features):
        pair = first, second
        if pair in found or listed_with[first] & listed_with[second]:
            continue
        if len(in_vain[first]) == _IN_VAIN:
            unseen.add(pair)
            continue
        levels_of_second = levels(second)[:, ::-1].copy() if is_mirrored else levels(second)
        overlap = _confirmed(fit, levels(first), levels_of_second)
        if overlap is None or overlap.recurs:
            in_vain[first].add(second)
            recurring |= {pair} if overlap else set()
            continue
        found[pair] = Reuse(
            panels[first][0],
            panels[second][0],
            _transform(overlap.matrix, is_mirrored),
            round(float(np.hypot(*overlap.matrix[:, 0])), 3),
            overlap.box,
            round(overlap.correlation, 4),
        )
        listed_with[second].add(first)
    reuses = [found[pair] for pair in sorted(found)]
    return Comparison(reuses, n, len(recurring - found.keys()), len(unseen - found.keys()))


@dataclass(frozen=True)
class Features:
    """SIFT features of a panel, the strongest."""

    places: np.ndarray
    """Column and row, in pixels of the panel: [n, 2]."""
    shapes: np.ndarray
    """Logarithm (base 2) of the size, and angle in degrees: [n, 2]."""
    descriptors: np.ndarray
    """Square roots of histograms of directions, of length 1: float32 [n, 128]."""
    width: int
    """Of the panel."""

    def mirrored(self) -> "Features":
        """Return those of the panel that is flipped left to right."""
        places = self.places * [-1, 1] + [self.width - 1, 0]
        shapes = self.shapes * [1, -1] + [0, 180]
        return Features(places, shapes, self.descriptors[:, _MIRRORED], self.width)


def find_features(grey: Grey, most: int) -> Features:
    """Find the strongest SIFT features of a panel, `most` at most; large ones at half the size."""
    step = 1 if min(grey.shape) < _LARGE_PX else 2
    height, width = (side // step for side in grey.shape)
    seen = ~_printed(grey)[: step * height : step, : step * width : step]
    whole = grey[: step * height, : step * width].astype(np.float32)
    levels = cv2.resize(whole, (width, height), interpolation=cv2.INTER_AREA)
    spread = levels[seen].std() if seen.any() else 0
    keypoints: Sequence[cv2.KeyPoint] = ()
    descriptors: np.ndarray = np.empty((0, 128), np.float32)
    if min(height, width) >= 16 and spread >= _FLAT:
        levels = np.clip((levels - levels[seen].mean()) * (40 / spread) + 128, 0, 255)
        for edges in (10, 1000):  # OpenCV's default, and straight lines too
            sift = cv2.SIFT.create(most, 3, 0.004, edges, enable_precise_upscale=True)
            found = sift.detectAndCompute(levels.astype(np.uint8), seen.astype(np.uint8))
            if found[1] is not None:
                keypoints, descriptors = found
            if len(keypoints) >= _FEW:
                break
    keypoints, descriptors = keypoints[:most], descriptors[:most]
    places = np.array([k.pt for k in keypoints], np.float32).reshape(-1, 2)
    shapes = [(np.log2(k.size * step), k.angle) for k in keypoints]
    return Features(
        (places + 0.5) * step - 0.5,
        np.array(shapes, np.float32).reshape(-1, 2),
        np.sqrt(descriptors / descriptors.sum(axis=1, keepdims=True)),
        grey.shape[1],
    )


def _fits(features: Sequence[Features]) -> Iterator[tuple[int, int, bool, np.ndarray]]:
    """Yield what may lay a panel on an earlier one: both, whether mirrored, and a matrix [2, 3].

    By first panel, then by the number of features that agree.
    """
    owner = np.repeat(np.arange(len(features)), [len(one.places) for one in features])
    if len(owner) <= _NEIGHBOURS:
        return
    sides = features, [one.mirrored() for one in features]
    places, shapes, descriptors = (
        [np.concatenate([getattr(one, name) for one in side]) for side in sides]
        for name in ("places", "shapes", "descriptors")
    )
    index = cv2.flann.Index(descriptors[0], {"algorithm": 1, "trees": 4})
    tables = []
    for mirrored in (0, 1):
        near, far = index.knnSearch(descriptors[mirrored], _NEIGHBOURS, params={"checks": 48})
        query, rank = np.nonzero((far < _FAR) & (owner[near] < owner[:, None]))
        match = near[query, rank]
        change = shapes[0][match] - shapes[mirrored][query]
        agreement = np.rint(change[:, 0] * 2) * 12 + np.rint(change[:, 1] / 30) % 12
        pair = (owner[match] * len(features) + owner[query]) * 2 + mirrored
        tables.append(np.column_stack([pair, agreement, match, query]).astype(np.int64))
    table = np.concatenate(tables)
    table = table[np.lexsort((table[:, 1], table[:, 0]))]
    bins, votes = np.unique(table[:, :2], axis=0, return_counts=True)
    bins, votes = bins[votes >= _VOTES], votes[votes >= _VOTES]
    order = np.lexsort((-votes, bins[:, 0] // (2 * len(features))))
    for pair in dict.fromkeys(bins[order, 0].tolist()):
        rows = table[slice(*np.searchsorted(table[:, 0], (pair, pair + 1)))]
        pair, mirrored = divmod(pair, 2)
        to, start = places[0][rows[:, 2]], places[mirrored][rows[:, 3]]
        matrix, inliers = cv2.estimateAffinePartial2D(start, to, ransacReprojThreshold=_NEAR_PX)
        if matrix is None or not _SCALES[0] <= np.hypot(*matrix[:, 0]) <= _SCALES[1]:
            continue
        if len(np.unique(start[inliers.ravel() > 0].round(), axis=0)) >= _VOTES:
            yield *divmod(pair, len(features)), bool(mirrored), matrix


@dataclass(frozen=True)
class _Overlap:
    """How a panel lies on another one, confirmed on their pixels."""

    matrix: np.ndarray
    """[2, 3]; of the second panel, flipped where it is mirrored."""
    box: Box
    correlation: float
    recurs: bool
    """It could as well lie elsewhere."""


def _confirmed(fit: np.ndarray, first: np.ndarray, other: np.ndarray) -> _Overlap | None:
    """Improve a fit by the pixels, and see whether they agree; None where they do not."""
    for matrix in _improved(fit, first, other):
        laid, box = _lay(matrix, other, first.shape)
        correlation = _agreement(first, laid, box)
        if correlation >= LEAST_CORRELATION:
            return _Overlap(matrix, box, correlation, _agrees_elsewhere(first, laid, box))
    return None


def _improved(fit: np.ndarray, first: np.ndarray, other: np.ndarray) -> Iterator[np.ndarray]:
    """Yield better fits: as an exact quarter turn where it is near one, then freely."""
    quarter = np.rint(fit[:, :2])
    if np.abs(fit[:, :2] - quarter).max() < 0.03 and abs(np.linalg.det(quarter)) == 1:
        middle = np.array(other.shape[::-1]) / 2
        shift = np.rint((fit[:, :2] - quarter) @ middle + fit[:, 2])
        matrix = np.column_stack([quarter, shift])
        laid, box = _lay(matrix, other, first.shape)
        if min(box.size_px) >= LEAST_OVERLAP_PX:
            inner = Box(box.top + _OFF, box.left + _OFF, box.bottom - _OFF, box.right - _OFF)
            likeness = cv2.matchTemplate(box.cut(first), inner.cut(laid), cv2.TM_CCOEFF_NORMED)
            matrix[:, 2] += np.array(cv2.minMaxLoc(likeness)[3]) - _OFF
            yield matrix
    if _agreement(first, *_lay(fit, other, first.shape)) < _ROUGH:
        return
    back = cv2.invertAffineTransform(fit).astype(np.float32)
    criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 20, 1e-4)
    with suppress(cv2.error):  # it does not converge
        seen = (other != 0).astype(np.uint8)
        cv2.findTransformECC(first, other, back, cv2.MOTION_AFFINE, criteria, seen, 5)
        fit = cv2.invertAffineTransform(back)
    yield fit


def _lay(matrix: np.ndarray, other: np.ndarray, shape: tuple[int, ...]) -> tuple[np.ndarray, Box]:
    """Lay a panel on one of a shape; return its levels there, and the box around it."""
    ones = np.ones(other.shape, np.uint8)
    left, top, width, height = cv2.boundingRect(cv2.warpAffine(ones, matrix, shape[::-1]))
    return cv2.warpAffine(other, matrix, shape[::-1]), Box(top, left, top + height, left + width)


def _agreement(first: np.ndarray, laid: np.ndarray, box: Box) -> float:
    """Correlate two panels in an overlap: the median of its blocks; -1 where there is none."""
    if min(box.size_px) < LEAST_OVERLAP_PX:
        return -1.0
    blocks = (_correlation(first, laid, block) for block in _squares(box, _BLOCK, _BLOCK))
    return float(np.median([value for value in blocks if value is not None] or [-1.0]))


def _squares(box: Box, side: int, step: int) -> list[Box]:
    """Cut a box into squares; at its lower and right border at least half of one."""
    return [
        Box(top, left, min(top + side, box.bottom), min(left + side, box.right))
        for top in range(box.top, box.bottom - side // 2 + 1, step)
        for left in range(box.left, box.right - side // 2 + 1, step)
    ]


def _correlation(first: np.ndarray, laid: np.ndarray, block: Box) -> float | None:
    """Correlate what is seen of both in a block; None where that is little or flat."""
    a, b = block.cut(first), block.cut(laid)
    seen = (a != 0) & (b != 0)
    if seen.mean() < 0.25:
        return None
    a, b = a[seen] - a[seen].mean(), b[seen] - b[seen].mean()
    spreads = np.sqrt([a @ a, b @ b]) / len(a) ** 0.5
    return float(a @ b / len(a) / spreads.prod()) if spreads.min() >= _FLAT else None


def _agrees_elsewhere(first: np.ndarray, laid: np.ndarray, box: Box) -> bool:
    """Say whether the best-marked part agrees nearly as well with other places around its own."""
    side, shared = min(_TEMPLATE, min(box.size_px) // 2), np.abs(first * laid)
    best = max(_squares(box, side, side // 2), key=lambda square: square.cut(shared).sum())
    top, left = max(0, best.top - _AROUND), max(0, best.left - _AROUND)
    around = Box(top, left, best.bottom + _AROUND, best.right + _AROUND)
    template = best.cut(laid) * (best.cut(first) != 0)
    likeness = cv2.matchTemplate(around.cut(first), template, cv2.TM_CCOEFF_NORMED)
    cv2.circle(likeness, (best.left - left, best.top - top), 16, (-1,), cv2.FILLED)
    here, elsewhere = _correlation(first, laid, best) or 0.0, float(likeness.max())
    return elsewhere >= LEAST_CORRELATION and 1 - here > 0.5 * (1 - elsewhere)


def _printed(grey: Grey) -> np.ndarray:
    """Mark black and white areas, and what is near them; single pixels are noise.

    Where much is dark or bright and yet varies, as after a change of tone, it is the micrograph.
    """
    stroke, near = np.ones((5, 5), np.uint8), np.ones((2 * _MARGIN + 1,) * 2, np.uint8)
    printed = np.zeros(grey.shape, dtype=bool)
    for level, area in ((0, grey < 5), (255, grey > 250)):
        core = cv2.morphologyEx(area.astype(np.uint8), cv2.MORPH_OPEN, stroke)
        around = cv2.dilate(core, near) > 0
        if around.mean() <= _MOST_PRINTED or (grey[core > 0] == level).mean() >= 0.5:
            printed |= around
    return printed


def _without_shading(grey: Grey) -> np.ndarray:
    """Return grey levels without shading and the finest noise; 0 where something is printed."""
    weights = (~_printed(grey)).astype(np.float32)
    size = tuple(-(-side // 8) for side in grey.shape[::-1])

    def shading(values: np.ndarray) -> np.ndarray:  # at an eighth of the size: 30 times as fast
        small = cv2.GaussianBlur(cv2.resize(values, size, interpolation=cv2.INTER_AREA), (0, 0), 2)
        return cv2.resize(small, grey.shape[::-1], interpolation=cv2.INTER_LINEAR)

    fine, background = (
        blur(grey * weights) / np.maximum(blur(weights), 1e-3)
        for blur in (lambda values: cv2.GaussianBlur(values, (0, 0), 1), shading)
    )
    return np.asarray((fine - background) * weights, dtype=np.float32)


def _transform(matrix: np.ndarray, is_mirrored: bool) -> str:
    """Say what is done to the second panel, anticlockwise, until it lies on the first."""
    angle = round(np.degrees(np.arctan2(-matrix[1, 0], matrix[0, 0]))) % 360
    steps = ["mirrored"] * is_mirrored + [f"turned by {angle} degrees"] * (angle != 0)
    return ", then ".join(steps) or "as it is"
