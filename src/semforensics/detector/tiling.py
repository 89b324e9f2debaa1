"""Large images as tiles of the size that the classifier knows, at native resolution.

Tiles stand side by side from the top-left corner, as training crops do: they never overlap, begin
at even coordinates and are never resampled. A rest at the right and bottom edges is dropped.

Three rules make one logit of many. `mean`, the default: every tile counts alike, and independent
errors average out. `median`: up to half of the tiles may be anything. `max`: the most suspicious
tile decides, so that a generated part is found in a real frame; the more tiles, the more likely a
false alarm.
"""

from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from semforensics.core.errors import InputError

Pooling = Literal["mean", "median", "max"]
Grey = UInt8[np.ndarray, "height width"]
Logits = Float[np.ndarray, " n"]


def cut_tiles(image: Grey, size_px: int) -> UInt8[Tensor, "n 1 size_px size_px"]:
    """Cut an image into tiles, row by row.

    Raises:
        InputError: The side of a tile is odd, or the image is smaller than one.
    """
    height, width = image.shape
    if size_px % 2 or size_px < 2:
        raise InputError(f"tiles of {size_px} px: expected an even number")
    rows, columns = height // size_px, width // size_px
    if min(rows, columns) == 0:
        raise InputError(f"{width}x{height} px: need at least {size_px}x{size_px} px for a tile")
    whole = image[: rows * size_px, : columns * size_px]
    grid = whole.reshape(rows, size_px, columns, size_px).swapaxes(1, 2)
    return torch.from_numpy(grid.reshape(-1, 1, size_px, size_px).copy())


def pool(logits: Logits, pooling: Pooling) -> float:
    """Make one logit of those of an image's tiles.

    Raises:
        InputError: There are no tiles.
    """
    if len(logits) == 0:
        raise InputError("no tiles to pool")
    match pooling:
        case "mean":
            return float(np.mean(logits))
        case "median":
            return float(np.median(logits))
        case "max":
            return float(np.max(logits))
