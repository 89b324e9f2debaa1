"""One seed, one fake: how a generator is asked for the image of a seed.

Each fake's latent and noise come from its own random generator, seeded with the number that is
its file name, and each is computed alone, in float32 and eval mode. So it depends on the weights
and the seed, never on batch mates, batch size or order: kernels may sum in another order for
another batch size.

The public programs differ: FastGAN's samples in train mode, where an image depends on its batch
mates; StyleGAN2-ADA's adds the same stored noise to every image. Ours does neither.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from semforensics.core.files import atomic_folder
from semforensics.core.images import to_uint8, write_grey_png
from semforensics.core.progress import track

OFF_FILE = "off.json"
"""In a folder in place of images, or of a model, that are switched off: says why."""
_GRID_PX = 1024
"""Largest side of a sample grid."""


@runtime_checkable  # for beartype
class ImageGenerator(Protocol):
    """What the generators of the pipeline have in common once they are trained."""

    nz: int
    """Length of a latent."""

    @property
    def noise_sides(self) -> list[int]:
        """Sides of the noise maps."""

    @property
    def device(self) -> torch.device:
        """Where the weights are."""

    def images(self, z: Tensor, noises: Sequence[Tensor]) -> Tensor:
        """Return images [batch, channels, side, side] in about -1 … 1."""


def draw_inputs(
    generator: ImageGenerator, count: int, rng: torch.Generator, images: slice = slice(None)
) -> tuple[Tensor, list[Tensor]]:
    """Draw latents and noise maps from a CPU generator; return those of some, on the device."""
    z = torch.randn(count, generator.nz, generator=rng)
    noises = [torch.randn(count, 1, side, side, generator=rng) for side in generator.noise_sides]
    device = generator.device
    return z[images].to(device), [noise[images].to(device) for noise in noises]


@torch.inference_mode()
def generate(generator: ImageGenerator, seed: int) -> Float[Tensor, "channels side side"]:
    """Return the fake of one seed, in about -1 … 1."""
    z, noises = draw_inputs(generator, 1, torch.Generator().manual_seed(seed))
    return generator.images(z, noises)[0]


def generate_grey(
    generator: ImageGenerator, seeds: Sequence[int]
) -> UInt8[Tensor, "n_fake side side"]:
    """Return the fakes of some seeds as grey levels.

    Three channels become grey by the canonicaliser's rule: rounded to 8 bits, then Pillow's luma.
    """
    images = []
    for seed in seeds:
        image = to_uint8(generate(generator, seed).cpu())
        if len(image) == 3:
            luma = Image.fromarray(image.permute(1, 2, 0).numpy()).convert("L")
            image = torch.from_numpy(np.array(luma))[None]
        images.append(image[0])
    return torch.stack(images)


def write_fakes(
    fakes: Path, seeds: Sequence[int], draw: Callable[[int], UInt8[Tensor, "side side"]]
) -> None:
    """Write one 8-bit grey PNG per seed into a folder, named after the seed in six digits."""
    with atomic_folder(fakes) as folder:
        for seed in track(seeds, "fakes"):
            write_grey_png(folder / f"{seed:06d}.png", draw(seed).numpy())


def write_off(folder: Path, reason: str) -> None:
    """Say in a folder why it holds nothing else."""
    (folder / OFF_FILE).write_text(json.dumps({"reason": reason}) + "\n")


def tile(images: UInt8[np.ndarray, "n side side"]) -> UInt8[np.ndarray, "height width"]:
    """Put square images into a square grid, as many as fit."""
    side = images.shape[-1]
    columns = int(min(len(images) ** 0.5, _GRID_PX // side))
    grid = images[: columns**2].reshape(columns, columns, side, side)
    return grid.transpose(0, 2, 1, 3).reshape(columns * side, columns * side)
