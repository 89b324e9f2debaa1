"""Sampling from a diffusion model.

By DDIM without noise (Song et al., "Denoising Diffusion Implicit Models", ICLR 2021,
arXiv:2010.02502, eq. 12, sigma = 0), so that an image is a function of its first noise.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from semforensics.core.errors import InputError
from semforensics.generators.diffusion.networks import Denoiser


def scheduler(timesteps: int) -> Any:
    """Return the noising process and its sampler.

    The sampler begins at the last timestep, pure noise (Lin et al., "Common Diffusion Noise
    Schedules and Sample Steps are Flawed", WACV 2024, arXiv:2305.08891, section 3.3).
    """
    # Here, since it takes seconds to import, for nothing while the model is off.
    from diffusers import DDIMScheduler

    return DDIMScheduler(  # type: ignore[no-untyped-call]
        num_train_timesteps=timesteps,
        beta_schedule="squaredcos_cap_v2",
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        clip_sample=True,
    )


@torch.inference_mode()
def sample(
    network: Denoiser, seed: int, *, timesteps: int, sampling_steps: int
) -> Float[Tensor, "1 side side"]:
    """Return the fake of one seed, in about -1 … 1.

    It is computed alone and in float32, so it depends on the weights, the seed and the number of
    steps, never on batch mates. `timesteps` are those of the training, of which `sampling_steps`
    are taken.

    Raises:
        InputError: More steps than there are.
    """
    if sampling_steps > timesteps:
        raise InputError(f"{sampling_steps} sampling steps, more than {timesteps} timesteps")
    process = scheduler(timesteps)
    process.set_timesteps(sampling_steps)
    side = network.size_px
    rng = torch.Generator().manual_seed(seed)
    device = next(network.parameters()).device
    x = torch.randn(1, 1, side, side, generator=rng).to(device)
    for at in process.timesteps:
        velocity = network(x, at.expand(1).to(device))
        x = process.step(velocity, at, x).prev_sample
    return x[0]
