"""Score images fast: the same network with less to compute.

Nothing is trained any more, so every batch normalisation becomes part of the convolution before it
(two products less at each position), three equal channels become one, and the scale of NPR goes
into the first weights.
"""

import copy

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from semforensics.core.errors import InputError
from semforensics.core.images import to_unit_range
from semforensics.detector.networks import NPRNetwork, to_device
from semforensics.detector.npr import GAIN, GREY_STD, IMAGENET_STD, PHASES, npr, phase_crop

CELL_PX = 8
"""Side of the cells of a logit map."""
_CONTEXT_PX = 64  # beyond a cell, that its logit depends on: at most 44
_BAND_PX = 2**21  # pixels of a large image scored at a time
_LEVELS = 127.5  # grey levels in a unit of -1 … 1


class FoldedNetwork(nn.Module):
    """A trained network with its normalisations folded into its convolutions."""

    def __init__(self, network: NPRNetwork) -> None:
        """Copy one of the project's networks, in eval mode."""
        super().__init__()
        assert not network.training, "statistics of a batch cannot be folded"
        body = copy.deepcopy(network)
        std = (GREY_STD,) if body.channels == 1 else IMAGENET_STD
        scale = body.conv1.weight.new_tensor(std).reciprocal() * (GAIN / 2 / _LEVELS)
        first = nn.Conv2d(1, body.conv1.out_channels, 3, stride=2, padding=1, bias=False)
        weight = (body.conv1.weight * scale.view(1, -1, 1, 1)).sum(dim=1, keepdim=True)
        first.weight = nn.Parameter(weight)
        body.conv1 = first.to(weight.device).eval()
        for module in list(body.modules()):
            _fold(module)
        # `to_device` puts the folded convolutions into channels-last, too.
        self.body = to_device(body.requires_grad_(False), weight.device)

    def forward(self, images: Float[Tensor, "n 1 height width"]) -> Float[Tensor, " n"]:
        """Score grey images as `NPRNetwork` does: -1 … 1 of even size in, logits out."""
        logits: Tensor = self.body.fc1(self._features(images).mean(dim=(2, 3)))
        return logits.squeeze(1)

    def logit_map(
        self, images: Float[Tensor, "n 1 height width"]
    ) -> Float[Tensor, "n rows columns"]:
        """Return the logit of every cell of `CELL_PX`; the mean over an image is its logit."""
        weight, bias = self.body.fc1.weight, self.body.fc1.bias
        return F.conv2d(self._features(images), weight[:, :, None, None], bias).squeeze(1)

    def _features(self, images: Float[Tensor, "n 1 height width"]) -> Float[Tensor, "n top h w"]:
        levels = npr(images.contiguous(memory_format=torch.channels_last) * _LEVELS)
        # A single channel has one layout under two names; the last axis must be named first.
        x = levels.contiguous(memory_format=torch.channels_last)
        x = F.max_pool2d(F.relu_(self.body.conv1(x)), 3, stride=2, padding=1)
        for block in (*self.body.layer1, *self.body.layer2):
            x = _apply(block, x)
        return x


@torch.inference_mode()
def window_logits(
    network: FoldedNetwork,
    image: UInt8[np.ndarray, "height width"],
    *,
    size_px: int,
    step_px: int,
    phases: int,
    device: torch.device,
) -> Float[np.ndarray, "rows columns"]:
    """Score all windows of a size, so far apart, at about the cost of tiles side by side.

    The logit is a mean over cells, so one pass over the image serves all windows. At its edges a
    tile sees zeros and a window its neighbours, so the two differ a little.

    Args:
        network: On `device`.
        image: Grey levels 0 … 255, at least as large as a window; the rest of a cell is left out.
        size_px: Side of a window, a multiple of `CELL_PX`.
        step_px: From one window to the next, likewise.
        phases: 1 or 4, as `score_images` takes them.
        device: Where to score.

    Returns:
        One logit for each window, row by row from the top-left corner.

    Raises:
        InputError: Size or step is no multiple of a cell.
    """
    if size_px % CELL_PX or step_px % CELL_PX or step_px == 0:
        raise InputError(f"windows of {size_px} px, {step_px} px apart, not multiples of {CELL_PX}")
    height, width = (side // CELL_PX * CELL_PX for side in image.shape)
    band = max(_BAND_PX // width // CELL_PX, 1) * CELL_PX
    cells = torch.zeros(height // CELL_PX, width // CELL_PX, dtype=torch.float64)
    for top in range(0, height, band):
        first = max(0, top - _CONTEXT_PX)
        rows = image[first : min(height, top + band + _CONTEXT_PX), :width].copy()
        images = torch.from_numpy(rows)[None, None].to(device)
        views = [images] if phases == 1 else [phase_crop(images, *phase) for phase in PHASES]
        skip, count = (top - first) // CELL_PX, min(band, height - top) // CELL_PX
        for view in views:
            found = network.logit_map(to_unit_range(view))[0, skip : skip + count].double().cpu()
            cells[top // CELL_PX :][:count] += found / len(views)
    size, step = size_px // CELL_PX, step_px // CELL_PX
    means = F.avg_pool2d(cells[None, None], size, step)
    return means[0, 0].float().numpy()


def _apply(block: nn.Module, x: Tensor) -> Tensor:
    """Apply a folded residual block; what is not read again is overwritten."""
    convs = [conv for name in ("conv1", "conv2", "conv3") if (conv := getattr(block, name, None))]
    y = x
    for conv in convs[:-1]:
        y = F.relu_(conv(y))
    y = convs[-1](y)
    return F.relu_(y.add_(block.get_submodule("downsample")(x)))


def _fold(module: nn.Module) -> None:
    """Put the normalisations that are direct parts of a module into their convolutions."""
    if isinstance(module, nn.Sequential):
        pairs = [("0", "1")] if len(module) == 2 else []
    else:
        pairs = [(f"conv{i}", f"bn{i}") for i in (1, 2, 3)]
    for conv_name, norm_name in pairs:
        conv, norm = getattr(module, conv_name, None), getattr(module, norm_name, None)
        if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            setattr(module, conv_name, fuse_conv_bn_eval(conv, norm))
            setattr(module, norm_name, nn.Identity())
