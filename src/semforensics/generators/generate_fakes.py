"""The stage that draws fakes from a trained GAN, one file per seed."""

from collections.abc import Callable
from pathlib import Path

import torch

from semforensics.core.checkpoints import load_network
from semforensics.core.errors import InputError
from semforensics.generators.common.sampling import generate_grey, write_fakes
from semforensics.generators.fastgan.networks import Generator as FastGAN
from semforensics.generators.stylegan2_ada.networks import Generator as StyleGAN2
from semforensics.params import GenerateParams, GenerateStyleGAN2Params

_ARCHITECTURES: dict[str, Callable[..., FastGAN | StyleGAN2]] = {
    "fastgan": FastGAN,
    "stylegan2_ada": StyleGAN2,
}


def load_generator(path: Path, snapshot: str = "last") -> FastGAN | StyleGAN2:
    """Rebuild a generator from its file alone, in eval mode.

    Of a folder, `snapshot` says which file: `last` is `generator.safetensors`, `best` is
    `best.safetensors`.

    Raises:
        FileNotFoundError: There is no such file.
        InputError: It does not hold a generator of this project.
    """
    if path.is_dir():
        path = path / {"last": "generator.safetensors", "best": "best.safetensors"}[snapshot]
    return load_network(path, _ARCHITECTURES, "train-gan")[0]


def generate_fakes(
    checkpoints: Path,
    fakes: Path,
    params: GenerateParams | GenerateStyleGAN2Params,
    *,
    device: torch.device,
) -> str:
    """Write one 8-bit grey PNG per seed, named after it, at the generator's size; return a summary.

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
    write_fakes(fakes, seeds, lambda seed: generate_grey(generator, [seed])[0])
    return f"{len(seeds)} fakes in {fakes}"
