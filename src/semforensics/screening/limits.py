"""Signs that a panel's pixels are not the instrument's own.

The trace that the detector looks for does not survive JPEG or resampling: after them most generated
images score like reals (docs/results/detector.md). So "consistent with a real micrograph" is said
only where nothing speaks for either. The container may say so, or the pixels: differences that jump
every eight pixels, or high frequencies weaker than in any training real.
"""

import numpy as np
from jaxtyping import Float

from semforensics.distances.spectra import radial_power_spectra
from semforensics.screening.records import Grey, Picture
from semforensics.screening.references import References, to_db

BLOCKS_Z = 12.0
"""Jump of the differences at one of eight columns or rows over the others, in their deviations."""
SOFT_DB = 1.0
"""Below the 5th percentile of the training reals, in the mean above `SOFT_FROM`."""
SOFT_FROM = 0.35
"""Cycles per pixel; interpolation and denoising take these away."""


def find_limits(picture: Picture, panel: Grey, references: References) -> list[str]:
    """Say what speaks against the panel's pixels being the instrument's own.

    Returns:
        One reason each; empty where nothing is known.
    """
    reasons = []
    if picture.is_lossy:
        reasons.append(f"its pixels were compressed with loss ({picture.provenance.file_format})")
    if picture.is_resampled:
        reasons.append("its page was drawn, which resamples it")
    if not picture.is_lossy and blocks_z(panel) > BLOCKS_Z:
        reasons.append("its pixels show the 8x8 blocks of JPEG")
    if softness_db(panel, references) > SOFT_DB:
        reasons.append(
            "its high frequencies are weaker than in any training real, as after scaling"
        )
    return reasons


def blocks_z(panel: Grey) -> float:
    """Measure how much differences jump at one of every eight columns, or rows.

    Returns:
        The larger jump of both directions over the seven other phases, in standard deviations of
        their means; around 0 to 3 where nothing happens every eight pixels.
    """
    found = []
    levels = panel.astype(np.float32)
    for grey in (levels, levels.T):
        # Second differences: what a smooth slope does at all phases alike is left out.
        steps = np.abs(np.diff(grey, axis=1))
        excess = steps[:, 1:-1] - (steps[:, :-2] + steps[:, 2:]) / 2
        means = np.array([excess[:, phase::8].mean() for phase in range(8)])
        error = excess.std() / np.sqrt(excess.size / 8)
        found.append(float((means.max() - np.sort(means)[:-1].mean()) / max(error, 1e-6)))
    return max(found)


def softness_db(panel: Grey, references: References) -> float:
    """Measure how far the panel's high frequencies lie below those of the training reals.

    Returns:
        Mean over the frequencies above `SOFT_FROM` of the 5th percentile of the training reals less
        the panel's median tile, in decibels; negative inside the band.
    """
    frequencies, power = panel_spectrum(panel, references.size_px)
    high = frequencies >= SOFT_FROM
    return float((references.spectra_db[0] - power)[high].mean())


def panel_spectrum(
    panel: Grey, size_px: int
) -> tuple[Float[np.ndarray, " rings"], Float[np.ndarray, " rings"]]:
    """Give frequencies and the median power of a panel's tiles, in decibels."""
    rows, columns = panel.shape[0] // size_px, panel.shape[1] // size_px
    whole = panel[: rows * size_px, : columns * size_px]
    tiles = whole.reshape(rows, size_px, columns, size_px).swapaxes(1, 2)
    frequencies, spectra = radial_power_spectra(tiles.reshape(-1, size_px, size_px))
    return frequencies, np.median(to_db(spectra), axis=0)
