"""What a model keeps of its training reals: spectra, and fingerprints to recognise them by.

No pixel is kept. A fingerprint is the signs of the lowest frequencies of a crop, 255 bits: enough
to find the crop again, flipped, turned, compressed or inside a larger panel; far too little to draw
it.

A panel is searched in two steps: the 63 lowest frequencies at every second cell of the shrunk
panel, against all crops in all eight positions; then all 255 bits around the best places, to the
pixel around the very best.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, Int8, UInt8, UInt64
from torch import Tensor

from semforensics.core.errors import InputError
from semforensics.detector.tiling import Tiles
from semforensics.distances.spectra import radial_power_spectra
from semforensics.screening.records import Box, Grey, GreyOfAnySize

FREQUENCIES = 16
"""Of each direction that a fingerprint holds."""
BITS = FREQUENCIES**2 - 1
"""Of a fingerprint: the mean, at the lowest frequencies, is left out."""
CELLS = 32
"""Side of the shrunk crop that a fingerprint is taken of."""
PERCENTILES = (5, 50, 95)

_COARSE = 8  # frequencies of each direction in the first step
_PLACES = 192  # looked at again in the second
_BEST = 24  # of them, to the pixel
_ROUNDING = 1 / 12  # grey levels squared: what whole grey levels add to every spectrum
_SAFETY = 0.9  # of the smallest distance of a picture of another group
_WINDOWS = 128  # at a time: their distances from all crops fit the cache
_HIGH, _MIDDLE = (0.55, 0.7), (0.3, 0.4)  # cycles per pixel
_SHOULDER, _OBJECTS = (0.15, 0.3), (0.04, 0.1)

_TURNS = (
    "as it is",
    "mirrored left to right",
    "mirrored top to bottom",
    "turned by 180 degrees",
    "mirrored along the diagonal",
    "turned by 90 degrees clockwise",
    "turned by 90 degrees counter-clockwise",
    "mirrored along the other diagonal",
)

Fingerprints = Int8[np.ndarray, "n count count"]
Windows = Float[np.ndarray, "n cells cells"]


@dataclass(frozen=True)
class References:
    """Statistics of the training reals."""

    frequencies: Float[np.ndarray, " rings"]
    """In cycles per pixel."""
    spectra_db: Float[np.ndarray, "percentiles rings"]
    """Their power, 10 log10 of grey levels squared times pixels squared, at `PERCENTILES`."""
    fineness_db: float
    """The fifth percentile of their `fineness`: of twenty training reals one is below."""
    reach_db: float
    """The 95th percentile of their `reach`; infinite in files from before it was measured."""
    fingerprints: Fingerprints
    """Of their crops, each bit -1 or 1, by frequency down and across."""
    names: tuple[str, ...]
    """Of the crops."""
    nearest: float
    """Share of bits below which a distance between fingerprints is suspicious."""
    size_px: int
    """Side of the crops."""

    @classmethod
    def measure(
        cls,
        reals: UInt8[np.ndarray, "n side side"],
        names: Sequence[str],
        others: Sequence[GreyOfAnySize],
    ) -> "References":
        """Measure training reals.

        Args:
            reals: Crops that the model has learned from.
            names: Their file names.
            others: Pictures of other groups, at least as large as a crop. Each is searched as a
                panel would be; nine tenths of the smallest distance found is the border of what is
                suspicious.

        Raises:
            InputError: There are none of either, or the crops are too small for a fingerprint.
        """
        if len(reals) == 0 or len(others) == 0:
            raise InputError(f"{len(reals)} training reals and {len(others)} others, need both")
        size_px = int(reals.shape[-1])
        if size_px < CELLS:
            raise InputError(f"crops of {size_px} px, need at least {CELLS}")
        step = size_px // CELLS
        fingerprints = np.concatenate(
            [_fingerprints(_shrink(real, step)[None, :CELLS, :CELLS]) for real in reals]
        )
        found = [_search(other, fingerprints, step) for other in others]
        distances = [one[0] for one in found if one is not None]
        if not distances:
            raise InputError(f"{len(others)} others, all smaller than a crop of {size_px} px")
        return replace(
            cls.of_spectra(reals),
            fingerprints=fingerprints,
            names=tuple(names),
            nearest=_SAFETY * min(distances),
        )

    @classmethod
    def of_spectra(cls, reals: UInt8[np.ndarray, "n side side"]) -> "References":
        """Measure the spectra of at least one training real alone: none will be recognised."""
        frequencies, power = radial_power_spectra(reals)
        spectra = to_db(power)
        return cls(
            frequencies.astype(np.float32),
            np.percentile(spectra, PERCENTILES, axis=0).astype(np.float32),
            float(np.percentile(fineness(frequencies, spectra), 5)),
            float(np.percentile(reach(frequencies, spectra), 95)),
            np.empty((0, FREQUENCIES, FREQUENCIES), dtype=np.int8),
            (),
            0.0,
            int(reals.shape[-1]),
        )

    def find(self, panel: Grey) -> dict[str, Any] | None:
        """Search a panel for any training real.

        Returns:
            The nearest real with `distance` (share of differing bits), `threshold`, `crop` (its
            name), the `box` of the panel it lies in, and its `transform`: how the panel shows it;
            None where none is suspiciously near or known, or the panel is smaller than a crop.
        """
        if not self.names:
            return None
        step = self.size_px // CELLS
        found = _search(panel, self.fingerprints, step)
        if found is None or found[0] >= self.nearest:
            return None
        distance, top, left, crop, turn = found
        return {
            "distance": distance,
            "threshold": self.nearest,
            "crop": self.names[crop],
            "transform": _TURNS[turn],
            "box": Box(top, left, top + CELLS * step, left + CELLS * step),
        }

    def spectrum_of(self, tiles: Tiles) -> Float[np.ndarray, " rings"]:
        """Return the mean spectrum of at least one tile, by area, in decibels, at `frequencies`."""
        spectra = to_db(radial_power_spectra(tiles.pixels[:, 0].numpy())[1])
        return np.asarray(np.average(spectra, axis=0, weights=tiles.areas))

    def tensors(self) -> dict[str, Tensor]:
        """Return what goes into a model file; the bits of the fingerprints are packed."""
        bits = self.fingerprints.reshape(len(self.names), FREQUENCIES**2)[:, 1:]
        arrays = {
            "frequencies": self.frequencies,
            "spectra_db": self.spectra_db,
            "marks": np.packbits(bits > 0, axis=1),
        }
        return {name: torch.from_numpy(array) for name, array in arrays.items()}

    def numbers(self) -> dict[str, Any]:
        """Return the rest, for the header."""
        names = ("fineness_db", "reach_db", "names", "nearest", "size_px")
        return {name: getattr(self, name) for name in names}

    @classmethod
    def restore(cls, tensors: dict[str, Tensor], numbers: dict[str, Any]) -> "References":
        """Rebuild from `tensors` and `numbers`.

        Raises:
            InputError: They do not belong together.
        """
        packed, n_crops = tensors["marks"].numpy(), len(numbers["names"])
        if packed.shape != (n_crops, -(-BITS // 8)):
            raise InputError(
                f"marks of shape {packed.shape}, expected {-(-BITS // 8)} bytes for each of "
                f"{n_crops} crops"
            )
        signs = np.unpackbits(packed, axis=1, count=BITS).astype(np.int8) * 2 - 1
        return cls(
            tensors["frequencies"].numpy(),
            tensors["spectra_db"].numpy(),
            float(numbers["fineness_db"]),
            float(numbers.get("reach_db", math.inf)),
            np.insert(signs, 0, 1, axis=1).reshape(n_crops, FREQUENCIES, FREQUENCIES),
            tuple(numbers["names"]),
            float(numbers["nearest"]),
            int(numbers["size_px"]),
        )


def to_db(power: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """Return power in decibels, with what rounding to grey levels adds to all of it."""
    return np.asarray(10 * np.log10(power + _ROUNDING))


def fineness(
    frequencies: Float[np.ndarray, " rings"], spectra_db: Float[np.ndarray, "*n rings"]
) -> Float[np.ndarray, "*n"]:
    """Return how much power there is at the corners of the spectrum, in dB over its middle.

    The corners are what resampling loses first: noise of the instrument is about as strong there as
    anywhere, pixels that were interpolated have less.
    """
    return _power_over(frequencies, spectra_db, _HIGH, _MIDDLE)


def reach(
    frequencies: Float[np.ndarray, " rings"], spectra_db: Float[np.ndarray, "*n rings"]
) -> Float[np.ndarray, "*n"]:
    """Return how much power there is in details of 3 to 7 pixels, in dB over those of 10 to 25.

    Where pixels are left out and nothing is smoothed, objects become smaller and their edges
    harder, so more of their power lies there.
    """
    return _power_over(frequencies, spectra_db, _SHOULDER, _OBJECTS)


def _power_over(
    frequencies: Float[np.ndarray, " rings"],
    spectra_db: Float[np.ndarray, "*n rings"],
    *bands: tuple[float, float],
) -> Float[np.ndarray, "*n"]:
    """Return the mean power of the first band over that of the second, in dB."""
    one, other = (
        spectra_db[..., (frequencies >= low) & (frequencies < stop)].mean(axis=-1)
        for low, stop in bands
    )
    return np.asarray(one - other)


def _shrink(grey: GreyOfAnySize, step: int) -> Float[np.ndarray, "rows columns"]:
    """Average cells of `step` x `step` pixels."""
    rows, columns = (side // step for side in grey.shape)
    cells = grey[: rows * step, : columns * step].reshape(rows, step, columns, step)
    return np.asarray(cells.mean(axis=(1, 3)), dtype=np.float32)


def _basis(count: int) -> Float[np.ndarray, "count cells"]:
    """Return the lowest cosines (DCT-II); the signs need no scale."""
    places = (np.arange(CELLS) + 0.5) / CELLS
    waves = np.cos(np.pi * np.arange(count)[:, None] * places)
    return np.asarray(waves, dtype=np.float32)


def _fingerprints(windows: Windows, count: int = FREQUENCIES) -> Fingerprints:
    """Take the signs of the lowest frequencies of windows; the sign of the mean is set to 1."""
    basis = _basis(count)
    signs = np.where(basis @ windows @ basis.T >= 0, 1, -1).astype(np.int8)
    signs[:, 0, 0] = 1
    return signs


def _all_turns(fingerprints: Fingerprints) -> Int8[np.ndarray, "8 n count count"]:
    """Return the fingerprints of the eight flips and quarter turns, in the order of their names.

    A flip changes the signs of the odd frequencies of its direction, a transpose swaps directions.
    """
    odd = np.where(np.arange(fingerprints.shape[1]) % 2, -1, 1).astype(np.int8)
    return np.stack(
        [
            swapped * down * across
            for swapped in (fingerprints, fingerprints.swapaxes(1, 2))
            for down, across in ((1, 1), (1, odd), (odd[:, None], 1), (odd[:, None], odd))
        ]
    )


def _search(
    picture: GreyOfAnySize, fingerprints: Fingerprints, step: int
) -> tuple[float, int, int, int, int] | None:
    """Find the place of a picture that is most like a crop.

    Returns:
        Distance, row and column of the pixel where it begins, which crop, and which turn of it;
        None where the picture is smaller than a crop.
    """
    shrunk = _shrink(picture, step)
    if min(shrunk.shape) < CELLS:
        return None
    windows = np.lib.stride_tricks.sliding_window_view(shrunk, (CELLS, CELLS))
    turns = _all_turns(fingerprints)
    found = []
    for row, column, crop, turn in _coarse(windows[::2, ::2], fingerprints).tolist():
        around = _around(2 * row, 2 * column, 1, windows.shape)
        near = np.stack([windows[place] for place in around])
        found.append((*_nearest(near, around, turns[turn, crop]), crop, turn))

    # The best places to the pixel: half a cell aside, the highest frequencies are lost.
    means = _box_means(picture, step)
    limits = [side - CELLS * step + 1 for side in picture.shape]
    best = (2.0, 0, 0, 0, 0)
    for _, row, column, crop, turn in sorted(found)[:_BEST]:
        around = _around(row * step, column * step, step // 2, limits)
        near = np.stack(
            [means[y : y + CELLS * step : step, x : x + CELLS * step : step] for y, x in around]
        )
        best = min(best, (*_nearest(near, around, turns[turn, crop]), crop, turn))
    return best


def _around(row: int, column: int, reach: int, limits: Sequence[int]) -> list[tuple[int, int]]:
    """List the places around one that are not out of the limits."""
    return [
        (y, x)
        for y in range(max(0, row - reach), min(limits[0], row + reach + 1))
        for x in range(max(0, column - reach), min(limits[1], column + reach + 1))
    ]


def _nearest(
    windows: Windows,
    places: Sequence[tuple[int, int]],
    fingerprint: Int8[np.ndarray, "count count"],
) -> tuple[float, int, int]:
    """Return the smallest distance of windows from a fingerprint, and the place of that window."""
    distances = np.count_nonzero(_fingerprints(windows) != fingerprint, axis=(1, 2)) / BITS
    index = int(distances.argmin())
    return (float(distances[index]), *places[index])


def _box_means(grey: GreyOfAnySize, step: int) -> Float[np.ndarray, "rows columns"]:
    """Average the `step` x `step` pixels that begin at each pixel."""
    sums = np.pad(grey.astype(np.int64).cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
    corners = sums[step:, step:] - sums[step:, :-step] - sums[:-step, step:] + sums[:-step, :-step]
    return np.asarray(corners / step**2, dtype=np.float32)


def _coarse(
    windows: Float[np.ndarray, "rows columns cells cells"], fingerprints: Fingerprints
) -> Int[np.ndarray, "places 4"]:
    """Return the best places by the lowest frequencies: row, column, crop and turn."""
    rows, columns = windows.shape[:2]
    crops = _packed(_all_turns(fingerprints[:, :_COARSE, :_COARSE]).reshape(-1, _COARSE**2))
    scores, picks = [], []
    for start in range(0, rows * columns, _WINDOWS):
        index = np.arange(start, min(start + _WINDOWS, rows * columns))
        found = _fingerprints(windows[index // columns, index % columns], _COARSE)
        words = _packed(found.reshape(len(index), _COARSE**2))
        differing = np.bitwise_count(words[:, None] ^ crops)
        picks.append(differing.argmin(axis=1))
        scores.append(differing.min(axis=1))
    score, pick = np.concatenate(scores), np.concatenate(picks)
    order = np.argsort(score, kind="stable")[:_PLACES]
    turn, crop = np.divmod(pick[order], len(fingerprints))
    return np.stack([order // columns, order % columns, crop, turn], axis=1)


def _packed(signs: Int8[np.ndarray, "n 64"]) -> UInt64[np.ndarray, " n"]:
    """Return 64 signs as one number."""
    return np.packbits(signs > 0, axis=1).view(np.uint64)[:, 0]
