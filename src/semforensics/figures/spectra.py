"""The figure of radial power spectra, real beside fake."""

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from semforensics.figures.style import FAKE, NEUTRAL, REAL, add_source, styled


@styled
def power_spectra(
    frequency: Float[np.ndarray, " rings"],
    reals: Float[np.ndarray, "n_real rings"],
    fakes: Float[np.ndarray, "n_fake rings"],
    *,
    source: str,
) -> Figure:
    """Draw the median power spectra of reals and fakes, with the bands that hold 80 % of them.

    Frequencies are in cycles per pixel.
    """
    figure = Figure(figsize=(7, 4.8), layout="constrained")
    axes = figure.subplots()
    for spectra, label, colour in ((reals, "reals", REAL), (fakes, "fakes", FAKE)):
        low, median, high = np.quantile(spectra, [0.1, 0.5, 0.9], axis=0)
        axes.fill_between(frequency, low, high, color=colour, alpha=0.2, linewidth=0)
        axes.plot(frequency, median, color=colour, label=f"{label}, n = {len(spectra)}")
    axes.axvline(0.5, color=NEUTRAL, linewidth=0.8, linestyle=":")
    axes.annotate(
        "Nyquist along rows",
        (0.5, 0.98),
        xycoords=("data", "axes fraction"),
        ha="right",
        va="top",
        rotation=90,
        size=8,
        color=NEUTRAL,
    )
    axes.set(
        title="Radial power spectrum: median and 10 to 90 % of images",
        xlabel="Spatial frequency (cycles/px)",
        ylabel="Power spectral density (grey levels² px²)",
        xscale="log",
        yscale="log",
    )
    axes.set_xticks(
        [0.01, 0.02, 0.05, 0.1, 0.2, 0.5], ["0.01", "0.02", "0.05", "0.1", "0.2", "0.5"]
    )
    axes.set_xticks([], minor=True)
    axes.set_xlim(frequency[0] / 1.1, frequency[-1] * 1.1)
    axes.legend(loc="lower left")
    add_source(figure, source)
    return figure
