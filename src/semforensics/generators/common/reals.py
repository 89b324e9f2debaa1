"""The training images of a generator: chosen, read once, drawn, and cut out."""

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from semforensics.core.errors import InputError
from semforensics.core.images import stack_crops, to_unit_range
from semforensics.core.tables import MEASURE, read_splits
from semforensics.params import Protocol


@dataclass(frozen=True)
class RealCrops:
    """The reals that a generator may learn from."""

    cropped: Path
    splits: Path
    protocol: Protocol
    """`clean`: the train split; `thesis`: all reals but those for measuring."""

    def files(self) -> list[Path]:
        """List the files."""
        table = read_splits(self.splits)
        if self.protocol == "clean":
            table = table[table["split"] == "train"]
        elif "use" in table:
            table = table[table["use"] != MEASURE]
        return [self.cropped / name for name in sorted(table["file"])]

    def load(self) -> UInt8[Tensor, "n_real 1 side side"]:
        """Read them into memory; errors as of `load_reals`."""
        return load_reals(self.files())


def load_reals(files: list[Path]) -> UInt8[Tensor, "n_real 1 side side"]:
    """Read canonical crops into memory.

    Raises:
        InputError: There are none, or one is not square or not as large as the first.
    """
    if not files:
        raise InputError("no training images")
    images = torch.from_numpy(stack_crops(files))
    height, width = images.shape[1:]
    if height != width:
        raise InputError(f"{files[0]}: {width}x{height} px, expected a square")
    return images[:, None]


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
        x = _mirror(x, torch.rand(len(x), generator=rng) < 0.5)
    return x.expand(-1, channels, -1, -1)


def take_mirrored(
    reals: UInt8[Tensor, "n_real 1 side side"], indices: Int64[Tensor, " batch"], channels: int
) -> Float[Tensor, "batch channels side side"]:
    """Return some reals in -1 … 1; indices from `n_real` on name the same reals mirrored."""
    x = to_unit_range(reals[indices % len(reals)])
    return _mirror(x, indices >= len(reals)).expand(-1, channels, -1, -1)


def _mirror(x: Tensor, which: Tensor) -> Tensor:
    return torch.where(which.view(-1, 1, 1, 1), x.flip(3), x)


def cut_out(
    images: Float[Tensor, "batch 1 side side"], size_px: int, rng: torch.Generator
) -> Float[Tensor, "batch 1 size_px size_px"]:
    """Cut a square of native pixels out of each image, each at its own random position."""
    positions = images.shape[-1] - size_px + 1
    tops, lefts = torch.randint(positions, (2, len(images)), generator=rng).tolist()
    cuts = [
        image[:, top : top + size_px, left : left + size_px]
        for image, top, left in zip(images, tops, lefts, strict=True)
    ]
    return torch.stack(cuts)
