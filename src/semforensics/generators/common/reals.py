"""The training images of a generator: chosen, read once, drawn in endless permutations."""

from pathlib import Path

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from semforensics.core.errors import InputError
from semforensics.core.images import read_crop, to_unit_range
from semforensics.core.tables import read_splits
from semforensics.params import Protocol


def training_files(cropped: Path, splits: Path, protocol: Protocol) -> list[Path]:
    """List the reals that a generator may see: the train split, or under `thesis` all of them."""
    table = read_splits(splits)
    if protocol == "clean":
        table = table[table["split"] == "train"]
    return [cropped / name for name in sorted(table["file"])]


def load_reals(files: list[Path]) -> UInt8[Tensor, "n_real 1 side side"]:
    """Read canonical crops into memory.

    Raises:
        InputError: There are none, or one is not square or not as large as the first.
    """
    if not files:
        raise InputError("no training images")
    images: list[Tensor] = []
    for path in files:
        grey = torch.from_numpy(read_crop(path).copy())
        side = images[0].shape[-1] if images else grey.shape[-1]
        if grey.shape != (side, side):
            height, width = grey.shape
            raise InputError(f"{path}: {height}x{width} px, expected {side}x{side} px")
        images.append(grey[None])
    return torch.stack(images)


def take(
    reals: UInt8[Tensor, "n_real 1 side side"],
    indices: Int64[Tensor, " batch"],
    channels: int,
    *,
    flip: bool,
    rng: torch.Generator,
) -> Float[Tensor, "batch channels side side"]:
    """Take reals in -1 … 1, each mirrored left to right with probability 1/2 where `flip`."""
    x = to_unit_range(reals[indices])
    if flip:
        mirrored = torch.rand(len(x), generator=rng) < 0.5
        x = torch.where(mirrored.view(-1, 1, 1, 1), x.flip(3), x)
    return x.expand(-1, channels, -1, -1)


def take_mirrored(
    reals: UInt8[Tensor, "n_real 1 side side"], indices: Int64[Tensor, " batch"], channels: int
) -> Float[Tensor, "batch channels side side"]:
    """Return some reals in -1 … 1; indices from `n_real` on name the same reals mirrored."""
    x = to_unit_range(reals[indices % len(reals)])
    x = torch.where((indices >= len(reals)).view(-1, 1, 1, 1), x.flip(3), x)
    return x.expand(-1, channels, -1, -1)
