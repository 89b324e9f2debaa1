"""FastGAN: a generator with skip-layer excitation and a discriminator that reconstructs reals.

Liu et al., "Towards Faster and Stabilized GAN Training for High-fidelity Few-shot Image Synthesis",
ICLR 2021, arXiv:2101.04775, sections 3.1 and 3.2. Parameter names follow the public checkpoints
where `from_reference_state_dict` need not translate them. Ours differs: sizes below 256 px, where
the networks end and begin at the level of their own resolution; one channel; noise is passed in; an
upsampling and the convolution behind it are computed as one transposed convolution where that is
faster.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable

from semforensics.core.checkpoints import own_arguments, refused_as
from semforensics.core.errors import InputError

SIZES_PX = (64, 128, 256, 512, 1024)
CONVERGED_POWER_STEPS = 15
"""Power steps after which a fresh matrix's largest singular value is known well enough; the number
that torch.nn.utils.parametrizations.spectral_norm takes."""

_FINE_WIDTHS = {64: 2.0, 128: 1.0, 256: 1 / 2, 512: 1 / 4, 1024: 1 / 8}
_GENERATOR_WIDTHS = {4: 16.0, 8: 8.0, 16: 4.0, 32: 2.0} | _FINE_WIDTHS
_DISCRIMINATOR_WIDTHS = {8: 16.0, 16: 8.0, 32: 4.0} | _FINE_WIDTHS
"""Channels of the level with this side, in units of ngf and ndf."""
_NOISY_PX = (8, 32, 128, 512)
"""Levels whose upsampling block has two convolutions, each followed by noise."""
_GATES_PX = {64: 4, 128: 8, 256: 16, 512: 32}
"""Level whose map is gated: level that computes the gate."""


class Pair(NamedTuple):
    """A batch of images at the two scales that the discriminator sees."""

    big: Float[Tensor, "batch channels height width"]
    small: Float[Tensor, "batch channels small_height small_width"]


class Maps(NamedTuple):
    """What the discriminator's heads and decoders read."""

    middle: Float[Tensor, "batch channels_32 16 16"]
    last: Float[Tensor, "batch channels_16 8 8"]
    small: Float[Tensor, "batch channels_32 8 8"]


class Reconstructions(NamedTuple):
    """The three images that the decoders return, each of the small side."""

    big: Float[Tensor, "batch channels side side"]
    small: Float[Tensor, "batch channels side side"]
    part: Float[Tensor, "batch channels side side"]


def small_side(size_px: int) -> int:
    """Return the side of the second, smaller scale of images of this size."""
    return 128 if size_px >= 256 else size_px // 2


class _OverNorm(torch.autograd.Function):
    """A weight over its spectral norm, whose singular vectors count as constants.

    One node with few operations: written out, the norms of small weights cost a tenth of a step.
    """

    @staticmethod
    def forward(
        ctx: FunctionCtx, weight: Tensor, u: Tensor, v: Tensor, sigma: Tensor, dtype: torch.dtype
    ) -> Tensor:
        """Divide, round to `dtype`; `u` and `v` have shapes that spread over the weight."""
        ctx.save_for_backward(weight, u, v, sigma)
        return (weight / sigma).to(dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Return (G - <G, W / sigma> u v') / sigma."""
        weight, u, v, sigma = ctx.saved_tensors
        # Flat first: an upsampling's gradient is then a transposed matrix, which is copied faster.
        gradient = gradient.flatten(1).contiguous().view_as(weight).to(weight.dtype)
        along = torch.dot(gradient.flatten(), weight.flatten()) / sigma
        return torch.addcmul(gradient, along * u, v, value=-1).div_(sigma), None, None, None, None


class _SpectralNorm(nn.Module):
    """A weight divided by its largest singular value (Miyato et al. 2018, algorithm 1).

    The weight counts as a matrix, output channels first. In training mode each use takes one power
    step; in eval mode the stored vectors serve.
    """

    weight: Tensor
    weight_u: Tensor
    weight_v: Tensor
    rows_dim = 0
    """The weight's dimension of output channels."""

    def _register_vectors(self) -> None:
        rows = self.weight.shape[self.rows_dim]
        columns = self.weight.numel() // rows
        self.register_buffer("weight_u", F.normalize(torch.randn(rows), dim=0))
        self.register_buffer("weight_v", F.normalize(torch.randn(columns), dim=0))

    def to_columns(self, u: Tensor) -> Tensor:
        """Multiply the transposed matrix by a vector."""
        return torch.mv(self.weight.flatten(1).t(), u)

    def to_rows(self, v: Tensor) -> Tensor:
        """Multiply the matrix by a vector."""
        return torch.mv(self.weight.flatten(1), v)

    @torch.no_grad()
    def power_step(self) -> tuple[Tensor, Tensor, Tensor]:
        """Bring the stored singular vectors one step nearer.

        Returns:
            The left and right vector, as new tensors, and the norm that they give.
        """
        v = self.to_columns(self.weight_u)
        v /= torch.linalg.vector_norm(v).clamp_(min=1e-12)
        u = self.to_rows(v)
        # u'Wv of the new u is the length of Wv.
        sigma = torch.linalg.vector_norm(u).clamp_(min=1e-12)
        u /= sigma
        self.weight_u.copy_(u)
        self.weight_v.copy_(v)
        return u, v, sigma

    @torch.no_grad()
    def stored_norm(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the stored singular vectors and the norm that they give."""
        u, v = self.weight_u, self.weight_v
        return u, v, torch.dot(u, self.to_rows(v))

    def normalised_weight(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """Divide the weight by its spectral norm: computed in float32, then rounded to `dtype`."""
        with torch.autocast(self.weight.device.type, enabled=False):
            u, v, sigma = self.power_step() if self.training else self.stored_norm()
        rows, columns = [1] * self.weight.ndim, list(self.weight.shape)
        rows[self.rows_dim], columns[self.rows_dim] = -1, 1
        normalised: Tensor = _OverNorm.apply(  # type: ignore[no-untyped-call]
            self.weight, u.view(rows), v.view(columns), sigma, dtype
        )
        return normalised


class Conv(_SpectralNorm, nn.Conv2d):
    """A spectrally normalised convolution without bias."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int, stride: int = 1, padding: int = 0
    ) -> None:
        nn.Conv2d.__init__(self, in_channels, out_channels, kernel, stride, padding, bias=False)
        self._register_vectors()

    def forward(self, x: Tensor) -> Tensor:
        """Convolve; `x` is [batch, in_channels, height, width]."""
        weight = _channels_last(self.normalised_weight(_precision(x)))
        return F.conv2d(x, weight, None, self.stride, self.padding)


class UpConv(Conv):
    """Nearest-neighbour upsampling by two, then a 3x3 convolution."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Double the sides and convolve."""
        # From 512 channels on, composing the kernel costs more than its four taps for nine save;
        # so it does on the smallest maps.
        if self.in_channels < 512 and x.shape[-1] > 4:
            kernel = upsampling_kernel(self.normalised_weight())
            return F.conv_transpose2d(x, kernel, stride=2, padding=1)
        return super().forward(F.interpolate(x, scale_factor=2))


def upsampling_kernel(
    weight: Float[Tensor, "out_channels in_channels 3 3"],
) -> Float[Tensor, "in_channels out_channels 4 4"]:
    """Compose upsampling by two and a 3x3 convolution to one kernel.

    A transposed convolution with it, stride 2 and padding 1, gives what the two give one after the
    other: a pixel of the small map reaches four pixels of the large one and adds to each the taps
        that fall on it.
    """
    # Each tap of a side lands on two of the four: 3 -> 4, flipped because the convolution is
    # transposed.
    side = weight.new_tensor([[0, 0, 1, 1], [0, 1, 1, 0], [1, 1, 0, 0]])
    both = torch.einsum("ya,xb->abyx", side, side).view(16, 9)
    with torch.autocast(weight.device.type, enabled=False):
        # [in_channels, 16, out_channels]: the order in memory of a channels-last kernel.
        kernel = both @ weight.permute(1, 2, 3, 0).flatten(1, 2)
    return kernel.view(len(kernel), 4, 4, -1).permute(0, 3, 1, 2)


class FromLatent(_SpectralNorm, nn.ConvTranspose2d):
    """A spectrally normalised transposed convolution that turns a latent into a 4x4 map."""

    rows_dim = 1

    def __init__(self, nz: int, out_channels: int) -> None:
        nn.ConvTranspose2d.__init__(self, nz, out_channels, 4, bias=False)
        self._register_vectors()

    def to_columns(self, u: Tensor) -> Tensor:
        """Multiply the transposed matrix by a vector."""
        return (u @ self.weight.flatten(2)).flatten()

    def to_rows(self, v: Tensor) -> Tensor:
        """Multiply the matrix by a vector."""
        return (self.weight.flatten(2) @ v.view(len(self.weight), -1, 1)).sum(dim=0).flatten()

    def forward(self, z: Tensor) -> Tensor:  # type: ignore[override]
        """Map [batch, nz] to [batch, out_channels, 4, 4]."""
        # On a 1x1 map the transposed convolution is a matrix product.
        x = z @ self.normalised_weight(_precision(z)).flatten(1)
        return _channels_last(x.view(-1, self.out_channels, 4, 4))


class GatedNorm(nn.BatchNorm2d):
    """Batch normalisation and a gated linear unit: half of the channels gate the other half."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise; return the first half times the sigmoid of the second."""
        # Copies, because on slices of a channels-last tensor every operation is several times as
        # slow.
        value, gate = (_channels_last(half) for half in super().forward(x).chunk(2, dim=1))
        return value * torch.sigmoid(gate)


class Noise(nn.Module):
    """Noise that all channels share, with one learned strength that starts at 0."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor, noise: Tensor) -> Tensor:
        """Add a noise map of [batch, 1, height, width] to all channels."""
        return x + (self.weight * noise).to(x.dtype)


class Up(nn.ModuleDict):
    """A level of the generator: twice the side, one convolution, or two with noise behind each.

    Layers are named by their positions in the public networks, where 0 is the upsampling and the
    place behind each normalisation is the gated linear unit's.
    """

    def __init__(self, in_channels: int, out_channels: int, *, noisy: bool = False) -> None:
        width = 2 * out_channels
        layers: dict[str, nn.Module] = {"1": UpConv(in_channels, width)}
        if noisy:
            layers |= {"2": Noise(), "3": GatedNorm(width)}
            layers |= {"5": Conv(out_channels, width, 3, padding=1)}
            layers |= {"6": Noise(), "7": GatedNorm(width)}
        else:
            layers |= {"2": GatedNorm(width)}
        super().__init__(layers)

    def forward(self, x: Tensor, noises: Iterator[Tensor] | None = None) -> Tensor:
        """Go through the layers, taking a noise map for each noise layer."""
        for layer in self.values():
            if isinstance(layer, Noise):
                assert noises is not None
                x = layer(x, next(noises))
            else:
                x = layer(x)
        return x


class SkipExcitation(nn.Module):
    """Channels of a high-resolution map, scaled by gates from a low-resolution one (eq. 2)."""

    def __init__(self, low_channels: int, high_channels: int) -> None:
        super().__init__()
        self.main = nn.Sequential(
            nn.AdaptiveAvgPool2d(4),
            Conv(low_channels, high_channels, 4),
            nn.SiLU(),
            Conv(high_channels, high_channels, 1),
            nn.Sigmoid(),
        )

    def forward(self, low: Tensor, high: Tensor) -> Tensor:
        """Gate the high-resolution map."""
        gates: Tensor = self.main(low)
        return high * gates


class Generator(nn.Module):
    """Latents to images at two scales.

    The size is one of `SIZES_PX`; a level of side s has `ngf` times a factor that falls from 16 to
    1/8; `nz` is the length of a latent. `tanh` squashes both outputs; the original does so at
    1024 px only.
    """

    def __init__(self, *, size_px: int, channels: int, ngf: int, nz: int, tanh: bool) -> None:
        super().__init__()
        self.arguments = own_arguments(locals())
        width = _widths(ngf, _GENERATOR_WIDTHS, size_px, size_px)
        self.size_px, self.nz, self.tanh = size_px, nz, tanh
        sides = [side for side in width if side <= size_px]
        self.init = nn.ModuleDict({"0": FromLatent(nz, 2 * width[4]), "1": GatedNorm(2 * width[4])})
        self.feat = nn.ModuleDict(
            {
                str(side): Up(width[side // 2], width[side], noisy=side in _NOISY_PX)
                for side in sides[1:]
            }
        )
        self.se = nn.ModuleDict(
            {
                str(high): SkipExcitation(width[low], width[high])
                for high, low in _GATES_PX.items()
                if high <= size_px
            }
        )
        self.to_small = Conv(width[small_side(size_px)], channels, 1)
        self.to_big = Conv(width[size_px], channels, 3, padding=1)

    @property
    def noise_sides(self) -> list[int]:
        """Sides of the noise maps, in the order in which `forward` takes them."""
        return [side for side in _NOISY_PX if side <= self.size_px for _ in range(2)]

    def forward(self, z: Float[Tensor, "batch nz"], noises: Sequence[Tensor]) -> Pair:
        """Return images in about -1 … 1 (exactly with `tanh`), float32.

        Latents are standard normal, and so are the noises, a map [batch, 1, side, side] for each of
        `noise_sides`.
        """
        waiting = iter(noises)
        x = self.init["1"](self.init["0"](z))
        maps = {4: x}
        for name, level in self.feat.items():
            x = level(x, waiting)
            side = int(name)
            if name in self.se:
                x = self.se[name](maps[_GATES_PX[side]], x)
            maps[side] = x
        small = self.to_small(maps[small_side(self.size_px)]).float()
        big = self.to_big(x).float()
        return Pair(torch.tanh(big), torch.tanh(small)) if self.tanh else Pair(big, small)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.to_big.weight.device

    def images(self, z: Float[Tensor, "batch nz"], noises: Sequence[Tensor]) -> Tensor:
        """Return the images at the larger scale alone, [batch, channels, side, side]."""
        pair: Pair = self(z, noises)
        return pair.big

    @classmethod
    def from_reference_state_dict(cls, state_dict: Mapping[str, Tensor]) -> "Generator":
        """Build the network from the weights of the public FastGAN.

        They are of 256, 512 or 1024 px; spectral normalisation is by the hook or by the
        parametrisation, with or without the prefix of data-parallel training.

        Raises:
            InputError: Names or shapes are not those of such a generator.
        """
        state = _rename(
            state_dict,
            (r"^init\.init\.", "init."),
            (r"^(feat|se)_(\d+)\.", r"\1.\2."),
            (r"^to_128\.", "to_small."),
        )
        with refused_as("not the weights of a public FastGAN generator"):
            size_px = max(int(name.split(".")[1]) for name in state if name.startswith("feat."))
            nz, double_width, _, _ = state["init.0.weight"].shape
            network = cls(
                size_px=size_px,
                channels=state["to_big.weight"].shape[0],
                ngf=double_width // 32,
                nz=nz,
                tanh=size_px == 1024,
            )
            network.load_state_dict(state)
        return network


class Down(nn.Module):
    """Half the side: a strided convolution, batch normalisation, leaky ReLU."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.main = nn.Sequential(
            Conv(in_channels, out_channels, 4, 2, 1), nn.BatchNorm2d(out_channels), _leaky()
        )

    def forward(self, x: Tensor) -> Tensor:
        """Halve the sides."""
        out: Tensor = self.main(x)
        return out


class DownComp(nn.Module):
    """Half the side along two paths, averaged."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.main = nn.Sequential(
            Conv(in_channels, out_channels, 4, 2, 1),
            nn.BatchNorm2d(out_channels),
            _leaky(),
            Conv(out_channels, out_channels, 3, 1, 1),
            nn.BatchNorm2d(out_channels),
            _leaky(),
        )
        self.direct = nn.Sequential(
            nn.AvgPool2d(2),
            Conv(in_channels, out_channels, 1),
            nn.BatchNorm2d(out_channels),
            _leaky(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Halve the sides."""
        out: Tensor = (self.main(x) + self.direct(x)) / 2
        return out


class Decoder(nn.Module):
    """An 8x8 map back to an image in -1 … 1; its widths do not depend on the discriminator's."""

    def __init__(self, in_channels: int, channels: int, side_px: int) -> None:
        super().__init__()
        # From 8 px: the original's four doublings give 128; smaller images leave out the inner
        # ones.
        doublings = (side_px // 8).bit_length() - 1
        widths = [in_channels, *(128, 64, 64)[: doublings - 1], 32]
        self.main = nn.Sequential(
            nn.AdaptiveAvgPool2d(8),
            *(Up(i, o) for i, o in pairwise(widths)),
            Conv(32, channels, 3, padding=1),
            nn.Tanh(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return an image, float32."""
        out: Tensor = self.main(x).float()
        return out


class Discriminator(nn.Module):
    """Images at two scales to logits, and reals to reconstructions of themselves.

    The size is one of `SIZES_PX`; `ndf` is the width.
    """

    def __init__(self, *, size_px: int, channels: int, ndf: int) -> None:
        super().__init__()
        finest = size_px if size_px >= 512 else 2 * size_px
        width = _widths(ndf, _DISCRIMINATOR_WIDTHS, size_px, finest)
        self.entry_px = min(size_px, 256)
        small_px = small_side(size_px)
        self.down_from_big = _entry(size_px, channels, width)
        # A map of side s has the width that the tables give for 2s. The public names count
        # decimation from 512 px: level 4 has side 128, level 64 side 8.
        self.sides = [side for side in (128, 64, 32, 16, 8) if side < self.entry_px]
        self.down = nn.ModuleDict(
            {str(512 // side): DownComp(width[4 * side], width[2 * side]) for side in self.sides}
        )
        self.se = nn.ModuleDict(
            {
                str(512 // side): SkipExcitation(width[16 * side], width[2 * side])
                for side in (32, 16, 8)
                if 8 * side <= self.entry_px
            }
        )
        self.rf_big = nn.Sequential(
            Conv(width[16], width[8], 1), nn.BatchNorm2d(width[8]), _leaky(), Conv(width[8], 1, 4)
        )
        # In the small branch a map of side s has the width that the tables give for 4s.
        self.down_from_small = nn.Sequential(
            Conv(channels, width[2 * small_px], 4, 2, 1),
            _leaky(),
            *(
                Down(width[8 * side], width[4 * side])
                for side in (32, 16, 8)
                if 4 * side <= small_px
            ),
        )
        self.rf_small = Conv(width[32], 1, 4)
        self.decoder_big = Decoder(width[16], channels, small_px)
        self.decoder_small = Decoder(width[32], channels, small_px)
        self.decoder_part = Decoder(width[32], channels, small_px)

    def maps(
        self,
        big: Float[Tensor, "batch channels height width"],
        small: Float[Tensor, "batch channels small_height small_width"],
    ) -> Maps:
        """Return what the heads and the decoders read, from images at both scales, in -1 … 1."""
        x = self.down_from_big(_channels_last(big))
        seen = {self.entry_px: x}
        for side in self.sides:
            level = str(512 // side)
            x = self.down[level](x)
            if level in self.se:
                x = self.se[level](seen[8 * side], x)
            seen[side] = x
        return Maps(middle=seen[16], last=x, small=self.down_from_small(_channels_last(small)))

    def logits(self, maps: Maps) -> Float[Tensor, " logits"]:
        """Score each image and scale 25 times, high for real: all big ones, then all small ones."""
        big, small = self.rf_big(maps.last), self.rf_small(maps.small)
        return torch.cat([big.flatten(), small.flatten()]).float()

    def reconstructions(self, maps: Maps, quadrant: int) -> Reconstructions:
        """Decode the maps of reals back to images; `part` shows the quadrant (`take_quadrant`)."""
        return Reconstructions(
            big=self.decoder_big(maps.last),
            small=self.decoder_small(maps.small),
            part=self.decoder_part(take_quadrant(maps.middle, quadrant)),
        )

    def forward(
        self,
        big: Float[Tensor, "batch channels height width"],
        small: Float[Tensor, "batch channels small_height small_width"],
    ) -> Float[Tensor, " logits"]:
        """Return the logits of images at both scales, in -1 … 1; high for real."""
        return self.logits(self.maps(big, small))

    @classmethod
    def from_reference_state_dict(cls, state_dict: Mapping[str, Tensor]) -> "Discriminator":
        """Build the network from the weights of the public FastGAN; see the generator's.

        Raises:
            InputError: Names or shapes are not those of such a discriminator.
        """
        state = _rename(
            state_dict, (r"^down_(\d+)\.", r"down.\1."), (r"^se_\d+_(\d+)\.", r"se.\1.")
        )
        with refused_as("not the weights of a public FastGAN discriminator"):
            _, channels, kernel, _ = state["down_from_big.0.weight"].shape
            halvings = 0 if kernel == 3 else 1 + ("down_from_big.2.weight" in state)
            network = cls(
                size_px=256 << halvings,
                channels=channels,
                ndf=state["rf_big.0.weight"].shape[0] // 16,
            )
            network.load_state_dict(state)
        return network


def take_quadrant(
    x: Float[Tensor, "batch channels height width"], quadrant: int
) -> Float[Tensor, "batch channels half_height half_width"]:
    """Cut out a quarter: 0 top left, 1 top right, 2 bottom left, 3 bottom right."""
    bottom, right = divmod(quadrant, 2)
    return x.chunk(2, dim=2)[bottom].chunk(2, dim=3)[right]


@torch.no_grad()
def initialise(network: nn.Module, *, power_steps: int) -> None:
    """Draw fresh weights from the global random state, as the original does.

    Convolutions become N(0, 0.02²), normalisation weights N(1, 0.02²), their biases 0. Power steps
    are taken on every spectral norm; 0 in the original, whose singular vectors start random.
    """
    for module in network.modules():
        if isinstance(module, _SpectralNorm):
            nn.init.normal_(module.weight, 0.0, 0.02)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, 0.02)
            nn.init.zeros_(module.bias)
    take_power_steps(network, power_steps)


def take_power_steps(network: nn.Module, count: int) -> None:
    """Bring every spectral norm of a network `count` power steps nearer to its value."""
    for module in network.modules():
        if isinstance(module, _SpectralNorm):
            for _ in range(count):
                module.power_step()


def _channels_last(x: Tensor) -> Tensor:
    if x.shape[1] == 1:
        # One channel lies in memory alike in both layouts; only its strides say which it is, and so
        # which one a convolution of it gives.
        return x.reshape(len(x), *x.shape[2:], 1).movedim(3, 1)
    return x.contiguous(memory_format=torch.channels_last)


def _precision(x: Tensor) -> torch.dtype:
    """Return the type in which autocast, where it is on, computes products with this tensor."""
    device = x.device.type
    on = torch.is_autocast_enabled(device)
    return torch.get_autocast_dtype(device) if on else torch.float32


def _leaky() -> nn.LeakyReLU:
    return nn.LeakyReLU(0.2, inplace=True)


def _entry(size_px: int, channels: int, width: Mapping[int, int]) -> nn.Sequential:
    """Return the first layers, which bring larger images to 256 px."""
    match size_px:
        case 1024:
            return nn.Sequential(
                Conv(channels, width[1024], 4, 2, 1),
                _leaky(),
                Conv(width[1024], width[512], 4, 2, 1),
                nn.BatchNorm2d(width[512]),
                _leaky(),
            )
        case 512:
            return nn.Sequential(Conv(channels, width[512], 4, 2, 1), _leaky())
        case _:
            return nn.Sequential(Conv(channels, width[2 * size_px], 3, 1, 1), _leaky())


def _widths(base: int, factors: Mapping[int, float], size_px: int, finest: int) -> dict[int, int]:
    """Return the channels at each side, refusing sizes and widths that the networks do not have."""
    if size_px not in SIZES_PX:
        raise InputError(f"FastGAN: {size_px} px, expected one of {SIZES_PX}")
    widths = {side: int(factor * base) for side, factor in factors.items()}
    if widths[finest] < 1:
        raise InputError(f"FastGAN: a width of {base} leaves no channel at {size_px} px")
    return widths


def _rename(state_dict: Mapping[str, Tensor], *patterns: tuple[str, str]) -> dict[str, Tensor]:
    """Translate public parameter names: spectral normalisation in both styles, then `patterns`."""
    spectral = (
        (r"^module\.", ""),
        (r"\.weight_orig$", ".weight"),
        (r"\.parametrizations\.weight\.original$", ".weight"),
        (r"\.parametrizations\.weight\.0\._([uv])$", r".weight_\1"),
    )
    renamed = {}
    for name, tensor in state_dict.items():
        for pattern, replacement in (*spectral, *patterns):
            name = re.sub(pattern, replacement, name)
        renamed[name] = tensor
    return renamed
