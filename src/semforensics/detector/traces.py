"""What the pixels of a panel tell of its history, and the cell in which it is calibrated.

A history cannot be known from pixels, and need not be: calibration panels are put in cells by the
same function of their pixels (Mondrian conformal prediction: Vovk, Gammerman, Shafer, "Algorithmic
Learning in a Random World", 2005, section 4.5), so p-values hold in each cell whatever the function
is. A good function makes them sharper: processing moves the scores of reals, and within a cell
panels should have gone through much the same.

- JPEG: decoded coefficients lie at multiples of a quantisation step, on one of the 64 places of the
  8x8 grid and on no other (after Fan and de Queiroz, "Identification of bitmap compression
  history", IEEE Transactions on Image Processing 12, 2003). Survives a cut-out, not a resampling.
- Interpolation: the second difference of interpolated pixels varies with the period of the old grid
  (Gallagher, "Detection of linear and cubic interpolation in JPEG compressed images", CRV 2005).
  Found as a peak in the spectrum of its mean over rows and over columns. Blind where all new pixels
  lie alike between old ones, as after a factor of exactly 2 or 1/2.
- Equal neighbours: a median filter repeats grey levels (Kirchner and Fridrich, "On detection of
  median filtering in digital images", SPIE 7541, 2010), and so does denoising: neighbours differ by
  0 far more often than by 1. In raw pixels both are about as frequent.
- Fineness: the power at the highest frequencies, which interpolation and denoising take first.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Shaped, UInt8
from scipy.fft import dct, rfft2

from semforensics.core.processing import noise_sigma

Grey = UInt8[np.ndarray, "height width"]
Mask = Bool[np.ndarray, "height width"]

JPEG_LIMIT = 8.0
"""Median absolute deviations of the 64 places: 2 … 5 for pixels that saw no JPEG, from 14 on at
quality 95."""
PEAK_LIMIT = 50.0
"""Times the median of the spectrum: up to 39 for raw pixels, hundreds and more for most factors."""
GRID_PEAK_LIMIT = 25.0
"""The same at multiples of 1/8 cycle per pixel, where JPEG leaves its blocks: up to 10 for raw."""
EQUAL_LIMIT = 2.0
"""Neighbours that are equal for each that is one level darker, or lighter: up to 1.1 for raw
pixels, 1.9 after a change of tone, from 2 on after a median, from 2.4 on for denoised files."""

_BLOCK = 8
_FREQUENCIES = ((0, 1), (1, 0), (1, 1), (0, 2), (2, 0), (1, 2), (2, 1), (2, 2))
_TABLE = np.array([11, 12, 12, 10, 14, 14, 13, 16])
"""Steps of these at quality 50: Rec. ITU-T T.81, table K.1."""
_QUALITIES = np.arange(25, 100)
_STEPS = np.arange(2, 41)  # of quantisation; 1 is quality 100, which changes next to nothing
_BIN = 0.25  # of a coefficient
_RANGE = 80.0  # coefficients beyond are counted at its ends
_LEAST_DEVIATION = 0.05  # among places, where all are alike
_MOST_PX = 512  # looked at in the middle of a panel, in each direction
_JPEG_PX = 256  # looked at for a cell: less would be too few blocks, more too slow
_TRANSFORM = 4096
_LOWEST = 0.06  # cycles per pixel: below are the objects
_SMOOTH_PX = 51
_WINDOW_PX, _LEAST_PX = 64, 32  # of the spectrum of fineness
_ROUNDING = 1 / 12  # grey levels squared: the power of rounding to whole grey levels
_LEAST = _ROUNDING / 4
_HIGHEST, _HIGH = (0.42, 0.5), (0.25, 0.36)  # cycles per pixel


@dataclass(frozen=True)
class Traces:
    """What was measured in the middle of a panel."""

    jpeg: float
    """Strength of the steps of JPEG, as `jpeg_steps` has it; above `JPEG_LIMIT` they are there."""
    quality: float
    """Of a JPEG of the standard tables whose steps are most like those found; 100: none found."""
    peak: float
    """Of interpolation, off the multiples of 1/8 cycle per pixel, as `periodicity` has it."""
    grid_peak: float
    """The same on these multiples."""
    fineness_db: float
    """Power at the highest frequencies over that at half of them, as `fineness_db` has it."""
    noise: float
    """Standard deviation of the noise, in grey levels."""
    equal: float
    """Neighbours that are equal for each that is one level darker, or lighter."""


CELLS: Mapping[str, str] = {
    "light": "no JPEG, or a light one (quality 90 and above)",
    "medium": "JPEG of medium strength (quality 80 to 89)",
    "strong": "strong JPEG (quality below 80)",
}
"""The cells that panels are calibrated in: name, and what their pixels show."""
_QUALITY_LIMITS = {"light": 90, "medium": 80}


def measure_traces(panel: Grey, drawn: Mask | None = None) -> Traces:
    """Measure what the middle of a panel tells of its history.

    Args:
        panel: Without info bar.
        drawn: Text and lines, which are left out where they would be taken for a trace.
    """
    panel = _middle(panel)
    drawn = None if drawn is None or not drawn.any() else _middle(drawn)
    peak, grid_peak = periodicity(panel, drawn)
    jpeg, quality = _jpeg(_middle(panel, _JPEG_PX))
    return Traces(
        jpeg=jpeg,
        quality=quality,
        peak=peak,
        grid_peak=grid_peak,
        fineness_db=fineness_db(panel, drawn),
        noise=float(noise_sigma(panel[None])[0]),
        equal=equal_neighbours(panel, drawn),
    )


def cell_of(traces: Traces) -> str:
    """Return the cell of a panel, one of `CELLS`.

    Resampling and noise are no cells of their own: too few collections would be left in each. Their
    influence on scores is taken away by a regression (`semforensics.detector.expected`).
    """
    return next((n for n, q in _QUALITY_LIMITS.items() if traces.quality >= q), "strong")


def jpeg_steps(panel: Grey) -> float:
    """Say how much one place of the 8x8 grid stands out by coefficients in steps.

    Returns:
        Of the place that stands out most, the difference from the median of all 64, in median
        absolute deviations. 0 for a panel of fewer than 16 px.
    """
    if min(panel.shape) < 2 * _BLOCK:
        return 0.0
    return _standing_out(_best_of_steps(_strengths(_middle(panel))))[0]


def _jpeg(panel: Grey) -> tuple[float, float]:
    """Return how much one place stands out, and the quality that explains its steps best."""
    if min(panel.shape) < 2 * _BLOCK:
        return 0.0, 100.0
    strengths = list(_strengths(panel))
    jpeg, place = _standing_out(_best_of_steps(strengths))
    if jpeg <= JPEG_LIMIT:
        return jpeg, 100.0
    # Steps that the picture itself seems to have, it has in all places.
    excess = np.stack([strength[place] - np.median(strength, axis=0) for strength in strengths])
    scale = np.where(_QUALITIES < 50, 50 / _QUALITIES, 2 - _QUALITIES / 50)
    steps = np.floor(scale[:, None] * _TABLE + 0.5).astype(int).clip(1, _STEPS[-1])
    rows = np.arange(len(_TABLE))
    fits = np.where(steps >= _STEPS[0], excess[rows, (steps - _STEPS[0]).clip(0)], 0).sum(axis=1)
    return jpeg, float(_QUALITIES[fits.argmax()])


def _strengths(panel: Grey) -> Iterator[Float[np.ndarray, "64 steps"]]:
    """Yield, for each frequency, how well coefficients at each place lie on multiples of a step."""
    grey = panel.astype(np.float32)
    basis = dct(np.eye(_BLOCK), axis=0, norm="ortho").astype(np.float32)
    view = np.lib.stride_tricks.sliding_window_view
    down = {i: view(grey, _BLOCK, axis=0) @ basis[i] for i in {f[0] for f in _FREQUENCIES}}
    rows, columns = (np.arange(side - _BLOCK + 1) % _BLOCK for side in grey.shape)
    levels, combs, counted = _combs()
    places = (rows[:, None] * _BLOCK + columns) * len(levels)
    for i, j in _FREQUENCIES:
        coefficients = view(down[i], _BLOCK, axis=1) @ basis[j]  # of the block at every pixel
        bins = ((coefficients + _RANGE) / _BIN).clip(0, len(levels) - 1).astype(np.int64)
        counts = np.bincount((places + bins).ravel(), minlength=_BLOCK**2 * len(levels))
        histogram = counts.reshape(_BLOCK**2, -1).astype(np.float32)
        # The mean cosine is 1 on multiples of the step; +20: of few coefficients little is known.
        yield (histogram @ combs) / np.sqrt(histogram @ counted / 2 + 20)


def _best_of_steps(
    strengths: Iterable[Float[np.ndarray, "64 steps"]],
) -> Float[np.ndarray, " 64"]:
    """Return the mean over frequencies of the strength of the best step."""
    total = np.zeros(_BLOCK**2)
    for strength in strengths:
        total += strength.max(axis=1) / len(_FREQUENCIES)
    return total


def _standing_out(total: Float[np.ndarray, " 64"]) -> tuple[float, int]:
    """Return by how many deviations the highest place is above the median, and which it is."""
    middle = np.median(total)
    deviation = np.median(np.abs(total - middle)) + _LEAST_DEVIATION
    return float((total.max() - middle) / deviation), int(total.argmax())


def _combs() -> tuple[
    Float[np.ndarray, " bins"], Float[np.ndarray, "bins steps"], Float[np.ndarray, "bins steps"]
]:
    """Return bins of coefficients, a cosine for each step, and which bins count.

    Those nearest to 0 do not: smooth places have them whatever the step.
    """
    levels = (np.arange(int(2 * _RANGE / _BIN)) + 0.5) * _BIN - _RANGE
    is_counted = np.abs(levels)[:, None] > _STEPS / 2
    combs = np.where(is_counted, np.cos(2 * np.pi * levels[:, None] / _STEPS), 0)
    return levels, combs.astype(np.float32), is_counted.astype(np.float32)


def periodicity(panel: Grey, drawn: Mask | None = None) -> tuple[float, float]:
    """Find the strongest period of the second difference, the same along rows and columns.

    Args:
        panel: Grey levels.
        drawn: Pixels to leave out.

    Returns:
        The highest peak of the spectrum over its median, first off, then on the multiples of 1/8
        cycle per pixel.
    """
    grey = panel.astype(np.float32)
    left_out = (None, None) if drawn is None else (drawn, drawn.T)
    spectra = [_profile_spectrum(*of) for of in zip((grey, grey.T), left_out, strict=True)]
    frequencies = np.arange(len(spectra[0])) / _TRANSFORM
    is_high = frequencies > _LOWEST
    both = np.ones(int(is_high.sum()))
    for spectrum in spectra:
        both *= np.sqrt(spectrum[is_high] / max(float(np.median(spectrum[is_high])), 1e-12))
    eighths = frequencies[is_high] * _BLOCK
    is_grid = np.abs(eighths - eighths.round()) < 3 * _BLOCK / min(panel.shape)
    return tuple(float(both[of].max(initial=0.0)) for of in (~is_grid, is_grid))  # type: ignore[return-value]


def equal_neighbours(panel: Grey, drawn: Mask | None = None) -> float:
    """Return the ratio of neighbours that are equal to those that differ by one level.

    Args:
        panel: Grey levels.
        drawn: Pixels to leave out.

    Returns:
        The smaller one along rows and columns, per direction of the difference, so that a smooth
        distribution of differences gives 1. Pixels at the ends of the panel's range are left out:
        they may be clipped.
    """
    ratios = []
    kept = np.ones(panel.shape, dtype=bool) if drawn is None else ~drawn
    low, high = panel.min(where=kept, initial=255), panel.max(where=kept, initial=0)
    for grey, of in ((panel.astype(np.int16), kept), (panel.T.astype(np.int16), kept.T)):
        ends = grey[:, 1:]
        counted = (ends > low) & (ends < high) & of[:, 1:] & of[:, :-1]
        steps = np.abs(ends - grey[:, :-1])[counted]
        equal, next_level = ((steps == level).sum() for level in (0, 1))
        # + 5: of few pixels nothing is said
        ratios.append((equal + 5) / (next_level / 2 + 5))
    return float(min(ratios))


def _profile_spectrum(
    grey: Float[np.ndarray, "rows columns"], drawn: Mask | None
) -> Float[np.ndarray, " frequencies"]:
    """Return the power of the mean second difference across columns, its trend taken out."""
    differences = np.abs(grey[:, 2:] - 2 * grey[:, 1:-1] + grey[:, :-2])
    if drawn is None:
        second = differences.mean(axis=0)
    else:
        kept = ~drawn[:, 1:-1]
        counts = kept.sum(axis=0)
        sums = differences.sum(axis=0, where=kept)
        # A column without any micrograph says nothing: it gets the mean of all.
        second = np.where(counts, sums / np.maximum(counts, 1), sums.sum() / max(kept.sum(), 1))
    profile = np.log(second + 0.1)[:_TRANSFORM]
    reach = min(_SMOOTH_PX // 2, len(profile) - 1)
    kernel = np.ones(2 * reach + 1) / (2 * reach + 1)
    profile -= np.convolve(np.pad(profile, reach, mode="reflect"), kernel, mode="valid")
    return np.asarray(np.abs(np.fft.rfft(profile * np.hanning(len(profile)), _TRANSFORM)) ** 2)


def fineness_db(panel: Grey, drawn: Mask | None = None) -> float:
    """Return the power at 0.42 to 0.5 cycle per pixel over that at 0.25 to 0.36, in dB.

    The power of rounding is taken out of both, down to a quarter of itself: where nothing but
    rounding is left, there is no detail. White noise gives 0, soft pixels -7 and less.
    A panel of fewer than 32 px is too small for a spectrum and gets 0.
    """
    if min(panel.shape) < _LEAST_PX:
        return 0.0
    power = ring_power(panel, drawn)
    frequencies = np.linspace(0, 0.5, len(power))
    highest, high = (
        max(float(power[(frequencies > low) & (frequencies <= stop)].mean()) - _ROUNDING, _LEAST)
        for low, stop in (_HIGHEST, _HIGH)
    )
    return float(10 * np.log10(highest / high))


def ring_power(panel: Grey, drawn: Mask | None = None) -> Float[np.ndarray, " rings"]:
    """Return the power in square rings of the spectrum: by the higher of both frequencies.

    An interpolation ends rows and columns at a frequency each, so its border is a square.

    Returns:
        From 0 to 0.5 cycle per pixel, in grey levels squared; white noise has its variance in each.
        The mean over windows that hold nothing drawn, or over all where none is free.
    """
    side = min(_WINDOW_PX, *panel.shape)
    shape = tuple(length // side for length in panel.shape)
    windows = _in_windows(panel, side, shape)
    if drawn is not None and not (held := _in_windows(drawn, side, shape).any(axis=(1, 2))).all():
        windows = windows[~held]
    taper = np.hanning(side + 1)[:-1].astype(np.float32)
    window = taper[:, None] * taper
    levels = windows.astype(np.float32)
    levels = (levels - levels.mean(axis=(1, 2), keepdims=True)) * window
    power = (np.abs(rfft2(levels)) ** 2).mean(axis=0) / np.square(window).sum()
    along, across = np.abs(np.fft.fftfreq(side)), np.fft.rfftfreq(side)
    ring = np.rint(np.maximum(along[:, None], across) * side).astype(int)
    return np.bincount(ring.ravel(), power.ravel()) / np.bincount(ring.ravel())


def _in_windows(
    of: Shaped[np.ndarray, "height width"], side: int, shape: tuple[int, ...]
) -> Shaped[np.ndarray, "n side side"]:
    """Cut into squares side by side."""
    rows, columns = shape
    cut = of[: rows * side, : columns * side].reshape(rows, side, columns, side)
    return cut.swapaxes(1, 2).reshape(-1, side, side)


def _middle(of: Shaped[np.ndarray, "_ _"], most_px: int = _MOST_PX) -> Shaped[np.ndarray, "_ _"]:
    """Cut out the middle, at most so many pixels high and wide."""
    top, left = (max(0, (side - most_px) // 2) for side in of.shape)
    return of[top : top + most_px, left : left + most_px]
