"""How near the fakes of one GAN are to the reals, pair by pair and as a whole.

Distances are those of the thesis (Sah 2024), MSE, and LPIPS beside it.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, UInt8
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from semforensics.core.errors import InputError
from semforensics.core.files import atomic_file
from semforensics.core.flips import FLIPS
from semforensics.core.images import read_crop
from semforensics.core.processing import mse_noise_floor
from semforensics.distances.memorisation import (
    Twins,
    copying_test,
    nearest_over_flips,
    relative_to_next,
    threshold,
    without_itself,
)
from semforensics.distances.nearest import nearest, summarise
from semforensics.distances.pairwise import pairwise_lpips, pairwise_mse, trunk_passes
from semforensics.distances.quality import SMALLEST_SET, Images, quality
from semforensics.micrographs.split import read_splits
from semforensics.params import MeasureDistancesParams, Protocol
from semforensics.perceptual.lpips import LPIPS, Embedding


@dataclass(frozen=True)
class _Set:
    """Images of one kind."""

    files: list[str]
    images: UInt8[Tensor, "n height width"]


@dataclass(frozen=True)
class _Measured:
    """One kind of distance between the training reals and everything else."""

    to_fakes: Float[np.ndarray, "flips n_real n_fake"]
    to_others: Float[np.ndarray, "flips n_real n_other"]


def measure_folder(
    cropped: Path,
    splits: Path,
    fakes: Path,
    pretrained: Path,
    metrics: Path,
    plots: Path,
    *,
    gan: str,
    params: MeasureDistancesParams,
    protocol: Protocol,
    data: str,
    seed: int,
    device: torch.device,
) -> str:
    """Compare the fakes of one GAN with the reals that it was trained on.

    Args:
        cropped: The reals.
        splits: Says which of them the GAN has seen: under `clean` those of the training side, under
            `thesis` all. Under `clean` the test side tells how near reals come that it has not
            seen; under `thesis` there are none, and each real is compared with all others instead.
        fakes: The generated images, PNG files.
        pretrained: Holds the weights of LPIPS.
        metrics: JSON file to write: minima, means and quantiles of distances, the test for copies,
            the quality of the fakes as a set.
        plots: Folder in which to write `<gan>_per_real.csv` and `<gan>_per_fake.csv` (each image's
            nearest of the other kind), `<gan>_memorisation.csv` (the training real nearest to each
            fake and to each other real, over all flips) and `<gan>_suspicious.csv` (the fakes that
            are nearer to one than 99 % of the other reals).
        gan: Name of the generator.
        params: Which LPIPS, and how much at a time.
        protocol: As for the training.
        data: Where the reals come from.
        seed: Of the subsets of KID, and of the halves into which `thesis` parts the reals.
        device: Where to compute; it changes no MSE, and of LPIPS the last digits.

    Returns:
        One line that sums up.

    Raises:
        InputError: There are no fakes, fewer than six images of a kind, images of different sizes,
            or too small for LPIPS.
        FileNotFoundError: The weights of LPIPS are missing.
    """
    embedding = Embedding(
        LPIPS.load(pretrained / f"{params.net}.safetensors"),
        precision=params.precision,
        device=device,
    )
    seen, unseen = _real_files(splits, protocol)
    fake_files = sorted(path.name for path in fakes.glob("*.png"))
    if not fake_files:
        raise InputError(f"{fakes}: no PNG files, expected the fakes of {gan}")
    _refuse_few(len(seen), len(unseen), len(fake_files))
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        all_reals = _read_images(cropped, seen + unseen, progress)
        generated = _Set(fake_files, _read_images(fakes, fake_files, progress))
        if generated.images.shape[1:] != all_reals.shape[1:]:
            raise InputError(
                f"{fakes}: images of {_size(generated.images)} px, those of {cropped} have"
                f" {_size(all_reals)}"
            )
        reals = _Set(seen, all_reals[: len(seen)])
        others = _Set(unseen, all_reals[len(seen) :]) if unseen else reals
        queries = torch.cat([generated.images, others.images])
        measured = {
            "mse": _all_mse(reals.images, queries, params, device, progress),
            "lpips": _all_lpips(reals.images, queries, params, embedding, progress),
        }
        split = {
            name: _Measured(
                distances[..., : len(fake_files)],
                distances[..., len(fake_files) :]
                if unseen
                else without_itself(distances[..., len(fake_files) :]),
            )
            for name, distances in measured.items()
        }
        numbers = _quality(reals, others, generated, embedding, seed, progress)

    summary: dict[str, float] = {}
    for name, distances in split.items():
        summary |= summarise(distances.to_fakes[0], name)
    summary["mse_noise_floor"] = mse_noise_floor(reals.images.numpy())
    table = _memorisation_table(reals, others, generated, split)
    is_real = table["kind"] == "real"
    limits = {name: threshold(table.loc[is_real, name].to_numpy()) for name in split}
    suspicious = _suspicious(table, limits)
    report = {
        "gan": gan,
        "protocol": protocol,
        "data": data,
        "reals": "all" if not unseen else "train",
        "n_real": len(seen),
        "n_fake": len(fake_files),
        "lpips_net": params.net,
        "lpips_precision": params.precision,
        "device": device.type,
        **summary,
        **_memorisation_numbers(table, limits, held_out=bool(unseen)),
        "suspicious_fakes": len(suspicious),
        **numbers,
    }
    per_kind = {"real": (reals, generated), "fake": (generated, reals)}
    for kind, (rows, columns) in per_kind.items():
        matrices = {
            name: m.to_fakes[0] if kind == "real" else m.to_fakes[0].T for name, m in split.items()
        }
        _write(plots / f"{gan}_per_{kind}.csv", _nearest_table(rows, columns, matrices))
    _write(plots / f"{gan}_memorisation.csv", table)
    _write(plots / f"{gan}_suspicious.csv", suspicious)
    with atomic_file(metrics) as temporary:
        temporary.write_text(json.dumps(report, indent=2) + "\n")
    return (
        f"{len(fake_files)} fakes, {len(seen)} reals: smallest MSE {summary['mse_min']:.2f} grey"
        f" levels squared, smallest LPIPS {summary['lpips_min']:.4f},"
        f" {len(suspicious)} suspicious fakes"
    )


def _all_mse(
    reals: UInt8[Tensor, "n_real height width"],
    queries: UInt8[Tensor, "n height width"],
    params: MeasureDistancesParams,
    device: torch.device,
    progress: Progress,
) -> Float[np.ndarray, "flips n_real n"]:
    task = progress.add_task("MSE", total=len(FLIPS) * len(reals) * len(queries))
    return np.stack(
        [
            pairwise_mse(
                reals,
                queries.flip(axes),
                block_size=params.block_size,
                device=device,
                advance=lambda pairs: progress.advance(task, pairs),
            ).numpy()
            for axes in FLIPS.values()
        ]
    )


def _all_lpips(
    reals: UInt8[Tensor, "n_real height width"],
    queries: UInt8[Tensor, "n height width"],
    params: MeasureDistancesParams,
    embedding: Embedding,
    progress: Progress,
) -> Float[np.ndarray, "flips n_real n"]:
    passes = trunk_passes(
        len(reals),
        len(queries),
        reals[:1],
        embedding=embedding,
        num_flips=len(FLIPS),
        memory_gb=params.memory_gb,
    )
    task = progress.add_task(f"LPIPS-{embedding.net}", total=passes)
    distances: Float[np.ndarray, "flips n_real n"] = pairwise_lpips(
        reals[:, None],
        queries[:, None],
        embedding=embedding,
        flips=list(FLIPS),
        block_size=params.block_size,
        memory_gb=params.memory_gb,
        advance=lambda images: progress.advance(task, images),
    ).numpy()
    return distances


def _quality(
    reals: _Set, others: _Set, fakes: _Set, embedding: Embedding, seed: int, progress: Progress
) -> dict[str, float]:
    """Compare the sets; without other reals, one half of the reals is compared with the other."""
    features = {}
    kinds = {"reals": reals, "fakes": fakes} | ({} if others is reals else {"others": others})
    for name, kind in kinds.items():
        tracked = progress.track(kind.images, description=f"Features of {name}")
        pooled = torch.stack([embedding.pooled(image[None]) for image in tracked])
        features[name] = Images(kind.images.numpy(), pooled.double().cpu().numpy())
    rng = np.random.default_rng(seed)
    if others is reals:
        whole = features["reals"]
        order = rng.permutation(len(whole.levels))
        half = len(order) // 2
        features["reals"], features["others"] = (
            Images(whole.levels[part], whole.features[part])
            for part in (order[:half], order[half:])
        )
    return quality(
        features["reals"],
        features["others"],
        features["fakes"],
        space=f"{embedding.net}_conv5_mean",
        rng=rng,
    )


def _nearest_table(
    rows: _Set, columns: _Set, matrices: dict[str, Float[np.ndarray, "rows columns"]]
) -> pd.DataFrame:
    """Return every row's nearest column and mean distance, for every kind of distance."""
    table = pd.DataFrame({"file": rows.files})
    for name, matrix in matrices.items():
        found = nearest(matrix)
        table[f"{name}_min"] = found.distance
        table[f"{name}_nearest"] = [columns.files[index] for index in found.index]
        table[f"{name}_mean"] = found.mean
    return table


def _memorisation_table(
    reals: _Set, others: _Set, fakes: _Set, measured: dict[str, _Measured]
) -> pd.DataFrame:
    """Return the training real nearest to every fake and every other real, and how it is turned."""
    flips = list(FLIPS)

    def rows(kind: str, files: Sequence[str], twins: dict[str, Twins]) -> pd.DataFrame:
        table = pd.DataFrame({"kind": kind, "file": files})
        for name, found in twins.items():
            table[name] = found.distance
            table[f"{name}_nearest"] = [reals.files[index] for index in found.real]
            table[f"{name}_flip"] = [flips[index] for index in found.flip]
        return table

    to_fakes = {name: nearest_over_flips(m.to_fakes) for name, m in measured.items()}
    to_others = {name: nearest_over_flips(m.to_others) for name, m in measured.items()}
    fake_rows = rows("fake", fakes.files, to_fakes)
    for name, m in measured.items():
        fake_rows[f"{name}_relative"] = relative_to_next(m.to_fakes)
    return pd.concat([fake_rows, rows("real", others.files, to_others)], ignore_index=True)


def _suspicious(table: pd.DataFrame, limits: dict[str, float]) -> pd.DataFrame:
    """List the fakes below a limit and by which distances, the one most alone with its real first.

    A limit of 0, between reals that are equal, is met by a copy.
    """
    fakes = table[table["kind"] == "fake"].drop(columns="kind")
    below = pd.DataFrame(
        {name: (fakes[name] < limit) | (fakes[name] == 0) for name, limit in limits.items()}
    )
    fakes.insert(1, "by", [" and ".join(below.columns[row]) for row in below.to_numpy()])
    alone = fakes[[f"{name}_relative" for name in limits]].min(axis=1)
    order = alone[below.any(axis=1)].sort_values(kind="stable").index
    return fakes.loc[order]


def _memorisation_numbers(
    table: pd.DataFrame, limits: dict[str, float], *, held_out: bool
) -> dict[str, float | str]:
    is_fake = table["kind"] == "fake"
    numbers: dict[str, float | str] = {
        "memorisation": "against held-out reals"
        if held_out
        else "not tested: the protocol holds out no reals"
    }
    for name, limit in limits.items():
        fakes, reals = table.loc[is_fake, name].to_numpy(), table.loc[~is_fake, name].to_numpy()
        numbers[f"{name}_first_percentile_real_to_real"] = limit
        if held_out:
            nearer, p_value = copying_test(fakes, reals)
            numbers |= {
                f"memorisation_{name}_share_fakes_nearer": nearer,
                f"memorisation_{name}_p_value": p_value,
                f"memorisation_{name}_median_fakes": float(np.median(fakes)),
                f"memorisation_{name}_median_held_out": float(np.median(reals)),
            }
    return numbers


def _real_files(splits: Path, protocol: Protocol) -> tuple[list[str], list[str]]:
    """List the crops that a GAN is trained on, and of test crops that it never saw."""
    table = read_splits(splits)
    if protocol == "thesis":
        return sorted(table["file"]), []
    sides = table.groupby("side")["file"]
    return sorted(sides.get_group("train")), sorted(sides.get_group("test"))


def _refuse_few(n_seen: int, n_unseen: int, n_fake: int) -> None:
    """Refuse sets that are too small for `_quality`, before anything is measured."""
    counts = (n_seen, n_unseen, n_fake) if n_unseen else (n_seen // 2, n_fake)
    if min(counts) < SMALLEST_SET:
        raise InputError(
            f"{n_seen} reals that the generator has seen, {n_unseen} others, {n_fake} fakes: need"
            f" {SMALLEST_SET} of each, and twice as many reals where there are no others"
        )


def _read_images(
    folder: Path, files: list[str], progress: Progress
) -> UInt8[Tensor, "n height width"]:
    """Read images of one size into one tensor."""
    images: list[np.ndarray] = []
    for name in progress.track(files, description=f"Reading {folder.name}"):
        image = read_crop(folder / name)
        if images and image.shape != images[0].shape:
            raise InputError(
                f"{folder / name}: {_size(image)} px, expected {_size(images[0])} as in {files[0]}"
            )
        images.append(image)
    return torch.from_numpy(np.stack(images))


def _size(images: Tensor | np.ndarray) -> str:
    height, width = images.shape[-2:]
    return f"{width}x{height}"


def _write(path: Path, table: pd.DataFrame) -> None:
    with atomic_file(path) as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n")
