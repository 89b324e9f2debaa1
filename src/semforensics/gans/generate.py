"""Fakes from a released generator: one seed, one image.

Each fake's latent and noise come from a random generator of its own, seeded with the number that is
its file name, and each is computed alone, in float32 and eval mode. So it depends on the checkpoint
and the seed, never on batch mates, batch size or order: kernels may sum in another order for
another batch size.

The public FastGAN samples in train mode, where an image depends on its batch mates. Ours does not,
for generators trained in `reference` mode neither: their statistics are measured like those of all
others.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from rich.console import Console
from rich.progress import track
from torch import Tensor

from semforensics.checkpoints import load_checkpoint
from semforensics.files import atomic_folder
from semforensics.gans.fastgan.networks import Generator
from semforensics.images import to_uint8, write_grey_png
from semforensics.params import GenerateParams


def load_generator(path: Path) -> Generator:
    """Rebuild a generator from its file alone, in eval mode.

    Args:
        path: The file, or a folder that holds `generator.safetensors`.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It does not hold a generator of this project.
    """
    path = path / "generator.safetensors" if path.is_dir() else path
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; `train-gan` makes it")
    state, meta = load_checkpoint(path)
    if meta.get("architecture") != "fastgan":
        raise ValueError(f"{path}: architecture {meta.get('architecture')!r}, expected 'fastgan'")
    try:
        generator = Generator(**meta["arguments"])
        generator.load_state_dict(state)
    except (KeyError, TypeError, RuntimeError) as error:
        raise ValueError(f"{path}: not the weights it says it holds: {error}") from error
    return generator.eval()


def draw_inputs(
    generator: Generator, count: int, rng: torch.Generator
) -> tuple[Tensor, list[Tensor]]:
    """Draw latents and noise maps from a CPU generator, on the network's device."""
    device = next(generator.parameters()).device
    z = torch.randn(count, generator.nz, generator=rng)
    noises = [torch.randn(count, 1, side, side, generator=rng) for side in generator.noise_sides]
    return z.to(device), [noise.to(device) for noise in noises]


@torch.inference_mode()
def generate(generator: Generator, seed: int) -> Float[Tensor, "channels side side"]:
    """Give the fake of one seed, in -1 … 1 where the generator squashes its output."""
    image: Tensor = generator(*draw_inputs(generator, 1, torch.Generator().manual_seed(seed))).big
    return image[0]


def generate_grey(generator: Generator, seeds: Sequence[int]) -> UInt8[Tensor, "n_fake side side"]:
    """Give the fakes of some seeds as grey levels.

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


def generate_folder(
    checkpoints: Path, fakes: Path, params: GenerateParams, *, device: torch.device
) -> int:
    """Write one 8-bit grey PNG per seed, named after it, at the generator's own size.

    Returns:
        How many.

    Raises:
        FileNotFoundError: There is no generator.
        ValueError: The file does not hold one.
    """
    generator = load_generator(checkpoints).to(device)
    seeds = range(params.first_seed, params.first_seed + params.num_images)
    console = Console(stderr=True)
    with atomic_folder(fakes) as folder:
        for seed in track(seeds, "fakes", console=console, disable=not console.is_terminal):
            write_grey_png(folder / f"{seed:06d}.png", generate_grey(generator, [seed])[0].numpy())
    return len(seeds)
