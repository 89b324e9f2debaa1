"""StyleGAN2: a style-based generator with image skips and a residual discriminator.

Karras et al., "Analyzing and Improving the Image Quality of StyleGAN", CVPR 2020, arXiv:1912.04958,
sections 2 and 4, with the sizes of Karras et al., "Training Generative Adversarial Networks with
Limited Data", NeurIPS 2020, arXiv:2006.06676. Parameters are named as in the public checkpoints.
Ours differs: noise is passed in; one channel; convolutions run in the precision of autocast, but
styles, demodulation, minibatch deviation and images stay float32.
"""

import re
from collections.abc import Iterator, Sequence
from collections.abc import Mapping as MappingType
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from semforensics.core.checkpoints import own_arguments, refused_as
from semforensics.core.errors import InputError
from semforensics.core.portable import square_root
from semforensics.generators.stylegan2_ada import resampling

Styles = Float[Tensor, "batch num_ws w_dim"]
Images = Float[Tensor, "batch channels size size"]
Latents = Float[Tensor, "batch z_dim"]
Style = Float[Tensor, "batch w_dim"]

SIZES_PX = (32, 64, 128, 256, 512, 1024)

_EPSILON = 1e-8
_MAPPING_RATE = 0.01
"""Learning rate of the mapping network, in units of the others'."""
_ACTIVATION_GAIN = 2**0.5
"""Brings the variance behind a leaky ReLU back to about 1."""


def levels(size_px: int) -> list[int]:
    """Return the sides of the maps, from 4 to the image's.

    Raises:
        InputError: There are no networks of this size.
    """
    if size_px not in SIZES_PX:
        raise InputError(f"StyleGAN2: {size_px} px, expected one of {SIZES_PX}")
    return [2**n for n in range(2, size_px.bit_length())]


def widths(size_px: int, channel_base: int, channel_max: int) -> dict[int, int]:
    """Return the channels of the map at each side, 4 … size_px.

    Raises:
        InputError: There are no networks of this size, or a level is left without channels.
    """
    width = {side: min(channel_base // side, channel_max) for side in levels(size_px)}
    if min(width.values()) < 1:
        raise InputError(
            f"StyleGAN2: channel_base {channel_base} and channel_max {channel_max} leave no "
            f"channel at {size_px} px"
        )
    return width


def mix_styles(ws: Styles, other_ws: Styles, cutoff: int) -> Styles:
    """Return the first `cutoff` styles of `ws` and the others of `other_ws`."""
    return torch.cat([ws[:, :cutoff], other_ws[:, cutoff:]], dim=1)


def activate(x: Tensor, clamp: float | None) -> Tensor:
    """Apply a leaky ReLU of slope 0.2 in place, then a bound on the magnitude, if there is one.

    A gain of the output is a gain of the input, so the callers put it into weights and biases.
    """
    x = F.leaky_relu_(x, 0.2)
    return x if clamp is None else x.clamp(-clamp, clamp)


class Linear(nn.Module):
    """A fully connected layer with an equalised learning rate (Karras et al. 2018, section 4.1).

    The biases begin at `start`. `rate` is the learning rate in units of other layers': what is
    stored is divided by it.
    """

    def __init__(
        self, in_features: int, out_features: int, *, start: float = 0.0, rate: float = 1.0
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_features, in_features) / rate)
        self.bias = nn.Parameter(torch.full((out_features,), float(start)))
        self.gain, self.rate = rate / in_features**0.5, rate

    def forward(self, x: Tensor) -> Tensor:
        """Map [..., in_features] to [..., out_features]."""
        return F.linear(x * self.gain, self.weight, self.bias * self.rate)


class Mapping(nn.Module):
    """Latents z to styles w."""

    w_avg: Tensor

    def __init__(self, z_dim: int, w_dim: int, num_layers: int) -> None:
        super().__init__()
        for i in range(num_layers):
            layer = Linear(w_dim if i else z_dim, w_dim, rate=_MAPPING_RATE)
            self.add_module(f"fc{i}", layer)
        self.register_buffer("w_avg", torch.zeros(w_dim))

    def forward(self, z: Latents) -> Style:
        """Map latents, in float32 also under autocast."""
        with torch.autocast(z.device.type, enabled=False):
            w = z * (z.square().mean(dim=1, keepdim=True) + _EPSILON).rsqrt()
            for layer in self.children():
                w = F.leaky_relu(layer(w), 0.2) * _ACTIVATION_GAIN
        return w

    @torch.no_grad()
    def track_w_average(self, w: Style, beta: float = 0.995) -> None:
        """Move the running mean the share `1 - beta` of the way to the mean of these."""
        self.w_avg.copy_(w.mean(dim=0).lerp(self.w_avg, beta))


class StyledConv(nn.Module):
    """A 3x3 convolution scaled by a style, noise, bias, leaky ReLU (2020a, section 2.2).

    Scaling the input and the output gives the same as scaling every sample's weights, and lets all
    samples share one convolution.

    The side is that of the output, in pixels; with `up` the input has half of it. `clamp` is the
    largest magnitude of an output; None for no bound.
    """

    noise_const: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        w_dim: int,
        side: int,
        *,
        up: bool,
        clamp: float | None,
    ) -> None:
        super().__init__()
        self.side, self.up, self.clamp = side, up, clamp
        self.affine = Linear(w_dim, in_channels, start=1.0)
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, 3, 3))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.noise_strength = nn.Parameter(torch.zeros(()))
        self.register_buffer("noise_const", torch.randn(side, side))

    def forward(self, x: Tensor, w: Tensor, noise: Tensor | None) -> Tensor:
        """Convolve in the style `w`, [batch, w_dim]; noise is [batch or 1, 1, side, side]."""
        with torch.autocast(x.device.type, enabled=False):
            style = self.affine(w)  # [batch, in]
            power = self.weight.square().sum(dim=(2, 3))  # [out, in]
            demodulation = (style.square() @ power.t() + _EPSILON).rsqrt()  # [batch, out]
        x = x * _as_map(style, x)
        x = resampling.conv_up(x, self.weight) if self.up else F.conv2d(x, self.weight, padding=1)
        x = x * _as_map(demodulation * _ACTIVATION_GAIN, x)
        if noise is not None:
            x += (noise * (self.noise_strength * _ACTIVATION_GAIN)).to(x.dtype)
        x += _as_map(self.bias * _ACTIVATION_GAIN, x)
        return activate(x, self.clamp)


class ToImage(nn.Module):
    """A map to an image's channels: a 1x1 convolution scaled by a style, not demodulated."""

    def __init__(self, in_channels: int, channels: int, w_dim: int, *, clamp: float | None) -> None:
        super().__init__()
        self.clamp = clamp
        self.affine = Linear(w_dim, in_channels, start=1.0)
        self.weight = nn.Parameter(torch.randn(channels, in_channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """Return a float32 image in the style `w`."""
        batch, in_channels, height, width = x.shape
        with torch.autocast(x.device.type, enabled=False):
            style = self.affine(w) * in_channels**-0.5
            weight = self.weight.flatten(1) * style[:, None]  # [batch, channels, in]
        # With so few outputs a matrix product is several times as fast as a convolution.
        pixels = x.permute(0, 2, 3, 1).reshape(batch, -1, in_channels).transpose(1, 2)
        image = torch.bmm(weight.to(x.dtype), pixels).view(batch, -1, height, width)
        image = _at_least_float32(image) + self.bias.view(-1, 1, 1)
        return image if self.clamp is None else image.clamp(-self.clamp, self.clamp)


class Level(nn.Module):
    """What the generator does at one side: the convolutions, and its share of the image."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        channels: int,
        w_dim: int,
        side: int,
        clamp: float | None,
    ) -> None:
        super().__init__()
        if side == 4:
            self.const = nn.Parameter(torch.randn(out_channels, 4, 4))
        else:
            self.conv0 = StyledConv(in_channels, out_channels, w_dim, side, up=True, clamp=clamp)
        self.conv1 = StyledConv(out_channels, out_channels, w_dim, side, up=False, clamp=clamp)
        self.torgb = ToImage(out_channels, channels, w_dim, clamp=clamp)

    def convolutions(self) -> list[StyledConv]:
        """Return the layers that take a style and noise, in their order."""
        return [m for m in self.children() if isinstance(m, StyledConv)]


class Synthesis(nn.Module):
    """Styles to images."""

    def __init__(
        self,
        size_px: int,
        channels: int,
        w_dim: int,
        width: MappingType[int, int],
        clamp: float | None,
    ) -> None:
        super().__init__()
        for side in levels(size_px):
            before = width.get(side // 2, 0)
            self.add_module(f"b{side}", Level(before, width[side], channels, w_dim, side, clamp))

    def convolutions(self) -> list[StyledConv]:
        """Return all layers that take noise, in their order."""
        return [layer for level in self._levels() for layer in level.convolutions()]

    def forward(
        self,
        ws: Styles,
        noises: Sequence[Float[Tensor, "_ 1 _ _"]] | None = None,
    ) -> Images:
        """Return images in about -1 … 1, float32.

        `ws` are the styles of all layers. Noises are standard normal, a map [batch, 1, side, side]
        for each layer that takes noise; None: the stored, constant ones; an empty sequence: none.
        """
        layers = self.convolutions()
        if noises is None:
            noises = [layer.noise_const[None, None] for layer in layers]
        if len(noises) not in (0, len(layers)):
            raise InputError(f"{len(noises)} noise maps, expected none or {len(layers)}")
        maps: Iterator[Tensor | None] = iter(noises if noises else [None] * len(layers))
        styles = ws.unbind(dim=1)
        offset = 0
        image: Tensor | None = None
        x = _channels_last(self.get_parameter("b4.const").expand(len(ws), -1, -1, -1))
        for level in self._levels():
            for layer in level.convolutions():
                x = layer(x, styles[offset], next(maps))
                offset += 1
            # The image takes the style of the next level's first convolution.
            part = level.torgb(x, styles[offset])
            image = part if image is None else resampling.upsample(image) + part
        assert image is not None
        return image

    def _levels(self) -> list[Level]:
        return [m for m in self.children() if isinstance(m, Level)]


class Generator(nn.Module):
    """Latents to images.

    The size is one of `SIZES_PX`; a map of side s has `channel_base // s` channels, but not more
    than `channel_max`. `clamp` bounds the magnitude of activations; None, for no bound, unless a
    public network trained in 16 bits is to be repeated.
    """

    def __init__(
        self,
        *,
        size_px: int,
        channels: int,
        z_dim: int,
        w_dim: int,
        mapping_layers: int,
        channel_base: int,
        channel_max: int,
        clamp: float | None = None,
    ) -> None:
        super().__init__()
        self.arguments = own_arguments(locals())
        width = widths(size_px, channel_base, channel_max)
        self.size_px, self.channels, self.z_dim, self.w_dim = size_px, channels, z_dim, w_dim
        self.nz = z_dim
        self.truncation_psi = 1.0  # of `images`; how to sample is no part of the weights
        self.num_ws = 2 * len(width)
        self.mapping = Mapping(z_dim, w_dim, mapping_layers)
        self.synthesis = Synthesis(size_px, channels, w_dim, width, clamp)

    @property
    def noise_sides(self) -> list[int]:
        """Sides of the noise maps, in the order in which `forward` takes them."""
        return [layer.side for layer in self.synthesis.convolutions()]

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.mapping.w_avg.device

    def broadcast(self, w: Style) -> Styles:
        """Return every layer the style w."""
        return w[:, None].expand(-1, self.num_ws, -1)

    def styles(self, z: Latents, *, truncation_psi: float = 1.0) -> Styles:
        """Return the styles of latents: with `truncation_psi` 1 as they are, with 0 at the mean."""
        ws = self.broadcast(self.mapping(z))
        return ws if truncation_psi == 1 else self.mapping.w_avg.lerp(ws, truncation_psi)

    def forward(
        self,
        z: Latents,
        noises: Sequence[Tensor] | None = None,
        *,
        truncation_psi: float = 1.0,
    ) -> Images:
        """Return images in about -1 … 1, float32; arguments as in `styles` and `Synthesis`."""
        image: Tensor = self.synthesis(self.styles(z, truncation_psi=truncation_psi), noises)
        return image

    def images(self, z: Latents, noises: Sequence[Tensor]) -> Images:
        """Return images as `forward` does, truncated as far as `truncation_psi` says."""
        image: Tensor = self(z, noises, truncation_psi=self.truncation_psi)
        return image

    @classmethod
    def from_reference_state_dict(
        cls, state_dict: MappingType[str, Tensor], *, clamp: float | None = None
    ) -> "Generator":
        """Build the network from the weights of a public StyleGAN2-ADA generator.

        Resampling filters may be included, class labels not. Of public networks trained in 16 bits,
        `clamp` is 256.

        Raises:
            InputError: Names or shapes are not those of such a generator.
        """
        state = _without_filters(state_dict)
        with refused_as("not the weights of a public StyleGAN2-ADA generator"):
            w_dim, z_dim = state["mapping.fc0.weight"].shape
            network = cls(
                **_sizes(state, r"synthesis\.b(\d+)\.conv1\.weight"),
                channels=state["synthesis.b4.torgb.weight"].shape[0],
                z_dim=z_dim,
                w_dim=w_dim,
                mapping_layers=sum(name.startswith("mapping.fc") for name in state) // 2,
                clamp=clamp,
            )
            network.load_state_dict(state)
        return network


class Conv(nn.Module):
    """A convolution with an equalised learning rate, of kernel 1 or 3.

    With a bias follows a leaky ReLU; with `down` the sides are halved. `gain` is that of the
    output; `clamp` the largest magnitude of an activation before it, None for no bound.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        *,
        bias: bool = True,
        down: bool = False,
        gain: float = 1.0,
        clamp: float | None = None,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        self.scale = (in_channels * kernel**2) ** -0.5
        self.down, self.gain, self.clamp = down, gain, clamp

    def forward(self, x: Tensor) -> Tensor:
        """Convolve [batch, in_channels, height, width]; returns the channels-last layout."""
        if self.bias is None:
            weight = self.weight * (self.scale * self.gain)
            return _pointwise(resampling.downsample(x) if self.down else x, weight, None)
        gain = self.gain * _ACTIVATION_GAIN
        weight, bias = self.weight * (self.scale * gain), self.bias * gain
        if weight.shape[-1] == 1:
            x = _pointwise(x, weight, bias)
        elif self.down:
            x = resampling.conv_down(x, weight, bias)
        else:
            x = F.conv2d(x, weight, bias, padding=1)
        return activate(x, None if self.clamp is None else self.clamp * self.gain)


class Down(nn.Module):
    """What the discriminator does at one side: two convolutions, beside them a residual path."""

    def __init__(
        self, in_channels: int, out_channels: int, *, residual: bool, clamp: float | None
    ) -> None:
        super().__init__()
        gain = 0.5**0.5 if residual else 1.0  # keeps the variance of the sum
        self.conv0 = Conv(in_channels, in_channels, 3, clamp=clamp)
        self.conv1 = Conv(in_channels, out_channels, 3, down=True, gain=gain, clamp=clamp)
        self.skip = (
            Conv(in_channels, out_channels, 1, bias=False, down=True, gain=gain)
            if residual
            else None
        )

    def forward(self, x: Tensor) -> Tensor:
        """Halve the sides."""
        out: Tensor = self.conv1(self.conv0(x))
        return out if self.skip is None else out + self.skip(x)


class Head(nn.Module):
    """The discriminator's end: minibatch deviation, then a logit from a 4x4 map."""

    def __init__(self, width: int, mbstd_group: int, *, clamp: float | None) -> None:
        super().__init__()
        self.mbstd_group = mbstd_group
        self.conv = Conv(width + 1, width, 3, clamp=clamp)
        self.fc = Linear(width * 16, width)
        self.out = Linear(width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return float32 logits [batch]."""
        x = self.conv(append_deviation(x, self.mbstd_group))
        with torch.autocast(x.device.type, enabled=False):
            x = F.leaky_relu(self.fc(_at_least_float32(x).flatten(1)), 0.2) * _ACTIVATION_GAIN
            logits: Tensor = self.out(x).squeeze(1)
        return logits


def append_deviation(
    x: Float[Tensor, "batch channels height width"], group: int
) -> Float[Tensor, "batch channels_and_one height width"]:
    """Append a channel that says how much samples differ (Karras et al. 2018, section 3).

    Samples n, n + batch / group, n + 2 batch / group, … form a group, at most the whole batch; the
    channel holds the mean over channels and pixels of their standard deviation.

    Raises:
        InputError: The batch is no multiple of the group.
    """
    batch = len(x)
    group = min(group, batch)
    if batch % group:
        raise InputError(f"batch of {batch}, expected a multiple of the group of {group}")
    y = _at_least_float32(x).reshape(group, batch // group, -1)
    deviation = square_root(y.var(dim=0, correction=0) + _EPSILON).mean(dim=1)  # [batch / group]
    channel = deviation.repeat(group).to(x.dtype).view(-1, 1, 1, 1)
    return torch.cat([x, channel.expand(-1, 1, *x.shape[2:])], dim=1)


class Discriminator(nn.Module):
    """Images to logits.

    Sizes and `clamp` are as for `Generator`. A sample's deviation is seen among `mbstd_group`;
    batches are multiples of it, or smaller. The small public configuration (`orig`) has no residual
    paths.
    """

    def __init__(
        self,
        *,
        size_px: int,
        channels: int,
        channel_base: int,
        channel_max: int,
        mbstd_group: int,
        architecture: Literal["resnet", "orig"] = "resnet",
        clamp: float | None = None,
    ) -> None:
        super().__init__()
        self.arguments = own_arguments(locals())
        width = widths(size_px, channel_base, channel_max)
        self.size_px, self.channels = size_px, channels
        for side in reversed(levels(size_px)[1:]):
            level = Down(
                width[side], width[side // 2], residual=architecture == "resnet", clamp=clamp
            )
            if side == size_px:
                level.fromrgb = Conv(channels, width[side], 1, clamp=clamp)
            self.add_module(f"b{side}", level)
        self.b4 = Head(width[4], mbstd_group, clamp=clamp)

    def forward(self, images: Images) -> Float[Tensor, " batch"]:
        """Return the logits of images in -1 … 1; high for real; float32."""
        x = self.get_submodule(f"b{self.size_px}.fromrgb")(images)
        for level in self.children():
            x = level(x)
        logits: Tensor = x
        return logits

    @classmethod
    def from_reference_state_dict(
        cls, state_dict: MappingType[str, Tensor], *, mbstd_group: int, clamp: float | None = None
    ) -> "Discriminator":
        """Build the network from the weights of a public StyleGAN2-ADA discriminator.

        As for the generator; `mbstd_group`, which the weights do not tell, is 4 in most.

        Raises:
            InputError: Names or shapes are not those of such a discriminator.
        """
        state = _without_filters(state_dict)
        with refused_as("not the weights of a public StyleGAN2-ADA discriminator"):
            sizes = _sizes(state, r"b(\d+)\.conv0?\.weight")
            size_px = sizes["size_px"]
            network = cls(
                **sizes,
                channels=state[f"b{size_px}.fromrgb.weight"].shape[1],
                mbstd_group=mbstd_group,
                architecture="resnet" if f"b{size_px}.skip.weight" in state else "orig",
                clamp=clamp,
            )
            network.load_state_dict(state)
        return network


def _as_map(values: Tensor, x: Tensor) -> Tensor:
    """Shape [channels] or [batch, channels] for use with a map, in its precision."""
    return values.to(x.dtype)[..., None, None]


def _pointwise(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Convolve with a 1x1 kernel, as a matrix product of channels-last pixels.

    From one or three channels that is several times as fast as a convolution.
    """
    return F.linear(x.permute(0, 2, 3, 1), weight.flatten(1), bias).permute(0, 3, 1, 2)


def _at_least_float32(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def _without_filters(state_dict: MappingType[str, Tensor]) -> dict[str, Tensor]:
    """Leave out the stored resampling filters, which are the same everywhere."""
    return {n: t for n, t in state_dict.items() if not n.endswith("resample_filter")}


def _sizes(state: MappingType[str, Tensor], pattern: str) -> dict[str, int]:
    """Find the sizes that give a network the layers of one width per side that match a pattern."""
    matches = ((re.fullmatch(pattern, name), weight) for name, weight in state.items())
    width = {int(match[1]): len(weight) for match, weight in matches if match}
    base = max(side * channels for side, channels in width.items())
    return {"size_px": max(width), "channel_base": base, "channel_max": max(width.values())}
