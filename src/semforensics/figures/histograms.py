"""How far each image is from the nearest one of the other kind."""

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.figure import Figure

from semforensics.figures.style import FAKE, REAL, add_source, styled

_BINS = 40
_UNITS = {"mse": "MSE (grey levels squared)", "lpips": "LPIPS (no unit)"}
_DIGITS = {"mse": ".1f", "lpips": ".4f"}
_SMALLEST_SPAN = {"mse": 1.0, "lpips": 0.01}


@styled
def nearest_histograms(
    per_real: Float[np.ndarray, " n_real"],
    per_fake: Float[np.ndarray, " n_fake"],
    *,
    name: str,
    source: str,
) -> Figure:
    """Draw the histograms of the smallest distance of each real and of each fake, in the same bins.

    The distance `name` is `mse` (in grey levels squared) or `lpips`.
    """
    figure = Figure(figsize=(7, 5.6), layout="constrained")
    panels = figure.subplots(2, sharex=True)
    largest = max(per_real.max(), per_fake.max(), _SMALLEST_SPAN[name])
    digits = _DIGITS[name]
    bins = np.linspace(0, largest, _BINS + 1)
    for axes, values, kind, other, colour in (
        (panels[0], per_real, "real", "fake", REAL),
        (panels[1], per_fake, "fake", "real", FAKE),
    ):
        axes.hist(values, bins=bins, color=colour, alpha=0.75)
        axes.axvline(np.median(values), color="black", linewidth=1.2, linestyle="--")
        axes.set_title(f"Nearest {other} of each {kind}", loc="left")
        axes.set_title(
            f"n = {len(values)}   smallest {values.min():{digits}}"
            f"   median {np.median(values):{digits}}",
            loc="right",
            size=9,
            weight="normal",
        )
        axes.set_ylabel(f"{kind.capitalize()}s")
        axes.yaxis.get_major_locator().set_params(integer=True)
    panels[1].set_xlabel(f"Smallest {_UNITS[name]}; dashed: median")
    add_source(figure, source)
    return figure


@styled
def memorisation_histograms(twins: pd.DataFrame, *, source: str) -> Figure:
    """Draw how far fakes, and reals that are not their twins, are from the nearest training real.

    Fakes that lie to the left of the reals are nearer than honest images come. The columns are
    `kind`, fake or real, and the distances `mse` and `lpips`.
    """
    figure = Figure(figsize=(9, 4), layout="constrained")
    for axes, name in zip(figure.subplots(1, 2), _UNITS, strict=True):
        largest = max(twins[name].max(), _SMALLEST_SPAN[name])
        bins = np.linspace(0, largest, _BINS + 1)
        for kind, label, colour in (("real", "other reals", REAL), ("fake", "fakes", FAKE)):
            values = twins.loc[twins["kind"] == kind, name].to_numpy()
            axes.hist(
                values,
                bins=bins,
                weights=np.full(len(values), 100 / len(values)),
                color=colour,
                alpha=0.55,
                label=f"{label}, n = {len(values)}",
            )
        limit = np.quantile(twins.loc[twins["kind"] == "real", name], 0.01)
        axes.axvline(limit, color="black", linewidth=1.2, linestyle="--", label="1 % of the reals")
        axes.set_xlabel(f"Smallest {_UNITS[name]}, over flips")
        axes.set_ylabel("Share of images (%)")
        axes.set_ylim(top=1.35 * axes.get_ylim()[1])  # room for the legend above the bars
        axes.legend(loc="upper right")
    figure.suptitle("Nearest training real", x=0.02, ha="left", size=11, weight="bold")
    add_source(figure, source)
    return figure
