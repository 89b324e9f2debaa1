"""Signs that pixels are not those of the instrument: then "consistent" means nothing.

The trace of a generator is in neighbouring pixels and does not survive JPEG or resampling: most
generated images look real afterwards (docs/results/detector.md). Five tests, each
on the panel alone, from strong to weak:

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
- Lack of fine detail: less power in the corners of the spectrum than 19 of 20 training crops have.
  What is left then: soft images, resampled or not.
- Too much detail of a few pixels: more power in it, over that in larger objects, than 19 of 20
  training crops have, as where every third or fourth pixel was kept. Every second is not found so.

How often they are right: docs/results/screening.md. None of them proves anything of an image, and
an image without such signs may still have been processed.
"""

import numpy as np
from jaxtyping import Bool, Float
from scipy.fft import dct

from semforensics.detector.tiling import Tiles, cut_tiles
from semforensics.screening.judge.references import References, fineness, reach
from semforensics.screening.records import Grey

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

Mask = Bool[np.ndarray, "height width"]

_CLAUSES = {
    "jpeg": (JPEG_LIMIT, "its pixels show the steps of JPEG compression"),
    "peak": (PEAK_LIMIT, "its pixels show the regular pattern of interpolation"),
    "grid_peak": (
        GRID_PEAK_LIMIT,
        "its pixels show a regular pattern, as blocks of JPEG or interpolation leave it",
    ),
    "equal": (
        EQUAL_LIMIT,
        "its pixels repeat their neighbours, as a median filter or denoising makes them",
    ),
}
"""Signs from strong to weak: the number above which each speaks, and how it is told."""

_BLOCK = 8
_FREQUENCIES = ((0, 1), (1, 0), (1, 1), (0, 2), (2, 0), (1, 2), (2, 1), (2, 2))
_STEPS = np.arange(2, 41)  # of quantisation; 1 is quality 100, which changes next to nothing
_BIN = 0.25  # of a coefficient
_RANGE = 80.0  # coefficients beyond are counted at its ends
_LEAST_DEVIATION = 0.05  # among places, where all are alike
_MOST_PX = 512  # looked at in the middle of a panel, in each direction
_TRANSFORM = 4096
_LOWEST = 0.06  # cycles per pixel: below are the objects
_SMOOTH_PX = 51


def why_not_native(
    panel: Grey, references: References, drawn: Mask | None = None, tiles: Tiles | None = None
) -> str | None:
    """Say what speaks against native pixels, in one clause; None where nothing does.

    Args:
        panel: Without info bar, at least as large as a tile.
        references: Of the model's training reals.
        drawn: Text and lines, which are left out: they repeat their grey level.
        tiles: Of the panel, where they have been cut already.
    """
    signs = measure(panel, references, drawn, tiles)
    for name, (limit, clause) in _CLAUSES.items():
        if signs[name] > limit:
            return clause
    if signs["fineness_db"] < references.fineness_db:
        return (
            "it has less fine detail than native pixels of the training domain, as after resampling"
        )
    if signs["reach_db"] > references.reach_db:
        return (
            "it has more detail of a few pixels than native pixels of the training domain, as where"
            " pixels were left out"
        )
    return None


def measure(
    panel: Grey, references: References, drawn: Mask | None = None, tiles: Tiles | None = None
) -> dict[str, float]:
    """Return the numbers that `why_not_native` compares with its limits."""
    drawn = None if drawn is None or not drawn.any() else drawn
    tiles = cut_tiles(panel, references.size_px, drawn) if tiles is None else tiles
    peak, grid_peak = periodicity(panel, drawn)
    spectrum = references.spectrum_of(tiles)
    return {
        "jpeg": jpeg_steps(panel),
        "peak": peak,
        "grid_peak": grid_peak,
        "equal": equal_neighbours(panel, drawn),
        "fineness_db": float(fineness(references.frequencies, spectrum)),
        "reach_db": float(reach(references.frequencies, spectrum)),
    }


def jpeg_steps(panel: Grey) -> float:
    """Say how much one place of the 8x8 grid stands out by coefficients in steps.

    Returns:
        Of the place that stands out most, the difference from the median of all 64, in median
        absolute deviations. 0 for a panel of fewer than 16 px.
    """
    if min(panel.shape) < 2 * _BLOCK:
        return 0.0
    grey = _middle(panel).astype(np.float32)
    basis = dct(np.eye(_BLOCK), axis=0, norm="ortho").astype(np.float32)
    view = np.lib.stride_tricks.sliding_window_view
    down = {i: view(grey, _BLOCK, axis=0) @ basis[i] for i in {f[0] for f in _FREQUENCIES}}
    places, total = None, np.zeros(_BLOCK**2)
    levels, combs, counted = _combs()
    for i, j in _FREQUENCIES:
        coefficients = view(down[i], _BLOCK, axis=1) @ basis[j]  # of the block at every pixel
        if places is None:
            rows, columns = (np.arange(side) % _BLOCK for side in coefficients.shape)
            places = (rows[:, None] * _BLOCK + columns) * len(levels)
        bins = ((coefficients + _RANGE) / _BIN).clip(0, len(levels) - 1).astype(np.int64)
        counts = np.bincount((places + bins).ravel(), minlength=_BLOCK**2 * len(levels))
        histogram = counts.reshape(_BLOCK**2, -1).astype(np.float32)
        # The mean cosine is 1 on multiples of the step; +20: of few coefficients little is known.
        strength = (histogram @ combs) / np.sqrt(histogram @ counted / 2 + 20)
        total += strength.max(axis=1) / len(_FREQUENCIES)
    middle = np.median(total)
    deviation = np.median(np.abs(total - middle)) + _LEAST_DEVIATION
    return float((total.max() - middle) / deviation)


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


def _middle(panel: Grey) -> Grey:
    """Cut out the middle, at most 512 px high and wide."""
    top, left = (max(0, (side - _MOST_PX) // 2) for side in panel.shape)
    return panel[top : top + _MOST_PX, left : left + _MOST_PX]
