"""FastGAN's training: real crops in, an averaged generator out.

Liu et al. 2021, section 3.2 and the public program. Ours differs, unless `reference` is set: the
average forgets its random start; its normalisation statistics are measured, so that each fake is a
function of its seed alone; reals reach the small scale by averaging, not by dropping pixels; both
scales of a fake are augmented alike; spectral norms are right from the first step.
"""

import copy
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from semforensics.core import distributed
from semforensics.core.device import seed_everything
from semforensics.core.errors import InputError
from semforensics.core.training import EndlessPermutations, Setup, Training, describe_training
from semforensics.generators.common import ema
from semforensics.generators.common.gan import GANState, Material, begin_gan, load_material
from semforensics.generators.common.reals import RealCrops, take
from semforensics.generators.common.sampling import draw_inputs, generate_grey
from semforensics.generators.common.snapshots import NUM_WATCHED, diversity, publish, take_snapshot
from semforensics.generators.fastgan import diffaugment, losses
from semforensics.generators.fastgan.networks import (
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
from semforensics.params import FastGANParams
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


class FastGANState(GANState[Generator, Discriminator]):
    """All that changes while FastGAN is trained."""

    columns = LOSS_COLUMNS


def train_fastgan(
    crops: RealCrops,
    pretrained: Path,
    checkpoints: Path,
    plots: Path,
    *,
    params: FastGANParams,
    setup: Setup,
) -> str:
    """Train FastGAN; arguments, outputs and errors as of `train_gan`."""
    material = load_material(crops, pretrained, params.perceptual_net, setup.device)
    n_real, size_px = len(material.reals), material.reals.shape[-1]
    check_inputs(params, n_real, size_px, crops.cropped)
    training = begin_gan("FastGAN", __name__, params, material, setup)
    state = new_state(params, size_px, n_real, setup.seed, setup.device)
    training.resume(state, params.iterations)
    meta = describe_training("fastgan", state.generator, params, setup, crops.protocol, n_real)

    train(training, state, material, params, meta)

    publish(training, state, checkpoints, plots, params)
    last = state.snapshots[-1]
    return (
        f"FastGAN of {size_px} px after {params.iterations} iterations on {n_real} reals: "
        f"diversity {last['diversity']:.2f} of theirs, in {checkpoints}"
    )


def train(
    training: Training,
    state: FastGANState,
    material: Material,
    params: FastGANParams,
    meta: Mapping[str, Any],
) -> None:
    """Take the steps that are left; leaves snapshots, grids and its own state in its scratch."""
    with training.progress(state, params.iterations) as show:
        while state.iteration < params.iterations:
            shown, fakes = take_step(state, material.reals, material.lpips, params)
            done = state.iteration == params.iterations
            if state.iteration % params.log_every == 0 or done:
                whole = (distributed.gather(images) for images in (fakes, shown))
                row = state.log(diversity=diversity(material.lpips, *whole))
                text = " ".join(f"{n.removeprefix('loss_')} {row[n]:.2f}" for n in LOSS_COLUMNS)
                show(row, text)
            show()
            if state.iteration % params.snapshot_every == 0 or done:
                network = sampling_network(state.average, params)
                watched = generate_grey(network, range(NUM_WATCHED))
                take_snapshot(training, state, network, watched, material, meta)
            training.save_if_due(state, done=done)


def take_step(
    state: FastGANState, reals: Tensor, lpips: LPIPS, params: FastGANParams
) -> tuple[Tensor, Tensor]:
    """Train both networks on one batch; return its reals and fakes, not augmented.

    Of several processes each computes its share of the batch.
    """
    generator, discriminator, rng = state.generator, state.discriminator, state.rng
    device = next(generator.parameters()).device
    autocast = torch.autocast(
        device.type, torch.bfloat16, enabled=params.precision == "bfloat16", cache_enabled=False
    )

    # Reals and fakes, both at two scales, augmented for the discriminator.
    indices = state.sampler.take(params.batch)
    share = distributed.share(params.batch)
    x = take(reals, indices, params.channels, flip=params.flip, rng=rng)[share].to(device)
    with autocast:
        fakes = generator(*draw_inputs(generator, params.batch, rng, share))
    seen_reals = augment_reals(x, rng, reference=params.reference)
    seen_fakes = augment_fakes(fakes, rng, reference=params.reference)

    # Discriminator: hinge loss on reals, reconstruction of reals.
    discriminator.requires_grad_(True)
    state.optimizer_d.zero_grad()
    quadrant = int(torch.randint(4, (), generator=rng))
    with autocast:
        maps = discriminator.maps(*seen_reals)
        logits_real = discriminator.logits(maps)
        reconstructions = discriminator.reconstructions(maps, quadrant)
        whole, part = targets(seen_reals, quadrant, reference=params.reference)
        loss_reconstruction = losses.reconstruction_loss(lpips, reconstructions, whole, part)
    margins = draw_margins(logits_real, rng)
    loss_real = losses.hinge_real(logits_real, margins)
    torch.autograd.backward(loss_real + params.reconstruction_weight * loss_reconstruction)

    # Discriminator: a lazy penalty on its gradient at the reals, in float32.
    if params.r1_gamma > 0 and state.iteration % params.r1_every == 0:
        at = Pair(*(scale.detach().requires_grad_() for scale in seen_reals))
        penalty = losses.r1_penalty(discriminator(*at), at)
        torch.autograd.backward(params.r1_gamma * params.r1_every * penalty)

    # Discriminator: hinge loss on fakes.
    with autocast:
        logits_fake = discriminator(*(scale.detach() for scale in seen_fakes))
    margins = draw_margins(logits_fake, rng)
    loss_fake = losses.hinge_fake(logits_fake, margins)
    torch.autograd.backward(loss_fake)
    distributed.average_gradients(discriminator.parameters())
    state.optimizer_d.step()

    # Generator: raise the score of the same fakes; the discriminator's weights need no gradient.
    discriminator.requires_grad_(False)
    state.optimizer_g.zero_grad()
    with autocast:
        loss_g = losses.generator_loss(discriminator(*seen_fakes))
    torch.autograd.backward(loss_g)
    distributed.average_gradients(generator.parameters())
    state.optimizer_g.step()

    # Average the generator's weights; of several processes, their normalisation statistics.
    for network in (generator, discriminator):
        distributed.average_buffers(network)
    ramp = 1.0 if params.reference else ema.ramped_decay(state.iteration)
    ema.update(state.average, generator, min(params.ema_decay, ramp))

    state.iteration += 1
    parts = (loss_real, loss_fake, loss_reconstruction, loss_g)
    logits = (logits_real.mean(), logits_fake.mean())
    state.measure(dict(zip(LOSS_COLUMNS, (*parts, *logits), strict=True)))
    return x, fakes.big.detach()


def check_inputs(params: FastGANParams, n_real: int, size_px: int, cropped: Path) -> None:
    """Refuse, before anything is trained, what the networks cannot take.

    Raises:
        InputError: The parameters, the number of training images or their side do not fit.
    """
    distributed.check_batch(params.batch, "train_gan.fastgan.batch")
    if size_px not in SIZES_PX:
        raise InputError(f"{cropped}: crops of {size_px} px, FastGAN takes one of {SIZES_PX}")
    if n_real < params.batch:
        raise InputError(
            f"{cropped}: {n_real} training images, need at least a batch of {params.batch}"
            " (train_gan.fastgan.batch)"
        )
    if params.perceptual_net == "alex" and small_side(size_px) < 32:
        raise InputError(f"{cropped}: crops of {size_px} px are too small for LPIPS")
    if params.reference and size_px < 256:
        raise InputError(f"{cropped}: crops of {size_px} px; the original begins at 256 px")
    if params.reference and params.tanh != (size_px == 1024):
        raise InputError(
            f"train_gan.fastgan.tanh: {params.tanh}; the original squashes at 1024 px only, "
            f"and the crops have {size_px}"
        )


def new_state(
    params: FastGANParams, size_px: int, n_real: int, seed: int, device: torch.device
) -> FastGANState:
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
    return FastGANState(
        generator=generator,
        discriminator=discriminator,
        average=average,
        optimizer_g=torch.optim.Adam(generator.parameters(), params.lr, betas, fused=True),
        optimizer_d=torch.optim.Adam(discriminator.parameters(), params.lr, betas, fused=True),
        rng=rng,
        sampler=EndlessPermutations(n_real, rng),
        window=torch.zeros(2, len(LOSS_COLUMNS), device=device),
    )


def augment_reals(x: Tensor, rng: torch.Generator, *, reference: bool) -> Pair:
    """Augment reals and return them at both scales."""
    if reference:
        x = diffaugment.diff_augment(x, draw_augmentation(x, rng))
        return Pair(x, F.interpolate(x, size=small_side(x.shape[-1])))
    side = small_side(x.shape[-1])
    return _augment_alike(Pair(x, shrink(x, side)), rng)


def augment_fakes(fakes: Pair, rng: torch.Generator, *, reference: bool) -> Pair:
    """Augment fakes at both scales: alike, or in `reference` each on its own."""
    if reference:
        return Pair(*(diffaugment.diff_augment(x, draw_augmentation(x, rng)) for x in fakes))
    return _augment_alike(fakes, rng)


def _augment_alike(pair: Pair, rng: torch.Generator) -> Pair:
    """Augment both scales with the same draws; shifts are whole pixels of the small scale."""
    draws = draw_augmentation(pair.small, rng)
    larger = draws.at_scale(pair.big.shape[-1] // pair.small.shape[-1])
    big = diffaugment.diff_augment(pair.big, larger)
    return Pair(big, diffaugment.diff_augment(pair.small, draws))


def draw_augmentation(x: Tensor, rng: torch.Generator) -> diffaugment.Draws:
    """Draw for the whole batch, and return the part of the images of this process."""
    batch = distributed.whole(len(x))
    return diffaugment.draw(batch, x.shape[-1], rng).of(distributed.share(batch))


def draw_margins(logits: Tensor, rng: torch.Generator) -> Tensor:
    """Draw for the whole batch, and return the part of the logits of this process."""
    count = distributed.whole(logits.numel())
    return losses.draw_margins(count, rng)[distributed.share(count)].to(logits.device)


def targets(reals: Pair, quadrant: int, *, reference: bool) -> tuple[Tensor, Tensor]:
    """Return what the decoders should show: the whole image and its quadrant, at the small side."""
    part = take_quadrant(reals.big, quadrant)
    side = reals.small.shape[-1]
    return reals.small, F.interpolate(part, size=side) if reference else shrink(part, side)


def shrink(x: Tensor, side: int) -> Tensor:
    """Average blocks of pixels, so that nothing aliases; returns `x` where it has this side."""
    return F.avg_pool2d(x, x.shape[-1] // side) if x.shape[-1] > side else x


def sampling_network(average: Generator, params: FastGANParams) -> Generator:
    """Return the network that samples: 16-bit weights, with norms and statistics that fit."""
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
    """Return the batches over which statistics are measured, the same at every call."""
    # 64 images of 128 px and as many pixels at other sizes: memory stays below the training's.
    batch = max(params.batch, min(64, 64 * 128**2 // network.size_px**2))
    rng = torch.Generator().manual_seed(0)
    for _ in range(-(-params.precise_bn_images // batch)):
        yield draw_inputs(network, batch, rng)
