"""An unconditional diffusion model: a generator that has nothing in common with the two GANs.

Ho et al., "Denoising Diffusion Probabilistic Models", NeurIPS 2020, arXiv:2006.11239, with the
U-Net and the schedulers of `diffusers`. Ours differs where a short training gains by it:

- the cosine schedule (Nichol and Dhariwal, "Improved Denoising Diffusion Probabilistic Models",
  ICML 2021, arXiv:2102.09672, eq. 17): the linear one spends a quarter of its steps on pure noise;
- the network predicts the velocity (Salimans and Ho, "Progressive Distillation for Fast Sampling of
  Diffusion Models", ICLR 2022, arXiv:2202.00512, section 4), which is well scaled at both ends;
- the timesteps of a batch are spread evenly (Kingma et al., "Variational Diffusion Models", NeurIPS
  2021, arXiv:2107.00630, appendix I.1), which makes the loss less noisy;
- sampling by DDIM without noise (Song et al., "Denoising Diffusion Implicit Models", ICLR 2021,
  arXiv:2010.02502, eq. 12, sigma = 0), so that an image is a function of its first noise;
- a U-Net of few channels with attention at its lowest level only.
"""

import copy
import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64, UInt8
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn

import semforensics.core.torchvision_compat  # noqa: F401 - before diffusers, which imports torchvision
from semforensics.core.checkpoints import load_checkpoint, save_checkpoint
from semforensics.core.device import bf16_is_emulated, seed_everything
from semforensics.core.errors import InputError
from semforensics.core.files import atomic_folder
from semforensics.core.images import to_uint8, write_grey_png
from semforensics.core.resume import fingerprint, load_state, save_state
from semforensics.core.training import (
    EndlessPermutations,
    describe_machine,
    progress_bar,
    write_rows,
)
from semforensics.generators.common import ema
from semforensics.generators.common.cutouts import cut_out
from semforensics.generators.common.reals import load_reals, take, training_files
from semforensics.generators.common.snapshots import tile
from semforensics.params import GenerateDiffusionParams, Protocol, TrainDiffusionParams

MODEL_FILE = "denoiser.safetensors"
OFF_FILE = "off.json"
"""Stands in a folder in place of a model, or of images, while the model is off."""
LAYERS_PER_BLOCK = 1
"""Residual blocks at each level on the way down; one more on the way up."""
NORM_GROUPS = 8
HEAD_WIDTH = 8
"""Channels of an attention head; widths are multiples of it."""
WARM_UP_STEPS = 200
MAX_GRADIENT_NORM = 1.0
"""As in the public program of Ho et al."""
LOG_EVERY = 20
NUM_SAMPLES, SAMPLING_STEPS = 16, 50
"""Of the sample grid; fewer steps where the process has fewer."""
SECONDS_BETWEEN_SAVES = 60.0


class Denoiser(nn.Module):
    """The U-Net: a residual block per level on the way down, attention at the lowest one only."""

    def __init__(self, *, size_px: int, widths: list[int]) -> None:
        super().__init__()
        # Here and below: it takes seconds to import, for nothing while the model is off.
        from diffusers import UNet2DModel

        self.arguments = {"size_px": size_px, "widths": widths}
        self.size_px = size_px
        plain = len(widths) - 1
        self.unet: Any = UNet2DModel(  # type: ignore[no-untyped-call]
            sample_size=size_px,
            in_channels=1,
            out_channels=1,
            layers_per_block=LAYERS_PER_BLOCK,
            block_out_channels=tuple(widths),
            down_block_types=("DownBlock2D",) * plain + ("AttnDownBlock2D",),
            up_block_types=("AttnUpBlock2D",) + ("UpBlock2D",) * plain,
            norm_num_groups=NORM_GROUPS,
            attention_head_dim=HEAD_WIDTH,
        )

    def forward(
        self, noisy: Float[Tensor, "batch 1 side side"], times: Int64[Tensor, " batch"]
    ) -> Float[Tensor, "batch 1 side side"]:
        """Tell the velocity of noisy images, each at its time."""
        velocity: Tensor = self.unet(noisy, times).sample
        return velocity.float()


@dataclass(kw_only=True)
class DiffusionCourse:
    """All that changes while a training runs; its state dict is what resuming needs."""

    network: Denoiser
    average: Denoiser
    optimizer: torch.optim.Adam
    rng: torch.Generator
    sampler: EndlessPermutations
    step: int = 0
    losses: list[float] = field(default_factory=list)
    """Since the last row."""
    rows: list[dict[str, float]] = field(default_factory=list)

    def state_dict(self) -> dict[str, Any]:
        """Return everything, as tensors, numbers and lists."""
        return {
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "rng": self.rng.get_state(),
            "waiting": self.sampler.waiting,
            "step": self.step,
            "losses": self.losses,
            "rows": self.rows,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where the state was taken."""
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.rng.set_state(state["rng"])
        self.sampler.waiting = state["waiting"]
        self.step, self.losses, self.rows = state["step"], state["losses"], state["rows"]


def train_diffusion(
    cropped: Path,
    splits: Path,
    checkpoint: Path,
    *,
    params: TrainDiffusionParams,
    protocol: Protocol,
    seed: int,
    scratch: Path,
    device: torch.device,
    seconds_between_saves: float = SECONDS_BETWEEN_SAVES,
) -> str:
    """Train a diffusion model on cut-outs of the crops and write its average.

    A training that was killed goes on from the state in `scratch`, and ends in the same bytes on
    the same machine with the same number of threads. With fewer steps than the state has it starts
    anew; with as many as it has, the state is written out as it is.

    Args:
        cropped: Canonical crops.
        splits: Table of crops and splits.
        checkpoint: Folder to write: `denoiser.safetensors` (the averaged weights, in 16 bit),
            `losses.csv`, `samples.png` (the fakes of seeds 0 to 15); with 0 steps only `off.json`.
        params: The training's parameters.
        protocol: `clean` trains on the train split, `thesis` on all reals.
        seed: Of weights and all draws.
        scratch: Folder for the state of the unfinished training; removed at the end.
        device: Where to train.
        seconds_between_saves: Never changes a result.

    Returns:
        One line about the result.

    Raises:
        InputError: The training images do not fit the network, or the loss is no longer finite.
    """
    if params.steps == 0:
        reason = "the diffusion model is off: train_diffusion.steps is 0"
        with atomic_folder(checkpoint) as folder:
            _write_off(folder, reason)
        return f"{reason}; {checkpoint} holds {OFF_FILE} only"
    check_widths(params)
    reals = load_reals(training_files(cropped, splits, protocol))
    if reals.shape[-1] < params.size_px:
        raise InputError(
            f"{cropped}: crops of {reals.shape[-1]} px, train_diffusion.size_px is {params.size_px}"
        )
    console = Console(stderr=True)
    if params.precision == "bfloat16" and bf16_is_emulated(device):
        console.print(f"notice: {device} emulates bfloat16; precision float32 is faster here")

    settings = {**params.model_dump(exclude={"steps"}), "seed": seed, **describe_machine(device)}
    stamp = fingerprint(settings, reals)
    course = new_course(params, len(reals), seed, device)
    state = load_state(scratch / "state.pt", stamp)
    if state is not None and state["step"] <= params.steps:
        course.load_state_dict(state)
        console.print(f"resuming at step {course.step} from {scratch}")

    train(course, reals, params, stamp, scratch, console, seconds_between_saves)

    meta = {
        "architecture": "ddpm",
        "arguments": course.network.arguments,
        "timesteps": params.timesteps,
        "params": params.model_dump(mode="json"),
        "protocol": protocol,
        "seed": seed,
        "step": course.step,
        "n_real": len(reals),
        **describe_machine(device),
    }
    with atomic_folder(checkpoint) as folder:
        save_checkpoint(folder / MODEL_FILE, course.average.state_dict(), meta, half=True)
        write_rows(folder / "losses.csv", course.rows)
        network, _ = load_denoiser(folder)  # what the file holds, in 16 bit
        network.to(device)
        steps = min(SAMPLING_STEPS, params.timesteps)
        samples = [
            sample(network, s, timesteps=params.timesteps, sampling_steps=steps)
            for s in range(NUM_SAMPLES)
        ]
        write_grey_png(folder / "samples.png", tile(to_uint8(torch.cat(samples).cpu()).numpy()))
    shutil.rmtree(scratch, ignore_errors=True)
    return (
        f"diffusion model of {params.size_px} px after {course.step} steps of {params.batch} on "
        f"{len(reals)} reals: loss {course.rows[-1]['loss']:.4f}, in {checkpoint}"
    )


def train(
    course: DiffusionCourse,
    reals: UInt8[Tensor, "n_real 1 side side"],
    params: TrainDiffusionParams,
    stamp: str,
    scratch: Path,
    console: Console,
    seconds_between_saves: float,
) -> None:
    """Take the steps that are left; leaves its state in `scratch`."""
    saved_at = time.monotonic()
    noising = scheduler(params.timesteps)
    device = next(course.network.parameters()).device
    with progress_bar("diffusion", console) as progress:
        bar = progress.add_task("", total=params.steps, completed=course.step, losses="")
        while course.step < params.steps:
            # A batch of cut-outs, each with noise of its own and at a time of its own.
            indices = course.sampler.take(params.batch)
            x = take(reals, indices, 1, flip=True, rng=course.rng)
            x = cut_out(x, params.size_px, course.rng).to(device)
            noise = torch.randn(x.shape, generator=course.rng).to(device)
            times = draw_times(params.batch, params.timesteps, course.rng).to(device)

            # The network tells the velocity from the noisy image.
            noisy = noising.add_noise(x, noise, times)
            velocity = noising.get_velocity(x, noise, times)
            with torch.autocast(
                device.type,
                torch.bfloat16,
                enabled=params.precision == "bfloat16",
                cache_enabled=False,
            ):
                told = course.network(noisy, times)
            loss = F.mse_loss(told, velocity)
            course.optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(course.network.parameters(), MAX_GRADIENT_NORM)
            for group in course.optimizer.param_groups:
                group["lr"] = params.lr * min(1.0, (course.step + 1) / WARM_UP_STEPS)
            course.optimizer.step()

            # Average the weights.
            decay = min(params.ema_decay, ema.ramped_decay(course.step))
            ema.update(course.average, course.network, decay)

            course.step += 1
            course.losses.append(loss.item())
            done = course.step == params.steps
            if course.step % LOG_EVERY == 0 or done:
                row = log(course)
                progress.update(bar, losses=f"loss {row['loss']:.4f}")
            progress.update(bar, completed=course.step)
            if done or time.monotonic() - saved_at >= seconds_between_saves:
                save_state(scratch / "state.pt", stamp, course.state_dict())
                saved_at = time.monotonic()


def log(course: DiffusionCourse) -> dict[str, float]:
    """Add a row: the step and the mean loss since the row before.

    Raises:
        InputError: The loss is not finite.
    """
    mean = sum(course.losses) / len(course.losses)
    if not torch.isfinite(torch.tensor(mean)):
        raise InputError(f"training diverged before step {course.step}: loss {mean}")
    course.rows.append({"step": float(course.step), "loss": mean})
    course.losses = []
    return course.rows[-1]


def check_widths(params: TrainDiffusionParams) -> None:
    """Refuse widths and sizes that the U-Net cannot take.

    Raises:
        InputError: A width is no multiple of 8, or the size cannot be halved often enough.
    """
    if any(width % NORM_GROUPS for width in params.widths):
        raise InputError(
            f"train_diffusion.widths: {list(params.widths)}, expected multiples of {NORM_GROUPS}"
        )
    halvings = len(params.widths) - 1
    if params.size_px % 2**halvings:
        raise InputError(
            f"train_diffusion.size_px: {params.size_px} cannot be halved {halvings} times, as "
            f"{len(params.widths)} widths ask"
        )


def new_course(
    params: TrainDiffusionParams, n_real: int, seed: int, device: torch.device
) -> DiffusionCourse:
    """Draw a fresh network from the seed."""
    seed_everything(seed)
    network = Denoiser(size_px=params.size_px, widths=list(params.widths)).to(device)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    rng = torch.Generator().manual_seed(seed)
    return DiffusionCourse(
        network=network,
        average=copy.deepcopy(network).requires_grad_(False),
        optimizer=torch.optim.Adam(network.parameters(), params.lr, fused=True),
        rng=rng,
        sampler=EndlessPermutations(n_real, rng),
    )


def scheduler(timesteps: int) -> Any:
    """Return the noising process and its sampler.

    The sampler begins at the last timestep, pure noise (Lin et al., "Common Diffusion Noise
    Schedules and Sample Steps are Flawed", WACV 2024, arXiv:2305.08891, section 3.3).
    """
    from diffusers import DDIMScheduler

    return DDIMScheduler(  # type: ignore[no-untyped-call]
        num_train_timesteps=timesteps,
        beta_schedule="squaredcos_cap_v2",
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        clip_sample=True,
    )


def draw_times(batch: int, timesteps: int, rng: torch.Generator) -> Int64[Tensor, " batch"]:
    """Draw a time for each image: uniform in 0 … `timesteps` - 1, spread evenly over the batch."""
    fractions = torch.rand((), generator=rng) + torch.arange(batch) / batch
    # clamp: rounding may push a fraction just below 1 up to 1
    return (fractions.frac() * timesteps).long().clamp_max(timesteps - 1)


@torch.inference_mode()
def sample(
    network: Denoiser, seed: int, *, timesteps: int, sampling_steps: int
) -> Float[Tensor, "1 side side"]:
    """Return the fake of one seed, in about -1 … 1.

    It is computed alone and in float32, so it depends on the weights, the seed and the number of
    steps, never on batch mates.

    Args:
        network: In eval mode.
        seed: Of the noise it begins with.
        timesteps: Of the noising process that the network was trained on.
        sampling_steps: Taken of them.

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


def load_denoiser(folder: Path) -> tuple[Denoiser, dict[str, Any]]:
    """Rebuild a diffusion model from its folder, in eval mode, with what training wrote beside it.

    Raises:
        FileNotFoundError: There is none.
        InputError: The file holds something else.
    """
    path = folder / MODEL_FILE
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; `train-diffusion` makes it")
    state, meta = load_checkpoint(path)
    if meta.get("architecture") != "ddpm":
        raise InputError(f"{path}: architecture {meta.get('architecture')!r}, expected 'ddpm'")
    try:
        network = Denoiser(**meta["arguments"])
        network.load_state_dict(state)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{path}: not the weights it says it holds: {error}") from error
    return network.eval(), meta


def generate_diffusion(
    checkpoint: Path,
    fakes: Path,
    *,
    params: GenerateDiffusionParams,
    device: torch.device,
) -> str:
    """Write one 8-bit grey PNG per seed, named after it, at the model's own size.

    Args:
        checkpoint: Folder of the model.
        fakes: Folder to write; where the model is off, it holds `off.json` only.
        params: How many, from which seed on.
        device: Where to compute.

    Returns:
        One line about the result.

    Raises:
        FileNotFoundError: There is no model.
        InputError: The file does not hold one, or more sampling steps are asked for than it has.
    """
    if (checkpoint / OFF_FILE).is_file():
        reason = json.loads((checkpoint / OFF_FILE).read_text())["reason"]
        with atomic_folder(fakes) as folder:
            _write_off(folder, reason)
        return f"{reason}; {fakes} holds no images"
    network, meta = load_denoiser(checkpoint)
    network.to(device)
    timesteps, steps = meta["timesteps"], params.sampling_steps
    seeds = range(params.first_seed, params.first_seed + params.num_images)
    console = Console(stderr=True)
    with atomic_folder(fakes) as folder:
        for one in track(seeds, "fakes", console=console, disable=not console.is_terminal):
            fake = sample(network, one, timesteps=timesteps, sampling_steps=steps)
            write_grey_png(folder / f"{one:06d}.png", to_uint8(fake.cpu())[0].numpy())
    note = " (under-trained)" if params.under_trained else ""
    return f"{len(seeds)} fakes of the diffusion model after {meta['step']} steps{note} in {fakes}"


def _write_off(folder: Path, reason: str) -> None:
    (folder / OFF_FILE).write_text(json.dumps({"reason": reason}) + "\n")
