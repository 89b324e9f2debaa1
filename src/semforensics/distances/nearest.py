"""How near fakes and reals are: for every image, the nearest one of the other kind.

Sah, "From Synthesis to Discrimination" (M.Tech. thesis, IIT Gandhinagar, 2024), plots the minima of
the reals and calls the smallest of them a mean. Here minimum, mean, median and quartiles of the
minima and the mean over all pairs stand under their own names.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int, UInt8
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from semforensics.distances.pairwise import pairwise_mse
from semforensics.files import atomic_file
from semforensics.images import read_crop
from semforensics.micrographs.split import read_splits
from semforensics.params import MeasureDistancesParams, Protocol


@dataclass(frozen=True)
class Nearest:
    """For each row of a distance matrix, its nearest column."""

    distance: Float[np.ndarray, " rows"]
    """The smallest distance of the row."""
    index: Int[np.ndarray, " rows"]
    """The column where it is; the lowest one wins a tie."""
    mean: Float[np.ndarray, " rows"]
    """The mean distance of the row."""


def nearest(distances: Float[np.ndarray, "rows columns"]) -> Nearest:
    """Find the nearest column of every row.

    Raises:
        ValueError: There are no rows or no columns.
    """
    if distances.size == 0:
        raise ValueError(f"distances of shape {distances.shape}: nothing to compare")
    return Nearest(distances.min(axis=1), distances.argmin(axis=1), distances.mean(axis=1))


def summarise_mse(mse: Float[np.ndarray, "n_real n_fake"]) -> dict[str, float]:
    """Give the numbers of the metrics file, in grey levels squared.

    Minima without a further word are those of the reals, each over all fakes, as in the thesis.
    """
    per_real, per_fake = mse.min(axis=1), mse.min(axis=0)
    lower, median, upper = np.quantile(per_real, [0.25, 0.5, 0.75])
    return {
        "mse_min": float(mse.min()),
        "mse_mean_of_minima": float(per_real.mean()),
        "mse_median_of_minima": float(median),
        "mse_lower_quartile_of_minima": float(lower),
        "mse_upper_quartile_of_minima": float(upper),
        "mse_mean_of_minima_per_fake": float(per_fake.mean()),
        "mse_median_of_minima_per_fake": float(np.median(per_fake)),
        "mse_mean_all_pairs": float(mse.mean()),
    }


def measure_folder(
    cropped: Path,
    splits: Path,
    fakes: Path,
    metrics: Path,
    plots: Path,
    *,
    gan: str,
    params: MeasureDistancesParams,
    protocol: Protocol,
    data: str,
    device: torch.device,
) -> str:
    """Compare the fakes of one GAN with the reals that it was trained on.

    Args:
        cropped: The reals.
        splits: Says which of them the GAN has seen: under `clean` those of the training side, under
            `thesis` all.
        fakes: The generated images, PNG files.
        metrics: JSON file to write: `summarise_mse` and what it is about.
        plots: Folder in which to write `<gan>_per_real.csv` and `<gan>_per_fake.csv`: file,
            `mse_min`, `nearest` (the file at that distance) and `mse_mean`, in grey levels squared.
        gan: Name of the generator.
        params: How many images are compared at a time.
        protocol: As for the training.
        data: Where the reals come from.
        device: Where to compute; it changes no result.

    Returns:
        One line that sums up.

    Raises:
        ValueError: There are no fakes, or images of different sizes.
    """
    real_files = _files_seen(splits, protocol)
    fake_files = sorted(path.name for path in fakes.glob("*.png"))
    if not fake_files:
        raise ValueError(f"{fakes}: no PNG files, expected the fakes of {gan}")
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        reals_read = _read_stack(cropped, real_files, progress)
        fakes_read = _read_stack(fakes, fake_files, progress)
        if reals_read.shape[1:] != fakes_read.shape[1:]:
            raise ValueError(
                f"{fakes}: images of {_size(fakes_read)} px, those of {cropped} have"
                f" {_size(reals_read)}"
            )
        task = progress.add_task("Distances", total=len(real_files) * len(fake_files))
        mse = pairwise_mse(
            reals_read,
            fakes_read,
            block_size=params.block_size,
            device=device,
            advance=lambda pairs: progress.advance(task, pairs),
        ).numpy()

    summary = summarise_mse(mse)
    report = {
        "gan": gan,
        "protocol": protocol,
        "data": data,
        "reals": "train" if protocol == "clean" else "all",
        "n_real": len(real_files),
        "n_fake": len(fake_files),
        **summary,
    }
    _write_csv(plots / f"{gan}_per_real.csv", real_files, fake_files, nearest(mse))
    _write_csv(plots / f"{gan}_per_fake.csv", fake_files, real_files, nearest(mse.T))
    with atomic_file(metrics) as temporary:
        temporary.write_text(json.dumps(report, indent=2) + "\n")
    return (
        f"{len(fake_files)} fakes, {len(real_files)} reals: smallest MSE {summary['mse_min']:.2f},"
        f" mean of the reals' smallest {summary['mse_mean_of_minima']:.2f} grey levels squared"
    )


def _files_seen(splits: Path, protocol: Protocol) -> list[str]:
    """Give the names of the crops that a GAN is trained on, sorted."""
    table = read_splits(splits)
    if protocol == "clean":
        table = table[table["side"] == "train"]
    return sorted(table["file"])


def _read_stack(
    folder: Path, files: list[str], progress: Progress
) -> UInt8[Tensor, "n height width"]:
    """Read images of one size into one tensor."""
    images: list[np.ndarray] = []
    for name in progress.track(files, description=f"Reading {folder.name}"):
        image = read_crop(folder / name)
        if images and image.shape != images[0].shape:
            raise ValueError(
                f"{folder / name}: {_size(image)} px, expected {_size(images[0])} as in {files[0]}"
            )
        images.append(image)
    return torch.from_numpy(np.stack(images))


def _size(images: Tensor | np.ndarray) -> str:
    height, width = images.shape[-2:]
    return f"{width}x{height}"


def _write_csv(path: Path, files: list[str], others: list[str], found: Nearest) -> None:
    table = pd.DataFrame(
        {
            "file": files,
            "mse_min": found.distance,
            "nearest": [others[index] for index in found.index],
            "mse_mean": found.mean,
        }
    )
    with atomic_file(path) as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n")
