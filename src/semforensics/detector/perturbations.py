"""The grid of perturbations: what may happen to a micrograph between instrument and reader.

Every perturbation turns one 8-bit grey image into another of even height and width: an odd last row
or column is cut. Where a filter looks beyond an edge, the image is mirrored there.
"""

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float, Int, UInt8
from PIL import Image

from semforensics.core.errors import InputError
from semforensics.core.processing import (
    clahe,
    contrast,
    fewer_bits,
    gamma,
    gaussian_blur,
    gaussian_noise,
    jpeg,
    lower_dose,
    median,
    non_local_means,
    poisson_gaussian_noise,
    to_grey,
    unsharp,
)
from semforensics.detector.document_chain import annotate, screenshot, through_pdf
from semforensics.detector.networks import MIN_SIZE_PX
from semforensics.detector.npr import centre_crop

Grey = UInt8[np.ndarray, "height width"]
NewGrey = UInt8[np.ndarray, "new_height new_width"]
Stack = UInt8[np.ndarray, "n height width"]
NewStack = UInt8[np.ndarray, "n new_height new_width"]
Kernel = Literal["bilinear", "bicubic", "lanczos", "area"]

AXES = ("jpeg", "resize", "filter", "noise", "tone", "geometry", "document", "laundering")

_PILLOW = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
_GRID_SHIFT_PX = 4  # half a JPEG block; even, so that the 2x2 grid of NPR stays where it was


@dataclass(frozen=True)
class Perturbation:
    """One cell of the grid."""

    axis: str
    level: str
    change: Callable[..., NewGrey]
    """Called with an image and what `needs` names."""
    benign: bool = False
    """Whether an honest author may do so without saying so."""
    needs: Literal["nothing", "rng", "donor"] = "nothing"
    """A random generator, or a real micrograph of the same size."""

    def apply(self, image: Grey, rng: np.random.Generator, donor: Grey) -> NewGrey:
        """Change an image, and cut it to even height and width.

        Raises:
            InputError: What is left is smaller than the detector takes.
        """
        needed = {"nothing": (), "rng": (rng,), "donor": (donor,)}[self.needs]
        changed = crop_to_even(self.change(image, *needed))
        height, width = changed.shape
        if min(height, width) < MIN_SIZE_PX:
            raise InputError(
                f"{self.axis} {self.level}: {width}x{height} px of {image.shape[1]}x"
                f"{image.shape[0]} px, need at least {MIN_SIZE_PX} px"
            )
        return changed


def rng_of(seed: int, perturbation: Perturbation, file: str) -> np.random.Generator:
    """Return the generator of one image in one cell, so that neither batch nor order matters."""
    text = f"{seed}:{perturbation.axis}:{perturbation.level}:{file}"
    digest = hashlib.sha256(text.encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16]))


def crop_to_even(image: Grey) -> NewGrey:
    """Cut the last row or column where their number is odd."""
    height, width = image.shape
    return image[: height // 2 * 2, : width // 2 * 2]


# JPEG


def double_jpeg(image: Grey, first: int, second: int, shift_px: int) -> NewGrey:
    """Compress twice; before the second time `shift_px` rows and columns are cut off."""
    return jpeg(jpeg(image, first)[shift_px:, shift_px:], second)


def shifted_jpeg(image: Grey, quality: int, shift_px: int) -> NewGrey:
    """Compress, then cut rows and columns off, so that the 8x8 grid begins inside a block."""
    return jpeg(image, quality)[shift_px:, shift_px:]


# Resize


def resize(image: Grey, factor: float, kernel: Kernel) -> NewGrey:
    """Resample to `factor` times the size, rounded down to even height and width.

    Args:
        image: Grey levels 0 … 255.
        factor: Above 0.
        kernel: `area`: the mean over the area of each new pixel (scikit-image). Others: Pillow's,
            which are widened when they shrink, so that nothing is aliased.
    """
    height, width = (max(2, int(side * factor) // 2 * 2) for side in image.shape)
    if kernel == "area":
        from skimage.transform import resize_local_mean  # of the pipeline alone, not of `screen`

        means = resize_local_mean(  # type: ignore[no-untyped-call]
            image.astype(float), (height, width), preserve_range=True
        )
        return to_grey(means)
    return np.array(Image.fromarray(image).resize((width, height), _PILLOW[kernel]))


# Geometry


def offset(image: Grey, rows: int, columns: int) -> NewGrey:
    """Cut the first rows and columns off."""
    return image[rows:, columns:]


def centre(image: Grey, share: float) -> NewGrey:
    """Keep the centre, of `share` times height and width, beginning at even coordinates."""
    height, width = (int(side * share) // 2 * 2 for side in image.shape)
    return centre_crop(image, height, width)


def rotate(image: Grey, degrees: float) -> NewGrey:
    """Turn about the centre (bicubic), and keep the largest upright part of the same proportions.

    The rectangle of height h and width w, shrunk by s, fits where s (w cos + h sin) <= w and
    s (w sin + h cos) <= h.
    """
    height, width = image.shape
    sine, cosine = abs(math.sin(math.radians(degrees))), abs(math.cos(math.radians(degrees)))
    shrink = min(
        width / (width * cosine + height * sine), height / (width * sine + height * cosine)
    )
    turned = np.array(Image.fromarray(image).rotate(degrees, Image.Resampling.BICUBIC))
    # - 2: bicubic looks a pixel beyond, where the turned image is black
    new_height, new_width = (int(side * shrink - 2) // 2 * 2 for side in (height, width))
    top, left = (height - new_height) // 2, (width - new_width) // 2
    return turned[top : top + new_height, left : left + new_width]


# Laundering: what a forger does to remove the traces


def match_spectrum(image: Grey, donor: Grey) -> Grey:
    """Match the azimuthally averaged power spectrum to that of another image (Durall et al. 2020).

    Phases stay; each ring of spatial frequencies, one cycle per image wide, is scaled as a whole.

    Args:
        image: Grey levels 0 … 255. Its mean is kept.
        donor: Of the same size.
    """
    spectrum = np.fft.fft2(image.astype(float) - image.mean())
    rings = _rings(image.shape)
    own, wanted = (
        np.bincount(rings.ravel(), np.square(np.abs(power)).ravel())
        for power in (spectrum, np.fft.fft2(donor.astype(float) - donor.mean()))
    )
    is_empty = own <= 1e-12 * own.sum()  # rings without power (up to rounding) cannot be scaled
    gain = np.where(is_empty, 0, np.sqrt(wanted / np.where(is_empty, 1, own)))
    return to_grey(image.mean() + np.fft.ifft2(spectrum * gain[rings]).real)


def _rings(shape: tuple[int, ...]) -> Int[np.ndarray, "height width"]:
    """Number the spatial frequencies by their distance from zero, in cycles per shorter edge."""
    rows, columns = (np.fft.fftfreq(side) * min(shape) for side in shape)
    radius: Float[np.ndarray, "height width"] = np.hypot(rows[:, None], columns[None, :])
    return radius.round().astype(np.int64)


def blur_then_sharpen(image: Grey, sigma: float, amount: float) -> Grey:
    """Blur with a Gaussian, then sharpen by the unsharp mask of the same width."""
    return unsharp(gaussian_blur(image, sigma), sigma, amount)


# The grid

_FRESH_NOISE = partial(poisson_gaussian_noise, gain=0.5, sigma=3.0)

AS_IT_IS = Perturbation("none", "original", crop_to_even, benign=True)
"""What every cell is compared with."""


def _jpeg_cells() -> Iterator[Perturbation]:
    qualities = (95, 90, 85, 75, 60, 50)
    for quality in qualities:
        once = partial(jpeg, quality=quality)
        yield Perturbation("jpeg", f"quality {quality}", once, benign=quality >= 75)
    for quality in qualities:
        shifted = partial(shifted_jpeg, quality=quality, shift_px=_GRID_SHIFT_PX)
        yield Perturbation("jpeg", f"quality {quality}, shifted grid", shifted)
    for shift_px, name in ((0, ""), (_GRID_SHIFT_PX, ", shifted grid")):
        double = partial(double_jpeg, first=90, second=75, shift_px=shift_px)
        yield Perturbation("jpeg", f"90 then 75{name}", double)


def _resize_cells() -> Iterator[Perturbation]:
    for factor in (0.5, 0.75, 0.9, 1.1, 1.5, 2.0):
        for kernel in get_args(Kernel):
            change = partial(resize, factor=factor, kernel=kernel)
            yield Perturbation("resize", f"x{factor:g} {kernel}", change, kernel == "bicubic")


GRID: tuple[Perturbation, ...] = (
    *_jpeg_cells(),
    *_resize_cells(),
    Perturbation("filter", "blur 0.5 px", partial(gaussian_blur, sigma=0.5), benign=True),
    Perturbation("filter", "blur 1 px", partial(gaussian_blur, sigma=1.0), benign=True),
    Perturbation("filter", "blur 2 px", partial(gaussian_blur, sigma=2.0)),
    Perturbation("filter", "median 3 px", partial(median, size_px=3), benign=True),
    Perturbation("filter", "unsharp 1 px", partial(unsharp, sigma=1.0, amount=1.0), benign=True),
    Perturbation("filter", "non-local means", partial(non_local_means, strength=0.8), benign=True),
    Perturbation("noise", "normal 2", partial(gaussian_noise, sigma=2.0), needs="rng"),
    Perturbation("noise", "normal 5", partial(gaussian_noise, sigma=5.0), needs="rng"),
    Perturbation("noise", "normal 10", partial(gaussian_noise, sigma=10.0), needs="rng"),
    Perturbation("noise", "dose x0.5", partial(lower_dose, dose=0.5), needs="rng"),
    Perturbation("noise", "dose x0.25", partial(lower_dose, dose=0.25), needs="rng"),
    Perturbation("tone", "gamma 0.7", partial(gamma, exponent=0.7), benign=True),
    Perturbation("tone", "gamma 1.4", partial(gamma, exponent=1.4), benign=True),
    Perturbation("tone", "contrast -20 %", partial(contrast, factor=0.8), benign=True),
    Perturbation("tone", "contrast +20 %", partial(contrast, factor=1.2), benign=True),
    Perturbation("tone", "CLAHE", clahe, benign=True),
    Perturbation("tone", "6 bits", partial(fewer_bits, bits=6)),
    Perturbation("geometry", "offset (1, 0)", partial(offset, rows=1, columns=0), benign=True),
    Perturbation("geometry", "offset (0, 1)", partial(offset, rows=0, columns=1), benign=True),
    Perturbation("geometry", "offset (1, 1)", partial(offset, rows=1, columns=1), benign=True),
    Perturbation("geometry", "centre 60 %", partial(centre, share=0.6), benign=True),
    Perturbation("geometry", "flip", np.fliplr),
    Perturbation("geometry", "rotate 90", np.rot90, benign=True),
    Perturbation("geometry", "rotate 3", partial(rotate, degrees=3.0), benign=True),
    Perturbation("document", "figure 150 dpi", partial(through_pdf, dpi=150), benign=True),
    Perturbation("document", "figure 300 dpi", partial(through_pdf, dpi=300), benign=True),
    Perturbation("document", "screenshot x1.25", partial(screenshot, zoom=1.25), benign=True),
    Perturbation("document", "scale bar", annotate, benign=True),
    Perturbation("laundering", "fresh noise", _FRESH_NOISE, needs="rng"),
    Perturbation("laundering", "spectrum of a real", match_spectrum, needs="donor"),
    Perturbation("laundering", "blur, sharpen", partial(blur_then_sharpen, sigma=1.0, amount=1.5)),
)
"""Every perturbation of the robustness grid, axis by axis."""


def find(names: Sequence[str]) -> list[Perturbation]:
    """Return perturbations by axis and level, such as "jpeg quality 75".

    Raises:
        InputError: The grid has no such cell; the message lists its cells.
    """
    cells = {f"{cell.axis} {cell.level}": cell for cell in GRID}
    unknown = [name for name in names if name not in cells]
    if unknown:
        raise InputError(f"no perturbation {', '.join(unknown)}; there are: {', '.join(cells)}")
    return [cells[name] for name in names]


def apply_to_all(
    cell: Perturbation,
    images: Stack,
    files: Sequence[str],
    seed: int,
    donors: UInt8[np.ndarray, "n_donor height width"] | None = None,
) -> NewStack:
    """Change images, each by draws that depend on seed, cell and its own file name alone.

    Args:
        cell: Of the grid.
        images: Grey levels 0 … 255, of even height and width.
        files: The name of each image.
        seed: Of the draws.
        donors: Real micrographs of the same size, of which each image gets one at random. Without
            them, the donor of an image is the image before it.

    Raises:
        InputError: As `Perturbation.apply`.
    """
    changed = []
    for index, (image, file) in enumerate(zip(images, files, strict=True)):
        donor = images[index - 1]
        if donors is not None:
            donor = donors[rng_of(seed, cell, f"donor of {file}").integers(len(donors))]
        changed.append(cell.apply(image, rng_of(seed, cell, file), donor))
    return np.stack(changed)
