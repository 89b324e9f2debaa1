"""Fakes beside the reals that are nearest to them."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import UInt8
from matplotlib.figure import Figure

from semforensics.core.types import FLIPS, Flip
from semforensics.figures.grids import nearest_pairs
from semforensics.figures.style import NEUTRAL, styled

NUM_PAIRS = 12
_FORMATS = {"mse": "MSE {:.1f}", "lpips": "LPIPS {:.4f}"}
_TURNED: dict[Flip, str] = {
    "none": "",
    "left-right": ", mirrored",
    "up-down": ", upside down",
    "both": ", turned by 180°",
}

ImagesByName = dict[str, UInt8[np.ndarray, "height width"]]


def nearest_gallery(
    per_fake: pd.DataFrame, fakes: ImagesByName, reals: ImagesByName, *, by: str, source: str
) -> Figure:
    """Draw the fakes that are nearest to any real, the nearest first.

    `per_fake` has the columns `file`, `<by>_min`, `<by>_nearest`, where the distance `by` is `mse`
    or `lpips`.
    """
    nearest = per_fake.sort_values(f"{by}_min", kind="stable").head(NUM_PAIRS)
    pairs: list[tuple[str, str, Flip, str]] = [
        (row["file"], row[f"{by}_nearest"], "none", _FORMATS[by].format(row[f"{by}_min"]))
        for row in nearest.to_dict("records")
    ]
    return _draw_pairs(pairs, fakes, reals, source)


@styled
def suspicious_gallery(
    suspicious: pd.DataFrame, fakes: ImagesByName, reals: ImagesByName, *, source: str
) -> Figure:
    """Draw the first fakes that may be copies, each beside its real, turned as the fake is.

    The columns are `file`, `by`, and for both distances `<name>`, `<name>_nearest`, `<name>_flip`.
    """
    if suspicious.empty:
        figure = Figure(figsize=(7, 1.2))
        figure.text(0.5, 0.6, "No fake is suspiciously near to a real.", ha="center", size=11)
        figure.text(0.99, 0.05, source, ha="right", size=8, color=NEUTRAL)
        return figure
    pairs = []
    for row in suspicious.head(NUM_PAIRS).to_dict("records"):
        names = row["by"].split(" and ")
        distances = ", ".join(_FORMATS[name].format(row[name]) for name in names)
        pairs.append((row["file"], row[f"{names[0]}_nearest"], row[f"{names[0]}_flip"], distances))
    return _draw_pairs(pairs, fakes, reals, source)


def _draw_pairs(
    pairs: Iterable[tuple[str, str, Flip, str]],
    fakes: ImagesByName,
    reals: ImagesByName,
    source: str,
) -> Figure:
    """Draw pairs, each given by its fake, its real, the real's turn, and the distance in words."""
    turned, captions = [], []
    for fake, real, flip, distance in pairs:
        turned.append((fakes[fake], np.flip(reals[real], FLIPS[flip])))
        captions.append(f"{Path(fake).stem}, {distance}\n{Path(real).stem}{_TURNED[flip]}")
    fakes_drawn, reals_drawn = (np.stack(images) for images in zip(*turned, strict=True))
    return nearest_pairs(fakes_drawn, reals_drawn, captions, source=source)
