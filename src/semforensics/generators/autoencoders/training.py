"""Train the encoder-decoders that reconstruct micrographs.

A mean absolute error alone makes smooth images: of what does not fit through the bottleneck, the
noise goes first, and a detector would learn to tell smooth from noisy. So two terms are added: the
error of the differences between neighbouring pixels, and the ratio of their energies in image and
reconstruction, which asks for as much fine detail as there was, not for the same. What the decoder
cannot know it then invents, as a generator does.
"""

import hashlib
import shutil
import sys
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, UInt8
from rich.console import Console
from torch import Tensor

from semforensics.core.checkpoints import save_checkpoint
from semforensics.core.device import seed_everything
from semforensics.core.errors import InputError
from semforensics.core.files import atomic_folder
from semforensics.core.resume import fingerprint, load_state, save_state
from semforensics.core.training import (
    EndlessPermutations,
    describe_machine,
    progress_bar,
    write_rows,
)
from semforensics.generators.autoencoders.networks import RECIPES, build_autoencoder
from semforensics.generators.common.cutouts import cut_out
from semforensics.generators.common.reals import load_reals, take, training_files
from semforensics.params import Protocol, TrainAutoencodersParams

CUT_OUT_PX = 64
"""Side of the training images, cut out of the crops: all that is learnt is local."""
DIFFERENCE_WEIGHT, ENERGY_WEIGHT = 1.0, 0.1
"""Of the two terms beside the absolute error. Own trial, see docs/unseen.md."""
LOG_EVERY = 20
MIN_ENERGY = (1 / 255) ** 2
"""Added to energies: differences of half a grey level are no detail."""


def train_autoencoders(
    cropped: Path,
    splits: Path,
    checkpoints: Path,
    *,
    params: TrainAutoencodersParams,
    protocol: Protocol,
    seed: int,
    scratch: Path,
    device: torch.device,
) -> str:
    """Train every encoder-decoder of `RECIPES` and write them with their loss curves.

    A training that was killed goes on from the last encoder-decoder that was finished.

    Args:
        cropped: Canonical crops.
        splits: Table of crops and splits.
        checkpoints: Folder to write: `<name>.safetensors` of each, and `losses.csv`.
        params: The training's parameters, alike for all.
        protocol: `clean` trains on the train split, `thesis` on all reals.
        seed: Of weights and all draws; each encoder-decoder has its own of it.
        scratch: Folder for those that are finished while others are not; removed at the end.
        device: Where to train.

    Returns:
        One line: the peak signal-to-noise ratio of each on training cut-outs, in decibels.

    Raises:
        InputError: The crops do not fit the networks, or a loss is no longer finite.
    """
    reals = load_reals(training_files(cropped, splits, protocol))
    most = 2 ** max(recipe.levels for recipe in RECIPES.values())
    if reals.shape[-1] % most:
        raise InputError(f"{cropped}: crops of {reals.shape[-1]} px, expected a multiple of {most}")
    machine = describe_machine(device)
    stamp = fingerprint({**params.model_dump(), "seed": seed, **machine}, reals)
    console = Console(stderr=True)
    columns: dict[str, list[float]] = {}
    with atomic_folder(checkpoints) as folder:
        for name in RECIPES:
            state = load_state(scratch / f"{name}.pt", stamp)
            if state is None:
                state = train_autoencoder(name, reals, params, seed, device, console)
                save_state(scratch / f"{name}.pt", stamp, state)
            else:
                print(f"{name}: trained before", file=sys.stderr)
            network = build_autoencoder(name, params.width)
            meta = {
                "architecture": "autoencoder",
                "arguments": network.arguments,
                "params": params.model_dump(mode="json"),
                "protocol": protocol,
                "seed": seed,
                "n_real": len(reals),
                "psnr_db": state["psnr_db"],
                **machine,
            }
            save_checkpoint(folder / f"{name}.safetensors", state["network"], meta, half=True)
            columns[name] = state["losses"]
            columns[f"{name}_psnr_db"] = [state["psnr_db"]]
        write_rows(folder / "losses.csv", _rows(columns, params.steps))
    shutil.rmtree(scratch, ignore_errors=True)
    found = ", ".join(f"{name} {columns[f'{name}_psnr_db'][0]:.1f}" for name in RECIPES)
    return f"encoder-decoders on {len(reals)} reals, PSNR in dB: {found}; in {checkpoints}"


def train_autoencoder(
    name: str,
    reals: UInt8[Tensor, "n_real 1 side side"],
    params: TrainAutoencodersParams,
    seed: int,
    device: torch.device,
    console: Console,
) -> dict[str, Any]:
    """Train one encoder-decoder to the end.

    Returns:
        Its weights (`network`), the mean loss of every `LOG_EVERY` steps (`losses`), and the peak
        signal-to-noise ratio over the last ones (`psnr_db`).

    Raises:
        InputError: The loss is not finite.
    """
    own_seed = seed_of(name, seed)
    seed_everything(own_seed)
    network = build_autoencoder(name, params.width).to(device)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.Adam(network.parameters(), params.lr, fused=True)
    rng = torch.Generator().manual_seed(own_seed)
    sampler = EndlessPermutations(len(reals), rng)
    losses: list[float] = []
    window: list[float] = []
    squared: list[float] = []
    with progress_bar(name, console) as progress:
        bar = progress.add_task("", total=params.steps, losses="")
        for step in range(1, params.steps + 1):
            # The step falls to nothing along half a cosine.
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(params, step)

            # Reconstruct cut-outs of reals.
            x = take(reals, sampler.take(params.batch), 1, flip=True, rng=rng)
            x = cut_out(x, min(CUT_OUT_PX, x.shape[-1]), rng).to(device)
            reconstructions = network(x)
            loss = reconstruction_loss(reconstructions, x)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()

            # Log.
            window.append(loss.item())
            squared.append(float((reconstructions.detach() - x).square().mean()))
            if step % LOG_EVERY == 0 or step == params.steps:
                losses.append(sum(window) / len(window))
                window = []
                progress.update(bar, losses=f"loss {losses[-1]:.4f}")
            progress.update(bar, completed=step)
    if not all(torch.isfinite(torch.tensor(losses))):
        raise InputError(f"{name}: training diverged: losses {losses[-5:]}")
    last = torch.tensor(squared[-LOG_EVERY:]).mean()
    psnr_db = float(10 * torch.log10(4 / last))  # the range of -1 … 1 is 2 wide
    return {"network": network.state_dict(), "losses": losses, "psnr_db": psnr_db}


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


def seed_of(name: str, seed: int) -> int:
    """Return an encoder-decoder a seed of its own, the same in whatever order they are trained."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest()[:4], "big")


def _rows(columns: dict[str, list[float]], steps: int) -> list[dict[str, float]]:
    """Turn loss curves into rows, one per logged step."""
    num_rows = -(-steps // LOG_EVERY)
    return [
        {"step": float(min((row + 1) * LOG_EVERY, steps))}
        | {name: columns[name][row] for name in RECIPES}
        for row in range(num_rows)
    ]
