"""StyleGAN2-ADA's training: real crops in, an averaged generator out.

Karras et al., "Training Generative Adversarial Networks with Limited Data", NeurIPS 2020,
arXiv:2006.06676, sections 2 and 3; lazy regularisation and path length: Karras et al., "Analyzing
and Improving the Image Quality of StyleGAN", CVPR 2020, arXiv:1912.04958, section 3. Ours differs:
the augmentation's strength has an upper bound; images come in whole permutations; a resumed
training restores everything; the best snapshot is kept beside the last.

Two counts of progress: an iteration is one step of both networks on one batch; a kimg is a thousand
real images shown. So kimg = iterations * batch / 1000.
"""

import copy
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor, nn

from semforensics.core import distributed
from semforensics.core.device import bf16_is_emulated, seed_everything
from semforensics.core.errors import InputError
from semforensics.core.files import sha256_of
from semforensics.core.live import live_curves
from semforensics.core.resume import fingerprint
from semforensics.core.training import (
    SECONDS_BETWEEN_SAVES,
    Course,
    EndlessPermutations,
    describe_machine,
    fresh_window,
    progress_bar,
    resume,
    save,
)
from semforensics.generators.common import ema
from semforensics.generators.common.reals import load_reals, take_mirrored, training_files
from semforensics.generators.common.sampling import draw_inputs, generate_grey
from semforensics.generators.common.snapshots import NUM_WATCHED, diversity, publish, take_snapshot
from semforensics.generators.stylegan2_ada import losses
from semforensics.generators.stylegan2_ada.ada import AdaController
from semforensics.generators.stylegan2_ada.augment import augment, draw
from semforensics.generators.stylegan2_ada.configurations import Configuration, resolve
from semforensics.generators.stylegan2_ada.networks import (
    SIZES_PX,
    Discriminator,
    Generator,
    mix_styles,
)
from semforensics.params import Protocol, StyleGAN2Params
from semforensics.perceptual.lpips import LPIPS

LOSS_COLUMNS = (
    "loss_d_real",
    "loss_d_fake",
    "loss_g",
    "logit_real",
    "logit_fake",
    "r1",
    "path_length",
)
"""Means over those steps since the row before that measured them."""
_BETA2 = 0.99
"""Of Adam; its first beta is 0."""


@dataclass(kw_only=True)
class StyleGAN2Course(Course[Generator, Discriminator]):
    """The course of a training with adaptive augmentation."""

    ada: AdaController
    path_length_mean: Tensor

    def state_dict(self) -> dict[str, Any]:
        """Return everything, as tensors, numbers and lists."""
        more = {"ada": self.ada.state_dict(), "path_length_mean": self.path_length_mean.cpu()}
        return super().state_dict() | more

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where the state was taken."""
        super().load_state_dict(state)
        self.ada.load_state_dict(state["ada"])
        self.path_length_mean = state["path_length_mean"].to(self.path_length_mean.device)


def train_stylegan2_ada(
    cropped: Path,
    splits: Path,
    pretrained: Path,
    checkpoints: Path,
    plots: Path,
    *,
    params: StyleGAN2Params,
    protocol: Protocol,
    seed: int,
    scratch: Path,
    device: torch.device,
    seconds_between_saves: float = SECONDS_BETWEEN_SAVES,
) -> str:
    """Train a generator and write its average, loss curves and sample grids.

    A training that was killed goes on from the state in `scratch`, and ends in the same bytes on
    the same machine with the same number of threads.

    Args:
        cropped: Canonical crops.
        splits: Table of crops and sides.
        pretrained: Folder with the weights of `params.perceptual_net`.
        checkpoints: Folder to write: `generator.safetensors`, the last; `best.safetensors`, the one
            nearest to the reals, if it is kept; and as many earlier snapshots as are kept.
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
        InputError: The training images do not fit the networks, or the losses are no longer finite.
        FileNotFoundError: The weights of the perceptual net are missing.
    """
    console = Console(stderr=True, quiet=not distributed.is_first())
    weights = pretrained / f"{params.perceptual_net}.safetensors"
    lpips = LPIPS.load(weights)
    reals = load_reals(training_files(cropped, splits, protocol))
    check_inputs(params, lpips, reals.shape[-1], cropped)
    configuration = resolve(params, reals.shape[-1])
    distributed.check_batch(configuration.batch, "train_gan.stylegan2_ada.batch")
    if params.precision == "bfloat16" and bf16_is_emulated(device):
        console.print(f"notice: {device} emulates bfloat16; precision float32 is faster here")
    if params.precision == "bfloat16" and not losses.penalties_bear_bf16(device.type):
        console.print("notice: penalties in float32: bfloat16 would give them wrong gradients here")
    lpips = lpips.to(device)

    settings = params.model_dump(exclude={"kimg", "keep_snapshots", "keep_best"})
    settings |= {"seed": seed, "weights": sha256_of(weights), "device": device.type}
    settings |= {"processes": distributed.num_processes()}
    stamp = fingerprint(settings, reals)
    course = new_course(params, configuration, reals.shape[-1], len(reals), seed, device)
    resume(course, scratch, stamp, configuration.iterations, console)
    meta = {
        "architecture": "stylegan2_ada",
        "arguments": course.generator.arguments,
        "params": params.model_dump(mode="json"),
        "configuration": vars(configuration),
        "protocol": protocol,
        "seed": seed,
        "n_real": len(reals),
        **describe_machine(device),
    }

    train(
        course, reals, lpips, params, configuration, meta, stamp, scratch, console,
        seconds_between_saves,
    )  # fmt: skip

    if distributed.is_first():
        publish(
            course, scratch, checkpoints, plots,
            keep_snapshots=params.keep_snapshots, keep_best=params.keep_best,
        )  # fmt: skip
        shutil.rmtree(scratch)
    last = course.snapshots[-1]
    return (
        f"StyleGAN2-ADA of {reals.shape[-1]} px after {configuration.kimg:g} kimg "
        f"({configuration.iterations} iterations) on {len(reals)} reals: diversity "
        f"{last['diversity']:.2f} of theirs, p {course.ada.p:.2f}, in {checkpoints}"
    )


def train(
    course: StyleGAN2Course,
    reals: Tensor,
    lpips: LPIPS,
    params: StyleGAN2Params,
    configuration: Configuration,
    meta: dict[str, Any],
    stamp: str,
    scratch: Path,
    console: Console,
    seconds_between_saves: float,
) -> None:
    """Take the steps that are left; leaves snapshots, grids and its own state in `scratch`."""
    saved_at = time.monotonic()
    total = configuration.iterations
    with (
        progress_bar("StyleGAN2-ADA", console) as progress,
        live_curves(scratch, resumed=course.iteration > 0) as show,
    ):
        bar = progress.add_task("", total=total, completed=course.iteration, losses="")
        while course.iteration < total:
            was_at_bound = course.ada.is_at_bound
            shown, fakes = take_step(course, reals, params, configuration)
            done = course.iteration == total
            if course.ada.is_at_bound and not was_at_bound:
                console.print(
                    f"notice: iteration {course.iteration}: the augmentation's p stands at its "
                    f"bound of {params.ada_p_max}; beyond it would show in the fakes"
                )
            if course.iteration % params.log_every == 0 or done:
                whole = (distributed.gather(images) for images in (fakes, shown))
                row = course.log(
                    kimg=course.iteration * configuration.batch / 1000,
                    p=course.ada.p,
                    r_t=course.ada.r,
                    diversity=diversity(lpips, *whole),
                )
                text = " ".join(f"{name} {value:.2f}" for name, value in row.items())
                progress.update(bar, losses=text)
                show(course.iteration, row)
            progress.update(bar, completed=course.iteration)
            if course.iteration % params.snapshot_every == 0 or done:
                network = sampling_network(course.average)
                watched = generate_grey(network, range(NUM_WATCHED))
                take_snapshot(course, network, watched, reals, lpips, meta, scratch, console)
            if done or time.monotonic() - saved_at >= seconds_between_saves:
                save(course, scratch, stamp)
                saved_at = time.monotonic()


def take_step(
    course: StyleGAN2Course, reals: Tensor, params: StyleGAN2Params, configuration: Configuration
) -> tuple[Tensor, Tensor]:
    """Train both networks on one batch; give its reals and fakes, not augmented.

    Of several processes each computes its share of the batch.
    """
    generator, discriminator, rng = course.generator, course.discriminator, course.rng
    device, batch, p = generator.device, configuration.batch, course.ada.p
    bf16 = params.precision == "bfloat16"
    autocast, autocast_penalties = (
        torch.autocast(device.type, torch.bfloat16, enabled=enabled, cache_enabled=False)
        for enabled in (bf16, bf16 and losses.penalties_bear_bf16(device.type))
    )

    # Generator: raise the score of its fakes.
    discriminator.requires_grad_(False)
    generator.requires_grad_(True)
    with autocast:
        fakes = generator.synthesis(*draw_styles(generator, batch, configuration, rng))
        logits = discriminator(augmented(fakes, p, params, rng))
    loss_g = losses.generator_loss(logits)
    descend(course.optimizer_g, loss_g)
    course.measure({"loss_g": loss_g, "logit_fake": logits.mean()})

    # Generator, every few steps: equal lengths of all paths from style to image.
    if configuration.path_length_weight and course.iteration % params.path_length_every == 0:
        half = distributed.whole(max(1, batch // distributed.whole(2)))
        ws, noises = draw_styles(generator, half, configuration, rng)
        with autocast_penalties:
            images = generator.synthesis(ws, noises)
        direction = losses.draw_path_direction((half, *images.shape[1:]), rng)
        direction = direction[distributed.share(half)].to(device)
        lengths = losses.path_lengths(images, ws, direction)
        mean = losses.updated_path_mean(course.path_length_mean, lengths)
        penalty = losses.path_length_penalty(lengths, mean)
        course.path_length_mean = distributed.average(mean.detach())
        descend(
            course.optimizer_g,
            configuration.path_length_weight * params.path_length_every * penalty,
        )
        course.measure({"path_length": lengths.mean()})

    # Discriminator: tell reals from new fakes.
    discriminator.requires_grad_(True)
    with autocast:
        with torch.no_grad():
            others = generator.synthesis(*draw_styles(generator, batch, configuration, rng))
        logits = discriminator(augmented(others, p, params, rng))
    loss_fake = losses.discriminator_loss_fake(logits)
    indices = course.sampler.take(batch)[distributed.share(batch)]
    x = take_mirrored(reals, indices, params.channels).to(device)
    with autocast:
        logits_real = discriminator(augmented(x, p, params, rng))
    loss_real = losses.discriminator_loss_real(logits_real)
    descend(course.optimizer_d, loss_fake + loss_real)
    course.ada.observe(distributed.gather(logits_real.detach()))
    course.measure(
        {"loss_d_fake": loss_fake, "loss_d_real": loss_real, "logit_real": logits_real.mean()}
    )

    # Discriminator, every few steps: a small gradient at the reals, through the augmentation.
    if configuration.r1_gamma and course.iteration % params.r1_every == 0:
        at = x.detach().clone().requires_grad_()
        with autocast_penalties:
            logits = discriminator(augmented(at, p, params, rng))
        penalty = losses.r1_penalty(logits, at)
        descend(course.optimizer_d, configuration.r1_gamma / 2 * params.r1_every * penalty)
        course.measure({"r1": penalty})

    # Average the generator's weights; follow the discriminator's overfitting.
    distributed.average_buffers(generator)
    course.iteration += 1
    ema.update(course.average, generator, average_decay(course.iteration, configuration))
    ema.copy_buffers(course.average, generator)
    if course.iteration % params.ada_every == 0:
        course.ada.update(batch)
    return x, fakes.detach()


def check_inputs(params: StyleGAN2Params, lpips: LPIPS, size_px: int, cropped: Path) -> None:
    """Refuse, before anything is trained, what the networks cannot take."""
    if size_px not in SIZES_PX:
        raise InputError(f"{cropped}: crops of {size_px} px, StyleGAN2-ADA takes {SIZES_PX}")
    if lpips.net != params.perceptual_net:
        raise InputError(f"{params.perceptual_net}.safetensors: holds the weights of {lpips.net}")


def new_course(
    params: StyleGAN2Params,
    configuration: Configuration,
    size_px: int,
    n_real: int,
    seed: int,
    device: torch.device,
) -> StyleGAN2Course:
    """Draw fresh networks from the seed."""
    seed_everything(seed)
    sizes = {
        "size_px": size_px,
        "channels": params.channels,
        "channel_base": configuration.channel_base,
        "channel_max": params.channel_max,
    }
    generator = Generator(
        z_dim=params.z_dim,
        w_dim=params.w_dim,
        mapping_layers=configuration.mapping_layers,
        **sizes,
    ).to(device)
    discriminator = Discriminator(
        mbstd_group=configuration.mbstd_group, architecture=configuration.architecture, **sizes
    ).to(device)
    rng = torch.Generator().manual_seed(seed)
    return StyleGAN2Course(
        columns=LOSS_COLUMNS,
        generator=generator,
        discriminator=discriminator,
        average=copy.deepcopy(generator).requires_grad_(False),
        optimizer_g=lazy_adam(
            generator,
            configuration.lr,
            params.path_length_every if configuration.path_length_weight else None,
        ),
        optimizer_d=lazy_adam(
            discriminator, configuration.lr, params.r1_every if configuration.r1_gamma else None
        ),
        rng=rng,
        sampler=EndlessPermutations(n_real * (2 if params.mirror else 1), rng),
        window=fresh_window(LOSS_COLUMNS, device),
        ada=AdaController(
            target=params.ada_target,
            speed_kimg=params.ada_kimg,
            interval=params.ada_every,
            p_max=params.ada_p_max if params.augment != "none" else 0.0,
        ),
        path_length_mean=torch.zeros((), device=device),
    )


def lazy_adam(network: nn.Module, lr: float, every: int | None) -> torch.optim.Adam:
    """Return Adam for a network that takes one more step, for its penalty, every `every` steps.

    Learning rate and decay are lowered so that `every` + 1 steps count as `every` (Karras et al.
    2020, CVPR, section 3.1). None: there is no penalty.
    """
    share = every / (every + 1) if every else 1.0
    betas = (0.0, _BETA2**share)
    return torch.optim.Adam(network.parameters(), lr * share, betas, eps=1e-8, fused=True)


def draw_styles(
    generator: Generator, batch: int, configuration: Configuration, rng: torch.Generator
) -> tuple[Tensor, list[Tensor]]:
    """Draw styles, of two latents each at times, and noise; tracks the mean style.

    Draws for a whole batch, and gives what is for the images of this process.
    """
    share = distributed.share(batch)
    z, noises = draw_inputs(generator, batch, rng, share)
    w = generator.mapping(z)
    generator.track_w_average(w)
    ws = generator.broadcast(w)
    if float(torch.rand((), generator=rng)) < configuration.style_mixing:
        cutoff = int(torch.randint(1, generator.num_ws, (), generator=rng))
        other = torch.randn(batch, generator.z_dim, generator=rng)[share].to(z.device)
        ws = mix_styles(ws, generator.broadcast(generator.mapping(other)), cutoff)
    return ws, noises


def augmented(images: Tensor, p: float, params: StyleGAN2Params, rng: torch.Generator) -> Tensor:
    """Augment what the discriminator sees."""
    if params.augment == "none":
        return images
    _, channels, height, width = images.shape
    batch = distributed.whole(len(images))
    draws = draw(params.augment, p, batch, channels, height, width, rng, params.orientation)
    return augment(images, draws.of(distributed.share(batch)))


def descend(optimizer: torch.optim.Adam, loss: Tensor) -> None:
    """Take one step down a loss; what is not finite in a gradient is replaced first."""
    optimizer.zero_grad()
    torch.autograd.backward(loss)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    distributed.average_gradients(parameters)
    for parameter in parameters:
        if parameter.grad is not None:
            torch.nan_to_num(parameter.grad, nan=0, posinf=1e5, neginf=-1e5, out=parameter.grad)
    optimizer.step()


def average_decay(iteration: int, configuration: Configuration) -> float:
    """Return the decay of the averaged weights at this iteration, counted from 1."""
    half_life = configuration.ema_kimg * 1000
    if configuration.ema_rampup:
        half_life = min(half_life, iteration * configuration.batch * configuration.ema_rampup)
    return float(0.5 ** (configuration.batch / max(half_life, 1e-8)))


def sampling_network(average: Generator) -> Generator:
    """Return the network that samples, with the 16-bit weights that its file will hold."""
    network = copy.deepcopy(average).eval()
    for tensor in (*network.parameters(), *network.buffers()):
        if tensor.ndim >= 2:
            tensor.copy_(tensor.half())
    return network
