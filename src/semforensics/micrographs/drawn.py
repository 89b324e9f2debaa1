"""Boxes around what is drawn into a micrograph, and the pixels that they cover."""

from collections.abc import Iterable
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool

MARGIN_PX = 8
"""Pixels masked around everything drawn: JPEG spreads an edge over a block of 8."""

Mask = Bool[np.ndarray, "height width"]


class DrawnBox(NamedTuple):
    """A rectangle around something drawn, in pixels of the image, without margin.

    Bottom and right are outside.
    """

    kind: Literal["bar", "text", "line", "inset"]
    """bar: an info bar over the whole width; text: letters, arrows and the legend that holds them;
    line: a scale bar or a frame; inset: another picture, which `find_drawn` does not look for."""
    top: int
    left: int
    bottom: int
    right: int

    def moved(self, rows: int) -> "DrawnBox":
        """Return the same box so far down."""
        return self._replace(top=self.top + rows, bottom=self.bottom + rows)

    def scaled(self, factor: float) -> "DrawnBox":
        """Return the box in an image of another size."""
        return DrawnBox(self.kind, *(round(factor * side) for side in self[1:]))


def mask_of(boxes: Iterable[DrawnBox], size: tuple[int, ...], margin_px: int = MARGIN_PX) -> Mask:
    """Mask the pixels of drawn things, and a margin around all but info bars.

    Of a frame the outline is masked, not what it surrounds.
    """
    mask = np.zeros(size, dtype=bool)
    for kind, top, left, bottom, right in boxes:
        outer = 0 if kind == "bar" else margin_px
        inner = 2 * MARGIN_PX
        short, long = sorted((bottom - top, right - left))
        is_frame = kind == "line" and short >= 24 and long < 4 * short
        inside = mask[top + inner : bottom - inner, left + inner : right - inner]
        kept = inside.copy()
        mask[max(top - outer, 0) : bottom + outer, max(left - outer, 0) : right + outer] = True
        if is_frame:
            inside[:] = kept
    return mask
