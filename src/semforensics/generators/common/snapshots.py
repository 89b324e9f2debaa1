"""Snapshots of a generator in training: measured, drawn as a grid, kept, published.

A snapshot is measured by fakes of the first seeds, in the features of LPIPS:

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

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from semforensics.core import distributed
from semforensics.core.checkpoints import save_checkpoint
from semforensics.core.files import atomic_file, atomic_folder
from semforensics.core.images import to_unit_range, write_grey_png
from semforensics.core.training import Training, write_rows
from semforensics.generators.common.gan import GANState, Material
from semforensics.generators.common.sampling import tile
from semforensics.params import FastGANParams, StyleGAN2Params
from semforensics.perceptual.lpips import LPIPS

NUM_WATCHED = 64
"""Fakes, of seeds 0 and up, by which a snapshot is measured, and as many reals."""
COLLAPSED_BELOW = 0.3
"""Diversity of fakes, in units of that of reals, below which a snapshot counts as collapsed."""


def take_snapshot(
    training: Training,
    state: GANState[Any, Any],
    network: nn.Module,
    fakes: UInt8[Tensor, "n_fake side side"],
    material: Material,
    meta: Mapping[str, Any],
) -> None:
    """Measure a network by its fakes, and save it with their grid; warn of collapse.

    Of several processes each measures, so that none waits for long; the first saves. `fakes` are
    those of the first seeds, and `meta` describes the network in its file.
    """
    measured = measure_fakes(material.lpips, fakes, material.reals)
    state.snapshots.append({"iteration": float(state.iteration), **measured})
    line = (
        f"iteration {state.iteration}: diversity {measured['diversity']:.2f} of the reals', "
        f"Fréchet distance {measured['frechet']:.2f}"
    )
    if state.rows:
        row = state.rows[-1]
        line += f", logits {row['logit_real']:.2f} real {row['logit_fake']:.2f} fake"
    training.console.print(line)
    if measured["collapsed"]:
        training.console.print(f"warning: collapsed, diversity below {COLLAPSED_BELOW}")

    grid, file = _files_of(training, state.iteration)
    with distributed.writing() as writes:
        if not writes:
            return
        with atomic_file(grid) as temporary:
            write_grey_png(temporary, tile(fakes.numpy()))
        described = {**meta, "step": state.iteration} | {
            key: measured[key] for key in ("diversity", "frechet")
        }
        save_checkpoint(file, network.state_dict(), described, half=True)


def _files_of(training: Training, iteration: int) -> tuple[Path, Path]:
    """Return where the grid and the network of a snapshot are kept."""
    folder, name = training.scratch, f"{iteration:06d}"
    return folder / f"grids/{name}.png", folder / f"snapshots/{name}.safetensors"


def measure_fakes(
    lpips: LPIPS,
    fakes: UInt8[Tensor, "n_fake side side"],
    reals: UInt8[Tensor, "n_real 1 side side"],
) -> dict[str, float]:
    """Measure how varied fakes are, how near to the reals in the mean, and how grey."""
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
    """Average blocks of pixels of larger images: measuring takes no more."""
    return F.avg_pool2d(images, images.shape[-1] // 128) if images.shape[-1] > 128 else images


def publish(
    training: Training,
    state: GANState[Any, Any],
    checkpoints: Path,
    plots: Path,
    params: FastGANParams | StyleGAN2Params,
) -> None:
    """Copy what a finished training leaves to its outputs, and clear its scratch folder.

    Of several processes the first does so.
    """
    if not distributed.is_first():
        return
    *earlier, last = [int(snapshot["iteration"]) for snapshot in state.snapshots]
    kept = {"generator": last}
    if params.keep_best:
        kept["best"] = int(best(state.snapshots)["iteration"])
    for iteration in earlier[len(earlier) - min(params.keep_snapshots, len(earlier)) :]:
        kept[f"snapshot_{iteration:06d}"] = iteration
    with atomic_folder(checkpoints) as folder:
        for name, iteration in kept.items():
            shutil.copy(_files_of(training, iteration)[1], folder / f"{name}.safetensors")
    with atomic_folder(plots) as folder:
        write_rows(folder / "losses.csv", state.rows)
        write_rows(folder / "snapshots.csv", state.snapshots)
        (folder / "grids").mkdir()
        for iteration in (*earlier, last):
            shutil.copy(_files_of(training, iteration)[0], folder / "grids")
    training.clear()
