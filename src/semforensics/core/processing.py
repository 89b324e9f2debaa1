"""What is done to micrographs between instrument and reader, and how noisy they are.

Each function takes an 8-bit grey image and returns one. Augmentation, tests and controls share
them. Where a filter looks beyond an edge, the image is mirrored there.
"""

import io

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image
from scipy.ndimage import gaussian_filter, median_filter, uniform_filter

from semforensics.core.errors import InputError

Grey = UInt8[np.ndarray, "height width"]

_LEAST_SIGMA = 1.0  # grey levels; an image without noise would divide by nothing
MEDIAN_OF_NORMAL = 0.674490
"""Of the size of a standard normal number."""


def to_grey(levels: Float[np.ndarray, "height width"]) -> Grey:
    """Round and clip to grey levels."""
    return np.asarray(levels.round().clip(0, 255), dtype=np.uint8)


def gaussian_blur(image: Grey, sigma: float) -> Grey:
    """Blur with a Gaussian of `sigma` pixels, mirrored at the edges; 0 changes nothing."""
    return to_grey(gaussian_filter(image.astype(np.float32), sigma, mode="reflect"))


def median(image: Grey, size_px: int) -> Grey:
    """Take the median of the square of `size_px` pixels around each pixel."""
    return np.asarray(median_filter(image, size=size_px, mode="reflect"))


def wiener(image: Grey, amount: float) -> Grey:
    """Smooth flat parts more than edges: the adaptive filter of `scipy.signal.wiener`, 3x3.

    Args:
        image: Grey levels 0 … 255.
        amount: Variance of the noise, in medians of the variance of 3x3 pixels.
    """
    levels = image.astype(np.float64)
    mean = uniform_filter(levels, 3)
    variance = np.maximum(uniform_filter(levels**2, 3) - mean**2, 0)
    noise = amount * float(np.median(variance))
    kept = np.maximum(variance - noise, 0) / np.maximum(variance, max(noise, 1e-9))
    return to_grey(mean + kept * (levels - mean))


def unsharp(image: Grey, sigma: float, amount: float) -> Grey:
    """Add `amount` times the difference from a Gaussian blur of `sigma` pixels."""
    levels = image.astype(np.float32)
    return to_grey(levels + amount * (levels - gaussian_filter(levels, sigma, mode="reflect")))


def non_local_means(image: Grey, strength: float) -> Grey:
    """Average each pixel with those whose 5x5 surroundings look alike, up to 6 pixels away.

    Buades, Coll, Morel, "A non-local algorithm for image denoising", CVPR 2005, as scikit-image has
    it. The strength is in standard deviations of the noise, which is measured on the image itself.
    """
    from skimage.restoration import denoise_nl_means  # of the pipeline alone, not of `screen`

    sigma = max(float(noise_sigma(image[None])[0]), _LEAST_SIGMA)
    denoised = denoise_nl_means(
        image.astype(np.float32),
        patch_size=5,
        patch_distance=6,
        h=strength * sigma,
        sigma=sigma,
        fast_mode=True,
        preserve_range=True,
    )
    return to_grey(denoised)


def gaussian_noise(image: Grey, rng: np.random.Generator, sigma: float) -> Grey:
    """Add independent normal noise of `sigma` grey levels."""
    return to_grey(image + rng.normal(0, sigma, image.shape))


def lower_dose(image: Grey, rng: np.random.Generator, dose: float) -> Grey:
    """Keep each electron with a chance of `dose`, and amplify what is left to the old brightness.

    One grey level counts as one electron: the image of a third of a full scale has a noise of 10
    grey levels more at half the dose. Binomial thinning of Poisson counts is exact.
    """
    return to_grey(rng.binomial(image, dose) / dose)


def poisson_gaussian_noise(
    image: Grey, rng: np.random.Generator, gain: float, sigma: float
) -> Grey:
    """Draw the image again, as an electron detector would: shot noise and electronic noise.

    The shot noise has a variance of `gain`, in grey levels per electron, times the level; the
    electronic one a standard deviation of `sigma` grey levels.
    """
    return to_grey(rng.poisson(image / gain) * gain + rng.normal(0, sigma, image.shape))


def gamma(image: Grey, exponent: float) -> Grey:
    """Raise the levels, on 0 … 1, to a power: above 1 darkens."""
    levels = 255 * (np.arange(256) / 255) ** exponent
    return np.asarray(levels.round().astype(np.uint8)[image])


def contrast(image: Grey, factor: float) -> Grey:
    """Stretch the levels about their mean."""
    mean = image.mean()
    return to_grey(mean + factor * (image - mean))


def clahe(image: Grey) -> Grey:
    """Equalise histograms of eighths of the image, at a clip limit of 0.01 (scikit-image)."""
    from skimage.exposure import equalize_adapthist  # of the pipeline alone, not of `screen`

    return to_grey(255 * equalize_adapthist(image, clip_limit=0.01))


def fewer_bits(image: Grey, bits: int) -> Grey:
    """Keep the highest bits; the others become 0."""
    return image >> (8 - bits) << (8 - bits)


def jpeg(image: Grey, quality: int) -> Grey:
    """Write as grey JPEG of a quality of 1 … 100, and read again.

    Pillow's encoder; the 8x8 grid begins at the top-left pixel.
    """
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality)
    with Image.open(buffer) as decoded:
        return np.array(decoded)


def resize_and_back(image: Grey, factor: float) -> Grey:
    """Shrink (or enlarge) an image, and bring it back to its size: bicubic, with antialiasing.

    In between, height and width times the factor are rounded to whole pixels.

    Raises:
        InputError: Nothing would be left.
    """
    height, width = image.shape
    between = round(width * factor), round(height * factor)
    if min(between) < 1:
        raise InputError(f"image of {width}x{height} px: nothing is left at a factor of {factor}")
    resized = Image.fromarray(image).resize(between, Image.Resampling.BICUBIC)
    return np.array(resized.resize((width, height), Image.Resampling.BICUBIC))


def noise_sigma(images: UInt8[np.ndarray, "n height width"]) -> Float[np.ndarray, " n"]:
    """Estimate the standard deviation of the noise of each image, in grey levels.

    Donoho and Johnstone, "Ideal spatial adaptation by wavelet shrinkage", Biometrika 81 (1994),
    section 3: the median size of the finest wavelet coefficients, which edges hardly touch. The
    noise is assumed to be independent between pixels: a point spread that smooths it hides part of
    it, and texture as fine as two pixels adds to it.
    """
    height, width = (side // 2 * 2 for side in images.shape[1:])
    diagonal = haar_diagonal(images[:, :height, :width].astype(float))
    return np.asarray(np.median(np.abs(diagonal), axis=(1, 2)) / MEDIAN_OF_NORMAL)


def haar_diagonal(levels: Float[np.ndarray, "*n height width"]) -> Float[np.ndarray, "*n _ _"]:
    """Return the finest diagonal coefficients, each as noisy as one pixel; sides are even."""
    a, b = levels[..., ::2, ::2], levels[..., ::2, 1::2]
    c, d = levels[..., 1::2, ::2], levels[..., 1::2, 1::2]
    return np.asarray((a - b - c + d) / 2)


def mse_noise_floor(images: UInt8[np.ndarray, "n height width"]) -> float:
    """Return the MSE of two exposures of one scene, in grey levels squared: twice the variance."""
    return float(2 * np.square(noise_sigma(images)).mean())
