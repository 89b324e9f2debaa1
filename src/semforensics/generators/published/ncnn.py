"""Networks that others have published as files of ncnn, rebuilt for torch.

A network of ncnn is a text file, one layer a line, and a binary file of its weights in that order.
Both are described in ncnn's documentation ("param and model file structure", "operators"). Here are
the layers that the super-resolvers of `semforensics.generators.published.super_resolvers` are made
of; another layer is refused.
"""

import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from semforensics.core.errors import InputError

_MAGIC = "7767517"
_HALF = 0x01306B47  # before weights of 16 bits
_TO_THE_END = -233  # of a crop, as ncnn writes it
_FIRST_ARRAY = -23300  # keys of lists are this less their number
_INTERPOLATIONS = {1: "nearest", 2: "bilinear", 3: "bicubic"}

Value = float | tuple[float, ...]


@dataclass(frozen=True)
class Layer:
    """One line of the text."""

    kind: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    values: Mapping[int, Value] = field(default_factory=dict)

    def number(self, key: int, default: float = 0.0) -> float:
        """Return a single number of the layer."""
        value = self.values.get(key, default)
        if isinstance(value, tuple):
            raise InputError(f"layer {self.name}: value {key} is a list, expected a number")
        return value

    def whole(self, key: int, default: int = 0) -> int:
        """Return a single integer of the layer."""
        return int(self.number(key, float(default)))

    def numbers(self, key: int) -> tuple[float, ...]:
        """Return a list of numbers of the layer; empty where it has none."""
        value = self.values.get(key, ())
        return value if isinstance(value, tuple) else (value,)


def read_layers(text: str) -> list[Layer]:
    """Read the text of a network.

    Raises:
        InputError: It is none.
    """
    lines = [line.split() for line in text.splitlines() if line.strip()]
    if not lines or lines[0] != [_MAGIC]:
        raise InputError(f"not a network of ncnn: begins with {text[:20]!r}, expected {_MAGIC}")
    try:
        return [_layer_of(words) for words in lines[2:]]
    except (ValueError, IndexError) as error:
        raise InputError(f"not a network of ncnn: {error}") from error


def _layer_of(words: list[str]) -> Layer:
    kind, name, inputs, outputs = words[0], words[1], int(words[2]), int(words[3])
    first, last = 4 + inputs, 4 + inputs + outputs
    values: dict[int, Value] = {}
    for word in words[last:]:
        key, _, value = word.partition("=")
        if int(key) <= _FIRST_ARRAY:
            values[_FIRST_ARRAY - int(key)] = tuple(map(float, value.split(",")[1:]))
        else:
            values[int(key)] = float(value)
    return Layer(kind, name, tuple(words[4:first]), tuple(words[first:last]), values)


class NcnnNetwork(nn.Module):
    """A network of ncnn with one input and one output.

    Args:
        layers: As `read_layers` returns them.
        weights: The binary file.

    Raises:
        InputError: A layer is of a kind that is not known here, or the weights are of another
            network.
    """

    def __init__(self, layers: list[Layer], weights: bytes) -> None:
        super().__init__()
        self._layers = [layer for layer in layers if layer.kind != "Input"]
        (self._input,) = (layer.outputs[0] for layer in layers if layer.kind == "Input")
        self._last_use = {name: i for i, layer in enumerate(self._layers) for name in layer.inputs}
        self.tensors = nn.ParameterDict()
        file = io.BytesIO(weights)
        for layer in self._layers:
            for part, tensor in _weights_of(layer, file):
                parameter = nn.Parameter(tensor, requires_grad=False)
                self.tensors[f"{_key(layer)}:{part}"] = parameter
        if left := len(weights) - file.tell():
            raise InputError(f"weights of another network: {left} bytes too many")

    def forward(
        self, images: Float[Tensor, "n channels height width"]
    ) -> Float[Tensor, "n channels_out height_out width_out"]:
        """Run all layers in their order."""
        found: dict[str, Tensor] = {self._input: images}
        for index, layer in enumerate(self._layers):
            inputs = [found[name] for name in layer.inputs]
            for name in layer.inputs:
                if self._last_use[name] == index:
                    del found[name]
            output = self._output_of(layer, inputs)
            found.update(dict.fromkeys(layer.outputs, output))
        (result,) = found.values()
        return result

    def _output_of(self, layer: Layer, inputs: list[Tensor]) -> Tensor:
        x = inputs[0] if inputs else torch.empty(0)
        match layer.kind:
            case "Convolution":
                pads = layer.whole(4), layer.whole(14, layer.whole(4))
                x = F.conv2d(
                    x,
                    self._tensor(layer, "weight"),
                    self._tensor(layer, "bias"),
                    layer.whole(3, 1),
                    (pads[1], pads[0]),
                )
            case "Deconvolution":
                x = F.conv_transpose2d(
                    x,
                    self._tensor(layer, "weight"),
                    self._tensor(layer, "bias"),
                    layer.whole(3, 1),
                    layer.whole(4),
                )
            case "InnerProduct":
                flat = x.flatten(1)
                x = F.linear(flat, self._tensor(layer, "weight"), self._tensor(layer, "bias"))
                x = x[:, :, None, None]
            case "PReLU":
                return F.prelu(x, self._tensor(layer, "slope"))
            case "MemoryData":
                return self._tensor(layer, "data")
            case "Split":
                return x
            case "Concat":
                return torch.cat(inputs, dim=1)
            case "BinaryOp":
                return _binary(layer, inputs)
            case "Eltwise":
                factors = layer.numbers(1) or (1.0,) * len(inputs)
                return torch.stack(
                    [f * value for f, value in zip(factors, inputs, strict=True)]
                ).sum(dim=0)
            case "Pooling":
                return x.mean((2, 3), keepdim=True)
            case "Scale":
                return x * inputs[1]
            case "Sigmoid":
                return x.sigmoid()
            case "Swish":
                return F.silu(x)
            case "PixelShuffle":
                return F.pixel_shuffle(x, layer.whole(0, 1))
            case "Interp":
                mode = _INTERPOLATIONS[layer.whole(0)]
                return F.interpolate(x, scale_factor=layer.number(1, 1.0), mode=mode)
            case "Crop":
                return _cropped(layer, inputs)
        return _activated(layer, x)

    def _tensor(self, layer: Layer, part: str) -> Tensor:
        tensor: Tensor = self.tensors[f"{_key(layer)}:{part}"]
        return tensor


def _key(layer: Layer) -> str:
    return layer.name.replace(".", "_")


def _weights_of(layer: Layer, file: io.BytesIO) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of a layer, in the order of the file."""
    match layer.kind:
        case "Convolution" | "Deconvolution":
            outputs, size, count = layer.whole(0), layer.whole(1), layer.whole(6)
            height = layer.whole(11, size)
            shape = (outputs, count // (outputs * size * height), height, size)
            weight = _tagged(file, count).view(shape)
            yield "weight", weight.transpose(0, 1) if layer.kind == "Deconvolution" else weight
            yield "bias", _plain(file, outputs) if layer.whole(5) else torch.zeros(outputs)
        case "InnerProduct":
            outputs, count = layer.whole(0), layer.whole(2)
            yield "weight", _tagged(file, count).view(outputs, -1)
            yield "bias", _plain(file, outputs) if layer.whole(1) else torch.zeros(outputs)
        case "PReLU":
            yield "slope", _plain(file, layer.whole(0))
        case "MemoryData":
            sides = [layer.whole(key) for key in (2, 1, 0) if layer.whole(key)]
            yield "data", _plain(file, int(np.prod(sides))).view(1, *sides)
        case (
            "Split" | "Concat" | "BinaryOp" | "Eltwise" | "Pooling" | "Scale" | "Sigmoid"
            | "Swish" | "PixelShuffle" | "Interp" | "Crop"
        ):  # fmt: skip
            return
        case kind:
            raise InputError(f"layer {layer.name} is a {kind}, which is not known here")


def _plain(file: io.BytesIO, count: int) -> Tensor:
    """Read numbers of 32 bits."""
    return torch.from_numpy(_read(file, count, np.dtype("<f4")))


def _tagged(file: io.BytesIO, count: int) -> Tensor:
    """Read numbers of 16 or 32 bits, as the tag before them says."""
    tag = int(_read(file, 1, np.dtype("<u4")).view(np.uint32)[0])
    if tag not in (0, _HALF):
        raise InputError(f"weights with the tag {tag:#x}, expected 16 or 32 bits each")
    values = _read(file, count, np.dtype("<f2" if tag else "<f4"))
    if tag and count % 2:
        file.seek(2, io.SEEK_CUR)  # blocks end at multiples of 4 bytes
    return torch.from_numpy(values.astype(np.float32))


def _read(file: io.BytesIO, count: int, kind: np.dtype) -> np.ndarray:
    data = file.read(count * kind.itemsize)
    if len(data) < count * kind.itemsize:
        raise InputError("weights of another network: they end too early")
    return np.frombuffer(data, kind).copy()


def _binary(layer: Layer, inputs: list[Tensor]) -> Tensor:
    other = inputs[1] if len(inputs) > 1 else torch.as_tensor(layer.number(2))
    match layer.whole(0):
        case 0:
            return inputs[0] + other
        case 1:
            return inputs[0] - other
        case 2:
            return inputs[0] * other
    raise InputError(f"layer {layer.name}: operation {layer.whole(0)}, expected 0, 1 or 2")


def _cropped(layer: Layer, inputs: list[Tensor]) -> Tensor:
    x = inputs[0]
    if len(inputs) > 1:  # to the size of another, from a corner
        left, top = layer.whole(0), layer.whole(1)
        height, width = inputs[1].shape[-2:]
        return x[..., top : top + height, left : left + width]
    for first, last, axis in zip(*(layer.numbers(key) for key in (9, 10, 11)), strict=True):
        dim = int(axis) + 1 if axis >= 0 else int(axis)  # ncnn counts no images
        end = x.shape[dim] if int(last) == _TO_THE_END else int(last)
        length = (end if end >= 0 else x.shape[dim] + end) - int(first)
        x = x.narrow(dim, int(first), length)
    return x


def _activated(layer: Layer, x: Tensor) -> Tensor:
    match layer.whole(9):
        case 0:
            return x
        case 1:
            return F.relu(x)
        case 2:
            return F.leaky_relu(x, layer.numbers(10)[0])
        case 4:
            return x.sigmoid()
    raise InputError(f"layer {layer.name}: activation {layer.whole(9)}, expected 0, 1, 2 or 4")
