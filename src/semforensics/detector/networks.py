"""Small residual networks over NPR, with one logit: positive means fake.

`NPRResNet50` is the network of Tan et al., CVPR 2024, arXiv:2312.10461: ResNet-50 (He et al., CVPR
2016, table 1) with a 3x3 stem and without its last two stages, 1,437,761 parameters. `NPRTiny` has
the same shape with the "approximately 5 thousand parameters" of the thesis that this project
reproduces. Modules carry the public names of the reference.
"""

from collections.abc import Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from semforensics.core.errors import InputError
from semforensics.detector.npr import GREY_STD, IMAGENET_STD, network_input

NetworkName = Literal["npr_tiny", "npr_resnet50"]

MIN_SIZE_PX = 16
"""Smaller images leave the last maps of the networks without room."""


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    """A convolution without bias that keeps the size at stride 1."""
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)


def _projection(inputs: int, outputs: int, stride: int) -> nn.Module:
    """The shortcut of a block: 1x1 convolution where the shape changes, else the input itself."""
    if inputs == outputs and stride == 1:
        return nn.Identity()
    return nn.Sequential(_Pointwise(inputs, outputs, stride), nn.BatchNorm2d(outputs))


class _Pointwise(nn.Conv2d):
    """A 1x1 convolution of every `stride`-th position.

    oneDNN 3.12 (torch 2.13, AVX-512) crashes in the gradient of a strided 1x1 convolution where two
    threads share an odd number of images; taking the positions first leaves no stride to it.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__(inputs, outputs, 1, bias=False)
        self.step = stride

    def forward(self, x: Float[Tensor, "n c_in h w"]) -> Float[Tensor, "n c_out h_out w_out"]:
        return super().forward(x[..., :: self.step, :: self.step])


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (He et al. 2016, figure 5 left)."""

    def __init__(self, inputs: int, width: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = _conv(inputs, width, 3, stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = _conv(width, width, 3)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _projection(inputs, width, stride)

    @property
    def last_conv(self) -> nn.Module:
        """The last convolution before the shortcut is added."""
        return self.conv2

    def forward(self, x: Float[Tensor, "n c_in h w"]) -> Float[Tensor, "n c_out h_out w_out"]:
        """Apply the block."""
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return F.relu(y + self.downsample(x))


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions and a shortcut (He et al. 2016, figure 5 right)."""

    def __init__(self, inputs: int, width: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = _conv(inputs, width, 1)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = _conv(width, width, 3, stride)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = _conv(width, 4 * width, 1)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.downsample = _projection(inputs, 4 * width, stride)

    @property
    def last_conv(self) -> nn.Module:
        """The last convolution before the shortcut is added."""
        return self.conv3

    def forward(self, x: Float[Tensor, "n c_in h w"]) -> Float[Tensor, "n c_out h_out w_out"]:
        """Apply the block."""
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return F.relu(y + self.downsample(x))


class NPRNetwork(nn.Module):
    """NPR, a stem, two stages of residual blocks, the mean over positions, one logit."""

    def __init__(
        self, channels: int, stem_width: int, layer1: nn.Sequential, layer2: nn.Sequential, top: int
    ) -> None:
        super().__init__()
        self.channels = channels
        self.conv1 = _conv(channels, stem_width, 3, 2)
        self.bn1 = nn.BatchNorm2d(stem_width)
        self.layer1 = layer1
        self.layer2 = layer2
        self.fc1 = nn.Linear(top, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    @property
    def last_block(self) -> nn.Module:
        """The last residual block; its output is the last map before the mean."""
        return self.layer2[-1]

    @property
    def last_conv(self) -> nn.Module:
        """The last convolution, inside the last block."""
        conv = self.last_block.last_conv
        assert isinstance(conv, nn.Module)
        return conv

    def forward(self, images: Float[Tensor, "n 1 height width"]) -> Float[Tensor, " n"]:
        """Score grey images.

        Args:
            images: -1 … 1, of even size.

        Returns:
            One logit per image, positive means fake.
        """
        return self.score_residuals(network_input(images, self.channels))

    def stem(self, residuals: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c_out h_out w_out"]:
        """Bring NPR to a quarter of its size, as features."""
        return F.max_pool2d(F.relu(self.bn1(self.conv1(residuals))), 3, stride=2, padding=1)

    def score_residuals(self, residuals: Float[Tensor, "n c h w"]) -> Float[Tensor, " n"]:
        """Score what `network_input` gives."""
        features = self.layer2(self.layer1(self.stem(residuals)))  # [n, top, h / 8, w / 8]
        logits: Tensor = self.fc1(features.mean(dim=(2, 3)))  # [n, 1]
        return logits.squeeze(1)


class NPRTiny(NPRNetwork):
    """4,969 parameters with one channel, 5,113 with three."""

    def __init__(self, channels: int = 1) -> None:
        layer1 = nn.Sequential(BasicBlock(8, 8))
        layer2 = nn.Sequential(BasicBlock(8, 16, stride=2))
        super().__init__(channels, 8, layer1, layer2, top=16)


class NPRResNet50(NPRNetwork):
    """1,437,761 parameters with three channels, 1,152 fewer with one."""

    def __init__(self, channels: int = 3) -> None:
        layer1 = nn.Sequential(Bottleneck(64, 64), *(Bottleneck(256, 64) for _ in range(2)))
        layer2 = nn.Sequential(Bottleneck(256, 128, 2), *(Bottleneck(512, 128) for _ in range(3)))
        super().__init__(channels, 64, layer1, layer2, top=512)

    @classmethod
    def from_reference_state_dict(
        cls, state_dict: Mapping[str, Tensor], channels: int = 3
    ) -> "NPRResNet50":
        """Build the network from weights under the reference's public names.

        Args:
            state_dict: Of the reference program, three channels.
            channels: 1 sums the first convolution over its channels, each at its own scale: the
                same logits for grey images.

        Raises:
            InputError: Names or shapes are not those of the reference.
        """
        network = cls(channels)
        state = dict(state_dict)
        if channels == 1 and "conv1.weight" in state:
            scales = torch.tensor([GREY_STD / std for std in IMAGENET_STD]).view(1, 3, 1, 1)
            state["conv1.weight"] = (state["conv1.weight"] * scales).sum(dim=1, keepdim=True)
        try:
            network.load_state_dict(state, strict=True)
        except RuntimeError as error:
            raise InputError(f"not weights of the reference network: {error}") from error
        return network


def build_network(name: NetworkName, channels: int) -> NPRNetwork:
    """Build a network of the given name with fresh weights."""
    match name:
        case "npr_tiny":
            return NPRTiny(channels)
        case "npr_resnet50":
            return NPRResNet50(channels)


def to_device(network: NPRNetwork, device: torch.device) -> NPRNetwork:
    """Move a network to a device, its convolutions in channels-last layout.

    In that layout convolutions of these shapes run up to twice as fast, on a CPU too.
    """
    # torch's type stubs know no `memory_format` here, its documentation does.
    placed: NPRNetwork = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return placed
