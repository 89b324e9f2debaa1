"""LPIPS: a perceptual distance between images, from the features of an ImageNet network.

Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", CVPR 2018,
arXiv:1801.03924, version 0.1 of the weights with linear heads. Ours normalises features in float32
even where the trunk runs in bfloat16.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from semforensics.params import Trunk

# Each RGB channel, -1 … 1, is shifted and scaled to what the ImageNet networks were trained on.
_SHIFT = (-0.030, -0.088, -0.188)
_SCALE = (0.458, 0.448, 0.450)
_TAPS = {"alex": (1, 4, 7, 9, 11), "vgg": (3, 8, 15, 22, 29)}
_CHANNELS = {"alex": (64, 192, 384, 256, 256), "vgg": (64, 128, 256, 512, 512)}
# Below these the last pooling has nothing left to pool.
_SMALLEST_PX = {"alex": 31, "vgg": 16}


class LPIPS(nn.Module):
    """The distance, frozen: gradients flow to the images, never to the weights.

    Attributes:
        net: Which trunk, `alex` or `vgg`.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, net: Trunk) -> None:
        super().__init__()
        self.net = net
        self.trunk = _alex_trunk() if net == "alex" else _vgg_trunk()
        self.lin = nn.ParameterList(torch.ones(channels) for channels in _CHANNELS[net])
        self.register_buffer("shift", torch.tensor(_SHIFT).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("scale", torch.tensor(_SCALE).view(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False)
        self.eval()

    @classmethod
    def load(cls, path: Path) -> "LPIPS":
        """Read the weights of a trunk and its linear heads.

        Args:
            path: A safetensors file: `features.N.weight` and `.bias` as in torchvision, and the
                heads `lin.0` … `lin.4`, one number per channel. Its layers tell which trunk it is.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: The file is something else, or a head has a negative weight.
        """
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file; `fetch-backbones` makes it")
        try:
            state = load_file(path)
        except SafetensorError as error:
            raise ValueError(f"{path}: not a safetensors file: {error}") from error
        lpips = cls("vgg" if "features.2.weight" in state else "alex")
        try:
            lpips.load_state_dict({n.replace("features.", "trunk."): t for n, t in state.items()})
        except RuntimeError as error:
            raise ValueError(f"{path}: not the weights of LPIPS-{lpips.net}: {error}") from error
        if any(bool((weight < 0).any()) for weight in lpips.lin):
            raise ValueError(f"{path}: a linear head has a negative weight; a distance has none")
        return lpips

    def features(
        self, images: Float[Tensor, "batch channels height width"]
    ) -> list[Float[Tensor, "batch _ _ _"]]:
        """Give the features of five layers, of unit length over channels at each position.

        Args:
            images: Values in -1 … 1; three channels, or a grey one, which is repeated.

        Returns:
            Float32, also under bfloat16 autocast. Under `torch.no_grad` they serve as a target that
            takes no gradient.

        Raises:
            ValueError: The number of channels is neither 1 nor 3, or the images are too small.
        """
        channels, height, width = images.shape[1:]
        if channels not in (1, 3):
            raise ValueError(f"LPIPS: images of {channels} channels, expected 1 or 3")
        if min(height, width) < _SMALLEST_PX[self.net]:
            smallest = _SMALLEST_PX[self.net]
            raise ValueError(
                f"LPIPS-{self.net}: images of {height}x{width} px, need at least {smallest}"
            )
        x = (images.expand(-1, 3, -1, -1) - self.shift) / self.scale
        taps = []
        for index, layer in enumerate(self.trunk):
            x = layer(x)
            if index in _TAPS[self.net]:
                taps.append(_unit_length(x))
        return taps

    def per_layer(
        self, a: Sequence[Tensor], b: Sequence[Tensor]
    ) -> Float[Tensor, "batch layers=5"]:
        """Give what each layer adds to the distance between two batches, from their features."""
        # Positions before channels: [batch, features], then [batch]. No matrix product, which
        # autocast would do in bfloat16.
        terms = [
            ((x - y).square().mean(dim=(2, 3)) * weight).sum(dim=1)
            for x, y, weight in zip(a, b, self.lin, strict=True)
        ]
        return torch.stack(terms, dim=1)

    def distance(self, a: Sequence[Tensor], b: Sequence[Tensor]) -> Float[Tensor, " batch"]:
        """Give the distances between two batches from their `features`, image by image."""
        return self.per_layer(a, b).sum(dim=1)

    def forward(
        self,
        a: Float[Tensor, "batch channels height width"],
        b: Float[Tensor, "batch channels height width"],
    ) -> Float[Tensor, " batch"]:
        """Give the distance of each image of `a` from its partner in `b`; 0 is identical."""
        return self.distance(self.features(a), self.features(b))


def _unit_length(x: Tensor) -> Tensor:
    x = x.float()  # bfloat16 keeps three digits
    # 1e-20 below the root for the original's 1e-10 beside it: the root has a gradient at 0.
    return x * torch.rsqrt(x.square().sum(dim=1, keepdim=True) + 1e-20)


def _alex_trunk() -> nn.Sequential:
    """Give the convolutional part of torchvision's AlexNet up to its last ReLU."""
    return nn.Sequential(
        nn.Conv2d(3, 64, 11, stride=4, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(64, 192, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(192, 384, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(256, 256, 3, padding=1),
        nn.ReLU(),
    )


def _vgg_trunk() -> nn.Sequential:
    """Give the convolutional part of torchvision's VGG16 up to its last ReLU."""
    layers: list[nn.Module] = []
    channels = 3
    for width, depth in zip(_CHANNELS["vgg"], (2, 2, 3, 3, 3), strict=True):
        if layers:
            layers.append(nn.MaxPool2d(2))
        for _ in range(depth):
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
            channels = width
    return nn.Sequential(*layers)
