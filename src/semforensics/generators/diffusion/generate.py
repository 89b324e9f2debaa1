"""The stage that makes fakes by the diffusion model."""

import json
from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor

from semforensics.core.files import atomic_folder
from semforensics.core.images import to_uint8
from semforensics.generators.common.sampling import OFF_FILE, write_fakes, write_off
from semforensics.generators.diffusion.networks import load_denoiser
from semforensics.generators.diffusion.refine import refine_crops
from semforensics.generators.diffusion.sampling import sample
from semforensics.params import GenerateDiffusionParams


def generate_diffusion(
    checkpoint: Path,
    cropped: Path,
    splits: Path,
    fakes: Path,
    refined: Path,
    *,
    params: GenerateDiffusionParams,
    seed: int,
    device: torch.device,
) -> str:
    """Draw fakes from noise, and refine crops; return a summary.

    `fakes` holds one 8-bit grey PNG per seed, named after it, at the model's size; `refined` one
    per crop, under its name, if `params.refine` says so. Where the model is off, or nothing is
    refined, the folder holds `off.json` only.

    Raises:
        FileNotFoundError: There is no model.
        InputError: The file does not hold one, or more sampling steps are asked for than it has.
    """
    if (checkpoint / OFF_FILE).is_file():
        reason = json.loads((checkpoint / OFF_FILE).read_text())["reason"]
        for path in (fakes, refined):
            with atomic_folder(path) as folder:
                write_off(folder, reason)
        return f"{reason}; {fakes} holds no images"
    network, meta = load_denoiser(checkpoint)
    network.to(device)
    timesteps, steps = meta["timesteps"], params.sampling_steps
    seeds = range(params.first_seed, params.first_seed + params.num_images)

    def draw(seed: int) -> UInt8[Tensor, "side side"]:
        return to_uint8(sample(network, seed, timesteps=timesteps, sampling_steps=steps).cpu())[0]

    write_fakes(fakes, seeds, draw)
    if params.refine:
        refine_crops(network, cropped, splits, refined, timesteps=timesteps, seed=seed)
    else:
        with atomic_folder(refined) as folder:
            write_off(folder, "generate_diffusion.refine is false")
    note = " (under-trained)" if params.under_trained else ""
    return f"{len(seeds)} fakes of the diffusion model after {meta['step']} steps{note} in {fakes}"
