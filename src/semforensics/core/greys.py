"""Grey samples of 16 bits → 8 bits; without torch, so that a process that decodes starts fast."""

import numpy as np
from jaxtyping import UInt8, UInt16

Samples = UInt8[np.ndarray, "height width"] | UInt16[np.ndarray, "height width"]

_PERCENTILES = (0.1, 99.9)  # become black and white when 16 bits become 8
_FACTORS_OF_8_BIT = (257, 256, 16, 1)  # by which programs widen 8-bit samples to 16 bits


def to_8_bit(samples: Samples) -> UInt8[np.ndarray, "height width"]:
    """Reduce 16-bit grey to 8 bits; 8-bit grey comes back as it is.

    8-bit samples that a program has widened to 16 bits come back as they were. Else the 0.1th
    percentile becomes 0, the 99.9th 255, linear between, rounded and clipped. Where the two
    coincide, minimum and maximum take their places; a constant image keeps its share of full scale.
    """
    if samples.dtype == np.uint8:
        return samples
    if (narrow := narrowed(samples)) is not None:
        return narrow
    low, high = np.percentile(samples, _PERCENTILES)
    if low == high:
        low, high = float(samples.min()), float(samples.max())
    if low == high:
        return np.round(samples / 257).astype(np.uint8)
    scaled = (samples.astype(np.float64) - low) * (255 / (high - low))
    return np.asarray(scaled.round().clip(0, 255), dtype=np.uint8)


def narrowed(samples: Samples) -> UInt8[np.ndarray, "height width"] | None:
    """Undo the widening of 8-bit samples to 16 bits, times 257, 256, 16 or 1.

    Returns:
        The 8-bit samples; None where the samples need more than 8 bits, or are all equal.
    """
    highest = int(samples.max())
    if highest == samples.min():
        return None
    for factor in _FACTORS_OF_8_BIT:
        if highest <= 255 * factor and not (samples % factor).any():
            return (samples // factor).astype(np.uint8)
    return None
