"""Benign processing of a real micrograph: what may look generated, but is not.

A processed copy of a real stays a real: it is a negative control, and inherits the group and side
of its original.
"""

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from skimage.restoration import denoise_nl_means

from semforensics.distances.noise import noise_sigma

Grey = UInt8[np.ndarray, "height width"]

PATCH_PX, REACH_PX = 5, 6
"""Of non-local means: patches of 5x5 px, compared with those up to 6 px away."""


def denoise(image: Grey, strength: float) -> Grey:
    """Remove noise by non-local means.

    Buades et al., "A non-local algorithm for image denoising", CVPR 2005; `skimage`'s program. The
    standard deviation of the noise is that which `distances.noise` sees.

    Args:
        image: Grey levels.
        strength: Width of the weights, in units of the noise's standard deviation.
    """
    sigma = float(noise_sigma(image[None])[0])
    if sigma == 0:  # nothing to remove, and no width to divide by
        return image.copy()
    smooth = denoise_nl_means(
        image.astype(np.float64),
        patch_size=PATCH_PX,
        patch_distance=REACH_PX,
        h=strength * sigma,
        sigma=sigma,
        fast_mode=True,
    )
    return np.asarray(smooth.round().clip(0, 255), dtype=np.uint8)


def resize_and_back(image: Grey, factor: float) -> Grey:
    """Shrink (or enlarge) an image, and bring it back to its size: bicubic, with antialiasing.

    Args:
        image: Grey levels.
        factor: Of the side in between, rounded to whole pixels.

    Raises:
        ValueError: Nothing would be left.
    """
    height, width = image.shape
    between = round(width * factor), round(height * factor)
    if min(between) < 1:
        raise ValueError(f"image of {width}x{height} px: nothing is left at a factor of {factor}")
    resized = Image.fromarray(image).resize(between, Image.Resampling.BICUBIC)
    return np.array(resized.resize((width, height), Image.Resampling.BICUBIC))
