"""Fakes from a released generator, one file per seed."""

from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track

from semforensics.core.checkpoints import load_checkpoint
from semforensics.core.errors import InputError
from semforensics.core.files import atomic_folder
from semforensics.core.images import write_grey_png
from semforensics.generators.common.sampling import generate_grey
from semforensics.generators.fastgan.networks import Generator as FastGAN
from semforensics.generators.stylegan2_ada.networks import Generator as StyleGAN2
from semforensics.params import GenerateParams, GenerateStyleGAN2Params

_ARCHITECTURES: dict[str, type[FastGAN] | type[StyleGAN2]] = {
    "fastgan": FastGAN,
    "stylegan2_ada": StyleGAN2,
}


def load_generator(path: Path, snapshot: str = "last") -> FastGAN | StyleGAN2:
    """Rebuild a generator from its file alone, in eval mode.

    Args:
        path: The file, or a folder that holds `generator.safetensors` and `best.safetensors`.
        snapshot: Which of the two in a folder: `last` or `best`.

    Raises:
        FileNotFoundError: There is no such file.
        InputError: It does not hold a generator of this project.
    """
    if path.is_dir():
        path = path / {"last": "generator.safetensors", "best": "best.safetensors"}[snapshot]
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; `train-gan` makes it")
    state, meta = load_checkpoint(path)
    architecture = meta.get("architecture")
    if architecture not in _ARCHITECTURES:
        expected = " or ".join(map(repr, _ARCHITECTURES))
        raise InputError(f"{path}: architecture {architecture!r}, expected {expected}")
    try:
        generator = _ARCHITECTURES[architecture](**meta["arguments"])
        generator.load_state_dict(state)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{path}: not the weights it says it holds: {error}") from error
    return generator.eval()


def generate_folder(
    checkpoints: Path,
    fakes: Path,
    params: GenerateParams | GenerateStyleGAN2Params,
    *,
    device: torch.device,
) -> int:
    """Write one 8-bit grey PNG per seed, named after it, at the generator's own size.

    Returns:
        How many.

    Raises:
        FileNotFoundError: There is no generator.
        InputError: The file does not hold one, or not of the kind the parameters are for.
    """
    generator = load_generator(checkpoints, params.snapshot).to(device)
    if isinstance(params, GenerateStyleGAN2Params):
        if not isinstance(generator, StyleGAN2):
            raise InputError(f"{checkpoints}: holds FastGAN, expected StyleGAN2-ADA")
        generator.truncation_psi = params.truncation_psi
    elif not isinstance(generator, FastGAN):
        raise InputError(f"{checkpoints}: holds StyleGAN2-ADA, expected FastGAN")
    seeds = range(params.first_seed, params.first_seed + params.num_images)
    console = Console(stderr=True)
    with atomic_folder(fakes) as folder:
        for seed in track(seeds, "fakes", console=console, disable=not console.is_terminal):
            write_grey_png(folder / f"{seed:06d}.png", generate_grey(generator, [seed])[0].numpy())
    return len(seeds)
