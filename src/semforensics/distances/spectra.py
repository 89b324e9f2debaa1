"""Radial power spectra: where generated images differ even when they look alike.

Durall et al., "Watch your Up-Convolution: CNN Based Generative Deep Neural Networks are Failing to
Reproduce Spectral Distributions", CVPR 2020, arXiv:2003.01826. Ours differs: a Hann window keeps
the jump between opposite edges out of the high frequencies.
"""

import numpy as np
from jaxtyping import Float, UInt8


def radial_power_spectra(
    images: UInt8[np.ndarray, "n side side"],
) -> tuple[Float[np.ndarray, " rings"], Float[np.ndarray, "n rings"]]:
    """Average the power of each image over all directions.

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


def spectrum_distance_db(
    a: UInt8[np.ndarray, "n_a side side"], b: UInt8[np.ndarray, "n_b side side"]
) -> float:
    """Compute the rms over all rings of the difference of two mean spectra, in decibels.

    Spectra are averaged as decibels, so that a few images of strong contrast do not decide.
    """
    means = []
    for images in (a, b):
        _, spectra = radial_power_spectra(images)
        # + 1/12: the power of rounding to whole grey levels; below is nothing.
        means.append(10 * np.log10(spectra + 1 / 12).mean(axis=0))
    return float(np.sqrt(np.square(means[0] - means[1]).mean()))
