"""Train detectors on micrographs of several collections, in folds that leave collections out.

Three trainings. Each leaves out its fold of the collections and, of several families of
reconstructions, its share: so each collection is scored by a network that has seen neither it nor
the generators that its fakes are made by. These scores calibrate (cross-conformal prediction: Vovk,
"Cross-conformal predictors", Annals of Mathematics and Artificial Intelligence 74, 2015), since too
few collections are there to spare some for calibration alone. The mean of the three is the detector
(`semforensics.detector.world_network.WorldEnsemble`).
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from semforensics.core.blocks import assemble, blocks_of, largest_square
from semforensics.core.checkpoints import save_checkpoint
from semforensics.core.device import seed_everything
from semforensics.core.files import atomic_folder
from semforensics.core.images import read_crop, to_unit_range
from semforensics.core.training import (
    MeasuredState,
    Setup,
    Training,
    clear_scratch,
    describe_machine,
    make_stamp,
    write_rows,
)
from semforensics.detector.pairs import PairSampler, Source, pair_loss
from semforensics.detector.scoring import MODEL_FILE
from semforensics.detector.trunk_weights import fetch_trunk
from semforensics.detector.world_data import TRAINING_SEED, Fold, WorldData, draw_images
from semforensics.detector.world_network import ARCHITECTURE, WorldNetwork
from semforensics.generators.common.sampling import OFF_FILE, write_off
from semforensics.generators.published.drawn import read_drawn
from semforensics.params import TrainWorldParams, WorldPart

LOG_EVERY = 50
_WARM_UP = 100  # steps in which the learning rate rises
_BESIDE = 12  # of them beside one real


@dataclass(kw_only=True)
class WorldState(MeasuredState):
    """All that changes while a network is trained."""

    unit = "step"
    columns = ("loss",)
    network: WorldNetwork
    average: WorldNetwork
    """Moving average of the weights: what is kept."""
    optimizer: torch.optim.AdamW


def train_world(
    part: WorldPart, data: WorldData, folder: Path, *, params: TrainWorldParams, setup: Setup
) -> str:
    """Train one network; off with 0 steps.

    Args:
        part: `fold_0` and so on.
        data: What to learn from. The test split is left alone: no training and no calibration sees
            it.
        folder: To write: `model.safetensors`, which says what it has not seen, and `losses.csv`.
        params: The recipe.
        setup: How it is run. A training that was killed is resumed, and ends with the same bytes.

    Returns:
        One line.

    Raises:
        InputError: There are fewer collections than folds, or images are smaller than a crop.
        FileNotFoundError: A fake is missing, or the published weights cannot be fetched.
    """
    if not params.steps:
        with atomic_folder(folder) as temporary:
            write_off(temporary, "0 steps of train_world")
        return f"off: 0 steps; {folder / OFF_FILE}"
    fold = data.folds()[int(part.removeprefix("fold_"))]
    sources = load_sources(data, fold, params.generators, params.beside)
    state = train_fold(sources, params, setup)
    meta = {
        "architecture": ARCHITECTURE,
        "arguments": {},
        "left_out": list(fold.collections),
        "families_left_out": list(fold.families),
        "params": params.model_dump(mode="json"),
        **describe_machine(setup.device),
    }
    with atomic_folder(folder) as temporary:
        save_checkpoint(temporary / MODEL_FILE, state.average.state_dict(), meta, half=True)
        write_rows(temporary / "losses.csv", state.rows)
    clear_scratch(setup.scratch)
    count = data.learned()["collection"].nunique() - len(fold.collections)
    return f"{part}: {count} collections, loss {state.rows[-1]['loss']:.3f}; in {folder}"


def load_sources(
    data: WorldData, fold: Fold, generators: Sequence[str], beside: str
) -> list[Source]:
    """Read the reals that a network may see, and their fakes.

    Neighbouring crops are put together again, so that there is room for what shrinks them. Beside
    them are drawn pictures; those that were micrographs once count to their collections.

    Args:
        data: Where they are.
        fold: What is left out.
        generators: Finished GANs.
        beside: The collection that they learned from, beside whose reals their images stand.

    Raises:
        InputError: A file is no canonical crop.
        FileNotFoundError: A fake or a generator is missing.
    """
    table = data.learned()
    folders = [path for name, path in data.families().items() if name not in fold.families]
    seen = table[~table["collection"].isin(fold.collections)]
    drawn = (
        draw_images(data.generators, generators, TRAINING_SEED)
        if beside in set(seen["collection"])
        else []
    )
    rng = np.random.default_rng(0)
    size_px = len(read_crop(data.cropped / table["file"].iloc[0]))
    sources = []
    for collection, crops in seen.groupby("collection"):
        for places in map(largest_square, blocks_of(crops, size_px)):
            real = assemble(data.cropped, places)
            fakes = tuple(assemble(path, places) for path in folders)
            sources.append(Source(str(collection), real, fakes))
            if drawn and collection == beside:
                chosen = rng.choice(len(drawn), min(_BESIDE, len(drawn)), replace=False)
                images = tuple(drawn[index] for index in chosen)
                sources.append(Source(f"{beside}, GANs", real, images))
    collections = {"", *seen["collection"]}
    for path in folders:
        for one in read_drawn(path):
            if one.collection in collections:
                sources.append(Source(one.content, one.real, (one.fake,), drawn=True))
    return sources


def train_fold(sources: Sequence[Source], params: TrainWorldParams, setup: Setup) -> WorldState:
    """Train one network to the end; leaves its state in the scratch folder.

    Each step draws its pairs from its own number, so a resumed training ends with the same bytes.

    Raises:
        InputError: There are no images, one is smaller than a crop, or the loss is not finite.
        FileNotFoundError: The published weights cannot be fetched.
    """
    device = setup.device
    seed_everything(setup.seed)
    network = _first_network(params, setup.scratch.with_name("frozen"))
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = WorldNetwork().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    average.load_state_dict(network.state_dict())
    state = WorldState(
        network=network,
        average=average.eval(),
        optimizer=torch.optim.AdamW(
            network.parameter_groups(), lr=params.lr, weight_decay=params.weight_decay
        ),
        window=torch.zeros(2, 1, dtype=torch.float64, device=device),
    )
    sampler = PairSampler(
        sources,
        params.crop_px,
        setup.seed,
        smoothed=params.smoothed_reals,
        noisy=params.noisy_fakes,
        drawn=params.drawn_pairs,
    )
    # The cosine depends on the number of steps, so they count here.
    settings = params.model_dump(mode="json") | {"seed": setup.seed, "images": _digest(sources)}
    training = Training("world", setup, make_stamp(__name__, settings, device=device))
    training.resume(state, params.steps)
    with training.progress(state, params.steps) as show:
        while state.iteration < params.steps:
            state.iteration += 1
            for group in state.optimizer.param_groups:
                group["lr"] = learning_rate(params, state.iteration) * group["factor"]

            # Reals, then their fakes: alike in all but their origin.
            images = sampler.batch((state.iteration - 1) * params.pairs, params.pairs)
            x = to_unit_range(images.to(device)).contiguous(memory_format=torch.channels_last)
            network.train()
            with torch.autocast(
                device.type, torch.bfloat16, enabled=params.precision == "bfloat16"
            ):
                logits = network.evidence(x)
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


def _first_network(params: TrainWorldParams, scratch: Path) -> WorldNetwork:
    if not params.published_trunk:
        return WorldNetwork()
    # The download is kept beside the state of the training, which is removed at the end.
    return WorldNetwork.from_trunk(fetch_trunk(scratch))


def learning_rate(params: TrainWorldParams, step: int) -> float:
    """Return the learning rate of a step, counted from 1: a rise, then half a cosine to nothing."""
    return float(
        params.lr
        * min(1.0, step / _WARM_UP)
        * 0.5
        * (1 + np.cos(np.pi * (step - 1) / params.steps))
    )


@torch.no_grad()
def update_average(average: WorldNetwork, network: WorldNetwork, decay: float) -> None:
    """Move weights and running statistics of `average` by `1 - decay` towards the network's."""
    live: Mapping[str, Tensor] = network.state_dict()
    for name, tensor in average.state_dict().items():
        if tensor.is_floating_point():
            tensor.lerp_(live[name], 1 - decay)
        else:
            tensor.copy_(live[name])


def _ramp(step: int) -> float:
    return step / (step + 20)  # forgets the random start


def _digest(sources: Sequence[Source]) -> str:
    """Return a SHA-256 of all images and of what they belong to."""
    digest = hashlib.sha256()
    for source in sources:
        digest.update(f"{source.collection} {source.weight}\n".encode())
        for image in (source.real, *source.fakes):
            digest.update(f"{image.shape}".encode() + np.ascontiguousarray(image).tobytes())
    return digest.hexdigest()
