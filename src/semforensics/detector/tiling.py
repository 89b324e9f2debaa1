"""Large images as tiles of the size that the classifier knows, at native resolution.

Tiles lie side by side from the top-left corner, as training crops do. What they leave out, at the
right and bottom edges and around what is drawn into the image, is covered by further tiles that
overlap them: each is placed where it adds most area. All begin at even coordinates and none is
resampled. In a mean a tile counts by the area that it adds, so that no pixel counts twice.

Three rules make one logit of many. `mean`, the default: all of the area counts alike, and
independent errors average out. `median`: up to half of the area may be anything. `max`: the most
suspicious tile decides, so that a generated part is found in a real frame; the more tiles, the more
likely a false alarm.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from semforensics.core.errors import InputError

Pooling = Literal["mean", "median", "max"]
Grey = UInt8[np.ndarray, "height width"]
Mask = Bool[np.ndarray, "height width"]
Logits = Float[np.ndarray, " n"]

LEAST_NEW = 1 / 32
"""Of a tile's area, that it must add: four rows of 128 are left out rather than scored again."""
_STEPS = 16
"""Places of a tile along its side that are tried around what is drawn."""


@dataclass(frozen=True)
class Tiles:
    """Squares cut out of an image."""

    pixels: UInt8[Tensor, "n 1 size_px size_px"]
    corners: Int[np.ndarray, "n 2"]
    """Top row and left column of each; those side by side come first, row by row."""
    areas: Int[np.ndarray, " n"]
    """Pixels that each adds to those before it."""

    def __len__(self) -> int:
        return len(self.corners)

    def some(self, most: int) -> "Tiles":
        """Return at most so many of them, spread evenly."""
        count = len(self)
        if count <= most:
            return self
        chosen = np.linspace(0, count - 1, most).round().astype(int)
        return Tiles(self.pixels[chosen], self.corners[chosen], self.areas[chosen])


def cut_tiles(image: Grey, size_px: int, drawn: Mask | None = None) -> Tiles:
    """Cut an image into tiles that together cover as much of it as they can.

    Args:
        image: Native pixels.
        size_px: Side of a tile, even.
        drawn: Pixels that no tile may hold, such as text. Where they leave no room, there are no
            tiles.

    Raises:
        InputError: The side of a tile is odd, or the image is smaller than one.
    """
    height, width = image.shape
    if size_px % 2 or size_px < 2:
        raise InputError(f"tiles of {size_px} px: expected an even number")
    if min(height, width) < size_px:
        raise InputError(f"{width}x{height} px: need at least {size_px}x{size_px} px for a tile")
    corners, areas = _place(np.zeros(image.shape, bool) if drawn is None else drawn, size_px)
    parts = [image[top : top + size_px, left : left + size_px] for top, left in corners]
    pixels = np.stack(parts) if parts else np.empty((0, size_px, size_px), np.uint8)
    return Tiles(torch.from_numpy(pixels[:, None]), corners, areas)


def _place(drawn: Mask, size: int) -> tuple[Int[np.ndarray, "n 2"], Int[np.ndarray, " n"]]:
    """Choose where tiles begin; return that, and the area that each adds.

    All edges lie on a lattice, so that areas are sums over its cells: its lines are a fraction of a
    tile apart, from the top-left corner and from the last even place of a tile.
    """
    step = max(size // _STEPS // 2 * 2, 2)
    while size % step:
        step -= 2
    ys, xs = (_lattice(side, size, step) for side in drawn.shape)
    held = _cells(drawn, ys, xs)
    new = np.outer(np.diff(ys), np.diff(xs)) - held  # pixels of each cell that no tile has yet
    rows, columns = (_ends(lines, size) for lines in (ys, xs))
    free = _sums(held, rows, columns) == 0
    least = max(int(LEAST_NEW * size * size), 1)
    chosen: list[tuple[int, int, int]] = []

    def take(i: int, j: int) -> None:
        cells = new[i : rows[i], j : columns[j]]
        chosen.append((int(ys[i]), int(xs[j]), int(cells.sum())))
        cells[:] = 0

    is_first = np.outer(ys[: len(rows)] % size == 0, xs[: len(columns)] % size == 0)
    for i, j in np.argwhere(free & is_first).tolist():
        take(i, j)
    gains = np.where(free, _sums(new, rows, columns), 0)
    while gains.max(initial=0) >= least:
        i, j = divmod(int(gains.argmax()), gains.shape[1])
        take(i, j)
        # Only tiles that overlap this one gain less by it.
        near = slice(int(np.searchsorted(ys, ys[i] - size)), min(int(rows[i]), len(rows)))
        beside = slice(int(np.searchsorted(xs, xs[j] - size)), min(int(columns[j]), len(columns)))
        around = new[near.start : rows[near.stop - 1], beside.start : columns[beside.stop - 1]]
        sums = _sums(around, rows[near] - near.start, columns[beside] - beside.start)
        gains[near, beside] = np.where(free[near, beside], sums, 0)
    found = np.array(chosen, dtype=int).reshape(-1, 3)
    return found[:, :2], found[:, 2]


def _lattice(side: int, size: int, step: int) -> Int[np.ndarray, " lines"]:
    """Lines at multiples of a step, from the edge and from the last even place of a tile."""
    last = (side - size) // 2 * 2
    lines = {*range(0, side, step), *range(last % step, side, step), side}
    return np.array(sorted(lines))


def _ends(lines: Int[np.ndarray, " lines"], size: int) -> Int[np.ndarray, " places"]:
    """For each line where a tile can begin, the number of the line where it ends."""
    starts = lines[lines + size <= lines[-1]]
    return np.asarray(np.searchsorted(lines, starts + size))


def _cells(
    mask: Mask, ys: Int[np.ndarray, " rows"], xs: Int[np.ndarray, " columns"]
) -> Int[np.ndarray, "_ _"]:
    """Count the pixels of a mask in each cell of a lattice."""
    rows = np.add.reduceat(mask.astype(np.int32), ys[:-1], axis=0)
    return np.asarray(np.add.reduceat(rows, xs[:-1], axis=1))


def _sums(
    cells: Int[np.ndarray, "_ _"],
    row_ends: Int[np.ndarray, " rows"],
    column_ends: Int[np.ndarray, " columns"],
) -> Int[np.ndarray, "rows columns"]:
    """Sum the cells of every tile; the first begins at the first cell, each other one further."""
    sums = np.pad(cells.cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
    below, above = sums[row_ends], sums[: len(row_ends)]
    strips = below - above
    return np.asarray(strips[:, column_ends] - strips[:, : len(column_ends)])


def pool(logits: Logits, pooling: Pooling, weights: Float[np.ndarray, " n"] | None = None) -> float:
    """Make one logit of those of an image's tiles.

    Args:
        logits: Of the tiles.
        pooling: How.
        weights: How much each counts in a mean or a median, > 0; None: all alike.

    Raises:
        InputError: There are no tiles.
    """
    if len(logits) == 0:
        raise InputError("no tiles to pool")
    if pooling == "max":
        return float(np.max(logits))
    if weights is None or np.ptp(weights) == 0:
        return float(np.mean(logits) if pooling == "mean" else np.median(logits))
    if pooling == "mean":
        return float(np.average(logits, weights=weights))
    order = np.argsort(logits, kind="stable")
    passed = np.cumsum(weights[order])
    return float(logits[order][np.searchsorted(passed, passed[-1] / 2)])
