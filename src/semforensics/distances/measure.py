"""How near the fakes of one GAN are to the reals, pair by pair and as a whole.

Distances are those of the thesis (Sah 2024), MSE, and LPIPS beside it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, UInt8
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from semforensics.core.errors import InputError
from semforensics.core.files import write_json
from semforensics.core.images import stack_crops
from semforensics.core.processing import mse_noise_floor
from semforensics.core.tables import read_splits, write_table
from semforensics.core.types import FLIPS
from semforensics.distances.memorisation import (
    Measured,
    memorisation_numbers,
    memorisation_table,
    suspicious_fakes,
    threshold,
    without_itself,
)
from semforensics.distances.nearest import nearest, summarise
from semforensics.distances.pairwise import pairwise_lpips, pairwise_mse, trunk_passes
from semforensics.distances.quality import SMALLEST_SET, Images, quality
from semforensics.params import MeasureDistancesParams, Protocol
from semforensics.perceptual.lpips import LPIPS, Embedding


@dataclass(frozen=True)
class Sources:
    """Fakes of one generator, and the reals that they are compared with."""

    gan: str
    cropped: Path
    splits: Path
    """Says which of them the GAN has seen: under `clean` those of the training split, under
    `thesis` all. Under `clean` the test split tells how near reals come that it has not seen; under
    `thesis` there are none, and each real is compared with all others instead."""
    fakes: Path
    protocol: Protocol
    """As for the training."""
    data: str
    """Where the reals come from."""


@dataclass(frozen=True)
class _Files:
    """Names of the images of each kind."""

    seen: list[str]
    unseen: list[str]
    fakes: list[str]
    in_first_half: Bool[np.ndarray, " n_seen"]
    """Where no real is unseen, one half of the others is compared with the other: whole groups, as
    crops of one group show the same scene."""

    @property
    def others(self) -> list[str]:
        """The reals that show how near reals come: those not seen, or all where there are none."""
        return self.unseen or self.seen


@dataclass(frozen=True)
class _Batches:
    """The images themselves."""

    seen: UInt8[Tensor, "n_seen height width"]
    others: UInt8[Tensor, "n_other height width"]
    fakes: UInt8[Tensor, "n_fake height width"]

    @cached_property
    def queries(self) -> UInt8[Tensor, "n height width"]:
        """What is compared with the reals that were seen."""
        return torch.cat([self.fakes, self.others])


def measure_distances(
    sources: Sources,
    pretrained: Path,
    metrics: Path,
    plots: Path,
    *,
    params: MeasureDistancesParams,
    seed: int,
    device: torch.device,
    memory_gb: float,
) -> str:
    """Compare the fakes of one GAN with the reals that it was trained on; sum up in one line.

    The JSON file `metrics` holds minima, means and quantiles of distances, the test for copies, and
    the quality of the fakes as a set. The folder `plots` holds `<gan>_per_real.csv` and
    `<gan>_per_fake.csv` (each image's nearest of the other kind), `<gan>_memorisation.csv` (the
    training real nearest to each fake and to each other real, over all flips) and
    `<gan>_suspicious.csv` (the fakes that are nearer to one than 99 % of the other reals).

    The seed is that of the subsets of KID, and of the halves into which `thesis` divides the reals.
    The device changes no MSE, and of LPIPS the last digits. `memory_gb`, in 10^9 bytes, bounds the
    embeddings of LPIPS; it never changes a result.

    Raises:
        InputError: There are no fakes, fewer than two images of a kind, images of different sizes,
            or too small for LPIPS.
        FileNotFoundError: The weights of LPIPS are missing.
    """
    lpips = LPIPS.load(pretrained / f"{params.net}.safetensors")
    embedding = Embedding(lpips, precision=params.precision, device=device)
    files = _list_files(sources, seed)
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        batches = _read_batches(sources, files, progress)
        distances = {
            "mse": _all_mse(batches, device, progress),
            "lpips": _all_lpips(batches, embedding, memory_gb, progress),
        }
        numbers = _quality(files, batches, embedding, seed, progress)
    measured = {name: _split_queries(found, files) for name, found in distances.items()}

    table = memorisation_table(files.seen, files.others, files.fakes, measured)
    is_real = table["kind"] == "real"
    thresholds = {name: threshold(table.loc[is_real, name].to_numpy()) for name in measured}
    suspicious = suspicious_fakes(table, thresholds)
    summary: dict[str, float] = {}
    for name, found in measured.items():
        summary |= summarise(found.to_fakes[0], name)
    report = {
        "gan": sources.gan,
        "protocol": sources.protocol,
        "data": sources.data,
        "reals": "train" if files.unseen else "all",
        "n_real": len(files.seen),
        "n_fake": len(files.fakes),
        "lpips_net": params.net,
        "lpips_precision": params.precision,
        "device": device.type,
        **summary,
        "mse_noise_floor": mse_noise_floor(batches.seen.numpy()),
        **memorisation_numbers(table, thresholds, held_out=bool(files.unseen)),
        "suspicious_fakes": len(suspicious),
        **numbers,
    }
    to_fakes = {name: found.to_fakes[0] for name, found in measured.items()}
    from_fakes = {name: found.T for name, found in to_fakes.items()}
    for name, written in (
        ("per_real", _nearest_table(files.seen, files.fakes, to_fakes)),
        ("per_fake", _nearest_table(files.fakes, files.seen, from_fakes)),
        ("memorisation", table),
        ("suspicious", suspicious),
    ):
        write_table(written, plots / f"{sources.gan}_{name}.csv")
    write_json(metrics, report)
    return (
        f"{len(files.fakes)} fakes, {len(files.seen)} reals: smallest MSE {summary['mse_min']:.2f}"
        f" grey levels squared, smallest LPIPS {summary['lpips_min']:.4f},"
        f" {len(suspicious)} suspicious fakes"
    )


def _list_files(sources: Sources, seed: int) -> _Files:
    """List the images, and refuse sets that are too small before anything is measured."""
    table = read_splits(sources.splits).sort_values("file")
    fakes = sorted(path.name for path in sources.fakes.glob("*.png"))
    if not fakes:
        raise InputError(f"{sources.fakes}: no PNG files, expected the fakes of {sources.gan}")
    if sources.protocol == "clean":
        splits = table.groupby("split")["file"]
        seen, unseen = (splits.get_group(name).tolist() for name in ("train", "test"))
        in_first_half = np.ones(len(seen), bool)
        counts = (len(seen), len(unseen), len(fakes))
    else:
        seen, unseen = table["file"].tolist(), []
        in_first_half = halve_by_group(table["group"].tolist(), seed)
        counts = (int(in_first_half.sum()), int((~in_first_half).sum()), len(fakes))
    if min(counts) < SMALLEST_SET:
        raise InputError(
            f"{len(seen)} reals that the generator has seen, {len(unseen)} others, {len(fakes)}"
            f" fakes: need {SMALLEST_SET} of each, and as many in each half of the groups where"
            " there are no others"
        )
    return _Files(seen, unseen, fakes, in_first_half)


def halve_by_group(groups: Sequence[str], seed: int) -> Bool[np.ndarray, " n"]:
    """Say which images are in the first of two halves, as equal as whole groups allow.

    Groups come in random order.
    """
    names, counts = np.unique(np.asarray(groups), return_counts=True)
    order = np.random.default_rng(seed).permutation(len(names))
    filled = np.cumsum(counts[order])
    cut = int(np.abs(filled - filled[-1] / 2).argmin()) + 1
    return np.isin(np.asarray(groups), names[order[:cut]])


def _read_batches(sources: Sources, files: _Files, progress: Progress) -> _Batches:
    """Read all images, of one size."""

    def read(folder: Path, names: list[str]) -> UInt8[Tensor, "n height width"]:
        tracked = progress.track(names, description=f"Reading {folder.name}")
        return torch.from_numpy(stack_crops(folder / name for name in tracked))

    reals = read(sources.cropped, files.seen + files.unseen)
    fakes = read(sources.fakes, files.fakes)
    if fakes.shape[1:] != reals.shape[1:]:
        sizes = [f"{images.shape[2]}x{images.shape[1]}" for images in (fakes, reals)]
        raise InputError(
            f"{sources.fakes}: images of {sizes[0]} px, those of {sources.cropped} have {sizes[1]}"
        )
    seen = reals[: len(files.seen)]
    return _Batches(seen, reals[len(files.seen) :] if files.unseen else seen, fakes)


def _all_mse(
    batches: _Batches, device: torch.device, progress: Progress
) -> Float[np.ndarray, "flips n_seen n"]:
    pairs = len(batches.seen) * len(batches.queries)
    task = progress.add_task("MSE", total=len(FLIPS) * pairs)
    return np.stack(
        [
            pairwise_mse(
                batches.seen,
                batches.queries.flip(axes),
                device=device,
                advance=lambda done: progress.advance(task, done),
            ).numpy()
            for axes in FLIPS.values()
        ]
    )


def _all_lpips(
    batches: _Batches, embedding: Embedding, memory_gb: float, progress: Progress
) -> Float[np.ndarray, "flips n_seen n"]:
    passes = trunk_passes(
        len(batches.seen),
        len(batches.queries),
        batches.seen[:1],
        embedding=embedding,
        num_flips=len(FLIPS),
        memory_gb=memory_gb,
    )
    task = progress.add_task(f"LPIPS-{embedding.net}", total=passes)
    distances = pairwise_lpips(
        batches.seen[:, None],
        batches.queries[:, None],
        embedding=embedding,
        flips=list(FLIPS),
        memory_gb=memory_gb,
        advance=lambda images: progress.advance(task, images),
    )
    return np.asarray(distances.numpy())


def _split_queries(distances: Float[np.ndarray, "flips n_seen n"], files: _Files) -> Measured:
    """Part the distances of fakes from those of the other reals."""
    to_fakes, to_others = np.split(distances, [len(files.fakes)], axis=2)
    return Measured(to_fakes, to_others if files.unseen else without_itself(to_others))


def _quality(
    files: _Files, batches: _Batches, embedding: Embedding, seed: int, progress: Progress
) -> dict[str, float]:
    """Compare the sets; without other reals, one half of the reals is compared with the other."""

    def describe(name: str, images: UInt8[Tensor, "n height width"]) -> Images:
        tracked = progress.track(images, description=f"Features of {name}")
        pooled = torch.stack([embedding.pooled(image[None]) for image in tracked])
        return Images(images.numpy(), pooled.double().cpu().numpy())

    reals, fakes = describe("reals", batches.seen), describe("fakes", batches.fakes)
    if files.unseen:
        others = describe("others", batches.others)
    else:
        first = files.in_first_half
        reals, others = (
            Images(reals.levels[part], reals.features[part]) for part in (first, ~first)
        )
    space = f"{embedding.net}_conv5_mean"
    return quality(reals, others, fakes, space=space, rng=np.random.default_rng(seed))


def _nearest_table(
    rows: list[str], columns: list[str], matrices: dict[str, Float[np.ndarray, "rows columns"]]
) -> pd.DataFrame:
    """Return every row's nearest column and mean distance, for every kind of distance."""
    table = pd.DataFrame({"file": rows})
    for name, matrix in matrices.items():
        found = nearest(matrix)
        table[f"{name}_min"] = found.distance
        table[f"{name}_nearest"] = [columns[index] for index in found.index]
        table[f"{name}_mean"] = found.mean
    return table
