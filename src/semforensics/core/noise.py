"""The noise of micrographs, as far as a single image shows it.

Donoho and Johnstone, "Ideal spatial adaptation by wavelet shrinkage", Biometrika 81 (1994), section
3: the median size of the finest wavelet coefficients, which edges hardly touch.
"""

import numpy as np
from jaxtyping import Float, UInt8

_MEDIAN_OF_NORMAL = 0.674490  # of the size of a standard normal number


def noise_sigma(images: UInt8[np.ndarray, "n height width"]) -> Float[np.ndarray, " n"]:
    """Estimate the standard deviation of the noise of each image, in grey levels.

    It is that of noise which is independent between pixels: a point spread that smooths the noise
    hides part of it, and texture as fine as two pixels adds to it.
    """
    height, width = (side // 2 * 2 for side in images.shape[1:])
    levels = images[:, :height, :width].astype(float)
    a, b = levels[:, ::2, ::2], levels[:, ::2, 1::2]
    c, d = levels[:, 1::2, ::2], levels[:, 1::2, 1::2]
    diagonal = (a - b - c + d) / 2  # Haar; as noisy as one pixel
    sigma: Float[np.ndarray, " n"] = np.median(np.abs(diagonal), axis=(1, 2)) / _MEDIAN_OF_NORMAL
    return sigma


def mse_noise_floor(images: UInt8[np.ndarray, "n height width"]) -> float:
    """Return the MSE of two exposures of one scene, in grey levels squared: twice the variance."""
    return float(2 * np.square(noise_sigma(images)).mean())
