"""How far each image is from the nearest one of the other kind."""

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from semforensics.report.style import FAKE, NEUTRAL, REAL, styled

_BINS = 40


@styled
def nearest_histograms(
    per_real: Float[np.ndarray, " n_real"],
    per_fake: Float[np.ndarray, " n_fake"],
    *,
    source: str,
) -> Figure:
    """Draw the histograms of the smallest MSE of each real and of each fake, in the same bins.

    Args:
        per_real: Smallest MSE of each real over all fakes, in grey levels squared.
        per_fake: Smallest MSE of each fake over all reals, in grey levels squared.
        source: Line that says what the figure shows.
    """
    figure = Figure(figsize=(7, 5.6), layout="constrained")
    panels = figure.subplots(2, sharex=True)
    largest = max(per_real.max(), per_fake.max(), 1)
    bins = np.linspace(0, largest, _BINS + 1)
    for axes, values, kind, other, colour in (
        (panels[0], per_real, "real", "fake", REAL),
        (panels[1], per_fake, "fake", "real", FAKE),
    ):
        axes.hist(values, bins=bins, color=colour, alpha=0.75)
        axes.axvline(np.median(values), color="black", linewidth=1.2, linestyle="--")
        axes.set_title(f"Nearest {other} of each {kind}", loc="left")
        axes.set_title(
            f"n = {len(values)}   smallest {values.min():.1f}   median {np.median(values):.1f}",
            loc="right",
            size=9,
            weight="normal",
        )
        axes.set_ylabel(f"{kind.capitalize()}s")
        axes.yaxis.get_major_locator().set_params(integer=True)
    panels[1].set_xlabel("Smallest MSE (grey levels squared); dashed: median")
    figure.supxlabel(source, x=0.99, ha="right", size=8, color=NEUTRAL)
    return figure
