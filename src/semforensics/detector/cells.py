"""Score tiles fast, cell by cell: logits of tiles and of windows of any place in one pass.

The logit of `WorldNetwork` is a mean over cells, so the cells of tiles that lie side by side serve
all windows over them. Nothing is trained any more, so every batch normalisation becomes part of the
convolution before it, and padding part of the convolution after it.
"""

import copy
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from semforensics.core.images import to_unit_range
from semforensics.detector.tiling import cut_tiles
from semforensics.detector.trunk import SameConv

N = TypeVar("N", bound=nn.Module)
Cells = Float[np.ndarray, "n rows columns"]

_BATCH_PX = 2**17  # of tiles; more gain nothing


@runtime_checkable
class LogitMapper(Protocol):
    """A network whose logit is the mean of the logits of cells."""

    def logit_map(
        self, images: Float[Tensor, "n 1 height width"]
    ) -> Float[Tensor, "n rows columns"]:
        """Return the logit of every cell of images in -1 … 1."""
        ...


def fold(network: N) -> N:
    """Copy a network in which each normalisation that follows a convolution is part of it.

    Args:
        network: In eval mode; such pairs are `nn.Sequential`s of two.
    """
    assert not network.training, "statistics of a batch cannot be folded"
    body = copy.deepcopy(network)
    for module in list(body.modules()):
        if isinstance(module, nn.Sequential) and len(module) == 2:
            first, second = module
            if isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d):
                module[0] = _padding_itself(fuse_conv_bn_eval(first, second))
                module[1] = nn.Identity()
    body.requires_grad_(False).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return body


def _padding_itself(conv: nn.Conv2d) -> nn.Conv2d:
    """Return a convolution that needs no padded copy of what it reads, where that is worth it.

    A stride of 2 pads an even side by one more at its end. A kernel with a row and a column of
    zeros before its own is padded alike on both ends, and reads the same.
    """
    side, stride = conv.kernel_size[0], conv.stride[0]
    if not isinstance(conv, SameConv) or (stride > 1 and conv.groups == 1):
        return conv  # the first convolution of all: its few channels are quickly copied
    channels, more = (conv.in_channels, conv.out_channels), stride - 1
    bare = nn.Conv2d(*channels, side + more, stride, padding=side // 2, groups=conv.groups)
    bare.weight = nn.Parameter(F.pad(conv.weight, (more, 0, more, 0)))
    bare.bias = conv.bias
    return bare


@torch.inference_mode()
def cell_logits(
    network: LogitMapper, images: UInt8[Tensor, "n 1 height width"], device: torch.device
) -> Cells:
    """Return the logits of the cells of images; their mean over an image is its logit.

    Args:
        network: On `device`, in eval mode.
        images: At least one, of grey levels 0 … 255, with sides that its map takes.
        device: Where to score.
    """
    few = max(1, _BATCH_PX // (images.shape[-2] * images.shape[-1]))
    found = []
    for batch in torch.split(images, few):
        x = to_unit_range(batch.to(device)).contiguous(memory_format=torch.channels_last)
        found.append(network.logit_map(x).float().cpu())
    return np.asarray(torch.cat(found).numpy())


def panel_windows(
    network: LogitMapper, panel: UInt8[np.ndarray, "height width"], *, tile_px: int, step: int
) -> Float[np.ndarray, "window_rows window_columns"]:
    """Cut a panel into tiles, score them on a CPU and return the logits of windows over them."""
    tiles = cut_tiles(panel, tile_px)
    cells = cell_logits(network, tiles.pixels, torch.device("cpu"))
    return window_means(cells, tiles.corners, panel.shape, tile_px, step)


def window_means(
    cells: Cells, corners: Int[np.ndarray, "n 2"], shape: tuple[int, int], tile_px: int, step: int
) -> Float[np.ndarray, "window_rows window_columns"]:
    """Return the logits of windows of a tile's size at regular places of an image.

    Args:
        cells: Of tiles; those side by side come first.
        corners: Top row and left column of each tile. A tile that does not begin on a cell's border
            counts as at the nearest one, and only where no other tile is.
        shape: Height and width of the image, at least those of a tile.
        tile_px: Side of a tile.
        step: Cells from one window to the next.

    Returns:
        NaN where a window holds a cell that is in no tile.
    """
    side = cells.shape[-1]
    cell_px = tile_px // side
    rows, columns = (length // cell_px for length in shape)
    values = np.full((rows, columns), np.nan)
    for (top, left), of_tile in zip(np.rint(corners / cell_px).astype(int), cells, strict=True):
        part = values[top : top + side, left : left + side]
        known = of_tile[: part.shape[0], : part.shape[1]]
        part[:] = np.where(np.isnan(part), known, part)
    views = np.lib.stride_tricks.sliding_window_view(values, (side, side))[::step, ::step]
    return np.asarray(views.mean(axis=(2, 3)), dtype=np.float32)
