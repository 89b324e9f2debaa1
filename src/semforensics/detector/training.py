"""Train one NPR classifier, several times, and calibrate it.

The recipe is the thesis's: Adam at a fixed learning rate, binary cross-entropy with logits, 100
epochs. The last epoch is kept, and of several trainings the first. Nothing is selected on the
validation split, because that split calibrates: threshold, temperature, conformal scores and the
limits of the training domain. An epoch or a seed chosen for its validation scores would make them
too good.
"""

import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from jaxtyping import UInt8
from torch import Tensor

from semforensics.core import distributed
from semforensics.core.checkpoints import save_checkpoint
from semforensics.core.device import seed_everything
from semforensics.core.errors import InputError
from semforensics.core.files import atomic_folder
from semforensics.core.images import to_unit_range
from semforensics.core.portable import adam_kernel
from semforensics.core.training import (
    Setup,
    Training,
    TrainingState,
    clear_scratch,
    make_stamp,
)
from semforensics.detector.augment import augment_crops
from semforensics.detector.calibration import (
    choose_threshold,
    fake_probability,
    fit_temperature,
    log_loss,
)
from semforensics.detector.corpus import (
    Corpus,
    LabelledImages,
    check_same_size,
    draw_training_split,
    fingerprint,
    generators_of,
    load_images,
)
from semforensics.detector.domain import DOMAIN_FILE, Domain
from semforensics.detector.networks import NPRNetwork, build_network, to_device
from semforensics.detector.perturbations import apply_to_all, find
from semforensics.detector.scoring import score_images, seed_file
from semforensics.params import TrainClassifierParams

Losses = list[dict[str, float]]


@dataclass(kw_only=True)
class ClassifierState(TrainingState):
    """All that changes while a classifier is trained, from one epoch to the next."""

    unit = "epoch"
    network: NPRNetwork
    optimizer: torch.optim.Adam


def train_classifier(
    name: str,
    corpus: Corpus,
    classifier: Path,
    *,
    params: TrainClassifierParams,
    data: str,
    scratch: Path,
    device: torch.device,
) -> str:
    """Train a detector's classifier from each seed, and write it with its calibration.

    The trainings share images and splits; weights and order differ. One that was killed is resumed
    after its last whole epoch when the stage is started again, and ends with the same bytes.

    Args:
        name: The detector; it says whose fakes are learned.
        corpus: The images. Its seed is also that of the first weights; the next training has the
            next seed.
        classifier: Folder to write: the first seed's model and `losses.csv`; the others'
            `seed_1.safetensors`, ..., and `losses_seeds.csv`; the training domain.
        params: The recipe.
        data: Where the reals come from, for the record.
        scratch: Where an interrupted training waits to be resumed.
        device: Where to train.

    Returns:
        One line: numbers of images, validation accuracy, threshold. Of several processes, the
        first alone calibrates, writes and says so; the others return an empty line.

    Raises:
        InputError: Images differ in size or form, or a split is too small.
        FileNotFoundError: Images are missing.
    """
    generators, seed = generators_of(name), corpus.seed
    table = corpus.list_images(generators)
    train = load_images(draw_training_split(table, "train", seed))
    validation = load_images(draw_training_split(table, "validation", seed))
    check_same_size(train, validation)

    networks: list[NPRNetwork] = []
    curves: list[Losses] = []
    setups = [
        Setup(seed + index, scratch / f"training_{index}", device)
        for index in range(params.num_seeds)
    ]
    for setup in setups:
        seed_everything(setup.seed)
        networks.append(to_device(build_network(params.network, params.channels), device))
        curves.append(train_network(networks[-1], train, validation, params=params, setup=setup))
    if not distributed.is_first():
        return ""
    rng = np.random.default_rng(seed)
    domain = Domain.fit(train.images, validation.images, params.domain_quantile, rng)

    meta = {
        "network": params.network,
        "channels": params.channels,
        "detector": name,
        "generators": generators,
        "protocol": corpus.protocol,
        "data": data,
        "seed": seed,
        "shares": corpus.shares.model_dump(exclude={"by"}),
        "params": params.model_dump(),
        "epochs": params.epochs,
        "size_px": list(train.images.shape[-2:]),
        "n_train": len(train.images),
        "n_train_groups": train.num_groups,
        "n_validation_real": int((~validation.is_fake).sum()),
        "n_validation_fake": int(validation.is_fake.sum()),
        "n_validation_groups": validation.num_groups,
        "calibration_groups": validation.num_groups,
        "splits_sha256": fingerprint(table),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
        },
        "device": device.type,
        "threads": torch.get_num_threads(),
        **({"processes": distributed.num_processes()} if distributed.num_processes() > 1 else {}),
    }
    processed = process_reals(validation, params.calibrate_on, seed)
    readings = [calibrate(network, validation, processed, params, device) for network in networks]
    with atomic_folder(classifier) as folder:
        for index, (network, reading) in enumerate(zip(networks, readings, strict=True)):
            own = meta | reading | {"training_seed": seed + index}
            save_checkpoint(folder / seed_file(index), network.state_dict(), own)
        domain.save(folder / DOMAIN_FILE)
        _write_losses(curves[:1], folder / "losses.csv")
        _write_losses(curves[1:], folder / "losses_seeds.csv", first_seed=seed + 1)
    for setup in setups:
        clear_scratch(setup.scratch)
    return _summary(name, classifier, meta | readings[0], curves)


def _write_losses(curves: list[Losses], path: Path, first_seed: int | None = None) -> None:
    """Write losses per epoch; where a first seed is given, the seeds of the curves before them."""
    names = ["epoch", "train_loss", "validation_loss", "validation_accuracy"]
    table = pd.DataFrame([line for losses in curves for line in losses], columns=names)
    table = table.astype({"epoch": int})
    if first_seed is not None:
        seeds = [first_seed + index for index, losses in enumerate(curves) for _ in losses]
        table.insert(0, "seed", seeds)
    table.to_csv(path, index=False, lineterminator="\n")


def _summary(name: str, classifier: Path, meta: dict[str, Any], curves: list[Losses]) -> str:
    accuracies = [f"{losses[-1]['validation_accuracy']:.3f}" for losses in curves]
    count = meta["n_validation_real"] + meta["n_validation_fake"]
    times = "once" if len(curves) == 1 else f"{len(curves)} times"
    return (
        f"{name}: {meta['network']} trained on {meta['n_train']} images {times}, validation "
        f"accuracy {', '.join(accuracies)} on {count} images of {meta['n_validation_groups']} "
        f"groups; threshold {fake_probability(meta['thresholds']['4']):.3f}, temperature "
        f"{meta['temperature']['4']:.2f} in {classifier}"
    )


def train_network(
    network: NPRNetwork,
    train: LabelledImages,
    validation: LabelledImages,
    *,
    params: TrainClassifierParams,
    setup: Setup,
) -> Losses:
    """Train a network for all its epochs.

    Every epoch draws from its own generator, seeded by the training's seed and its number, so
    a training that was killed is resumed after its last whole epoch and ends with the same bytes.
    Of several processes each augments whole batches and computes its share.

    Returns:
        Per epoch: the mean training loss, and loss and accuracy (at 0.5, one phase) on validation.

    Raises:
        InputError: There are more processes than images in a batch.
    """
    device, is_fake = setup.device, train.is_fake.float()
    num_batches = math.ceil(len(train.images) / params.batch)
    smallest = len(train.images) // num_batches
    if smallest < distributed.num_processes():
        raise InputError(
            f"train_classifier.batch: batches of {smallest} images, fewer than the "
            f"{distributed.num_processes()} processes"
        )
    optimizer = torch.optim.Adam(network.parameters(), lr=params.lr, fused=adam_kernel())
    state = ClassifierState(network=network, optimizer=optimizer)
    training = _begin(params, train, validation, setup)
    training.resume(state, params.epochs)
    with training.progress(state, params.epochs) as show:
        while state.iteration < params.epochs:
            state.iteration += 1
            rng = torch.Generator().manual_seed(setup.seed * 1_000_003 + state.iteration)
            network.train()
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(params, state.iteration)

            # One pass in random order. Batches are of equal size up to one image, never larger than
            # `batch`: a last one of few images would give batch norm poor statistics.
            total = 0.0
            for batch in torch.randperm(len(is_fake), generator=rng).tensor_split(num_batches):
                share = distributed.share(len(batch))
                images = augment_crops(train.images[batch], params, rng)[share].to(device)
                targets = is_fake[batch[share]].to(device)
                images_in_range = to_unit_range(images).contiguous(
                    memory_format=torch.channels_last
                )

                # Binary cross-entropy of the logit; fakes are the positive class.
                with torch.autocast(
                    device.type, torch.bfloat16, enabled=params.precision == "bfloat16"
                ):
                    logits = network(images_in_range)
                loss = F.binary_cross_entropy_with_logits(logits.float(), targets)
                loss = loss * (distributed.whole(len(targets)) / len(batch))  # shares are unequal
                optimizer.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                distributed.average_gradients(network.parameters())
                optimizer.step()
                distributed.average_buffers(network)
                total += distributed.average(loss.detach()).item() * len(batch)

            # Once per epoch: score the validation split, log, keep the state.
            row = {"train_loss": total / len(is_fake), **validate(network, validation, device)}
            state.rows.append({"epoch": float(state.iteration), **row})
            show(row, " ".join(f"{name} {value:.3f}" for name, value in row.items()))
            training.save(state)
    network.eval()
    return state.rows


def _begin(
    params: TrainClassifierParams, train: LabelledImages, validation: LabelledImages, setup: Setup
) -> Training:
    """Open the frame of a training."""
    # What is left out changes the number of epochs, or nothing before the calibration.
    settings = params.model_dump(exclude={"epochs", "num_seeds", "calibrate_on", "domain_quantile"})
    settings |= {"seed": setup.seed, "tables": [fingerprint(s.table) for s in (train, validation)]}
    stamp = make_stamp(__name__, settings, train.images, validation.images, device=setup.device)
    return Training("classifier", setup, stamp)


def learning_rate(params: TrainClassifierParams, epoch: int) -> float:
    """Return the learning rate of an epoch, counted from 1: decayed after every so many epochs."""
    return params.lr * params.lr_decay ** ((epoch - 1) // params.lr_decay_every)


def validate(
    network: NPRNetwork, validation: LabelledImages, device: torch.device
) -> dict[str, float]:
    """Return loss and accuracy (at a probability of 0.5, one phase) on the validation split."""
    network.eval()
    logits = score_images(network, validation.images, phases=1, device=device)
    targets = validation.is_fake.numpy()
    accuracy = ((logits > 0) == targets).mean()
    return {"validation_loss": log_loss(logits, targets), "validation_accuracy": float(accuracy)}


def process_reals(
    validation: LabelledImages, names: Sequence[str], seed: int
) -> dict[str, UInt8[Tensor, "n 1 _ _"]]:
    """Process the validation reals in every way that the calibration shall know.

    Raises:
        InputError: The grid has no such cell, or it leaves less than the detector takes.
    """
    is_real = ~validation.is_fake
    reals = validation.images[is_real, 0].numpy()
    files = validation.table.loc[is_real.numpy(), "file"].tolist()
    return {
        name: torch.from_numpy(apply_to_all(cell, reals, files, seed))[:, None]
        for name, cell in zip(names, find(names), strict=True)
    }


def calibrate(
    network: NPRNetwork,
    validation: LabelledImages,
    processed: Mapping[str, UInt8[Tensor, "n 1 _ _"]],
    params: TrainClassifierParams,
    device: torch.device,
) -> dict[str, Any]:
    """Measure on the validation split how to read a logit.

    Returns:
        `thresholds`: logits above which an image is called fake; `temperature`; `calibration`: the
        logits of reals (`real`) and of reals after each kind of processing (`processed`), both in
        the order of `groups`, the number of each real's area; and of the fakes of each generator
        (`generators`), in rising order, for conformal p-values; each under the number of phases
        that a test averages, "1" and "4".
    """
    is_fake = validation.is_fake.numpy()
    found: dict[str, Any] = {"thresholds": {}, "temperature": {}, "calibration": {}}
    groups, _ = pd.factorize(validation.table.loc[~is_fake, "group"], sort=True)
    for phases in (1, 4):
        logits = score_images(network, validation.images, phases=phases, device=device)
        real, fake = logits[~is_fake], logits[is_fake]
        key = str(phases)
        found["thresholds"][key] = choose_threshold(real, fake, params.max_false_positive_rate)
        found["temperature"][key] = fit_temperature(logits, is_fake)
        # float32 to the last digit: a test image of the same logit is a tie.
        found["calibration"][key] = {
            "real": real.tolist(),
            "groups": groups.tolist(),
            "generators": {
                name: np.sort(logits[(validation.table["generator"] == name).to_numpy()]).tolist()
                for name in sorted(set(validation.table.loc[is_fake, "generator"]))
            },
            "processed": {
                name: score_images(network, x, phases=phases, device=device).tolist()
                for name, x in processed.items()
            },
        }
    return found
