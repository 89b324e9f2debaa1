"""Bright particles on a darker ground: how many, and how large.

Otsu, "A threshold selection method from gray-level histograms", IEEE Trans. SMC 9 (1979), finds the
grey level between the two. Meant for comparing sets of images treated alike, not for metrology:
particles that touch count as one, and so does a bright edge.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, UInt8
from scipy import ndimage
from scipy.stats import wasserstein_distance

_SMOOTHING_PX = 1.0  # standard deviation of the filter that keeps noise from making particles
_SMALLEST_PX = 12  # pixels; 4 px across
# Share of the variance that lies between ground and particles. Otsu's threshold takes 0.64 of it
# from plain noise, and 0.75 from an even slope.
_SEPARATION = 0.75


@dataclass(frozen=True)
class Particles:
    """The particles of a set of images."""

    diameters_px: Float[np.ndarray, " n_particle"]
    """Of discs of the same area."""
    per_megapixel: float


def find_particles(images: UInt8[np.ndarray, "n height width"]) -> Particles:
    """Find the bright particles of all images.

    Particles cut by an image's edge are left out, and so are images without two kinds of grey.
    """
    found = [_diameters(image) for image in images]
    diameters = np.concatenate([*found, np.empty(0)])
    return Particles(diameters, 1e6 * len(diameters) / images.size)


def size_distance_px(a: Particles, b: Particles) -> float:
    """Return the Wasserstein-1 distance of two distributions of diameters, in pixels.

    It is the mean change of diameter that makes one into the other. A set without particles counts
    as particles of no size.
    """
    x, y = (p.diameters_px if len(p.diameters_px) else np.zeros(1) for p in (a, b))
    return float(wasserstein_distance(x, y))


def _diameters(image: UInt8[np.ndarray, "height width"]) -> Float[np.ndarray, " n_particle"]:
    smooth = ndimage.gaussian_filter(image.astype(float), _SMOOTHING_PX)
    labels, count = ndimage.label(_bright(smooth))
    if not count:
        return np.empty(0)
    areas = np.bincount(labels.ravel(), minlength=count + 1)
    edges = (labels[0], labels[-1], labels[:, 0], labels[:, -1])
    areas[np.unique(np.concatenate(edges))] = 0
    areas[0] = 0  # the ground
    diameters: Float[np.ndarray, " n_particle"] = np.sqrt(4 / np.pi * areas[areas >= _SMALLEST_PX])
    return diameters


def _bright(levels: Float[np.ndarray, "height width"]) -> Bool[np.ndarray, "height width"]:
    """Return the pixels above Otsu's threshold; none where the image has one kind of grey only."""
    counts = np.bincount(np.rint(levels).astype(int).ravel(), minlength=256)
    grey = np.arange(len(counts))
    share = counts / counts.sum()
    below, mass_below = share.cumsum(), (share * grey).cumsum()
    mean = mass_below[-1]
    variance = (share * (grey - mean) ** 2).sum()
    # eq. 18 of the paper
    weight = below * (1 - below)
    between = np.divide(
        (mean * below - mass_below) ** 2, weight, out=np.zeros_like(weight), where=weight > 1e-12
    )
    best = int(between.argmax())
    if between[best] < _SEPARATION * variance or variance == 0:
        return np.zeros(levels.shape, bool)
    bright: Bool[np.ndarray, "height width"] = np.rint(levels) > best
    return bright
