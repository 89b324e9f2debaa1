"""Train the encoder-decoders that reconstruct micrographs.

A mean absolute error alone makes smooth images: of what does not fit through the bottleneck, the
noise goes first, and a detector would learn to tell smooth from noisy. So two terms are added: the
error of the differences between neighbouring pixels, and the ratio of their energies in image and
reconstruction, which asks for as much fine detail as there was, not for the same. What the decoder
cannot know it then invents, as a generator does.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from semforensics.core.checkpoints import save_checkpoint
from semforensics.core.device import seed_everything
from semforensics.core.errors import InputError
from semforensics.core.files import atomic_folder
from semforensics.core.training import (
    EndlessPermutations,
    MeasuredState,
    Setup,
    Training,
    clear_scratch,
    describe_training,
    make_stamp,
    write_rows,
)
from semforensics.generators.autoencoders.networks import (
    RECIPES,
    Autoencoder,
    Recipe,
    build_autoencoder,
    draw_recipes,
    seed_of,
)
from semforensics.generators.common.reals import RealCrops, cut_out, take
from semforensics.params import TrainAutoencodersParams

CUT_OUT_PX = 64
"""Side of the training images, cut out of the crops: all that is learnt is local."""
DIFFERENCE_WEIGHT, ENERGY_WEIGHT = 1.0, 0.1
"""Of the two terms beside the absolute error. Own trial, see docs/reproduce/unseen.md."""
LOG_EVERY = 20
MIN_ENERGY = (1 / 255) ** 2
"""Added to energies: differences of half a grey level are no detail."""


@dataclass(kw_only=True)
class AutoencoderState(MeasuredState):
    """All that changes while an encoder-decoder is trained."""

    unit = "step"
    columns = ("loss",)
    network: Autoencoder
    optimizer: torch.optim.Adam
    rng: torch.Generator
    sampler: EndlessPermutations
    squared_errors: list[float] = field(default_factory=list)
    """Means over the batch, of the last `LOG_EVERY` steps."""

    @property
    def psnr_db(self) -> float:
        """The peak signal-to-noise ratio over the last `LOG_EVERY` steps, in decibels."""
        last = torch.tensor(self.squared_errors).mean()
        return float(10 * torch.log10(4 / last))  # the range of -1 … 1 is 2 wide


def train_autoencoders(
    crops: RealCrops, checkpoints: Path, *, params: TrainAutoencodersParams, setup: Setup
) -> str:
    """Train all encoder-decoders; write `<name>.safetensors` of each and losses.csv.

    Those of `RECIPES`, and as many that are drawn as `params` says.

    Each encoder-decoder derives a seed from its name, and has a subfolder of the scratch folder for
    its state. The summary has the peak signal-to-noise ratio of each on training cut-outs, in
    decibels.

    Raises:
        InputError: The crops do not fit the networks, or a loss is no longer finite.
    """
    reals = crops.load()
    recipes = {**RECIPES, **draw_recipes(params.num_decoders, setup.seed)}
    most = 2 ** max(recipe.levels for recipe in recipes.values())
    if reals.shape[-1] % most:
        raise InputError(
            f"{crops.cropped}: crops of {reals.shape[-1]} px, expected a multiple of {most}"
        )
    states = {
        name: train_autoencoder(name, recipe, reals, params, setup)
        for name, recipe in recipes.items()
    }
    with atomic_folder(checkpoints) as folder:
        for name, state in states.items():
            meta = describe_training(
                "autoencoder", state.network, params, setup, crops.protocol, len(reals)
            )
            meta["psnr_db"] = state.psnr_db
            path = folder / f"{name}.safetensors"
            save_checkpoint(path, state.network.state_dict(), meta, half=True)
        write_rows(folder / "losses.csv", _join_rows(states))
    for name in recipes:
        clear_scratch(setup.scratch / name)
    clear_scratch(setup.scratch)
    found = ", ".join(f"{name} {state.psnr_db:.1f}" for name, state in states.items())
    return f"encoder-decoders on {len(reals)} reals, PSNR in dB: {found}; in {checkpoints}"


def train_autoencoder(
    name: str,
    recipe: Recipe,
    reals: UInt8[Tensor, "n_real 1 side side"],
    params: TrainAutoencodersParams,
    setup: Setup,
) -> AutoencoderState:
    """Train one encoder-decoder to the end; leaves its state in a subfolder of the scratch folder.

    Raises:
        InputError: The loss is not finite.
    """
    seed, device = seed_of(name, setup.seed), setup.device
    settings = params.model_dump(exclude={"num_decoders"}) | {"seed": seed}
    stamp = make_stamp(__name__, settings, reals, device=device)
    training = Training(name, replace(setup, scratch=setup.scratch / name), stamp)
    state = new_state(recipe, params, len(reals), seed, device)
    training.resume(state, params.steps)
    with training.progress(state, params.steps) as show:
        while state.iteration < params.steps:
            state.iteration += 1

            # The learning rate falls to nothing along half a cosine.
            for group in state.optimizer.param_groups:
                group["lr"] = learning_rate(params, state.iteration)

            # Reconstruct cut-outs of reals.
            x = take(reals, state.sampler.take(params.batch), 1, flip=True, rng=state.rng)
            x = cut_out(x, min(CUT_OUT_PX, x.shape[-1]), state.rng).to(device)
            reconstructions = state.network(x)
            loss = reconstruction_loss(reconstructions, x)
            state.optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            state.optimizer.step()

            state.measure({"loss": loss})
            error = float((reconstructions.detach() - x).square().mean())
            state.squared_errors = [*state.squared_errors, error][-LOG_EVERY:]
            done = state.iteration == params.steps
            if state.iteration % LOG_EVERY == 0 or done:
                row = state.log()
                show(row, f"loss {row['loss']:.4f}")
            show()
            training.save_if_due(state, done=done)
    return state


def new_state(
    recipe: Recipe, params: TrainAutoencodersParams, n_real: int, seed: int, device: torch.device
) -> AutoencoderState:
    """Draw a fresh network from the seed."""
    seed_everything(seed)
    network = build_autoencoder(recipe, params.width).to(device)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    rng = torch.Generator().manual_seed(seed)
    return AutoencoderState(
        network=network,
        optimizer=torch.optim.Adam(network.parameters(), params.lr, fused=True),
        window=torch.zeros(2, 1, dtype=torch.float64, device=device),
        rng=rng,
        sampler=EndlessPermutations(n_real, rng),
    )


def reconstruction_loss(
    reconstructions: Float[Tensor, "batch 1 height width"],
    images: Float[Tensor, "batch 1 height width"],
) -> Float[Tensor, ""]:
    """Return absolute error + error of differences + ratio of the energies of differences."""
    absolute = (reconstructions - images).abs().mean()
    error, ratio = torch.zeros_like(absolute), torch.zeros_like(absolute)
    theirs = differences(images)
    for ours, other in zip(differences(reconstructions), theirs, strict=True):
        error = error + (ours - other).abs().mean() / len(theirs)
        energies = [d.square().mean(dim=(1, 2, 3)) + MIN_ENERGY for d in (ours, other)]
        ratio = ratio + (energies[0].log() - energies[1].log()).abs().mean() / len(theirs)
    return absolute + DIFFERENCE_WEIGHT * error + ENERGY_WEIGHT * ratio


def differences(x: Float[Tensor, "batch 1 height width"]) -> tuple[Tensor, ...]:
    """Return differences of neighbours: across columns, across rows, and across both."""
    across_columns = x[..., :, 1:] - x[..., :, :-1]
    across_rows = x[..., 1:, :] - x[..., :-1, :]
    return across_columns, across_rows, across_columns[..., 1:, :] - across_columns[..., :-1, :]


def learning_rate(params: TrainAutoencodersParams, step: int) -> float:
    """Return the learning rate of a step, counted from 1: half a cosine from `lr` towards 0."""
    share = torch.tensor((step - 1) / params.steps, dtype=torch.float64)
    return float(params.lr * 0.5 * (1 + torch.cos(torch.pi * share)))


def _join_rows(states: Mapping[str, AutoencoderState]) -> list[dict[str, float]]:
    """Put the losses of all encoder-decoders side by side, one row per logged step."""
    return [
        {"step": rows[0]["step"]}
        | {name: row["loss"] for name, row in zip(states, rows, strict=True)}
        for rows in zip(*(state.rows for state in states.values()), strict=True)
    ]
