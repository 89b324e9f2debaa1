"""Train detectors on micrographs of several collections, in folds that leave collections out.

Every fold trains two kinds of evidence in pairs of a real and a reconstruction of it: a network on
residuals (`ResidualNetwork`) and a head on statistics of a frozen network (`Head`). It leaves out
the collections of its fold and, of several autoencoders, one: so each collection is scored by
networks that have seen neither it nor the generator that its fakes are made by. These scores
calibrate (cross-conformal prediction: Vovk, "Cross-conformal predictors", Annals of Mathematics and
Artificial Intelligence 74, 2015), since too few collections are there to spare some for calibration
alone.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from semforensics.core.blocks import assemble, blocks_of, largest_square
from semforensics.core.checkpoints import (
    load_checkpoint,
    load_network,
    refused_as,
    save_checkpoint,
)
from semforensics.core.device import seed_everything
from semforensics.core.errors import InputError
from semforensics.core.files import atomic_folder
from semforensics.core.images import read_crop, to_unit_range
from semforensics.core.tables import read_splits, write_table
from semforensics.core.training import (
    MeasuredState,
    Setup,
    Training,
    clear_scratch,
    describe_machine,
    make_stamp,
    note_emulation,
    write_rows,
)
from semforensics.detector.frozen import FrozenTrunk, fetch_trunk
from semforensics.detector.heads import HEAD_TENSORS, Head, fit_on_pairs
from semforensics.detector.pairs import PairSampler, Source, pair_loss
from semforensics.detector.residuals import ResidualNetwork
from semforensics.detector.world_calibration import Evidence, calibrate_world, save_calibration
from semforensics.generators.common.sampling import write_off
from semforensics.params import TrainWorldParams

LOG_EVERY = 50
FOLDS_FILE = "folds.csv"
TRUNK_FILE = "trunk.safetensors"
_WARM_UP = 100  # steps in which the learning rate rises


@dataclass(frozen=True)
class Fold:
    """What one network does not see."""

    collections: tuple[str, ...]
    autoencoder: str | None
    """None where there is only one."""


@dataclass(kw_only=True)
class WorldState(MeasuredState):
    """All that changes while a network is trained."""

    unit = "step"
    columns = ("loss",)
    network: ResidualNetwork
    average: ResidualNetwork
    """Moving average of the weights: what is kept."""
    optimizer: torch.optim.AdamW


def train_world(
    cropped: Path,
    splits: Path,
    reconstructed: Path,
    detectors: Path,
    *,
    params: TrainWorldParams,
    setup: Setup,
) -> str:
    """Train one network for each fold; off where there are no folds or no reconstructions.

    Args:
        cropped: Folder of canonical crops.
        splits: Their table; without a column `collection` groups take the place of collections. The
            test split is left alone: no training and no calibration sees it.
        reconstructed: Folder of fakes, one subfolder for each autoencoder, under the crops' names.
        detectors: Folder to write: `fold_0.safetensors`, ..., each with a network and a head;
            `trunk.safetensors`, which the heads share; `folds.csv` (collection, fold, autoencoder);
            `losses.csv`; `calibration.safetensors` and `power.csv`, by the panels of each fold.
        params: The recipe.
        setup: How it is run; each fold has its own seed and scratch folder. A training that was
            killed is resumed, and ends with the same bytes.

    Returns:
        One line.

    Raises:
        InputError: There are fewer collections than folds, or images are smaller than a crop.
        FileNotFoundError: A fake is missing, or the frozen network cannot be fetched.
    """
    autoencoders = sorted(path.name for path in reconstructed.iterdir() if path.is_dir())
    if not params.folds or not autoencoders:
        with atomic_folder(detectors) as folder:
            write_off(folder, "no folds, or no reconstructions to learn from")
        return f"off: no folds, or no reconstructions in {reconstructed}"
    note_emulation(params.precision, setup.device)
    table = read_splits(splits)
    table = with_collections(table[table["split"] != "test"])
    folds = divide(table["collection"].tolist(), autoencoders, params.folds)
    rows: list[dict[str, float]] = []
    networks, heads, panels = [], [], []
    # Downloads are kept beside the state of the trainings, which is removed at the end.
    trunk = fetch_trunk(setup.scratch.with_name("frozen")).to(setup.device)
    for index, fold in enumerate(folds):
        sources = load_sources(cropped, reconstructed, table, autoencoders, fold)
        own = replace(setup, seed=setup.seed + index, scratch=setup.scratch / f"fold_{index}")
        state = train_fold(sources, params, own)
        networks.append(state.average.eval())
        sampler = PairSampler(sources, params.head_crop_px, own.seed)
        heads.append(
            fit_on_pairs(trunk, sampler, params.head_pairs, params.head_strength, own.device)
        )
        evidence = Evidence(networks[-1], trunk, heads[-1], own.device)
        unseen = table[table["collection"].isin(fold.collections)]
        family = fold.autoencoder or autoencoders[0]
        panels.append(calibrate_world(unseen, cropped, reconstructed / family, evidence, family))
        rows += [{"fold": index, **row} for row in state.rows]
    with atomic_folder(detectors) as folder:
        save_checkpoint(
            folder / TRUNK_FILE,
            trunk.state_dict(),
            {"architecture": "frozen", "arguments": {}},
            half=True,
        )
        for index, (network, head, fold) in enumerate(zip(networks, heads, folds, strict=True)):
            meta = {
                "architecture": "residual",
                "arguments": {"width": params.width},
                "left_out": list(fold.collections),
                "autoencoder_left_out": fold.autoencoder,
                "params": params.model_dump(mode="json"),
                **describe_machine(setup.device),
            }
            path = folder / f"fold_{index}.safetensors"
            parts = {"network": network.state_dict(), "head": head.state_dict()}
            tensors = {f"{part}.{n}": t for part, state in parts.items() for n, t in state.items()}
            save_checkpoint(path, tensors, meta, half=True)
        listed = [
            {"collection": name, "fold": index, "autoencoder": fold.autoencoder or ""}
            for index, fold in enumerate(folds)
            for name in fold.collections
        ]
        write_table(pd.DataFrame(listed), folder / FOLDS_FILE)
        write_rows(folder / "losses.csv", rows)
        save_calibration(pd.concat(panels), folder)
    for index in range(len(folds)):
        clear_scratch(setup.scratch / f"fold_{index}")
    clear_scratch(setup.scratch)
    last = ", ".join(f"{r['loss']:.3f}" for r in rows if r["step"] == params.steps)
    return f"{len(folds)} folds of {len(table)} crops, losses {last}; in {detectors}"


def load_fold(path: Path) -> tuple[ResidualNetwork, Head]:
    """Rebuild a fold's network, in eval mode, and its head from their file.

    Raises:
        FileNotFoundError: There is no such file.
        InputError: It holds something else.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; `train-world` makes it")
    state, meta = load_checkpoint(path)
    parts: dict[str, dict[str, Tensor]] = {"network": {}, "head": {}}
    for name, tensor in state.items():
        part, _, rest = name.partition(".")
        parts.setdefault(part, {})[rest] = tensor
    with refused_as(f"{path}: not the detector it says it holds"):
        network = ResidualNetwork(**meta["arguments"])
        network.load_state_dict(parts["network"])
        head = Head(**{name: parts["head"][name].double().numpy() for name in HEAD_TENSORS})
    return network.eval(), head


def load_trunk(folder: Path) -> FrozenTrunk:
    """Rebuild the frozen trunk that all heads of a folder share, in eval mode.

    Raises:
        FileNotFoundError: There is none.
        InputError: The file holds something else.
    """
    return load_network(folder / TRUNK_FILE, {"frozen": FrozenTrunk}, "train-world")[0]


def with_collections(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table of crops that has collections: its own, or else its groups."""
    return table if "collection" in table else table.assign(collection=table["group"])


def divide(collections: Sequence[str], autoencoders: Sequence[str], number: int) -> list[Fold]:
    """Divide collections into folds of about equal size: the largest first, to the smallest fold.

    Size is the square root of the number of crops, by which pairs are drawn.

    Raises:
        InputError: There are fewer collections than folds.
    """
    counts = pd.Series(collections).value_counts()
    if len(counts) < number:
        raise InputError(f"{len(counts)} collections, need at least {number} for as many folds")
    parts: list[list[str]] = [[] for _ in range(number)]
    sizes = [0.0] * number
    for name in sorted(counts.index, key=lambda name: (-counts[name], name)):
        smallest = int(np.argmin(sizes))
        parts[smallest].append(name)
        sizes[smallest] += float(counts[name]) ** 0.5
    spare = autoencoders if len(autoencoders) > 1 else [None]
    return [
        Fold(tuple(sorted(part)), spare[index % len(spare)]) for index, part in enumerate(parts)
    ]


def load_sources(
    cropped: Path,
    reconstructed: Path,
    table: pd.DataFrame,
    autoencoders: Sequence[str],
    fold: Fold,
) -> list[Source]:
    """Read the reals that a fold's network may see, and their fakes.

    Neighbouring crops are put together again, so that there is room for what shrinks them.

    Raises:
        InputError: A file is no canonical crop.
        FileNotFoundError: A fake is missing.
    """
    used = [name for name in autoencoders if name != fold.autoencoder]
    seen = table[~table["collection"].isin(fold.collections)]
    size_px = len(read_crop(cropped / table["file"].iloc[0]))
    sources = []
    for collection, crops in seen.groupby("collection"):
        for places in map(largest_square, blocks_of(crops, size_px)):
            fakes = tuple(assemble(reconstructed / name, places) for name in used)
            sources.append(Source(str(collection), assemble(cropped, places), fakes))
    return sources


def train_fold(sources: Sequence[Source], params: TrainWorldParams, setup: Setup) -> WorldState:
    """Train one network to the end; leaves its state in the scratch folder.

    Each step draws its pairs from its own number, so a resumed training ends with the same bytes.

    Raises:
        InputError: There are no images, one is smaller than a crop, or the loss is not finite.
    """
    device = setup.device
    seed_everything(setup.seed)
    network = _placed(ResidualNetwork(params.width), device)
    average = _placed(ResidualNetwork(params.width), device)
    average.load_state_dict(network.state_dict())
    state = WorldState(
        network=network,
        average=average,
        optimizer=torch.optim.AdamW(
            network.parameters(), lr=params.lr, weight_decay=params.weight_decay
        ),
        window=torch.zeros(2, 1, dtype=torch.float64, device=device),
    )
    sampler = PairSampler(sources, params.crop_px, setup.seed)
    # Half of the cosine depends on the number of steps, so they count here.
    settings = params.model_dump(mode="json") | {"seed": setup.seed, "images": _digest(sources)}
    training = Training("world", setup, make_stamp(__name__, settings, device=device))
    training.resume(state, params.steps)
    with training.progress(state, params.steps) as show:
        while state.iteration < params.steps:
            state.iteration += 1
            for group in state.optimizer.param_groups:
                group["lr"] = learning_rate(params, state.iteration)

            # Reals, then their fakes: alike in all but their origin.
            images = sampler.batch((state.iteration - 1) * params.pairs, params.pairs)
            x = to_unit_range(images.to(device)).contiguous(memory_format=torch.channels_last)
            network.train()
            with torch.autocast(
                device.type, torch.bfloat16, enabled=params.precision == "bfloat16"
            ):
                logits = network(x)
            loss = pair_loss(logits.float())
            state.optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            state.optimizer.step()
            update_average(average, network, min(params.ema_decay, _ramp(state.iteration)))

            state.measure({"loss": loss})
            done = state.iteration == params.steps
            if state.iteration % LOG_EVERY == 0 or done:
                row = state.log()
                show(row, f"loss {row['loss']:.4f}")
            show()
            training.save_if_due(state, done=done)
    return state


def learning_rate(params: TrainWorldParams, step: int) -> float:
    """Return the learning rate of a step, counted from 1: a rise, then half a cosine to nothing."""
    return float(
        params.lr
        * min(1.0, step / _WARM_UP)
        * 0.5
        * (1 + np.cos(np.pi * (step - 1) / params.steps))
    )


@torch.no_grad()
def update_average(average: ResidualNetwork, network: ResidualNetwork, decay: float) -> None:
    """Move weights and running statistics of `average` by `1 - decay` towards the network's."""
    live: Mapping[str, Tensor] = network.state_dict()
    for name, tensor in average.state_dict().items():
        if tensor.is_floating_point():
            tensor.lerp_(live[name], 1 - decay)
        else:
            tensor.copy_(live[name])


def _ramp(step: int) -> float:
    return step / (step + 20)  # forgets the random start


def _placed(network: ResidualNetwork, device: torch.device) -> ResidualNetwork:
    placed: ResidualNetwork = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return placed


def _digest(sources: Sequence[Source]) -> str:
    """Return a SHA-256 of all images and of what they belong to."""
    digest = hashlib.sha256()
    for source in sources:
        digest.update(f"{source.collection} {source.weight}\n".encode())
        for image in (source.real, *source.fakes):
            digest.update(f"{image.shape}".encode() + np.ascontiguousarray(image).tobytes())
    return digest.hexdigest()
