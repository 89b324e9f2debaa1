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
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from semforensics.core import distributed
from semforensics.core.device import seed_everything
from semforensics.core.errors import InputError
from semforensics.core.training import EndlessPermutations, Setup, Training, describe_training
from semforensics.generators.common import ema
from semforensics.generators.common.gan import GANState, Material, begin_gan, load_material
from semforensics.generators.common.reals import RealCrops, take_mirrored
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
from semforensics.params import StyleGAN2Params

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
class StyleGAN2State(GANState[Generator, Discriminator]):
    """All that changes while StyleGAN2 is trained with adaptive augmentation."""

    columns = LOSS_COLUMNS
    ada: AdaController
    path_length_mean: Tensor


def train_stylegan2_ada(
    crops: RealCrops,
    pretrained: Path,
    checkpoints: Path,
    plots: Path,
    *,
    params: StyleGAN2Params,
    setup: Setup,
) -> str:
    """Train StyleGAN2-ADA; arguments, outputs and errors as of `train_gan`."""
    material = load_material(crops, pretrained, params.perceptual_net, setup.device)
    n_real, size_px = len(material.reals), material.reals.shape[-1]
    check_size(size_px, crops.cropped)
    configuration = resolve(params, size_px)
    distributed.check_batch(configuration.batch, "train_gan.stylegan2_ada.batch")
    training = begin_gan("StyleGAN2-ADA", __name__, params, material, setup)
    if params.precision == "bfloat16" and not losses.penalties_bear_bf16(setup.device.type):
        training.console.print(
            "notice: penalties in float32: bfloat16 would give them wrong gradients here"
        )
    state = new_state(params, configuration, size_px, n_real, setup.seed, setup.device)
    training.resume(state, configuration.iterations)
    meta = describe_training(
        "stylegan2_ada", state.generator, params, setup, crops.protocol, n_real
    )
    meta["configuration"] = vars(configuration)

    train(training, state, material, params, configuration, meta)

    publish(training, state, checkpoints, plots, params)
    last = state.snapshots[-1]
    return (
        f"StyleGAN2-ADA of {size_px} px after {configuration.kimg:g} kimg "
        f"({configuration.iterations} iterations) on {n_real} reals: diversity "
        f"{last['diversity']:.2f} of theirs, p {state.ada.p:.2f}, in {checkpoints}"
    )


def train(
    training: Training,
    state: StyleGAN2State,
    material: Material,
    params: StyleGAN2Params,
    configuration: Configuration,
    meta: Mapping[str, Any],
) -> None:
    """Take the steps that are left; leaves snapshots, grids and its own state in its scratch."""
    total = configuration.iterations
    with training.progress(state, total) as show:
        while state.iteration < total:
            was_at_bound = state.ada.is_at_bound
            shown, fakes = take_step(state, material.reals, params, configuration)
            done = state.iteration == total
            if state.ada.is_at_bound and not was_at_bound:
                training.console.print(
                    f"notice: iteration {state.iteration}: the augmentation's p has reached its "
                    f"bound of {params.ada_p_max}; beyond it would show in the fakes"
                )
            if state.iteration % params.log_every == 0 or done:
                whole = (distributed.gather(images) for images in (fakes, shown))
                row = state.log(
                    kimg=state.iteration * configuration.batch / 1000,
                    p=state.ada.p,
                    r_t=state.ada.r,
                    diversity=diversity(material.lpips, *whole),
                )
                show(row, " ".join(f"{name} {value:.2f}" for name, value in row.items()))
            show()
            if state.iteration % params.snapshot_every == 0 or done:
                network = sampling_network(state.average)
                watched = generate_grey(network, range(NUM_WATCHED))
                take_snapshot(training, state, network, watched, material, meta)
            training.save_if_due(state, done=done)


def take_step(
    state: StyleGAN2State, reals: Tensor, params: StyleGAN2Params, configuration: Configuration
) -> tuple[Tensor, Tensor]:
    """Train both networks on one batch; return its reals and fakes, not augmented.

    Of several processes each computes its share of the batch.
    """
    generator, discriminator, rng = state.generator, state.discriminator, state.rng
    device, batch, p = generator.device, configuration.batch, state.ada.p
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
    descend(state.optimizer_g, loss_g)
    state.measure({"loss_g": loss_g, "logit_fake": logits.mean()})

    # Generator, every few steps: equal lengths of all paths from style to image.
    if configuration.path_length_weight and state.iteration % params.path_length_every == 0:
        half = distributed.whole(max(1, batch // distributed.whole(2)))
        ws, noises = draw_styles(generator, half, configuration, rng)
        with autocast_penalties:
            images = generator.synthesis(ws, noises)
        direction = losses.draw_path_direction((half, *images.shape[1:]), rng)
        direction = direction[distributed.share(half)].to(device)
        lengths = losses.path_lengths(images, ws, direction)
        mean = losses.updated_path_mean(state.path_length_mean, lengths)
        penalty = losses.path_length_penalty(lengths, mean)
        state.path_length_mean = distributed.average(mean.detach())
        descend(
            state.optimizer_g,
            configuration.path_length_weight * params.path_length_every * penalty,
        )
        state.measure({"path_length": lengths.mean()})

    # Discriminator: separate reals from new fakes.
    discriminator.requires_grad_(True)
    with autocast:
        with torch.no_grad():
            others = generator.synthesis(*draw_styles(generator, batch, configuration, rng))
        logits = discriminator(augmented(others, p, params, rng))
    loss_fake = losses.discriminator_loss_fake(logits)
    indices = state.sampler.take(batch)[distributed.share(batch)]
    x = take_mirrored(reals, indices, params.channels).to(device)
    with autocast:
        logits_real = discriminator(augmented(x, p, params, rng))
    loss_real = losses.discriminator_loss_real(logits_real)
    descend(state.optimizer_d, loss_fake + loss_real)
    state.ada.observe(distributed.gather(logits_real.detach()))
    state.measure(
        {"loss_d_fake": loss_fake, "loss_d_real": loss_real, "logit_real": logits_real.mean()}
    )

    # Discriminator, every few steps: a small gradient at the reals, through the augmentation.
    if configuration.r1_gamma and state.iteration % params.r1_every == 0:
        at = x.detach().clone().requires_grad_()
        with autocast_penalties:
            logits = discriminator(augmented(at, p, params, rng))
        penalty = losses.r1_penalty(logits, at)
        descend(state.optimizer_d, configuration.r1_gamma / 2 * params.r1_every * penalty)
        state.measure({"r1": penalty})

    # Average the generator's weights; follow the discriminator's overfitting.
    distributed.average_buffers(generator)
    state.iteration += 1
    ema.update(state.average, generator, average_decay(state.iteration, configuration))
    ema.copy_buffers(state.average, generator)
    if state.iteration % params.ada_every == 0:
        state.ada.update(batch)
    return x, fakes.detach()


def check_size(size_px: int, cropped: Path) -> None:
    """Refuse, before anything is trained, crops of a size that the networks do not have.

    Raises:
        InputError: They are of such a size.
    """
    if size_px not in SIZES_PX:
        raise InputError(f"{cropped}: crops of {size_px} px, StyleGAN2-ADA takes {SIZES_PX}")


def new_state(
    params: StyleGAN2Params,
    configuration: Configuration,
    size_px: int,
    n_real: int,
    seed: int,
    device: torch.device,
) -> StyleGAN2State:
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
    return StyleGAN2State(
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
        window=torch.zeros(2, len(LOSS_COLUMNS), device=device),
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

    Draws for a whole batch, and returns the part of the images of this process.
    """
    share = distributed.share(batch)
    z, noises = draw_inputs(generator, batch, rng, share)
    w = generator.mapping(z)
    generator.mapping.track_w_average(w)
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
