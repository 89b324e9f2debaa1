"""Train one NPR classifier and choose its threshold.

The recipe is the thesis's: Adam at a fixed learning rate, binary cross-entropy with logits, 100
epochs. The last epoch is kept. Nothing is selected on the validation side, because that side
calibrates the threshold: an epoch chosen for its validation scores would make them too good.
"""

import hashlib
import json
import math
import platform
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from jaxtyping import UInt8
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from semforensics.checkpoints import save_checkpoint
from semforensics.classifier.dataset import (
    LabelledImages,
    check_same_size,
    draw_training_side,
    fingerprint,
    generators_of,
    list_images,
    load_images,
)
from semforensics.classifier.networks import NPRNetwork, build_network, place
from semforensics.classifier.npr import random_phases
from semforensics.classifier.scoring import MODEL_FILE, score_images, sigmoid
from semforensics.device import bf16_is_emulated, seed_everything
from semforensics.evaluation.metrics import choose_threshold
from semforensics.files import atomic_file, atomic_folder
from semforensics.images import to_unit_range
from semforensics.params import Protocol, SplitParams, TrainClassifierParams

Losses = list[dict[str, int | float]]


def train_row(
    row: str,
    cropped: Path,
    splits: Path,
    fakes: Path,
    classifier: Path,
    *,
    params: TrainClassifierParams,
    shares: SplitParams,
    protocol: Protocol,
    data: str,
    seed: int,
    scratch: Path,
    device: torch.device,
) -> str:
    """Train the classifier of a row and write it with its threshold and loss curve.

    Args:
        row: Whose fakes it learns from.
        cropped: Holds the reals.
        splits: The table of crops with their sides.
        fakes: Holds one folder per generator.
        classifier: Folder to write: the model and `losses.csv`.
        params: The recipe.
        shares: In which parts fakes are divided over the sides.
        protocol: How they are.
        data: Where the reals come from, for the record.
        seed: Of the draws and the weights.
        scratch: Where an interrupted training waits to be resumed.
        device: Where to train.

    Returns:
        One line: numbers of images, validation accuracy, threshold.

    Raises:
        ValueError: Images differ in size or form, or a side is too small.
        FileNotFoundError: Images are missing.
    """
    generators = generators_of(row)
    table = list_images(
        cropped, splits, fakes, generators, protocol=protocol, shares=shares, seed=seed
    )
    train = load_images(draw_training_side(table, "train", seed))
    validation = load_images(draw_training_side(table, "validation", seed))
    check_same_size(train, validation)
    if params.precision == "bfloat16" and bf16_is_emulated(device):
        print(f"note: {device} emulates bfloat16; float32 is faster here", file=sys.stderr)

    seed_everything(seed)
    network = place(build_network(params.network, params.channels), device)
    losses = train_network(
        network, train, validation, params=params, seed=seed, scratch=scratch, device=device
    )

    thresholds = validation_thresholds(network, validation, params, device)
    meta = {
        "network": params.network,
        "channels": params.channels,
        "thresholds": thresholds,
        "row": row,
        "generators": generators,
        "protocol": protocol,
        "data": data,
        "seed": seed,
        "shares": shares.model_dump(),
        "params": params.model_dump(),
        "epochs": len(losses),
        "size_px": list(train.images.shape[-2:]),
        "n_train": len(train.images),
        "n_train_groups": train.num_groups,
        "n_validation_real": int((~validation.is_fake).sum()),
        "n_validation_fake": int(validation.is_fake.sum()),
        "n_validation_groups": validation.num_groups,
        "sides_sha256": fingerprint(table),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
        },
        "device": device.type,
        "threads": torch.get_num_threads(),
    }
    with atomic_folder(classifier) as folder:
        save_checkpoint(folder / MODEL_FILE, network.state_dict(), meta)
        pd.DataFrame(losses).to_csv(folder / "losses.csv", index=False, lineterminator="\n")
    _state_path(scratch).unlink(missing_ok=True)
    return (
        f"{row}: {params.network} trained on {meta['n_train']} images, validation accuracy "
        f"{losses[-1]['validation_accuracy']:.3f} on {len(validation.images)} images of "
        f"{validation.num_groups} groups; threshold {sigmoid(thresholds['4']):.3f} in {classifier}"
    )


def train_network(
    network: NPRNetwork,
    train: LabelledImages,
    validation: LabelledImages,
    *,
    params: TrainClassifierParams,
    seed: int,
    scratch: Path,
    device: torch.device,
) -> Losses:
    """Train a network for all its epochs.

    Every epoch draws from a generator of its own, seeded by `seed` and its number, so a training
    that was killed goes on from its last whole epoch in `scratch` and ends with the same bytes.

    Returns:
        Per epoch: the mean training loss, and loss and accuracy (at 0.5, one phase) on validation.
    """
    optimizer = torch.optim.Adam(network.parameters(), lr=params.lr)
    is_fake = train.is_fake.float()
    num_batches = math.ceil(len(train.images) / params.batch)
    stamp = _stamp(params, train, validation, seed, device)
    losses = _resume(scratch, stamp, network, optimizer, params.epochs)

    with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task("training", total=params.epochs, completed=len(losses))
        for epoch in range(len(losses) + 1, params.epochs + 1):
            rng = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
            network.train()
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(params, epoch)

            # One pass in random order. Batches are of equal size up to one image, never larger than
            # `batch`: a last one of few images would give batch norm poor statistics.
            total = 0.0
            for batch in torch.randperm(len(is_fake), generator=rng).tensor_split(num_batches):
                images = augment(train.images[batch], params, rng).to(device)
                targets = is_fake[batch].to(device)
                images_in_range = to_unit_range(images).contiguous(
                    memory_format=torch.channels_last
                )

                # Binary cross-entropy of the logit; fakes are the positive class.
                with torch.autocast(
                    device.type, torch.bfloat16, enabled=params.precision == "bfloat16"
                ):
                    logits = network(images_in_range)
                loss = F.binary_cross_entropy_with_logits(logits.float(), targets)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                total += loss.item() * len(batch)

            # Once per epoch: look at the validation side, log, keep the state.
            losses.append(
                {
                    "epoch": epoch,
                    "train_loss": total / len(is_fake),
                    **validate(network, validation, device),
                }
            )
            _keep(scratch, stamp, network, optimizer, losses)
            progress.update(task, advance=1, description=_describe(losses[-1]))
    network.eval()
    return losses


def learning_rate(params: TrainClassifierParams, epoch: int) -> float:
    """Give the learning rate of an epoch, counted from 1: decayed after every so many epochs."""
    return params.lr * params.lr_decay ** ((epoch - 1) // params.lr_decay_every)


def augment(
    images: UInt8[Tensor, "n 1 height width"],
    params: TrainClassifierParams,
    rng: torch.Generator,
) -> UInt8[Tensor, "n 1 new_height new_width"]:
    """Flip and shift training images at random, each by itself; the pixels keep their values.

    A flip is left to right, with a chance of one half. A random phase cuts two rows and columns.
    """
    if params.flip:
        flips = torch.rand(len(images), generator=rng) < 0.5
        images = torch.where(flips.view(-1, 1, 1, 1), images.flip(-1), images)
    if params.random_phase:
        images = random_phases(images, rng)
    return images


def validate(
    network: NPRNetwork, validation: LabelledImages, device: torch.device
) -> dict[str, float]:
    """Give loss and accuracy (at a probability of 0.5, one phase) on the validation side."""
    network.eval()
    logits = score_images(network, validation.images, phases=1, device=device)
    targets = validation.is_fake.numpy()
    # log(1 + exp(-z)) for fakes, log(1 + exp(z)) for reals, free of overflow
    loss = np.logaddexp(0, np.where(targets, -logits, logits)).mean()
    accuracy = ((logits > 0) == targets).mean()
    return {"validation_loss": float(loss), "validation_accuracy": float(accuracy)}


def validation_thresholds(
    network: NPRNetwork,
    validation: LabelledImages,
    params: TrainClassifierParams,
    device: torch.device,
) -> dict[str, float]:
    """Choose the thresholds on the validation side, by the number of phases that a test averages.

    Returns:
        Logits under the keys "1" and "4"; an image is called fake when its logit is above.
    """
    is_fake = validation.is_fake.numpy()
    thresholds = {}
    for phases in (1, 4):
        logits = score_images(network, validation.images, phases=phases, device=device)
        thresholds[str(phases)] = choose_threshold(
            logits[~is_fake], logits[is_fake], params.max_false_positive_rate
        )
    return thresholds


def _describe(losses: dict[str, int | float]) -> str:
    return (
        f"loss {losses['train_loss']:.4f}, validation {losses['validation_loss']:.4f}, "
        f"accuracy {losses['validation_accuracy']:.3f}"
    )


def _stamp(
    params: TrainClassifierParams,
    train: LabelledImages,
    validation: LabelledImages,
    seed: int,
    device: torch.device,
) -> str:
    """Hash all that decides the course of a training, but not how long it goes on."""
    digest = hashlib.sha256()
    for part in (train, validation):
        digest.update(fingerprint(part.table).encode())
        digest.update(part.images.numpy().tobytes())
    recipe = params.model_dump(exclude={"epochs"})
    machine = [device.type, torch.get_num_threads(), torch.__version__]
    digest.update(json.dumps([recipe, seed, machine], sort_keys=True).encode())
    return digest.hexdigest()


def _state_path(scratch: Path) -> Path:
    return scratch / "state.pt"


def _keep(
    scratch: Path,
    stamp: str,
    network: NPRNetwork,
    optimizer: torch.optim.Optimizer,
    losses: Losses,
) -> None:
    """Write the state of a training after an epoch."""
    with atomic_file(_state_path(scratch)) as path:
        torch.save(
            {
                "stamp": stamp,
                "network": network.state_dict(),
                "optimizer": optimizer.state_dict(),
                "losses": losses,
            },
            path,
        )


def _resume(
    scratch: Path,
    stamp: str,
    network: NPRNetwork,
    optimizer: torch.optim.Optimizer,
    epochs: int,
) -> Losses:
    """Restore the state of the same training if it was interrupted; give the epochs behind it."""
    path = _state_path(scratch)
    if not path.is_file():
        return []
    state: dict[str, Any] = torch.load(path, weights_only=True)
    if state["stamp"] != stamp or len(state["losses"]) > epochs:
        return []
    network.load_state_dict(state["network"])
    optimizer.load_state_dict(state["optimizer"])
    losses: Losses = state["losses"]
    print(f"resumed after epoch {len(losses)}", file=sys.stderr)
    return losses
