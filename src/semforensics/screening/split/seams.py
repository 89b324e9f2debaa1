"""Seams: straight lines at which two pictures meet, with a thin gutter between them or none.

In a micrograph a line of pixels resembles the next one, and what changes does so along a part of
the line. Where two pictures meet, everything changes at once. A line is cut into stretches, and on
each stretch three changes are compared with those at the lines nearby: the difference of
neighbouring pixels across the boundary, the roughness along the lines, and the mean grey level. The
weighted sum of these deviations, averaged over the stretches, is the score of the boundary. A
letter or a scale bar changes a few stretches only.

Not a seam is what leaves the picture the same on both sides: a dead line, a blank scan line, a jump
of brightness (the score is taken again with these lines left out and the jump subtracted); the edge
of a thing, which is blurred over some lines; and the 8x8 grid of JPEG, which repeats.

The weights come from a logistic regression on boundaries of composites against the most suspicious
lines of real micrographs.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from jaxtyping import Bool, Float

from semforensics.screening.records import Grey

SEAM, SEAM_BRIDGED = 2.2, 1.0
"""Least scores, whole and with the lines at the seam left out, at which a picture is cut."""
GUTTER_IN_COMPOSITE = -1.0
"""The second score of a gutter in a figure that was cut before: a further one is nothing unusual,
and says more than a blank scan line in one of its panels."""
EVEN = 0.45
"""Scatter of the grey levels along a line, as a share of that nearby, up to which it is drawn."""
ALONG = 0.6
"""Least share of the stretches along a line at which it is cut: an inset has shorter sides."""
GUTTER, GUTTER_BRIDGED = 3.0, 0.4
"""The same where a gutter lies between the two pictures. Of two and more lines the second is 0: a
blank scan line is one."""
BLURRED_BRIDGED, ALONG_BLURRED = 2.0, 0.9
"""The same where resampling has blurred a seam."""
DOUBT, DOUBT_BRIDGED = 1.9, 0.3
"""From these scores on, a line may be a seam."""
END_PX = 24
"""So near to the ends of a part no seam is looked for."""
GUTTER_PX = 4
"""Boundaries so near to each other are the two sides of one gutter or of a blurred edge."""

_MOST_GUTTER_PX = 16
_BLURRED_PX = 3
_FLAT_BRIDGED = -0.5  # least score of a flat line in doubt, with the line left out
_CHANGE = 1.0  # least score of a stretch at which the picture changes
_STRETCH_PX = 24
_STRETCHES = (4, 24)  # at least and at most along a line
_NEARBY = 20  # lines on each side that a line is compared with
_CLIP = (-1.0, 4.0)  # of a stretch's deviation: none decides alone
_ROUGHNESS, _LEVEL = 0.5, 0.65  # weights beside the difference of neighbours
_FLAT_RANGE, _FLAT_SHARE = 14, 0.95  # grey levels around a gutter's median, of so many pixels
_JPEG_BLOCK = 8

Lines = Float[np.ndarray, "lines pixels"]
Stretches = Float[np.ndarray, "lines stretches"]
PerLine = Float[np.ndarray, " lines"]


@dataclass(frozen=True)
class Seam:
    """A boundary across a whole part at which one picture ends and another one begins."""

    end: int
    """First line that is not of the upper picture."""
    start: int
    """First line of the lower picture. Lines between the two are a gutter."""
    score: float
    is_certain: bool
    """If not, the line may be a seam, or a thing that happens to be straight."""


def find_seams(part: Grey, is_composite: bool = False) -> tuple[list[Seam], list[Seam]]:
    """Find the seams of a part: those between rows and those between columns, in order.

    Args:
        part: Grey levels.
        is_composite: It is a part of a figure that was cut before.
    """
    if min(part.shape) < 2 * END_PX:
        return [], []
    grey = part.astype(np.float32)
    down = np.abs(np.diff(grey, axis=0, append=grey[-1:]))
    across = np.abs(np.diff(grey, axis=1, append=grey[:, -1:]))
    return (
        _seams_of(grey, down, across, is_composite),
        _seams_of(grey.T, across.T, down.T, is_composite),
    )


def _seams_of(lines: Lines, steps: Lines, along: Lines, is_composite: bool) -> list[Seam]:
    """Find seams, given the absolute differences from line to line and along the lines."""
    profile = Profile.of(lines, steps, along)
    scores = profile.scores.mean(axis=1)
    scores[:END_PX] = scores[len(lines) - END_PX + 1 :] = 0
    seams: list[Seam] = []
    waiting = np.flatnonzero(scores >= DOUBT)
    for line in waiting[np.argsort(-scores[waiting], kind="stable")].tolist():
        if any(abs(line - seam.end) <= _NEARBY for seam in seams):
            continue
        end, start, score, bridged = profile.examine(line)
        near = profile.scores[max(line - 1, 0) : line + 2].max(axis=0)
        share = float((near >= _CHANGE).mean())
        has_gutter = _is_drawn(lines, end, start)
        certain = _is_certain(lines[end:start], has_gutter, score, bridged, share, is_composite)
        if certain or _is_likely(lines[end:start], has_gutter, score, bridged, share):
            seams.append(Seam(end, start, score, certain))
    return sorted(seams, key=lambda seam: seam.end)


@dataclass(frozen=True)
class Profile:
    """What changes from line to line, by stretches."""

    lines: Lines
    change: Stretches
    """Log of the mean difference of each line from the next one."""
    rough: Stretches
    """Log of the mean difference of neighbours along each line."""
    levels: Stretches
    breaks: PerLine
    """How abrupt the change at the boundary above each line is, over all stretches."""
    scores: Stretches
    """The same on each stretch, with the jumps of roughness and level added."""

    @classmethod
    def of(cls, lines: Lines, steps: Lines, along: Lines, most: int = _STRETCHES[1]) -> Self:
        """Measure lines, given the absolute differences from line to line and along the lines.

        Args:
            lines: Grey levels.
            steps: One row for each line; the last one is not used.
            along: Likewise.
            most: Stretches that a line is cut into.
        """
        change, rough = _log(_means(steps[:-1], most)), _log(_means(along, most))
        levels = _means(lines, most)
        breaks = np.zeros(levels.shape)
        breaks[1:] = _deviation(change, GUTTER_PX, 0.05)
        scores = breaks + _texture(rough, levels)
        return cls(lines, change, rough, levels, breaks.mean(axis=1), scores)

    def examine(self, line: int) -> tuple[int, int, float, float]:
        """Measure the seam at a line: its end and start, and its score, whole and bridged."""
        end, start = _with_gutter(self.lines, self.breaks, *_ends(self.breaks, line))
        score = float(self.scores[line].mean())
        if end == start:
            score += min(0.0, _beyond_grid(self.change, end - 1) - float(self.breaks[end]))
        return end, start, score, _bridged(self.lines, self.rough, self.levels, end, start)


def _is_certain(
    between: Lines,
    has_gutter: bool,
    score: float,
    bridged: float,
    along: float,
    is_composite: bool,
) -> bool:
    """Say whether scores, and the lines between two pictures, make a seam for certain."""
    least, least_bridged, least_along = GUTTER, SEAM_BRIDGED, ALONG
    if not len(between):
        least = SEAM
    elif has_gutter:
        least_bridged = (
            GUTTER_IN_COMPOSITE if is_composite else 0 if len(between) > 1 else GUTTER_BRIDGED
        )
    elif not _is_flat(between).all():  # a seam that resampling blurred, or the edge of a thing
        least_bridged, least_along = BLURRED_BRIDGED, ALONG_BLURRED
        if len(between) > _BLURRED_PX:
            return False
    return score >= least and bridged >= least_bridged and along >= least_along


def _is_likely(
    between: Lines, has_gutter: bool, score: float, bridged: float, along: float
) -> bool:
    """Say whether what is not certain may be a seam."""
    if not len(between):
        return score >= DOUBT and bridged >= DOUBT_BRIDGED
    if has_gutter or _is_flat(between).all():
        return bool((between == between[0, 0]).all()) or bridged >= _FLAT_BRIDGED
    return len(between) <= _BLURRED_PX and along >= ALONG_BLURRED and bridged >= SEAM_BRIDGED


def _is_drawn(lines: Lines, end: int, start: int) -> bool:
    """Say whether the lines between two pictures are flat and much more even than those nearby."""
    if end == start or not _is_flat(lines[end:start]).all():
        return False
    above, below = lines[max(end - 2 - _NEARBY, 0) : max(end - 2, 0)], lines[start + 2 :][:_NEARBY]
    return scatter(lines[end:start]) <= EVEN * scatter(np.concatenate([above, below]))


def scatter(lines: Lines | Grey) -> float:
    """Return the standard deviation of the grey levels along a line, the median of lines."""
    return float(np.median(lines.std(axis=1))) if len(lines) else 0.0


def _texture(rough: Stretches, levels: Stretches) -> Stretches:
    """Score the jumps of roughness and of grey level at the boundary above each line."""
    scores = np.zeros(levels.shape)
    n = len(levels)
    scores[4 : n - 3] = _ROUGHNESS * _deviation(_jump(rough, 4), 4, 0.05)
    scores[3 : n - 2] += _LEVEL * _deviation(np.log(_jump(levels, 3) + 1), 4, 0.3)
    return scores


def _ends(breaks: PerLine, line: int) -> tuple[int, int]:
    """Find the boundaries around a line at which neighbours differ: two, if there is a gutter."""
    first = max(line - GUTTER_PX, 1)
    near = breaks[first : line + GUTTER_PX + 1]
    sides = first + np.flatnonzero(near >= near.max() - abs(near.max()) / 2)
    return int(sides[0]), int(sides[-1])


def _with_gutter(lines: Lines, breaks: PerLine, end: int, start: int) -> tuple[int, int]:
    """Add flat lines of one level on either side: a gutter resembles one of its neighbours more.

    Longer ones are flat parts of a picture. A gutter that is not thin ends abruptly, too.
    """
    if end != start:
        return _flat_run(lines, end, start)
    reach = _MOST_GUTTER_PX + 1
    first = max(end - reach, 0)
    window = lines[first : end + reach]
    is_flat, level = _is_flat(window), np.median(window, axis=1)
    at = end - first
    low = high = at
    while low > 0 and is_flat[low - 1] and abs(level[low - 1] - level[at - 1]) <= 2:
        low -= 1
    while high < len(window) and is_flat[high] and abs(level[high] - level[at]) <= 2:
        high += 1

    def is_gutter(other: int) -> bool:
        thickness = abs(other - at)
        if thickness <= GUTTER_PX:
            return True
        line = first + other
        is_abrupt = line < len(breaks) and (
            breaks[line] >= breaks[end] / 2
            or np.abs(lines[line] - lines[line - 1]).mean() >= _FLAT_RANGE
        )
        return thickness <= _MOST_GUTTER_PX and bool(is_abrupt)

    low, high = (low if is_gutter(low) else at), (high if is_gutter(high) else at)
    if low < at < high:  # one side is a flat part of its picture
        above, below = (part.std(axis=1).mean() for part in (window[low:at], window[at:high]))
        low, high = (at, high) if below < above else (low, at)
    return first + low, first + high


def _flat_run(lines: Lines, end: int, start: int) -> tuple[int, int]:
    """Leave lines of the pictures out of a gutter, or return it as it is if it is not flat."""
    is_flat = _is_flat(lines[end:start])
    if is_flat.all() or not is_flat.any() or start - end <= 1:
        return end, start
    edges = np.flatnonzero(np.diff(np.pad(is_flat, 1).astype(np.int8))).reshape(-1, 2)
    first, last = edges[np.argmax(edges[:, 1] - edges[:, 0])]
    inner = end + int(first), end + int(last)
    return inner if _is_drawn(lines, *inner) else (end, start)


def _is_flat(lines: Lines) -> Bool[np.ndarray, " lines"]:
    middle = np.median(lines, axis=1, keepdims=True)
    near = np.abs(lines - middle) <= _FLAT_RANGE
    return np.asarray(near.mean(axis=1) >= _FLAT_SHARE)


def _beyond_grid(change: Stretches, line: int) -> float:
    """Compare a change with those one and two blocks of JPEG away, as `_deviation` does."""
    away = line + _JPEG_BLOCK * np.array([-2, -1, 1, 2])
    away = away[(away >= 0) & (away < len(change))]
    near = change[max(line - _NEARBY, 0) : line + _NEARBY]
    scatter = np.maximum(near.std(0), 0.05)
    return float(np.clip((change[line] - change[away].max(0)) / scatter, *_CLIP).mean())


def _bridged(lines: Lines, rough: Stretches, levels: Stretches, end: int, start: int) -> float:
    """Score what remains of a seam when its lines, and one more on either side, are left out."""
    least = np.inf
    for low, high in ((end - 1, start), (end, start + 1)):
        if low < 1 or high >= len(lines):
            continue
        reach = high - low + 1
        first, last = max(low - 1 - 2 * _NEARBY, 0), min(high + 2 * _NEARBY, len(lines))
        window = lines[first:last]
        steps = window[reach:] - window[:-reach]
        most = rough.shape[1]
        steps -= np.median(_means(steps, most), axis=1, keepdims=True)
        score = _deviation(_log(_means(np.abs(steps), most)), reach, 0.05)[low - 1 - first].mean()
        kept = np.r_[first:low, high:last]
        least = min(least, score + _texture(rough[kept], levels[kept])[low - first].mean())
    return float(least) if np.isfinite(least) else 0.0


def _means(pixels: Lines, most: int) -> Stretches:
    """Average the pixels of each stretch, of so many at most."""
    n = pixels.shape[1]
    count = int(np.clip(n // _STRETCH_PX, _STRETCHES[0], most))
    weights = np.zeros((n, count), np.float32)
    for index, stretch in enumerate(np.array_split(np.arange(n), count)):
        weights[stretch, index] = 1 / len(stretch)
    return np.asarray(pixels @ weights)


def _log(values: Stretches) -> Stretches:
    return np.asarray(np.log(values + 0.3))  # + 0.3: flat stretches differ by rounding alone


def _jump(values: Stretches, reach: int) -> Stretches:
    """Compare the means of so many lines above and below each boundary."""
    total = _running(values)
    inner = total[reach:-reach]
    return np.asarray(np.abs(total[2 * reach :] - 2 * inner + total[: -2 * reach]) / reach)


def _deviation(values: Stretches, gap: int, floor: float) -> Stretches:
    """Return how far each value is above those nearby, in their scatter; the lesser of two sides.

    Args:
        values: Of each line and stretch.
        gap: Lines beside it that are not compared.
        floor: Least scatter.
    """
    total, squares = _running(values), _running(np.square(values, dtype=np.float64))
    n = len(values)
    line = np.arange(n)
    least = np.full(values.shape, np.inf)
    above, below = line - gap, line + gap + 1
    for low, high in ((above - _NEARBY, above), (below, below + _NEARBY)):
        low, high = np.clip(low, 0, n), np.clip(high, 0, n)
        count = (high - low)[:, None]
        divisor = np.maximum(count, 1)
        mean = (total[high] - total[low]) / divisor
        variance = np.maximum((squares[high] - squares[low]) / divisor - mean**2, 0)
        deviation = (values - mean) / np.sqrt(variance + floor**2)
        least = np.minimum(least, np.where(count < _NEARBY // 2, np.inf, deviation))
    return np.asarray(np.clip(least, *_CLIP))


def _running(values: Stretches) -> Stretches:
    """Sum up the lines above each boundary."""
    total = np.zeros((len(values) + 1, values.shape[1]))
    np.cumsum(values, axis=0, out=total[1:], dtype=np.float64)
    return total
