"""Four classical detectors that the network has to beat: hand-made features, linear models.

- `spectrum`: azimuthally averaged power spectrum, logistic regression. Durall et al., "Watch your
  Up-Convolution", CVPR 2020, arXiv:2003.01826.
- `dct`: logarithm of the discrete cosine transform, ridge regression. Frank et al., "Leveraging
  Frequency Analysis for Deep Fake Image Recognition", ICML 2020, arXiv:2003.08685.
- `srm`: residuals of 30 linear high-pass filters, logistic regression. Fridrich and Kodovský, "Rich
  Models for Steganalysis of Digital Images", IEEE TIFS 7 (2012), section II.
- `noise`: what counting electrons line by line leaves in a micrograph, logistic regression.

Ours share one rule that the papers lack: features are measured on square tiles of one size, which
do not overlap and lie evenly spread over the image, and are averaged over the tiles of an image. A
model that was fitted at one size therefore scores any image that holds a tile.

Features are standardised by the training images. The strength of regularisation is the one of least
error in a cross-validation by group among the training images; nothing else is chosen by data.
"""

from typing import Any, Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32, Int, UInt8
from scipy.fft import dctn

from semforensics.core.errors import InputError
from semforensics.core.processing import MEDIAN_OF_NORMAL, haar_diagonal
from semforensics.detector.calibration import Labels
from semforensics.distances.spectra import radial_power_spectra
from semforensics.trials.linear import Features, Groups, LinearModel, fit_logistic, fit_ridge

BaselineName = Literal["spectrum", "dct", "srm", "noise"]
BASELINES: tuple[BaselineName, ...] = get_args(BaselineName)

Images = UInt8[np.ndarray, "n height width"]
Tiles = UInt8[np.ndarray, "tiles side side"]

TILE_PX = 64

_CHUNK_TILES = 64  # bounds memory; never changes a feature beyond rounding
_ROUNDING = 1 / 12  # variance of rounding to whole grey levels: power below it means nothing
_BLOCK_PX = 8  # of the noise's variance against its mean


def measure_features(
    name: BaselineName, images: Images, tile_px: int = TILE_PX
) -> Float32[np.ndarray, "n features"]:
    """Measure the features of one baseline, averaged over the tiles of each image.

    Raises:
        InputError: There are no images, or they hold no tile; its side is at least 16 px.
    """
    n, height, width = images.shape
    if n == 0 or min(height, width) < tile_px:
        raise InputError(f"{n} images of {width}x{height} px, no tile of {tile_px} px")
    count = (height // tile_px) * (width // tile_px)
    step = max(1, _CHUNK_TILES // count)
    parts = []
    for start in range(0, n, step):
        tiles = spread_tiles(images[start : start + step], tile_px)
        match name:
            case "spectrum":
                features = np.log10(radial_power_spectra(tiles)[1] + _ROUNDING)
            case "dct":
                features = _cosines(tiles)
            case "srm":
                features = _residuals(tiles)
            case "noise":
                features = _noise(tiles)
        parts.append(features.reshape(-1, count, features.shape[1]).mean(axis=1))
    return np.concatenate(parts).astype(np.float32)


def spread_tiles(images: Images, tile_px: int) -> Tiles:
    """Cut as many tiles as fit without overlap, with equal gaps before, between and after them.

    The tiles of the first image come first, row by row.
    """
    tops, lefts = (_starts(side_px, tile_px) for side_px in images.shape[1:])
    # [rows of tiles, columns of tiles, n, side, side]
    tiles = [
        [images[:, top : top + tile_px, left : left + tile_px] for left in lefts] for top in tops
    ]
    return np.array(tiles).transpose(2, 0, 1, 3, 4).reshape(-1, tile_px, tile_px)


def _starts(side_px: int, tile_px: int) -> list[int]:
    """Place tiles with equal gaps before, between and after them, up to a pixel."""
    count = side_px // tile_px
    gap = (side_px - count * tile_px) / (count + 1)
    return [int(gap + index * (tile_px + gap)) for index in range(count)]


def _cosines(tiles: Tiles) -> Features:
    """Return the logarithm of the power of each cosine, without the mean.

    Tiles are averaged after the logarithm, so that the mean does not depend on their number.
    """
    cosines = dctn(tiles.astype(np.float32), axes=(1, 2), norm="ortho").reshape(len(tiles), -1)
    return np.asarray(np.log10(np.square(cosines[:, 1:]) + np.float32(_ROUNDING)))


# Section II-A of the paper, the filters of its figure 1: each predicts a pixel from its neighbours
# and returns what is left. Odd orders point in eight directions, the second order lies along four
# lines, edges are the halves of squares.
_DIRECTIONS = ((0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1), (1, 0), (1, 1))
_ORDERS = (
    ({0: -1, 1: 1}, _DIRECTIONS),
    ({-1: 1, 0: -2, 1: 1}, _DIRECTIONS[:4]),
    ({-1: 1, 0: -3, 1: 3, 2: -1}, _DIRECTIONS),
)
_SQUARE_3 = ((-1, 2, -1), (2, -4, 2), (-1, 2, -1))
_SQUARE_5 = (
    (-1, 2, -2, 2, -1),
    (2, -6, 8, -6, 2),
    (-2, 8, -12, 8, -2),
    (2, -6, 8, -6, 2),
    (-1, 2, -2, 2, -1),
)


def residual_filters() -> Float32[np.ndarray, "30 5 5"]:
    """List the 30 basic filters: 8 + 4 + 8 of first to third order, 1 + 4 of side 3, 1 + 4 of 5."""
    filters = []
    for taps, directions in _ORDERS:
        for down, right in directions:
            kernel = np.zeros((5, 5))
            for distance, weight in taps.items():
                kernel[2 + distance * down, 2 + distance * right] = weight
            filters.append(kernel)
    for square in (_SQUARE_3, _SQUARE_5):
        whole = np.pad(np.array(square, dtype=float), (5 - len(square)) // 2)
        half = np.where(np.arange(5)[:, None] <= 2, whole, 0)
        filters += [whole, *(np.rot90(half, turns) for turns in range(4))]
    return np.stack(filters).astype(np.float32)


_FILTERS = residual_filters()
_TRUNCATION = 2  # of the paper
_LEVELS = 2 * _TRUNCATION + 1


def _symmetry() -> Float32[np.ndarray, "25 9"]:
    """Map pairs of neighbouring residuals to kinds that change of sign and of order keep.

    Section II-C of the paper: natural images do not tell them apart.
    """
    pairs = [(a, b) for a in range(_LEVELS) for b in range(_LEVELS)]
    last = _LEVELS - 1
    kinds = [min((a, b), (b, a), (last - a, last - b), (last - b, last - a)) for a, b in pairs]
    return np.array([[kind == k for k in sorted(set(kinds))] for kind in kinds], np.float32)


_SYMMETRY = _symmetry()


def _residuals(tiles: Tiles) -> Features:
    """Return, of each filter's residual: log variance, skewness, log kurtosis, shares of pairs.

    Pairs are neighbours along rows and along columns, quantised and truncated as in the paper, but
    in steps of the residual's own standard deviation (the paper: of fixed grey levels), since the
    noise of micrographs differs far more than that of photographs.
    """
    grey = torch.from_numpy(tiles.astype(np.float32))[:, None]
    residual = F.conv2d(grey, torch.from_numpy(_FILTERS)[:, None])  # [tiles, 30, side - 4, ...]
    variance = residual.square().mean(dim=(2, 3))  # of mean zero, as every filter sums to zero
    # A residual of a constant image is zero everywhere; it stays so.
    scaled = residual / (variance + 1e-12).sqrt()[..., None, None]
    skewness = scaled.pow(3).mean(dim=(2, 3))
    kurtosis = scaled.pow(4).mean(dim=(2, 3)).clamp(min=1)
    levels = scaled.round().clamp(-_TRUNCATION, _TRUNCATION).to(torch.int32) + _TRUNCATION
    along_rows = levels[..., :, :-1] * _LEVELS + levels[..., :, 1:]
    along_columns = levels[..., :-1, :] * _LEVELS + levels[..., 1:, :]
    return torch.cat(
        [
            (variance + _ROUNDING).log10(),
            skewness,
            kurtosis.log10(),
            _shares(along_rows),
            _shares(along_columns),
        ],
        dim=1,
    ).numpy()


def _shares(pairs: Any) -> Any:
    """Count the kinds of pairs of each tile and filter, as shares: [tiles, 30 * 9]."""
    n_tiles, n_filters = pairs.shape[:2]
    size = _LEVELS**2
    which = torch.arange(n_tiles * n_filters, dtype=torch.int32) * size
    numbered = pairs.reshape(n_tiles * n_filters, -1) + which[:, None]
    counts = torch.bincount(numbered.ravel(), minlength=n_tiles * n_filters * size)
    shares = counts.reshape(-1, size).float() / numbered.shape[1]
    return (shares @ torch.from_numpy(_SYMMETRY)).reshape(n_tiles, -1)


def _noise(tiles: Tiles) -> Features:
    """Return eight numbers of the noise of each tile.

    Slope and intercept (asinh, in grey levels squared) of the noise's variance against the mean,
    over blocks of 8x8 px: counting electrons makes it grow. Lag-1 autocorrelation of the residual
    along rows and along columns, and the logarithm of the ratio of one plus each: beam and
    amplifier smear along the scan only. Log variance of the offsets of rows, and of columns, from
    their neighbours: lines are scanned one after the other. Log energy of combs in the histogram,
    over what counting gives: contrast stretched by digits leaves gaps.
    """
    levels = tiles.astype(np.float64)
    slope, intercept = _variance_against_mean(levels)
    along_rows, along_columns = _autocorrelation(levels)
    ratio = np.log((1 + along_rows + 1e-3) / (1 + along_columns + 1e-3))
    offsets = [np.log10(_offset_variance(levels.mean(axis=axis)) + 1e-3) for axis in (2, 1)]
    return np.stack(
        [slope, np.arcsinh(intercept), along_rows, along_columns, ratio, *offsets, _comb(tiles)],
        axis=1,
    )


def _variance_against_mean(
    levels: Float[np.ndarray, "n side side"],
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Fit a line through the blocks of each tile by least squares: its slope and intercept."""
    side = levels.shape[1] // _BLOCK_PX * _BLOCK_PX
    blocks = levels[:, :side, :side].reshape(len(levels), side // _BLOCK_PX, _BLOCK_PX, -1, 8)
    blocks = blocks.transpose(0, 1, 3, 2, 4)  # [n, rows, columns, 8, 8]
    # The median of its size: edges hardly touch it.
    sizes = np.abs(haar_diagonal(blocks)).reshape(len(levels), -1, _BLOCK_PX**2 // 4)
    variance = np.square(np.median(sizes, axis=2) / MEDIAN_OF_NORMAL)
    means = blocks.mean(axis=(3, 4)).reshape(len(levels), -1)
    spread = means - means.mean(axis=1, keepdims=True)
    # + 1: where all blocks are of one grey level, there is no slope.
    slope = (spread * variance).sum(axis=1) / (np.square(spread).sum(axis=1) + 1)
    return slope, variance.mean(axis=1) - slope * means.mean(axis=1)


def _autocorrelation(
    levels: Float[np.ndarray, "n side side"],
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Correlate neighbours along rows and along columns in what a 5x5 mean leaves over."""
    sums = np.cumsum(np.cumsum(np.pad(levels, ((0, 0), (1, 0), (1, 0))), axis=1), axis=2)
    means = (sums[:, 5:, 5:] - sums[:, :-5, 5:] - sums[:, 5:, :-5] + sums[:, :-5, :-5]) / 25
    residual = levels[:, 2:-2, 2:-2] - means
    power = np.square(residual).mean(axis=(1, 2)) + 1e-9
    along_rows = (residual[:, :, :-1] * residual[:, :, 1:]).mean(axis=(1, 2)) / power
    along_columns = (residual[:, :-1] * residual[:, 1:]).mean(axis=(1, 2)) / power
    return along_rows, along_columns


def _offset_variance(means: Float[np.ndarray, "n lines"]) -> Float[np.ndarray, " n"]:
    """Return the mean square of how far the mean of a line is from that of its two neighbours."""
    offsets = means[:, 1:-1] - (means[:, :-2] + means[:, 2:]) / 2
    return np.asarray(np.square(offsets).mean(axis=1))


def _comb(tiles: Tiles) -> Float[np.ndarray, " n"]:
    """Compare each grey level's count with those of its two neighbours, squared."""
    which = np.arange(len(tiles))[:, None] * 256
    counts = np.bincount(
        (tiles.reshape(len(tiles), -1) + which).ravel(), minlength=len(tiles) * 256
    )
    histogram: Int[np.ndarray, "n 256"] = counts.reshape(-1, 256)
    steps = histogram[:, 1:-1] - (histogram[:, :-2] + histogram[:, 2:]) / 2
    # A smooth histogram gives 3/2 of its counts by chance alone.
    energy = np.square(steps).sum(axis=1) / (1.5 * tiles[0].size)
    return np.asarray(np.log10(energy + 1e-3))


def fit_features(
    name: BaselineName, features: Features, is_fake: Labels, groups: Groups
) -> LinearModel:
    """Fit the linear model of a baseline: ridge regression for `dct`, else logistic regression.

    Raises:
        InputError: A class is empty.
    """
    if name == "dct":
        return fit_ridge(features, is_fake, groups)
    return fit_logistic(features, is_fake, groups)
