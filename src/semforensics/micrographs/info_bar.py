"""Find the info bar that a microscope prints below the image.

A bar is a strip across the whole width, at the bottom edge, that begins abruptly within one row,
and whose rows are mostly of one grey level, with text of another. What has only some of these
features is refused rather than guessed at: rows of a bar left in a crop would tell reals from
fakes.
"""

import numpy as np
from jaxtyping import Float, UInt8

from semforensics.core.errors import InputError

TOLERANCES = (16, 4, 0)
"""Grey levels around the background: for JPEG and noise, for slight noise, for lossless files."""
FLAT = 0.9
"""Least share of background in a row without text."""
TEXT_ROW = 0.25
"""Least share of background in a row of text."""
RISE = 0.3
"""Least step of the share of background from the image's last row to the bar's first."""
STEP = 0.15
"""Step of the share of background that image rows do not make; real micrographs: up to 0.11."""
CROWDED = 0.5
"""Share of background in an image, from which on a bar of that grey level is not distinct."""
TEXT = 0.001
"""Least share of a bar's pixels that are text."""
TEXT_CONTRAST = 48
"""Least distance of text from the background, in grey levels."""
MIN_ROWS = 8
MAX_SHARE = 0.4
"""Of a frame's rows, in a bar."""
MARGIN = 1 / 8
"""Of a bar's rows: image above or below it, inside what the instrument reserves for the bar."""
MAX_BORDER_ROWS = 4
"""Of a line drawn along the bar's upper edge."""
JPEG_BLOCK = 8

Grey = UInt8[np.ndarray, "height width"]
Shares = Float[np.ndarray, " height"]


class UnsureError(InputError):
    """The rows at the bottom are neither clearly an info bar nor clearly none."""

    def __init__(self, reason: str, row: int = 0) -> None:
        self.reason = reason
        self.row = row
        """Where the doubt begins; 0: it is about the whole frame."""
        super().__init__(
            f"unsure of the info bar: {reason}; set crop.info_bar to the number of rows to cut "
            "from the bottom, 0 for none"
        )


def find_info_bar(grey: Grey) -> int | None:
    """Find where the info bar begins.

    Args:
        grey: The whole frame.

    Returns:
        The first row of the bar; None where there is none. Where image shows below the bar, the
        instrument has drawn it into a larger area: then the first row of that area if the rest of
        the frame is 4:3. JEOL's frames are such: 1280x960 of 1280x1024, the bar begins at row 964.

    Raises:
        UnsureError: There are signs of a bar, but not all, or it is at the top edge.
    """
    top, doubts = _at_bottom(grey)
    if top is None and doubts:
        raise UnsureError(doubts[0][1], min(row for row, _ in doubts))
    if _at_bottom(grey[::-1])[0] is not None:
        raise UnsureError("there seems to be one at the top edge")
    return None if top is None else _with_margin(grey, top)


def _at_bottom(grey: Grey) -> tuple[int | None, list[tuple[int, str]]]:
    """First row of a strip at the bottom edge that is certainly a bar; from where on, why not."""
    background = _background(grey)
    loosest = _shares(grey, background, TOLERANCES[0])
    tops, doubts = [], []
    for tolerance in TOLERANCES:
        shares = _shares(grey, background, tolerance)
        top = _rise(shares)
        if top is not None:
            doubt = _doubt(grey, background, shares, loosest, top)
            if doubt is None:
                tops.append(top)
            else:
                doubts.append((top, f"grey level {background} sets in at row {top}, but {doubt}"))
        elif (step := _first_step(shares, grey.shape[1])) is not None:
            what = f"the share of grey level {background} changes abruptly at row {step}"
            doubts.append((step, what))
    exact = _shares(grey, background, 0)
    if np.median(exact[-MIN_ROWS:]) >= FLAT:
        flat = len(grey) - int(np.argmin(np.append(exact[::-1] >= FLAT, False)))
        doubts.append((flat, f"the bottom rows are of one grey level, {background}"))
    if np.median(exact[: 1 + int(len(grey) * (1 - MAX_SHARE))]) >= CROWDED:
        what = f"most of the image is of one grey level, {background}, as the bottom is"
        return None, [(0, what)]
    if tops and max(tops) - min(tops) > JPEG_BLOCK:
        return None, [(min(tops), f"it may begin at row {min(tops)} or {max(tops)}")]
    return (_with_border(grey, tops[0]) if tops else None), doubts


def _background(grey: Grey) -> int:
    """Most frequent grey level of the bottom rows."""
    rows = max(MIN_ROWS, len(grey) // 50)
    return int(np.bincount(grey[-rows:].ravel(), minlength=256).argmax())


def _shares(grey: Grey, level: int, tolerance: int) -> Shares:
    """Share of each row's pixels that are within a tolerance of a grey level."""
    low, high = max(level - tolerance, 0), min(level + tolerance, 255)
    return np.asarray(((grey >= low) & (grey <= high)).mean(axis=1))


def _rise(shares: Shares) -> int | None:
    """Uppermost row, of those that can begin a bar, where the background sets in all at once."""
    rises = (shares[1:] >= FLAT) & (np.diff(shares) >= RISE)
    rows = np.flatnonzero(rises) + 1
    rows = rows[rows >= len(shares) * (1 - MAX_SHARE)]
    return int(rows[0]) if len(rows) else None


def _first_step(shares: Shares, width: int) -> int | None:
    """Uppermost row, of those that can begin a bar, whose share differs much from the row above."""
    chance = 5 * np.sqrt(0.5 / width)  # 5 sigma of the difference of two shares of one half
    rows = np.flatnonzero(np.abs(np.diff(shares)) >= max(STEP, chance)) + 1
    rows = rows[rows >= len(shares) * (1 - MAX_SHARE)]
    return int(rows[0]) if len(rows) else None


def _doubt(grey: Grey, background: int, shares: Shares, loosest: Shares, top: int) -> str | None:
    """Say what speaks against a bar from a row on; None where nothing does."""
    bar = shares[top:]
    rows = int(np.flatnonzero(bar >= TEXT_ROW)[-1]) + 1
    step = _first_step(shares[:top], grey.shape[1])
    text = np.abs(grey[top : top + rows].astype(int) - background) >= TEXT_CONTRAST
    if rows < MIN_ROWS:
        return f"it lasts for {rows} rows, fewer than {MIN_ROWS}"
    if len(bar) - rows > rows * MARGIN:
        return f"the last {len(bar) - rows} rows are image"
    if (bar[:rows] < TEXT_ROW).any():
        return "not all rows below are mostly of it"
    if step is not None:
        return f"its share changes abruptly at row {step} too"
    if (loosest[max(0, top - JPEG_BLOCK) : top] >= FLAT).any():
        return "the rows above are flat too"
    if text.mean() < TEXT:
        return "there is no text below"
    return None


def _with_border(grey: Grey, top: int) -> int:
    """Include a line along the bar's upper edge: few rows of a grey level that sets in at once."""
    level = int(np.bincount(grey[top - 1]).argmax())
    shares = _shares(grey, level, TOLERANCES[0])
    for first in range(top - 1, max(0, top - 1 - MAX_BORDER_ROWS), -1):
        if shares[first] < FLAT:
            break
        if shares[first] - shares[first - 1] >= RISE:
            return first
    return top


def _with_margin(grey: Grey, top: int) -> int:
    """Cut at 4:3 where the bar is drawn inside a larger area that begins there."""
    height, width = grey.shape
    field = width * 3 // 4
    is_inset = _shares(grey, _background(grey), TOLERANCES[0])[-1] < TEXT_ROW
    return field if is_inset and 0 < top - field <= (height - top) * MARGIN else top
