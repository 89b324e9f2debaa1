"""LPIPS: a perceptual distance between images, from the features of an ImageNet network.

Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", CVPR 2018,
arXiv:1801.03924, version 0.1 of the weights with linear heads. Ours normalises features in float32
even where the trunk runs in bfloat16.
"""

import copy
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8, UInt16
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from semforensics.core.errors import InputError
from semforensics.core.images import to_unit_range
from semforensics.core.portable import square_root
from semforensics.params import Precision, Trunk

Images = Float[Tensor, "batch channels height width"]
Grey = UInt8[Tensor, "channels height width"]

# Each RGB channel, -1 … 1, is shifted and scaled to what the ImageNet networks were trained on.
_SHIFT = (-0.030, -0.088, -0.188)
_SCALE = (0.458, 0.448, 0.450)
_TAPS = {"alex": (1, 4, 7, 9, 11), "vgg": (3, 8, 15, 22, 29)}
_CHANNELS = {"alex": (64, 192, 384, 256, 256), "vgg": (64, 128, 256, 512, 512)}
# Below these the last pooling has nothing left to pool.
_SMALLEST_PX = {"alex": 31, "vgg": 16}
_STEPS = 65535  # from 0 to 1 in a code: 16 bits
# AlexNet has many weights for its small maps: reading them for each image of 256 px anew costs a
# quarter more time. VGG's maps are large, and several images at once would take gigabytes.
_BATCH: dict[Trunk, int] = {"alex": 8, "vgg": 1}


class LPIPS(nn.Module):
    """The distance, frozen: gradients flow to the images, never to the weights."""

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

        The safetensors file holds `features.N.weight` and `.bias` as in torchvision, and the heads
        `lin.0` … `lin.4`, one number per channel. Its layers tell which trunk it is.

        Raises:
            FileNotFoundError: There is no such file.
            InputError: The file is something else, or a head has a negative weight.
        """
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file; `fetch-backbones` makes it")
        try:
            state = load_file(path)
        except SafetensorError as error:
            raise InputError(f"{path}: not a safetensors file: {error}") from error
        lpips = cls("vgg" if "features.2.weight" in state else "alex")
        try:
            lpips.load_state_dict({n.replace("features.", "trunk."): t for n, t in state.items()})
        except RuntimeError as error:
            raise InputError(f"{path}: not the weights of LPIPS-{lpips.net}: {error}") from error
        if any(bool((weight < 0).any()) for weight in lpips.lin):
            raise InputError(f"{path}: a linear head has a negative weight; a distance has none")
        return lpips

    def features(self, images: Images) -> list[Float[Tensor, "batch _ _ _"]]:
        """Return the features of five layers, of unit length over channels at each position.

        Images are in -1 … 1, of three channels or a grey one, which is repeated. Features are
        float32, also under bfloat16 autocast; under `torch.no_grad` they serve as a target that
        takes no gradient.

        Raises:
            InputError: The number of channels is neither 1 nor 3, or the images are too small.
        """
        x = self.prepare(images)
        taps = []
        for index, layer in enumerate(self.trunk):
            x = layer(x)
            if index in _TAPS[self.net]:
                taps.append(_unit_length(x))
        return taps

    def prepare(self, images: Images) -> Float[Tensor, "batch 3 height width"]:
        """Shift and scale images, -1 … 1, to what the trunk was trained on.

        Raises:
            InputError: As for `features`.
        """
        channels, height, width = images.shape[1:]
        if channels not in (1, 3):
            raise InputError(f"LPIPS: images of {channels} channels, expected 1 or 3")
        if min(height, width) < _SMALLEST_PX[self.net]:
            smallest = _SMALLEST_PX[self.net]
            raise InputError(
                f"LPIPS-{self.net}: images of {height}x{width} px, need at least {smallest}"
            )
        return (images.expand(-1, 3, -1, -1) - self.shift) / self.scale

    def per_layer(
        self, a: Sequence[Tensor], b: Sequence[Tensor]
    ) -> Float[Tensor, "batch layers=5"]:
        """Return what each layer adds to the distance between two batches, from their features."""
        # Positions before channels: [batch, features], then [batch]. No matrix product, which
        # autocast would do in bfloat16.
        terms = [
            ((x - y).square().mean(dim=(2, 3)) * weight).sum(dim=1)
            for x, y, weight in zip(a, b, self.lin, strict=True)
        ]
        return torch.stack(terms, dim=1)

    def distance(self, a: Sequence[Tensor], b: Sequence[Tensor]) -> Float[Tensor, " batch"]:
        """Return the distances between two batches from their `features`, image by image."""
        return self.per_layer(a, b).sum(dim=1)

    def forward(self, a: Images, b: Images) -> Float[Tensor, " batch"]:
        """Return the distance of each image of `a` from its partner in `b`; 0 is identical."""
        return self.distance(self.features(a), self.features(b))


class Embedding:
    """Codes of images, whole numbers, whose squared distances are LPIPS.

    LPIPS adds up w (f - g)^2 over layers, positions and channels, with w >= 0. So it is a squared
    distance between vectors of f times the root of w: each image passes the trunk once, and the
    distances of all pairs are a matrix product. Channels of weight 0 drop out.

    f times the root of w, over the layer's largest root, lies in 0 … 1 and is kept in steps of
    1/65535. Sums of such integers are exact in float64: no digit is lost between near images, and
    no order of summation changes a bit. Rounding to steps changes a distance by about 4e-6 of its
    root: by 4e-5 of itself at 0.01, less above.

    Images pass the trunk in batches of one size, the last filled up, since the last digits of a
    convolution may depend on the size of its batch.
    """

    def __init__(self, lpips: LPIPS, *, precision: Precision, device: torch.device) -> None:
        """Copy a distance; a trunk in bfloat16 is faster and changes it by some thousandths."""
        self.net, self.device, self.batch = lpips.net, device, _BATCH[lpips.net]
        self._dtype = getattr(torch, precision)
        self._lpips = _weighted_first(lpips).to(device)
        self._trunk = copy.deepcopy(self._lpips.trunk).to(self._dtype)
        for layer in self._trunk:
            if isinstance(layer, nn.Conv2d):
                layer.weight.data = layer.weight.contiguous(memory_format=torch.channels_last)
            if isinstance(layer, nn.ReLU):
                layer.inplace = True
        # Of three equal channels, the first convolution is one of a single channel, whose weights
        # are sums, plus its response to mid-grey, which depends on the size.
        first = self._lpips.trunk[0]
        assert isinstance(first, nn.Conv2d)
        self._first = first
        self._grey_weight = (first.weight / self._lpips.scale).sum(dim=1, keepdim=True)
        self._mid_grey: dict[tuple[int, int], Tensor] = {}
        self._kept = [int(weight.count_nonzero()) for weight in self._lpips.lin]
        self._largest = [float(weight.max()) for weight in self._lpips.lin]
        self._roots = [
            square_root(weight[:kept] / largest) * _STEPS
            for weight, kept, largest in zip(
                self._lpips.lin, self._kept, self._largest, strict=True
            )
        ]

    @torch.no_grad()
    def codes(
        self, images: UInt8[Tensor, "n channels height width"]
    ) -> list[UInt16[Tensor, "n _"]]:
        """Return the codes of at most `batch` images, layer by layer; errors as of `LPIPS`."""
        n = len(images)
        filled = torch.cat([images, images[-1:].expand(self.batch - n, -1, -1, -1)])
        return [
            # + 0.5: the conversion truncates. At most 65535.5 and a rounding error, so no overflow.
            (x[:n, :, :kept] * roots)
            .mul_(_inverse_length(x[:n]))
            .add_(0.5)
            .to(torch.uint16)
            .flatten(1)
            for x, kept, roots in zip(self._layers(filled), self._kept, self._roots, strict=True)
        ]

    def scales(self, codes: Sequence[UInt16[Tensor, "n _"]]) -> list[float]:
        """Return what one step squared counts in each layer, given the codes of images."""
        return [
            largest * kept / (code.shape[-1] * _STEPS**2) if kept else 0.0
            for code, kept, largest in zip(codes, self._kept, self._largest, strict=True)
        ]

    @torch.no_grad()
    def distance(self, a: Grey, b: Grey) -> float:
        """Return LPIPS of two images as it is defined, without codes; 0 is identical."""
        terms = [
            ((x * _inverse_length(x) - y * _inverse_length(y)).square() * weight).sum().double()
            / x.shape[1]
            for x, y, weight in zip(
                self._layers(a[None]), self._layers(b[None]), self._lpips.lin, strict=True
            )
        ]
        return float(sum(terms))

    @torch.no_grad()
    def pooled(self, image: Grey) -> Float[Tensor, " features"]:
        """Return the last layer's activations, averaged over positions, not scaled to length 1."""
        *_, last = self._layers(image[None])
        return last[0].mean(dim=0)

    def _layers(
        self, images: UInt8[Tensor, "n channels height width"]
    ) -> list[Float[Tensor, "n _ _"]]:
        """Return the activations of five layers, positions before channels."""
        layers = []
        # TensorFloat-32, the default on a GPU, keeps three digits.
        with torch.backends.cudnn.flags(
            enabled=True, benchmark=False, deterministic=True, allow_tf32=False
        ):
            x = self._convolve_first(to_unit_range(images.to(self.device)))
            x = x.to(self._dtype, memory_format=torch.channels_last)
            for index, layer in enumerate(self._trunk):
                x = layer(x) if index else x
                if index in _TAPS[self.net]:
                    layers.append(x.permute(0, 2, 3, 1).flatten(1, 2).float())
        return layers

    def _convolve_first(
        self, images: Float[Tensor, "n channels height width"]
    ) -> Float[Tensor, "n _ _ _"]:
        """Return the output of the first convolution, channels last, in float32."""
        first = self._first
        channels, height, width = images.shape[1:]
        if channels != 1 or (height, width) not in self._mid_grey:
            x = self._lpips.prepare(images if channels != 1 else torch.zeros_like(images[:1]))
            x = F.conv2d(x, first.weight, first.bias, first.stride, first.padding)
            if channels != 1:
                return x
            self._mid_grey[height, width] = x.contiguous(memory_format=torch.channels_last)
        # With a single channel, only the strides tell that channels come last.
        x = images.contiguous().as_strided(images.shape, (height * width, 1, width, 1))
        x = F.conv2d(x, self._grey_weight, None, first.stride, first.padding)
        return x.add_(self._mid_grey[height, width])


def _weighted_first(lpips: LPIPS) -> LPIPS:
    """Copy a distance with the channels of weight 0 behind the others, so that a slice drops them.

    Only the next convolution depends on the order of a layer's channels; it is permuted alike.
    """
    sorted_lpips = copy.deepcopy(lpips)
    before, heads = None, iter(sorted_lpips.lin)
    for index, layer in enumerate(sorted_lpips.trunk):
        if isinstance(layer, nn.Conv2d):
            if before is not None:
                layer.weight.data = layer.weight[:, before]
            before = None
            if index + 1 in _TAPS[lpips.net]:
                head = next(heads)
                before = (head == 0).to(torch.uint8).argsort(stable=True)
                head.data = head[before]
                layer.weight.data, bias = layer.weight[before], layer.bias
                assert bias is not None, "every convolution of the trunks has a bias"
                bias.data = bias[before]
    return sorted_lpips


def _inverse_length(
    x: Float[Tensor, "n positions channels"],
) -> Float[Tensor, "n positions 1"]:
    return torch.rsqrt(x.square().sum(dim=2, keepdim=True) + 1e-20)


def _unit_length(x: Tensor) -> Tensor:
    x = x.float()  # bfloat16 keeps three digits
    # 1e-20 below the root for the original's 1e-10 beside it: the root has a gradient at 0.
    return x * torch.rsqrt(x.square().sum(dim=1, keepdim=True) + 1e-20)


class _Conv3x3(nn.Conv2d):
    """A 3x3 convolution that keeps the size of its map."""

    def forward(self, input: Tensor) -> Tensor:
        """Convolve; on one pixel, which is what AlexNet leaves of 32, take a matrix product."""
        if input.shape[2:] == (1, 1):
            # Only the middle of the kernel meets the map, the rest its padding: a ninth of the
            # weights to read, which is what such a small product costs.
            return F.linear(input.flatten(1), self.weight[:, :, 1, 1], self.bias)[:, :, None, None]
        return super().forward(input)


def _alex_trunk() -> nn.Sequential:
    """Return the convolutional part of torchvision's AlexNet up to its last ReLU."""
    return nn.Sequential(
        nn.Conv2d(3, 64, 11, stride=4, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(64, 192, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),
        _Conv3x3(192, 384, 3, padding=1),
        nn.ReLU(),
        _Conv3x3(384, 256, 3, padding=1),
        nn.ReLU(),
        _Conv3x3(256, 256, 3, padding=1),
        nn.ReLU(),
    )


def _vgg_trunk() -> nn.Sequential:
    """Return the convolutional part of torchvision's VGG16 up to its last ReLU."""
    layers: list[nn.Module] = []
    channels = 3
    for width, depth in zip(_CHANNELS["vgg"], (2, 2, 3, 3, 3), strict=True):
        if layers:
            layers.append(nn.MaxPool2d(2))
        for _ in range(depth):
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
            channels = width
    return nn.Sequential(*layers)
