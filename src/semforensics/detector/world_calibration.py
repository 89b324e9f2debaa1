"""Calibrate the folds of `train_world`, each by panels that it has not seen.

A panel is a square of neighbouring crops of one micrograph, put together again, or of their
reconstructions by the autoencoder that the fold left out. It goes through every history of the
grid, is cut into tiles, and both kinds of evidence score each tile. What is stored are the logits.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from semforensics.core.blocks import assemble, blocks_of, largest_square
from semforensics.core.checkpoints import load_checkpoint, refused_as, save_checkpoint
from semforensics.core.errors import InputError
from semforensics.core.images import read_crop
from semforensics.core.tables import write_table
from semforensics.detector.frozen import FrozenTrunk
from semforensics.detector.heads import Head, statistics_of
from semforensics.detector.panels import GRID, Cell, Panel, panel_score
from semforensics.detector.residuals import ResidualNetwork
from semforensics.detector.scoring import score_images
from semforensics.detector.tiling import cut_tiles

CALIBRATION_FILE = "calibration.safetensors"
POWER_FILE = "power.csv"
KINDS = ("residual", "frozen")
_TILE_COUNTS = (1, 4, 16)
_ALPHA = 0.05


@dataclass(frozen=True)
class Evidence:
    """Both kinds of evidence of one fold."""

    network: ResidualNetwork
    trunk: FrozenTrunk
    head: Head
    device: torch.device

    def logits(self, images: UInt8[Tensor, "n 1 height width"]) -> Float[np.ndarray, "n 2"]:
        """Score tiles by both kinds, in the order of `KINDS`; positive means fake."""
        residual = score_images(self.network, images, phases=1, device=self.device)
        frozen = self.head.logits(statistics_of(self.trunk, images, self.device))
        return np.stack([residual, frozen], axis=1).astype(np.float32)


def calibrate_world(
    table: pd.DataFrame, cropped: Path, fakes: Path, evidence: Evidence, family: str
) -> pd.DataFrame:
    """Score the panels of collections that a fold has left out.

    Args:
        table: Of their crops, with `collection`.
        cropped: Folder of the reals.
        fakes: Folder of their reconstructions.
        evidence: Of the fold.
        family: What made the fakes.

    Returns:
        A row for each panel, class and history: `cell`, `unit`, `family` (empty for a real), and
        `logits` [tiles, 2].
    """
    rows = []
    size_px = len(read_crop(cropped / table["file"].iloc[0]))
    for (unit, _), crops in table.groupby(["collection", "micrograph"]):
        places = max(map(largest_square, blocks_of(crops, size_px)), key=len)
        for folder, name in ((cropped, ""), (fakes, family)):
            panel = assemble(folder, places)
            for cell, history in GRID.items():
                image = history.apply(panel, seed=0)
                tiles = cut_tiles(image, min(size_px, *image.shape) // 2 * 2)
                logits = evidence.logits(tiles.pixels)
                rows.append({"cell": cell, "unit": unit, "family": name, "logits": logits})
    return pd.DataFrame(rows)


def stack_weights(panels: pd.DataFrame) -> dict[str, list[float]]:
    """Weigh both kinds of evidence in each history by a logistic regression of panel scores.

    Reals and fakes have equal weight. A kind that would count against its own sign is left out.
    """
    from sklearn.linear_model import LogisticRegression  # of the pipeline alone

    found = {}
    for cell, part in panels.groupby("cell"):
        scores = np.array([[panel_score(kind) for kind in x.T] for x in part["logits"]])
        spread = scores.std(axis=0) + 1e-6
        is_fake = part["family"].to_numpy() != ""
        model = LogisticRegression(class_weight="balanced").fit(scores / spread, is_fake)
        weights = model.coef_[0].clip(min=0) / spread
        if not weights.any():
            weights = 1 / spread
        found[str(cell)] = [float(weight) for weight in weights]
    return found


def save_calibration(panels: pd.DataFrame, folder: Path) -> None:
    """Write the logits with their weights, and the table of the power."""
    weights = stack_weights(panels)
    listed = panels[["cell", "unit", "family"]].assign(tiles=panels["logits"].map(len))
    logits = torch.from_numpy(np.concatenate(list(panels["logits"])))
    meta = {"panels": listed.to_numpy().tolist(), "weights": weights, "kinds": KINDS}
    save_checkpoint(folder / CALIBRATION_FILE, {"logits": logits}, meta)
    rows = [
        {"history": name, "tiles": count, "power": round(cell.power(count, _ALPHA), 4)}
        for name, cell in load_calibration(folder)[0].items()
        for count in _TILE_COUNTS
    ]
    write_table(pd.DataFrame(rows), folder / POWER_FILE)


def load_calibration(folder: Path) -> tuple[dict[str, Cell], Mapping[str, Sequence[float]]]:
    """Read the cells by history, and the weights of both kinds of evidence in each.

    Raises:
        FileNotFoundError: There is no calibration.
        InputError: The file holds something else.
    """
    path = folder / CALIBRATION_FILE
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; `train-world` makes it")
    state, meta = load_checkpoint(path)
    with refused_as(f"{path}: not a calibration of panels"):
        weights: Mapping[str, Sequence[float]] = meta["weights"]
        counts = [int(tiles) for *_, tiles in meta["panels"]]
        parts = torch.split(state["logits"].double(), counts)
        cells: dict[str, list[Panel]] = {name: [] for name in weights}
        for (cell, unit, family, _), part in zip(meta["panels"], parts, strict=True):
            cells[cell].append(Panel(unit, family, part.numpy() @ np.array(weights[cell])))
    if set(cells) != set(GRID):
        raise InputError(f"{path}: other histories than are known: {', '.join(cells)}")
    return {name: Cell(tuple(panels)) for name, panels in cells.items()}, weights
