"""Find the info bar that a microscope prints below the image."""

import numpy as np
from jaxtyping import UInt8


class UnsureError(ValueError):
    """The rows at the bottom are neither clearly an info bar nor clearly none."""


def find_info_bar(grey: UInt8[np.ndarray, "height width"]) -> int | None:
    """First row of the bar."""
    flat = (grey == 0).mean(axis=1) > 0.5
    rows = np.flatnonzero(~flat)
    top = int(rows[-1]) + 1 if len(rows) else 0
    return None if top == len(grey) else top
