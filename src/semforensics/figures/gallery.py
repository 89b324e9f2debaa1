"""Fakes beside the reals that they come nearest to."""

from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import UInt8
from matplotlib.figure import Figure

from semforensics.core.flips import FLIPS
from semforensics.figures.grids import nearest_pairs
from semforensics.figures.style import NEUTRAL, styled

NUM_PAIRS = 12
NAMES = {"mse": "MSE", "lpips": "LPIPS"}
_DIGITS = {"mse": ".1f", "lpips": ".4f"}
_TURNED = {
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

    Args:
        per_fake: One row per fake: `file`, `<by>_min`, `<by>_nearest`.
        fakes: By file name.
        reals: By file name.
        by: Which distance, `mse` or `lpips`.
        source: Line that says what the figure shows.
    """
    pairs = per_fake.sort_values(f"{by}_min", kind="stable").head(NUM_PAIRS)
    captions = [
        f"{Path(fake).stem}, {_number(by, distance)}\n{Path(real).stem}"
        for fake, distance, real in zip(
            pairs["file"], pairs[f"{by}_min"], pairs[f"{by}_nearest"], strict=True
        )
    ]
    return nearest_pairs(
        np.stack([fakes[file] for file in pairs["file"]]),
        np.stack([reals[file] for file in pairs[f"{by}_nearest"]]),
        captions,
        source=source,
    )


@styled
def suspicious_gallery(
    suspicious: pd.DataFrame, fakes: ImagesByName, reals: ImagesByName, *, source: str
) -> Figure:
    """Draw the fakes that may be copies, each beside its real, which is turned as the fake is.

    Args:
        suspicious: One row per fake: `file`, `by`, and for both distances `<name>`,
            `<name>_nearest`, `<name>_flip`. The first ones are drawn.
        fakes: By file name.
        reals: By file name.
        source: Line that says what the figure shows.
    """
    if suspicious.empty:
        figure = Figure(figsize=(7, 1.2))
        figure.text(0.5, 0.6, "No fake is suspiciously near to a real.", ha="center", size=11)
        figure.text(0.99, 0.05, source, ha="right", size=8, color=NEUTRAL)
        return figure
    shown = suspicious.head(NUM_PAIRS)
    twins, captions = [], []
    for _, row in shown.iterrows():
        by = row["by"].split(" and ")[0]
        real, flip = row[f"{by}_nearest"], row[f"{by}_flip"]
        twins.append(np.flip(reals[real], FLIPS[flip]))
        numbers = ", ".join(_number(name, row[name]) for name in row["by"].split(" and "))
        captions.append(f"{Path(row['file']).stem}, {numbers}\n{Path(real).stem}{_TURNED[flip]}")
    return nearest_pairs(
        np.stack([fakes[file] for file in shown["file"]]), np.stack(twins), captions, source=source
    )


def _number(by: str, distance: float) -> str:
    return f"{NAMES[by]} {distance:{_DIGITS[by]}}"
