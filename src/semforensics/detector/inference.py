"""Score images fast: the same network with less to compute.

Nothing is trained any more, so every batch normalisation becomes part of the convolution before it
(two products less at each position), three equal channels become one, and the scale of NPR goes
into the first weights.
"""

import copy

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from semforensics.detector.networks import NPRNetwork, to_device
from semforensics.detector.npr import GAIN, GREY_STD, IMAGENET_STD, npr

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
        levels = npr(images.contiguous(memory_format=torch.channels_last) * _LEVELS)
        # A single channel has one layout under two names; the last axis must be named first.
        x = levels.contiguous(memory_format=torch.channels_last)
        x = F.max_pool2d(F.relu_(self.body.conv1(x)), 3, stride=2, padding=1)
        for block in (*self.body.layer1, *self.body.layer2):
            x = _apply(block, x)
        logits: Tensor = self.body.fc1(x.mean(dim=(2, 3)))
        return logits.squeeze(1)


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
