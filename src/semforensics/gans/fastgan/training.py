"""FastGAN's training: real crops in, an averaged generator out.

Liu et al. 2021, section 3.2 and the public program. Ours differs, unless `reference` is set: the
average forgets its random start; its normalisation statistics are measured, so that each fake is a
function of its seed alone; reals reach the small scale by averaging, not by dropping pixels; both
scales of a fake are augmented alike; spectral norms are right from the first step.
"""

import copy
import csv
import platform
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from semforensics.checkpoints import save_checkpoint
from semforensics.device import bf16_is_emulated, seed_everything
from semforensics.files import atomic_file, atomic_folder, sha256_of
from semforensics.gans import diffaugment, ema
from semforensics.gans.fastgan import losses
from semforensics.gans.fastgan.networks import (
    CONVERGED_POWER_STEPS,
    SIZES_PX,
    Discriminator,
    Generator,
    Pair,
    initialise,
    small_side,
    take_power_steps,
    take_quadrant,
)
from semforensics.gans.generate import draw_inputs, generate_grey
from semforensics.gans.reals import EndlessPermutations, load_reals, take, training_files
from semforensics.gans.resume import fingerprint, load_state, save_state
from semforensics.images import to_unit_range, write_grey_png
from semforensics.params import FastGANParams, Protocol
from semforensics.perceptual.lpips import LPIPS

LOSS_COLUMNS = (
    "loss_d_real",
    "loss_d_fake",
    "loss_reconstruction",
    "loss_g",
    "logit_real",
    "logit_fake",
)
"""Means over the steps since the row before."""
NUM_WATCHED = 64
"""Fakes, of seeds 0 and up, by which a snapshot is judged."""
COLLAPSED_BELOW = 0.3
"""Diversity of fakes, in units of that of reals, below which a snapshot counts as collapsed."""
_GRID_PX = 1024
"""Largest side of a sample grid."""
_SECONDS_BETWEEN_SAVES = 120.0


@dataclass
class Course:
    """All that changes while a training runs; its state dict is what resuming needs."""

    generator: Generator
    discriminator: Discriminator
    average: Generator
    optimizer_g: torch.optim.Adam
    optimizer_d: torch.optim.Adam
    rng: torch.Generator
    sampler: EndlessPermutations
    iteration: int = 0
    window: Tensor = field(default_factory=lambda: torch.zeros(len(LOSS_COLUMNS)))
    """Sums of the loss columns since the last row."""
    rows: list[dict[str, float]] = field(default_factory=list)
    snapshots: list[dict[str, float]] = field(default_factory=list)

    def _parts(self) -> dict[str, nn.Module | torch.optim.Optimizer]:
        names = ("generator", "discriminator", "average", "optimizer_g", "optimizer_d")
        return {name: getattr(self, name) for name in names}

    def state_dict(self) -> dict[str, Any]:
        """Give everything, as tensors, numbers and lists."""
        return {name: part.state_dict() for name, part in self._parts().items()} | {
            "rng": self.rng.get_state(),
            "waiting": self.sampler.waiting,
            "iteration": self.iteration,
            "window": self.window.cpu(),
            "rows": self.rows,
            "snapshots": self.snapshots,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where the state was taken."""
        for name, part in self._parts().items():
            part.load_state_dict(state[name])
        self.rng.set_state(state["rng"])
        self.sampler.waiting = state["waiting"]
        self.iteration = state["iteration"]
        self.window = state["window"].to(self.window.device)
        self.rows, self.snapshots = state["rows"], state["snapshots"]


def train_fastgan(
    cropped: Path,
    splits: Path,
    pretrained: Path,
    checkpoints: Path,
    plots: Path,
    *,
    params: FastGANParams,
    protocol: Protocol,
    seed: int,
    scratch: Path,
    device: torch.device,
    seconds_between_saves: float = _SECONDS_BETWEEN_SAVES,
) -> str:
    """Train a generator and write its average, loss curves and sample grids.

    A training that was killed goes on from the state in `scratch`, and ends in the same bytes on
    the same machine with the same number of threads.

    Args:
        cropped: Canonical crops.
        splits: Table of crops and sides.
        pretrained: Folder with the weights of `params.perceptual_net`.
        checkpoints: Folder to write: `generator.safetensors`, and as many snapshots as are kept.
        plots: Folder to write: `losses.csv`, `snapshots.csv`, `grids/<iteration>.png`.
        params: The training's parameters.
        protocol: `clean` trains on the train side, `thesis` on all reals.
        seed: Of weights and all draws.
        scratch: Folder for the state of the unfinished training; removed at the end.
        device: Where to train.
        seconds_between_saves: Never changes a result.

    Returns:
        One line about the result.

    Raises:
        ValueError: The training images do not fit the networks, or the losses are no longer finite.
        FileNotFoundError: The weights of the perceptual net are missing.
    """
    console = Console(stderr=True)
    weights = pretrained / f"{params.perceptual_net}.safetensors"
    lpips = LPIPS.load(weights)
    files = training_files(cropped, splits, protocol)
    reals = load_reals(files)
    size_px = check_inputs(params, lpips, len(reals), reals.shape[-1], cropped)
    if params.precision == "bfloat16" and bf16_is_emulated(device):
        console.print(f"notice: {device} emulates bfloat16; precision float32 is faster here")
    lpips = lpips.to(device)

    settings = params.model_dump(exclude={"iterations", "keep_snapshots"})
    settings |= {"seed": seed, "weights": sha256_of(weights), "device": device.type}
    stamp = fingerprint(settings, reals)
    course = new_course(params, size_px, len(reals), seed, device)
    state = load_state(scratch / "state.pt", stamp)
    if state is not None and state["iteration"] <= params.iterations:
        course.load_state_dict(state)
        console.print(f"resuming at iteration {course.iteration} from {scratch}")
    else:
        shutil.rmtree(scratch, ignore_errors=True)
    meta = {
        "architecture": "fastgan",
        "arguments": course.generator.arguments,
        "params": params.model_dump(mode="json"),
        "protocol": protocol,
        "seed": seed,
        "n_real": len(reals),
        "versions": {"torch": torch.__version__, "python": platform.python_version()},
        "device": device_name(device),
        "threads": torch.get_num_threads(),
    }

    train(course, reals, lpips, params, meta, stamp, scratch, console, seconds_between_saves)

    publish(course, scratch, checkpoints, plots, params.keep_snapshots)
    shutil.rmtree(scratch)
    last = course.snapshots[-1]
    return (
        f"FastGAN of {size_px} px after {params.iterations} iterations on {len(reals)} reals: "
        f"diversity {last['diversity']:.2f} of theirs, in {checkpoints}"
    )


def train(
    course: Course,
    reals: Tensor,
    lpips: LPIPS,
    params: FastGANParams,
    meta: dict[str, Any],
    stamp: str,
    scratch: Path,
    console: Console,
    seconds_between_saves: float,
) -> None:
    """Take the steps that are left; leaves snapshots, grids and its own state in `scratch`."""
    saved_at = time.monotonic()
    with progress_bar(console) as progress:
        bar = progress.add_task("", total=params.iterations, completed=course.iteration, losses="")
        while course.iteration < params.iterations:
            shown, fakes = take_step(course, reals, lpips, params)
            done = course.iteration == params.iterations
            if course.iteration % params.log_every == 0 or done:
                log(course, shown, fakes, lpips)
                row = course.rows[-1]
                text = " ".join(f"{n.removeprefix('loss_')} {row[n]:.2f}" for n in LOSS_COLUMNS)
                progress.update(bar, losses=text)
            progress.update(bar, completed=course.iteration)
            if course.iteration % params.snapshot_every == 0 or done:
                take_snapshot(course, reals, lpips, params, meta, scratch, console)
            if done or time.monotonic() - saved_at >= seconds_between_saves:
                save_state(scratch / "state.pt", stamp, course.state_dict())
                saved_at = time.monotonic()


def take_step(
    course: Course, reals: Tensor, lpips: LPIPS, params: FastGANParams
) -> tuple[Tensor, Tensor]:
    """Train both networks on one batch; give its reals and fakes, not augmented."""
    generator, discriminator, rng = course.generator, course.discriminator, course.rng
    device = next(generator.parameters()).device
    autocast = torch.autocast(
        device.type, torch.bfloat16, enabled=params.precision == "bfloat16", cache_enabled=False
    )

    # Reals and fakes, both at two scales, augmented for the discriminator.
    indices = course.sampler.take(params.batch)
    x = take(reals, indices, params.channels, flip=params.flip, rng=rng).to(device)
    with autocast:
        fakes = generator(*draw_inputs(generator, params.batch, rng))
    seen_reals = augment_reals(x, rng, reference=params.reference)
    seen_fakes = augment_fakes(fakes, rng, reference=params.reference)

    # Discriminator: hinge loss on reals, reconstruction of reals.
    discriminator.requires_grad_(True)
    course.optimizer_d.zero_grad()
    quadrant = int(torch.randint(4, (), generator=rng))
    with autocast:
        maps = discriminator.maps(*seen_reals)
        logits_real = discriminator.logits(maps)
        reconstructions = discriminator.reconstructions(maps, quadrant)
        whole, part = targets(seen_reals, quadrant, reference=params.reference)
        loss_reconstruction = losses.reconstruction_loss(lpips, reconstructions, whole, part)
    margins = losses.draw_margins(logits_real.numel(), rng).to(device)
    loss_real = losses.hinge_real(logits_real, margins)
    torch.autograd.backward(loss_real + params.reconstruction_weight * loss_reconstruction)

    # Discriminator: a lazy penalty on its gradient at the reals, in float32.
    if params.r1_gamma > 0 and course.iteration % params.r1_every == 0:
        at = Pair(*(scale.detach().requires_grad_() for scale in seen_reals))
        penalty = losses.r1_penalty(discriminator(*at), at)
        torch.autograd.backward(params.r1_gamma * params.r1_every * penalty)

    # Discriminator: hinge loss on fakes.
    with autocast:
        logits_fake = discriminator(*(scale.detach() for scale in seen_fakes))
    margins = losses.draw_margins(logits_fake.numel(), rng).to(device)
    loss_fake = losses.hinge_fake(logits_fake, margins)
    torch.autograd.backward(loss_fake)
    course.optimizer_d.step()

    # Generator: raise the score of the same fakes; the discriminator's weights need no gradient.
    discriminator.requires_grad_(False)
    course.optimizer_g.zero_grad()
    with autocast:
        loss_g = losses.generator_loss(discriminator(*seen_fakes))
    torch.autograd.backward(loss_g)
    course.optimizer_g.step()

    # Average the generator's weights.
    ramp = 1.0 if params.reference else ema.ramped_decay(course.iteration)
    ema.update(course.average, generator, min(params.ema_decay, ramp))

    course.iteration += 1
    parts = (loss_real, loss_fake, loss_reconstruction, loss_g)
    logits = (logits_real.mean(), logits_fake.mean())
    course.window += torch.stack([value.detach() for value in (*parts, *logits)])
    return x, fakes.big.detach()


def check_inputs(
    params: FastGANParams, lpips: LPIPS, n_real: int, size_px: int, cropped: Path
) -> int:
    """Refuse, before anything is trained, what the networks cannot take; give the images' side."""
    if size_px not in SIZES_PX:
        raise ValueError(f"{cropped}: crops of {size_px} px, FastGAN takes one of {SIZES_PX}")
    if n_real < params.batch:
        raise ValueError(
            f"{cropped}: {n_real} training images, need at least a batch of {params.batch}"
        )
    if lpips.net != params.perceptual_net:
        raise ValueError(f"{params.perceptual_net}.safetensors: holds the weights of {lpips.net}")
    if params.perceptual_net == "alex" and small_side(size_px) < 32:
        raise ValueError(f"{cropped}: crops of {size_px} px are too small for LPIPS")
    if params.reference and size_px < 256:
        raise ValueError(f"{cropped}: crops of {size_px} px; the original begins at 256 px")
    if params.reference and params.tanh != (size_px == 1024):
        raise ValueError(
            f"train_gan.fastgan.tanh: {params.tanh}; the original squashes at 1024 px only, "
            f"and the crops have {size_px}"
        )
    return size_px


def new_course(
    params: FastGANParams, size_px: int, n_real: int, seed: int, device: torch.device
) -> Course:
    """Draw fresh networks from the seed."""
    seed_everything(seed)
    power_steps = 0 if params.reference else CONVERGED_POWER_STEPS
    generator = Generator(
        size_px=size_px,
        channels=params.channels,
        ngf=params.ngf,
        nz=params.nz,
        tanh=params.tanh,
    )
    discriminator = Discriminator(size_px=size_px, channels=params.channels, ndf=params.ndf)
    for network in (generator, discriminator):
        initialise(network, power_steps=power_steps)
        network.to(device)
    betas = (params.adam_beta1, params.adam_beta2)
    rng = torch.Generator().manual_seed(seed)
    average = copy.deepcopy(generator).requires_grad_(False)
    if params.compile:
        generator.compile()
        discriminator.compile()
    return Course(
        generator=generator,
        discriminator=discriminator,
        average=average,
        optimizer_g=torch.optim.Adam(generator.parameters(), params.lr, betas),
        optimizer_d=torch.optim.Adam(discriminator.parameters(), params.lr, betas),
        rng=rng,
        sampler=EndlessPermutations(n_real, rng),
        window=torch.zeros(len(LOSS_COLUMNS), device=device),
    )


def augment_reals(x: Tensor, rng: torch.Generator, *, reference: bool) -> Pair:
    """Augment reals and give them at both scales."""
    if reference:
        x = diffaugment.augment(x, diffaugment.draw(len(x), x.shape[-1], rng))
        return Pair(x, F.interpolate(x, size=small_side(x.shape[-1])))
    side = small_side(x.shape[-1])
    return _augment_alike(Pair(x, shrink(x, side)), rng)


def augment_fakes(fakes: Pair, rng: torch.Generator, *, reference: bool) -> Pair:
    """Augment fakes at both scales: alike, or in `reference` each on its own."""
    if reference:
        return Pair(
            *(diffaugment.augment(x, diffaugment.draw(len(x), x.shape[-1], rng)) for x in fakes)
        )
    return _augment_alike(fakes, rng)


def _augment_alike(pair: Pair, rng: torch.Generator) -> Pair:
    """Augment both scales with the same draws; shifts are whole pixels of the small scale."""
    side = pair.small.shape[-1]
    draws = diffaugment.draw(len(pair.small), side, rng)
    larger = draws.at_scale(pair.big.shape[-1] // side)
    return Pair(diffaugment.augment(pair.big, larger), diffaugment.augment(pair.small, draws))


def targets(reals: Pair, quadrant: int, *, reference: bool) -> tuple[Tensor, Tensor]:
    """Give what the decoders should show: the whole image and its quadrant, at the small side."""
    part = take_quadrant(reals.big, quadrant)
    side = reals.small.shape[-1]
    return reals.small, F.interpolate(part, size=side) if reference else shrink(part, side)


def shrink(x: Tensor, side: int) -> Tensor:
    """Average blocks of pixels, so that nothing aliases; gives `x` where it has this side."""
    return F.avg_pool2d(x, x.shape[-1] // side) if x.shape[-1] > side else x


def log(course: Course, reals: Tensor, fakes: Tensor, lpips: LPIPS) -> None:
    """Add a row of mean losses, and the diversity of this step's fakes.

    Raises:
        ValueError: A loss is not finite.
    """
    steps = course.iteration - (int(course.rows[-1]["iteration"]) if course.rows else 0)
    means = (course.window / steps).tolist()
    if not np.isfinite(means).all():
        raise ValueError(
            f"training diverged before iteration {course.iteration}: "
            + ", ".join(f"{n} {m:.3g}" for n, m in zip(LOSS_COLUMNS, means, strict=True))
        )
    course.window.zero_()
    row = {"iteration": float(course.iteration), **dict(zip(LOSS_COLUMNS, means, strict=True))}
    course.rows.append(row | {"diversity": diversity(lpips, fakes, reals)})


def diversity(lpips: LPIPS, fakes: Tensor, reals: Tensor) -> float:
    """Give the mean LPIPS between two fakes in units of that between two reals; 0: all alike."""
    side = min(reals.shape[-1], 128)
    ours = losses.mean_pairwise_distance(lpips, shrink(fakes, side))
    theirs = losses.mean_pairwise_distance(lpips, shrink(reals, side))
    return ours / max(theirs, 1e-12)


def take_snapshot(
    course: Course,
    reals: Tensor,
    lpips: LPIPS,
    params: FastGANParams,
    meta: dict[str, Any],
    scratch: Path,
    console: Console,
) -> None:
    """Save the average with statistics of its own and a grid of its fakes; warn of collapse."""
    network = sampling_network(course.average, params)
    fakes = generate_grey(network, range(NUM_WATCHED))
    device = next(network.parameters()).device
    order = torch.linspace(0, len(reals) - 1, min(NUM_WATCHED, len(reals))).long()
    watched = diversity(
        lpips,
        to_unit_range(fakes[:, None]).to(device),
        to_unit_range(reals[order]).to(device),
    )
    row = course.rows[-1] if course.rows else {}
    course.snapshots.append(
        {
            "iteration": float(course.iteration),
            "diversity": watched,
            "grey_mean": float(fakes.double().mean()),
            "grey_std": float(fakes.double().std()),
            "collapsed": float(watched < COLLAPSED_BELOW),
        }
    )
    name = f"{course.iteration:06d}"
    line = f"iteration {course.iteration}: diversity {watched:.2f} of the reals'"
    if row:
        line += f", logits {row['logit_real']:.2f} real {row['logit_fake']:.2f} fake"
    console.print(line)
    if watched < COLLAPSED_BELOW:
        console.print(f"warning: collapsed, diversity below {COLLAPSED_BELOW}")
    grid = scratch / "grids" / f"{name}.png"
    with atomic_file(grid) as temporary:
        write_grey_png(temporary, tile(fakes.numpy()))
    described = meta | {"step": course.iteration, "diversity": watched}
    save_checkpoint(
        scratch / "snapshots" / f"{name}.safetensors", network.state_dict(), described, half=True
    )


def sampling_network(average: Generator, params: FastGANParams) -> Generator:
    """Give the network that samples: 16-bit weights, with norms and statistics that fit."""
    network = copy.deepcopy(average)
    for parameter in network.parameters():
        if parameter.ndim >= 2:  # what the file will hold
            parameter.copy_(parameter.half())
    take_power_steps(network, CONVERGED_POWER_STEPS)
    ema.measure_statistics(network, statistics_inputs(network, params))
    return network


def statistics_inputs(
    network: Generator, params: FastGANParams
) -> Iterator[tuple[Tensor, list[Tensor]]]:
    """Give the batches over which statistics are measured, the same at every call."""
    # 64 images of 128 px and as many pixels at other sizes: memory stays below the training's.
    batch = max(params.batch, min(64, 64 * 128**2 // network.size_px**2))
    rng = torch.Generator().manual_seed(0)
    for _ in range(-(-params.precise_bn_images // batch)):
        yield draw_inputs(network, batch, rng)


def tile(images: np.ndarray) -> np.ndarray:
    """Put square images, [n, side, side], into a square grid, as many as fit."""
    side = images.shape[-1]
    columns = int(min(len(images) ** 0.5, _GRID_PX // side))
    grid = images[: columns**2].reshape(columns, columns, side, side)
    return grid.transpose(0, 2, 1, 3).reshape(columns * side, columns * side)


def publish(
    course: Course, scratch: Path, checkpoints: Path, plots: Path, keep_snapshots: int
) -> None:
    """Copy what a finished training leaves from its scratch folder to its places."""
    *earlier, last = [f"{int(snapshot['iteration']):06d}" for snapshot in course.snapshots]
    with atomic_folder(checkpoints) as folder:
        shutil.copy(scratch / f"snapshots/{last}.safetensors", folder / "generator.safetensors")
        for name in earlier[len(earlier) - min(keep_snapshots, len(earlier)) :]:
            shutil.copy(
                scratch / f"snapshots/{name}.safetensors", folder / f"snapshot_{name}.safetensors"
            )
    with atomic_folder(plots) as folder:
        write_rows(folder / "losses.csv", course.rows)
        write_rows(folder / "snapshots.csv", course.snapshots)
        (folder / "grids").mkdir()
        for name in (*earlier, last):
            shutil.copy(scratch / f"grids/{name}.png", folder / f"grids/{name}.png")


def write_rows(path: Path, rows: list[dict[str, float]]) -> None:
    """Write rows of numbers as CSV, six digits each."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: f"{value:.6g}" for name, value in row.items()} for row in rows)


def progress_bar(console: Console) -> Progress:
    """Give a bar with the losses behind it, shown on a terminal only."""
    return Progress(
        TextColumn("FastGAN"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[losses]}"),
        console=console,
        disable=not console.is_terminal,
    )


def device_name(device: torch.device) -> str:
    """Name the device for the checkpoint's description."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
