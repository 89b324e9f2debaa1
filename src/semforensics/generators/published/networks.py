"""TAESD: the tiny autoencoders of latent diffusion models.

Bohan (madebyollin), "Tiny AutoEncoder for Stable Diffusion", 2023. Each is distilled from the
autoencoder of one public model (Stable Diffusion 1 and XL, Stable Diffusion 3) and works in that
model's latent space, an eighth of the image's side. Rebuilt from the published weights' names and
shapes: convolutions of 64 channels, blocks of three, strides on the way in, nearest neighbours on
the way out.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from semforensics.core.checkpoints import refused_as
from semforensics.core.errors import InputError
from semforensics.params import Precision

LATENT_CHANNELS: Mapping[str, int] = {"taesd": 4, "taesdxl": 4, "taesd3": 16}
"""Of each published autoencoder: those of Stable Diffusion 1, XL and 3."""
DOWNSAMPLING = 8
"""Pixels of the image's side for each position of the latent's."""
_WIDTH = 64
_LEVELS = 3
_BLOCKS = 3  # at each of the coarser levels; one at full resolution
_LATENT_LIMIT = 3.0  # a decoder squashes latents into -3 ... 3


class TinyAutoencoder(nn.Module):
    """An encoder and a decoder of one published model.

    Args:
        latent_channels: As in `LATENT_CHANNELS`.
        precision: Of all layers but the last ones of encoder and decoder, which are in float32: the
            grey levels that come out are not those of 16 bits.
    """

    def __init__(self, latent_channels: int, precision: Precision = "float32") -> None:
        super().__init__()
        self.precision, self.downsampling = precision, DOWNSAMPLING
        self.encoder = _encoder(latent_channels)
        self.decoder = _decoder(latent_channels)

    def encode(
        self, images: Float[Tensor, "n 1 height width"]
    ) -> Float[Tensor, "n c latent_height latent_width"]:
        """Encode grey images in 0 … 1.

        Raises:
            InputError: A side is no multiple of 8.
        """
        height, width = images.shape[-2:]
        if height % DOWNSAMPLING or width % DOWNSAMPLING:
            raise InputError(f"images of {width}x{height} px, expected multiples of {DOWNSAMPLING}")
        return self._apply_half(self.encoder, images.expand(-1, 3, -1, -1))

    def decode(
        self, latents: Float[Tensor, "n c latent_height latent_width"]
    ) -> Float[Tensor, "n 1 height width"]:
        """Decode latents to grey images in 0 … 1: the luma of what is decoded, clamped."""
        colours = self._apply_half(self.decoder, latents).clamp(0, 1)
        weights = colours.new_tensor((0.299, 0.587, 0.114)).view(1, 3, 1, 1)  # ITU-R BT.601
        luma: Tensor = (colours * weights).sum(dim=1, keepdim=True)
        return luma

    def _apply_half(
        self, layers: nn.Sequential, x: Float[Tensor, "n c h w"]
    ) -> Float[Tensor, "n c_out h_out w_out"]:
        x = x.contiguous(memory_format=torch.channels_last)
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            hidden = layers[:-1](x)
        found: Tensor = layers[-1](hidden.float())
        return found

    def forward(
        self, images: Float[Tensor, "n 1 height width"]
    ) -> Float[Tensor, "n 1 h_out w_out"]:
        """Encode and decode grey images in 0 … 1."""
        return self.decode(self.encode(images))


def load_published(folder: Path, name: str, precision: Precision = "float32") -> TinyAutoencoder:
    """Rebuild a published autoencoder from its two files, in eval mode.

    Args:
        folder: Holds `<name>_encoder.safetensors` and `<name>_decoder.safetensors`.
        name: One of `LATENT_CHANNELS`.
        precision: As `TinyAutoencoder` takes it.

    Raises:
        FileNotFoundError: A file is missing.
        InputError: A file holds something else.
    """
    network = TinyAutoencoder(LATENT_CHANNELS[name], precision)
    for half in ("encoder", "decoder"):
        path = folder / f"{name}_{half}.safetensors"
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file; `resynthesise-published` fetches it")
        try:
            state = {key: tensor.float() for key, tensor in load_file(path).items()}
        except SafetensorError as error:
            raise InputError(f"{path}: not a safetensors file: {error}") from error
        with refused_as(f"{path}: not the {half} of {name}"):
            getattr(network, half).load_state_dict(state)
    placed: TinyAutoencoder = network.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return placed


class _Block(nn.Module):
    """Three convolutions and a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            _conv(_WIDTH, _WIDTH),
            nn.ReLU(),
            _conv(_WIDTH, _WIDTH),
            nn.ReLU(),
            _conv(_WIDTH, _WIDTH),
        )

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        return F.relu(self.conv(x) + x)


class _Squash(nn.Module):
    """Bends latents into the range that the decoder was trained on."""

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        return torch.tanh(x / _LATENT_LIMIT) * _LATENT_LIMIT


def _conv(inputs: int, outputs: int, *, stride: int = 1, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=bias)


def _encoder(latent_channels: int) -> nn.Sequential:
    layers: list[nn.Module] = [_conv(3, _WIDTH), _Block()]
    for _ in range(_LEVELS):
        layers += [_conv(_WIDTH, _WIDTH, stride=2, bias=False), *(_Block() for _ in range(_BLOCKS))]
    return nn.Sequential(*layers, _conv(_WIDTH, latent_channels))


def _decoder(latent_channels: int) -> nn.Sequential:
    layers: list[nn.Module] = [_Squash(), _conv(latent_channels, _WIDTH), nn.ReLU()]
    for _ in range(_LEVELS):
        layers += [*(_Block() for _ in range(_BLOCKS)), nn.Upsample(scale_factor=2)]
        layers += [_conv(_WIDTH, _WIDTH, bias=False)]
    return nn.Sequential(*layers, _Block(), _conv(_WIDTH, 3))
