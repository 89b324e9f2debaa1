"""An unconditional diffusion model: a generator that has nothing in common with the two GANs.

Ho et al., "Denoising Diffusion Probabilistic Models", NeurIPS 2020, arXiv:2006.11239, with the
U-Net and the schedulers of `diffusers`. Ours differs where a short training gains by it:

- the cosine schedule (Nichol and Dhariwal, "Improved Denoising Diffusion Probabilistic Models",
  ICML 2021, arXiv:2102.09672, eq. 17): the linear one spends a quarter of its steps on pure noise;
- the network predicts the velocity (Salimans and Ho, "Progressive Distillation for Fast Sampling of
  Diffusion Models", ICLR 2022, arXiv:2202.00512, section 4), which is well scaled at both ends;
- the timesteps of a batch are spread evenly (Kingma et al., "Variational Diffusion Models", NeurIPS
  2021, arXiv:2107.00630, appendix I.1), which makes the loss less noisy;
- sampling by DDIM without noise (see `sampling`);
- a U-Net of few channels with attention at its lowest level only.
"""

import copy
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Int64, UInt8
from torch import Tensor

from semforensics.core.checkpoints import save_checkpoint
from semforensics.core.device import seed_everything
from semforensics.core.errors import InputError
from semforensics.core.files import atomic_folder
from semforensics.core.images import to_uint8, write_grey_png
from semforensics.core.training import (
    EndlessPermutations,
    MeasuredState,
    Setup,
    Training,
    describe_training,
    make_stamp,
    write_rows,
)
from semforensics.generators.common import ema
from semforensics.generators.common.reals import RealCrops, cut_out, take
from semforensics.generators.common.sampling import OFF_FILE, tile, write_off
from semforensics.generators.diffusion.networks import (
    MODEL_FILE,
    Denoiser,
    check_widths,
    load_denoiser,
)
from semforensics.generators.diffusion.sampling import sample, scheduler
from semforensics.params import TrainDiffusionParams

WARM_UP_STEPS = 200
MAX_GRADIENT_NORM = 1.0
"""As in the public program of Ho et al."""
LOG_EVERY = 20
NUM_SAMPLES, SAMPLING_STEPS = 16, 50
"""Of the sample grid; fewer steps where the process has fewer."""


@dataclass(kw_only=True)
class DiffusionState(MeasuredState):
    """All that changes while a diffusion model is trained."""

    unit = "step"
    columns = ("loss",)
    network: Denoiser
    average: Denoiser
    """The network with averaged weights."""
    optimizer: torch.optim.Adam
    rng: torch.Generator
    sampler: EndlessPermutations


def train_diffusion(
    crops: RealCrops, checkpoint: Path, *, params: TrainDiffusionParams, setup: Setup
) -> str:
    """Train a diffusion model on cut-outs of the crops, write its average, return a summary.

    With fewer steps than the state has it starts anew; with as many as it has, the state is written
    out as it is. `checkpoint` holds `denoiser.safetensors` (the averaged weights, in 16 bit),
    `losses.csv` and `samples.png` (the fakes of seeds 0 to 15); with 0 steps only `off.json`.

    Raises:
        InputError: The training images do not fit the network, or the loss is no longer finite.
    """
    if params.steps == 0:
        reason = "the diffusion model is off: train_diffusion.steps is 0"
        with atomic_folder(checkpoint) as folder:
            write_off(folder, reason)
        return f"{reason}; {checkpoint} holds {OFF_FILE} only"
    check_widths(params)
    reals = crops.load()
    if reals.shape[-1] < params.size_px:
        raise InputError(
            f"{crops.cropped}: crops of {reals.shape[-1]} px, train_diffusion.size_px is "
            f"{params.size_px}"
        )
    settings = params.model_dump(exclude={"steps"}) | {"seed": setup.seed}
    stamp = make_stamp(__name__, settings, reals, device=setup.device)
    training = Training("diffusion", setup, stamp)
    state = new_state(params, len(reals), setup.seed, setup.device)
    training.resume(state, params.steps)

    train(training, state, reals, params)

    meta = describe_training("ddpm", state.network, params, setup, crops.protocol, len(reals))
    meta |= {"timesteps": params.timesteps, "step": state.iteration}
    with atomic_folder(checkpoint) as folder:
        save_checkpoint(folder / MODEL_FILE, state.average.state_dict(), meta, half=True)
        write_rows(folder / "losses.csv", state.rows)
        network, _ = load_denoiser(folder)  # what the file holds, in 16 bit
        network.to(setup.device)
        steps = min(SAMPLING_STEPS, params.timesteps)
        samples = [
            sample(network, s, timesteps=params.timesteps, sampling_steps=steps)
            for s in range(NUM_SAMPLES)
        ]
        write_grey_png(folder / "samples.png", tile(to_uint8(torch.cat(samples).cpu()).numpy()))
    training.clear()
    return (
        f"diffusion model of {params.size_px} px after {state.iteration} steps of {params.batch} "
        f"on {len(reals)} reals: loss {state.rows[-1]['loss']:.4f}, in {checkpoint}"
    )


def train(
    training: Training,
    state: DiffusionState,
    reals: UInt8[Tensor, "n_real 1 side side"],
    params: TrainDiffusionParams,
) -> None:
    """Take the steps that are left; leaves its state in its scratch folder."""
    noising = scheduler(params.timesteps)
    device = next(state.network.parameters()).device
    with training.progress(state, params.steps) as show:
        while state.iteration < params.steps:
            # A batch of cut-outs, each with its own noise and time.
            indices = state.sampler.take(params.batch)
            x = take(reals, indices, 1, flip=True, rng=state.rng)
            x = cut_out(x, params.size_px, state.rng).to(device)
            noise = torch.randn(x.shape, generator=state.rng).to(device)
            times = draw_times(params.batch, params.timesteps, state.rng).to(device)

            # The network predicts the velocity from the noisy image.
            noisy = noising.add_noise(x, noise, times)
            velocity = noising.get_velocity(x, noise, times)
            with torch.autocast(
                device.type,
                torch.bfloat16,
                enabled=params.precision == "bfloat16",
                cache_enabled=False,
            ):
                predicted = state.network(noisy, times)
            loss = F.mse_loss(predicted, velocity)
            state.optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(state.network.parameters(), MAX_GRADIENT_NORM)
            for group in state.optimizer.param_groups:
                group["lr"] = params.lr * min(1.0, (state.iteration + 1) / WARM_UP_STEPS)
            state.optimizer.step()

            # Average the weights.
            decay = min(params.ema_decay, ema.ramped_decay(state.iteration))
            ema.update(state.average, state.network, decay)

            state.iteration += 1
            state.measure({"loss": loss})
            done = state.iteration == params.steps
            if state.iteration % LOG_EVERY == 0 or done:
                row = state.log()
                show(row, f"loss {row['loss']:.4f}")
            show()
            training.save_if_due(state, done=done)


def new_state(
    params: TrainDiffusionParams, n_real: int, seed: int, device: torch.device
) -> DiffusionState:
    """Draw a fresh network from the seed."""
    seed_everything(seed)
    network = Denoiser(size_px=params.size_px, widths=list(params.widths)).to(device)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    rng = torch.Generator().manual_seed(seed)
    return DiffusionState(
        network=network,
        average=copy.deepcopy(network).requires_grad_(False),
        optimizer=torch.optim.Adam(network.parameters(), params.lr, fused=True),
        window=torch.zeros(2, 1, dtype=torch.float64, device=device),
        rng=rng,
        sampler=EndlessPermutations(n_real, rng),
    )


def draw_times(batch: int, timesteps: int, rng: torch.Generator) -> Int64[Tensor, " batch"]:
    """Draw a time for each image: uniform in 0 … `timesteps` - 1, spread evenly over the batch."""
    fractions = torch.rand((), generator=rng) + torch.arange(batch) / batch
    # clamp: rounding may push a fraction just below 1 up to 1
    return (fractions.frac() * timesteps).long().clamp_max(timesteps - 1)
