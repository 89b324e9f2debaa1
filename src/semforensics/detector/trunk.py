"""The first blocks of a published network that was trained on photographs.

EfficientNet-Lite0 (Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural
Networks", ICML 2019, arXiv:1905.11946; "Lite" leaves out squeeze-and-excitation and clips at 6)
with ImageNet weights under Apache 2.0. `semforensics.detector.world_network` begins with them.
"""

from collections.abc import Mapping
from typing import Any, cast

import torch
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
        self.stem = ConvNorm(1, STEM, 3, stride=2)
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
        self.expand = ConvNorm(inputs, width, 1) if expansion != 1 else None
        self.depthwise = ConvNorm(width, width, kernel, stride=stride, groups=width)
        self.project = ConvNorm(width, outputs, 1)
        self.has_shortcut = stride == 1 and inputs == outputs

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c_out h_out w_out"]:
        y = x if self.expand is None else F.relu6(self.expand(x), inplace=True)
        narrow: Tensor = self.project(F.relu6(self.depthwise(y), inplace=True))
        return x + narrow if self.has_shortcut else narrow


class SameConv(nn.Conv2d):
    """A convolution padded as TensorFlow pads: where it cannot be even, more at the far edges."""

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c_out h_out w_out"]:
        """Pad, then convolve."""
        return self.convolve(x, self.weight, self.bias)

    def convolve(
        self, x: Float[Tensor, "n c h w"], weight: Tensor, bias: Tensor | None
    ) -> Float[Tensor, "n c_out h_out w_out"]:
        """As `forward`, with other weights."""
        padding = []
        for side in (x.shape[-1], x.shape[-2]):
            outputs = -(-side // self.stride[0])
            total = max(0, (outputs - 1) * self.stride[0] + self.kernel_size[0] - side)
            padding += [total // 2, total - total // 2]
        padded = F.pad(x, padding)
        if bias is not None and self.groups > 1 and x.device.type == "cpu" and weight.requires_grad:
            weight, bias = weight.to(x.dtype), bias.to(x.dtype)
            return cast(Tensor, _Depthwise.apply(padded, weight, bias, self.stride[0]))  # type: ignore[no-untyped-call]
        return F.conv2d(padded, weight, bias, self.stride, groups=self.groups)


class ConvNorm(nn.Sequential):
    """A convolution and a batch norm; one convolution where the norm's statistics are fixed."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1
    ) -> None:
        convolution = SameConv(inputs, outputs, kernel, stride, groups=groups, bias=False)
        super().__init__(convolution, nn.BatchNorm2d(outputs, eps=_EPS))

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c_out h_out w_out"]:
        """Filter and normalise."""
        convolution, norm = self
        if not isinstance(norm, nn.BatchNorm2d) or norm.training:
            return cast(Tensor, norm(convolution(x)))
        assert isinstance(convolution, SameConv)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        bias = norm.bias - norm.running_mean * scale
        return convolution.convolve(x, convolution.weight * scale[:, None, None, None], bias)


class _Depthwise(torch.autograd.Function):
    """A convolution of each channel alone, whose gradients a CPU computes fast.

    oneDNN is slow at two of them: that of the input where the stride is not 1, and that of a kernel
    of 5x5. Here zeros between the gradients of the output make every stride 1, and a kernel of 5x5
    is put together from four of 3x3.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, stride: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride = stride
        return F.conv2d(x, weight, bias, stride, groups=len(weight))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x, weight = ctx.saved_tensors
        (of_output,) = gradients
        size, more = weight.shape[-1], weight.shape[-1] - 1
        n, channels, height, width = x.shape
        full = torch.empty(
            (n, channels, height + more, width + more),
            dtype=of_output.dtype,
            memory_format=torch.channels_last,
        ).zero_()
        spread = full[:, :, more:height, more:width]
        spread[:, :, :: ctx.stride, :: ctx.stride] = of_output
        of_input = F.conv2d(full, weight.flip(2, 3), groups=channels)
        of_weight = torch.empty_like(weight)
        for top in range(0, size - 2, 2):
            for left in range(0, size - 2, 2):
                rows, columns = slice(top, top + 3), slice(left, left + 3)
                window = x[:, :, top : top + height - size + 3, left : left + width - size + 3]
                of_weight[:, :, rows, columns] = torch.ops.aten.convolution_backward(
                    spread,
                    window,
                    weight[:, :, rows, columns].contiguous(),
                    *(None, [1, 1], [0, 0], [1, 1], False, [0, 0], channels),
                    output_mask=[False, True, False],
                )[1]
        return of_input, of_weight, of_output.sum((0, 2, 3)), None


def _norm(state: Mapping[str, Tensor], theirs: str, ours: str) -> dict[str, Tensor]:
    kinds = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    return {f"{ours}.{kind}": state[f"{theirs}.{kind}"] for kind in kinds}
