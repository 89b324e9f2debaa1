"""Radial power spectra: where generated images differ even when they look alike.

Durall et al., "Watch your Up-Convolution: CNN Based Generative Deep Neural Networks are Failing to
Reproduce Spectral Distributions", CVPR 2020, arXiv:2003.01826. Ours differs: a Hann window keeps
the jump between opposite edges out of the high frequencies.
"""

import numpy as np
from jaxtyping import Float, UInt8
from matplotlib.figure import Figure

from semforensics.report.style import FAKE, NEUTRAL, REAL, styled


def radial_power_spectra(
    images: UInt8[np.ndarray, "n side side"],
) -> tuple[Float[np.ndarray, " rings"], Float[np.ndarray, "n rings"]]:
    """Average the power of each image over all directions.

    Args:
        images: Grey levels of square images.

    Returns:
        The frequencies of rings one line of the spectrum wide, in cycles per pixel, from 1/side to
        0.7, short of the corner, where a ring is one point; and the power spectral density of each
        image in each ring, in grey levels squared times pixels squared. That of white noise is its
        variance at all frequencies.
    """
    side = images.shape[-1]
    window = np.outer(*2 * [np.hanning(side + 1)[:-1]])
    along = np.fft.fftfreq(side)
    ring = np.rint(np.hypot(along[:, None], along) * side).astype(int).ravel()
    counts = np.bincount(ring)
    rings = slice(1, int(0.7 * side) + 1)  # ring 0 is the mean, which is taken out
    spectra = np.empty((len(images), len(counts)))
    for spectrum, image in zip(spectra, images, strict=True):
        levels = (image - image.mean()) * window
        power = np.abs(np.fft.fft2(levels)) ** 2 / (window**2).sum()
        spectrum[:] = np.bincount(ring, power.ravel()) / counts
    return np.arange(len(counts))[rings] / side, spectra[:, rings]


@styled
def power_spectra(
    frequency: Float[np.ndarray, " rings"],
    reals: Float[np.ndarray, "n_real rings"],
    fakes: Float[np.ndarray, "n_fake rings"],
    *,
    source: str,
) -> Figure:
    """Draw the median spectra of reals and fakes, with the band that holds 80 % of the images.

    Args:
        frequency: In cycles per pixel.
        reals: Power spectral densities.
        fakes: Power spectral densities.
        source: Line that says what the figure shows.
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
    figure.supxlabel(source, x=0.99, ha="right", size=8, color=NEUTRAL)
    return figure
