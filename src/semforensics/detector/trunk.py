"""The first blocks of a published network that was trained on photographs.

EfficientNet-Lite0 (Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural
Networks", ICML 2019, arXiv:1905.11946; "Lite" leaves out squeeze-and-excitation and clips at 6)
with ImageNet weights under Apache 2.0. `semforensics.detector.world_network` begins with them.
"""

from collections.abc import Mapping

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from semforensics.core.checkpoints import refused_as

STAGES = ((1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 40, 2, 2, 5), (6, 80, 3, 2, 3), (6, 112, 3, 1, 5))
"""Of the blocks that are kept: expansion, channels, repeats, first stride, kernel."""
STEM = 32
_EPS = 1e-3  # of the batch norms


class LiteTrunk(nn.Module):
    """The stem and the first eleven inverted residual blocks of EfficientNet-Lite0."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = _conv_norm(1, STEM, 3, stride=2)
        blocks: list[nn.Module] = []
        inputs = STEM
        for expansion, outputs, repeats, stride, kernel in STAGES:
            for index in range(repeats):
                first = stride if index == 0 else 1
                blocks.append(_InvertedResidual(inputs, outputs, expansion, first, kernel))
                inputs = outputs
        self.blocks = nn.ModuleList(blocks)

    @classmethod
    def from_published(cls, state: Mapping[str, Tensor]) -> "LiteTrunk":
        """Build the trunk from the weights as they are published.

        Args:
            state: Of the whole network; blocks that are not kept are left out. The three channels
                of the stem are summed: the same for grey images.

        Raises:
            InputError: Names or shapes are not those of EfficientNet-Lite0.
        """
        network = cls()
        with refused_as("not weights of EfficientNet-Lite0"):
            kept = {"stem.0.weight": state["_conv_stem.weight"].sum(dim=1, keepdim=True)}
            kept |= _norm(state, "_bn0", "stem.1")
            for index, block in enumerate(network.blocks):
                names = {
                    "depthwise": ("_depthwise_conv", "_bn1"),
                    "project": ("_project_conv", "_bn2"),
                }
                if block.expand is not None:
                    names["expand"] = ("_expand_conv", "_bn0")
                for ours, (convolution, norm) in names.items():
                    theirs, name = f"_blocks.{index}", f"blocks.{index}.{ours}"
                    kept[f"{name}.0.weight"] = state[f"{theirs}.{convolution}.weight"]
                    kept |= _norm(state, f"{theirs}.{norm}", f"{name}.1")
            network.load_state_dict(kept)
        return network.eval()


class _InvertedResidual(nn.Module):
    """Widen, filter each channel alone, narrow; a shortcut where the shape stays."""

    def __init__(self, inputs: int, outputs: int, expansion: int, stride: int, kernel: int) -> None:
        super().__init__()
        width = inputs * expansion
        self.expand = _conv_norm(inputs, width, 1) if expansion != 1 else None
        self.depthwise = _conv_norm(width, width, kernel, stride=stride, groups=width)
        self.project = _conv_norm(width, outputs, 1)
        self.has_shortcut = stride == 1 and inputs == outputs

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c_out h_out w_out"]:
        y = x if self.expand is None else F.relu6(self.expand(x))
        narrow: Tensor = self.project(F.relu6(self.depthwise(y)))
        return x + narrow if self.has_shortcut else narrow


class SameConv(nn.Conv2d):
    """A convolution padded as TensorFlow pads: where it cannot be even, more at the far edges."""

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c_out h_out w_out"]:
        """Pad, then convolve."""
        padding = []
        for side in (x.shape[-1], x.shape[-2]):
            outputs = -(-side // self.stride[0])
            total = max(0, (outputs - 1) * self.stride[0] + self.kernel_size[0] - side)
            padding += [total // 2, total - total // 2]
        filtered: Tensor = super().forward(F.pad(x, padding))
        return filtered


def _conv_norm(
    inputs: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    convolution = SameConv(inputs, outputs, kernel, stride, groups=groups, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs, eps=_EPS))


def _norm(state: Mapping[str, Tensor], theirs: str, ours: str) -> dict[str, Tensor]:
    kinds = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    return {f"{ours}.{kind}": state[f"{theirs}.{kind}"] for kind in kinds}
