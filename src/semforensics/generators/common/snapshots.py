"""Snapshots of a generator in training: judged, drawn as a grid, kept, published.

A snapshot is judged by fakes of the first seeds, in the features of LPIPS:

- diversity: the mean distance between two fakes, over that between two reals. Near 0 the generator
  has collapsed to one picture.
- Fréchet distance with diagonal covariances (Heusel et al., "GANs Trained by a Two Time-Scale
  Update Rule Converge to a Local Nash Equilibrium", NeurIPS 2017, arXiv:1706.08500, eq. 6) between
  features averaged over the image, over the reals' variance. 0: means and deviations agree. Cheap,
  made for comparing snapshots of one training, and not comparable with published FIDs.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from rich.console import Console
from torch import Tensor, nn

from semforensics.core import distributed
from semforensics.core.checkpoints import save_checkpoint
from semforensics.core.files import atomic_file, atomic_folder
from semforensics.core.images import to_unit_range, write_grey_png
from semforensics.core.training import Course, write_rows
from semforensics.perceptual.lpips import LPIPS

NUM_WATCHED = 64
"""Fakes, of seeds 0 and up, by which a snapshot is judged, and as many reals."""
COLLAPSED_BELOW = 0.3
"""Diversity of fakes, in units of that of reals, below which a snapshot counts as collapsed."""
_GRID_PX = 1024
"""Largest side of a sample grid."""


def take_snapshot(
    course: Course[Any, Any],
    network: nn.Module,
    fakes: UInt8[Tensor, "n_fake side side"],
    reals: UInt8[Tensor, "n_real 1 side side"],
    lpips: LPIPS,
    meta: Mapping[str, Any],
    scratch: Path,
    console: Console,
) -> None:
    """Judge a network by its fakes, and save it with their grid; warn of collapse.

    Of several processes each judges, so that none waits for long; the first saves.
    """
    judged = judge(lpips, fakes, reals)
    course.snapshots.append({"iteration": float(course.iteration), **judged})
    if not distributed.is_first():
        return
    line = (
        f"iteration {course.iteration}: diversity {judged['diversity']:.2f} of the reals', "
        f"Fréchet distance {judged['frechet']:.2f}"
    )
    if course.rows:
        row = course.rows[-1]
        line += f", logits {row['logit_real']:.2f} real {row['logit_fake']:.2f} fake"
    console.print(line)
    if judged["collapsed"]:
        console.print(f"warning: collapsed, diversity below {COLLAPSED_BELOW}")

    name = f"{course.iteration:06d}"
    with atomic_file(scratch / f"grids/{name}.png") as temporary:
        write_grey_png(temporary, tile(fakes.numpy()))
    described = {**meta, "step": course.iteration} | {
        key: judged[key] for key in ("diversity", "frechet")
    }
    save_checkpoint(
        scratch / f"snapshots/{name}.safetensors", network.state_dict(), described, half=True
    )


def judge(
    lpips: LPIPS,
    fakes: UInt8[Tensor, "n_fake side side"],
    reals: UInt8[Tensor, "n_real 1 side side"],
) -> dict[str, float]:
    """Say how varied fakes are, how near to the reals in the mean, and how grey."""
    order = torch.linspace(0, len(reals) - 1, min(NUM_WATCHED, len(reals))).long()
    device = lpips.shift.device
    shown = to_unit_range(fakes[:, None]).to(device), to_unit_range(reals[order]).to(device)
    watched = diversity(lpips, *shown)
    return {
        "diversity": watched,
        "frechet": frechet(*(pooled_features(lpips, images) for images in shown)),
        "grey_mean": float(fakes.double().mean()),
        "grey_std": float(fakes.double().std()),
        "collapsed": float(watched < COLLAPSED_BELOW),
    }


def best(snapshots: list[dict[str, float]]) -> dict[str, float]:
    """Return the snapshot of the smallest Fréchet distance; collapsed ones only if all are."""
    return min(snapshots, key=lambda snapshot: (snapshot["collapsed"], snapshot["frechet"]))


def diversity(
    lpips: LPIPS,
    fakes: Float[Tensor, "n_fake channels side side"],
    reals: Float[Tensor, "n_real channels side side"],
) -> float:
    """Return the mean LPIPS between two fakes in units of that between two reals; 0: all alike."""
    ours, theirs = (
        mean_pairwise_distance(lpips, _at_most_128_px(images)) for images in (fakes, reals)
    )
    return ours / max(theirs, 1e-12)


@torch.no_grad()
def mean_pairwise_distance(
    lpips: LPIPS, images: Float[Tensor, "batch channels side side"]
) -> float:
    """Return the mean LPIPS over all pairs of different images: 0 when all are the same."""
    # The mean squared distance of all pairs is twice the unbiased variance.
    terms = [
        (2 * features.var(dim=0) * weight.view(-1, 1, 1)).sum(dim=0).mean()
        for features, weight in zip(lpips.features(images), lpips.lin, strict=True)
    ]
    return float(torch.stack(terms).sum())


@torch.no_grad()
def pooled_features(
    lpips: LPIPS, images: Float[Tensor, "batch channels side side"]
) -> Float[Tensor, "batch features"]:
    """Return the features of LPIPS's five layers, averaged over the image."""
    layers = lpips.features(_at_most_128_px(images))
    return torch.cat([layer.mean(dim=(2, 3)) for layer in layers], dim=1).double()


def frechet(
    fakes: Float[Tensor, "n_fake features"], reals: Float[Tensor, "n_real features"]
) -> float:
    """Return the Fréchet distance of two diagonal normal distributions over the reals' variance."""
    of_means = (fakes.mean(dim=0) - reals.mean(dim=0)).square().sum()
    of_deviations = (fakes.std(dim=0) - reals.std(dim=0)).square().sum()
    return float((of_means + of_deviations) / reals.var(dim=0).sum().clamp_min(1e-12))


def _at_most_128_px(images: Tensor) -> Tensor:
    """Average blocks of pixels of larger images: judging takes no more."""
    return F.avg_pool2d(images, images.shape[-1] // 128) if images.shape[-1] > 128 else images


def tile(images: UInt8[np.ndarray, "n side side"]) -> UInt8[np.ndarray, "height width"]:
    """Put square images into a square grid, as many as fit."""
    side = images.shape[-1]
    columns = int(min(len(images) ** 0.5, _GRID_PX // side))
    grid = images[: columns**2].reshape(columns, columns, side, side)
    return grid.transpose(0, 2, 1, 3).reshape(columns * side, columns * side)


def publish(
    course: Course[Any, Any],
    scratch: Path,
    checkpoints: Path,
    plots: Path,
    *,
    keep_snapshots: int,
    keep_best: bool,
) -> None:
    """Copy what a finished training leaves from its scratch folder to its places."""
    *earlier, last = [f"{int(snapshot['iteration']):06d}" for snapshot in course.snapshots]
    kept = {"generator": last}
    if keep_best:
        kept["best"] = f"{int(best(course.snapshots)['iteration']):06d}"
    for name in earlier[len(earlier) - min(keep_snapshots, len(earlier)) :]:
        kept[f"snapshot_{name}"] = name
    with atomic_folder(checkpoints) as folder:
        for file, name in kept.items():
            shutil.copy(scratch / f"snapshots/{name}.safetensors", folder / f"{file}.safetensors")
    with atomic_folder(plots) as folder:
        write_rows(folder / "losses.csv", course.rows)
        write_rows(folder / "snapshots.csv", course.snapshots)
        (folder / "grids").mkdir()
        for name in (*earlier, last):
            shutil.copy(scratch / f"grids/{name}.png", folder / f"grids/{name}.png")
