"""Small encoder-decoders: a micrograph in, the same micrograph out, through an up-sampler.

A decoder leaves the trace of its up-sampling in all it makes, as a GAN's generator does, while the
scene stays that of a real micrograph. So a detector that learns or passes on reconstructions is
asked for the trace, not for the scene.
"""

import hashlib
import itertools
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Float
from torch import Tensor, nn

from semforensics.core.checkpoints import load_network, own_arguments
from semforensics.core.errors import InputError

Upsampler = Literal["nearest", "bilinear", "transposed", "shuffle"]
SLOPE = 0.2
"""Of the leaky ReLUs."""


@dataclass(frozen=True)
class Recipe:
    """What tells one encoder-decoder from another."""

    levels: int
    """Halvings of the side on the way in, doublings on the way out."""
    bottleneck: int
    """Channels at the smallest side. A level's side is halved, so fewer than 4 to the power of
    `levels` hold less than the image has."""
    upsampler: Upsampler


RECIPES: dict[str, Recipe] = {
    "pseudo": Recipe(levels=2, bottleneck=12, upsampler="nearest"),
    "autoencoder": Recipe(levels=3, bottleneck=16, upsampler="shuffle"),
    "nearest": Recipe(levels=1, bottleneck=3, upsampler="nearest"),
    "bilinear": Recipe(levels=1, bottleneck=3, upsampler="bilinear"),
    "transposed": Recipe(levels=1, bottleneck=3, upsampler="transposed"),
}
"""`pseudo` makes the pseudo-fakes that a classifier may learn from. The others make columns of the
cross-generator matrix: `autoencoder` differs from `pseudo` in depth, bottleneck and up-sampler, the
last three double the side once, each by one of the kernels that generators are built from."""
_CODE_SHARES = (0.5, 0.9)  # of the image's numbers, that the bottleneck of a drawn one may hold
_OF_ONE_LEVEL: tuple[Upsampler, ...] = ("bilinear", "shuffle")  # the others are for measuring


def draw_recipes(count: int, seed: int) -> Mapping[str, Recipe]:
    """Draw recipes of more encoder-decoders, `decoder_0` and so on: up-sampler, depth, bottleneck.

    Those of one level, faithful, and of two take turns; deeper ones are so crude after minutes that
    nothing is learned from them. The first ones stay the same where more are drawn.
    """
    recipes = {}
    for index in range(count):
        name = f"decoder_{index}"
        rng = np.random.default_rng(seed_of(name, seed))
        levels = 1 + index % 2
        bottleneck = int(4**levels * rng.uniform(*_CODE_SHARES))
        upsamplers: tuple[Upsampler, ...] = _OF_ONE_LEVEL if levels == 1 else get_args(Upsampler)
        recipes[name] = Recipe(levels, bottleneck, upsamplers[rng.integers(len(upsamplers))])
    return recipes


def seed_of(name: str, seed: int) -> int:
    """Derive the seed of an encoder-decoder, the same in any order of training."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest()[:4], "big")


class Autoencoder(nn.Module):
    """An encoder of strided convolutions and a decoder that doubles the side level by level.

    `width` is the channels at full resolution, twice as many at each halving. The up-samplers
    `nearest` and `bilinear` interpolate, then convolve; `transposed` is a transposed convolution of
    kernel 4 and stride 2; `shuffle` convolves to four times the channels, which then become the
    four pixels of a 2x2 block.
    """

    def __init__(self, *, width: int, levels: int, bottleneck: int, upsampler: Upsampler) -> None:
        super().__init__()
        self.arguments = own_arguments(locals())
        self.levels = levels
        widths = [width * 2**level for level in range(levels + 1)]
        encoder: list[nn.Module] = [_conv(1, width), nn.LeakyReLU(SLOPE)]
        for small, large in itertools.pairwise(widths):
            encoder += [_conv(small, large, stride=2), nn.LeakyReLU(SLOPE)]
            encoder += [_conv(large, large), nn.LeakyReLU(SLOPE)]
        self.encoder = nn.Sequential(*encoder, nn.Conv2d(widths[-1], bottleneck, 1))
        decoder: list[nn.Module] = [_conv(bottleneck, widths[-1]), nn.LeakyReLU(SLOPE)]
        for large, small in itertools.pairwise(reversed(widths)):
            decoder += [*_double(large, small, upsampler), nn.LeakyReLU(SLOPE)]
            decoder += [_conv(small, small), nn.LeakyReLU(SLOPE)]
        self.decoder = nn.Sequential(*decoder, _conv(width, 1))
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                # Keeps the variance from layer to layer; under torch's own start it dies out.
                nn.init.kaiming_normal_(layer.weight, a=SLOPE)
                assert layer.bias is not None
                nn.init.zeros_(layer.bias)

    def forward(
        self, images: Float[Tensor, "batch 1 height width"]
    ) -> Float[Tensor, "batch 1 height width"]:
        """Reconstruct images in -1 … 1; a reconstruction may reach a little beyond.

        Raises:
            InputError: A side cannot be halved as often as there are levels.
        """
        height, width = images.shape[-2:]
        if height % 2**self.levels or width % 2**self.levels:
            raise InputError(
                f"images of {width}x{height} px, expected multiples of {2**self.levels}"
            )
        reconstructions: Tensor = self.decoder(self.encoder(images))
        return reconstructions


def _conv(channels_in: int, channels_out: int, stride: int = 1) -> nn.Conv2d:
    # Mirrored edges: zeros would draw a frame around every reconstruction.
    return nn.Conv2d(channels_in, channels_out, 3, stride=stride, padding=1, padding_mode="reflect")


def _double(channels_in: int, channels_out: int, upsampler: Upsampler) -> list[nn.Module]:
    match upsampler:
        case "nearest" | "bilinear":
            return [nn.Upsample(scale_factor=2, mode=upsampler), _conv(channels_in, channels_out)]
        case "transposed":
            return [nn.ConvTranspose2d(channels_in, channels_out, 4, stride=2, padding=1)]
        case "shuffle":
            return [_conv(channels_in, 4 * channels_out), nn.PixelShuffle(2)]
        case _:  # of a file
            raise InputError(f"unknown up-sampler {upsampler!r}")


def build_autoencoder(recipe: Recipe, width: int) -> Autoencoder:
    """Build an encoder-decoder with fresh weights."""
    return Autoencoder(width=width, **asdict(recipe))


def load_autoencoder(path: Path) -> tuple[Autoencoder, dict[str, Any]]:
    """Rebuild an encoder-decoder from its file, in eval mode, with what training wrote beside it.

    Raises:
        FileNotFoundError: There is no such file.
        InputError: It holds something else.
    """
    return load_network(path, {"autoencoder": Autoencoder}, "train-autoencoders")
