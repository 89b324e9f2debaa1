"""Calibrate the detector of `train_world` by panels that the scoring network has not seen.

A panel is a square of neighbouring crops of one micrograph, put together again, or of their
reconstructions by a family that the fold left out. It goes through every history of the grid. As
its cell counts what its own pixels then tell (`semforensics.detector.traces`), since that is all
that will be known of a panel to be judged: Mondrian conformal prediction (Vovk, Gammerman, Shafer,
"Algorithmic Learning in a Random World", 2005, section 4.5). What is stored are logits of tiles.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, UInt8

from semforensics.core.blocks import Places, assemble, blocks_of, largest_square
from semforensics.core.checkpoints import load_checkpoint, refused_as, save_checkpoint
from semforensics.core.files import atomic_folder
from semforensics.core.images import read_crop
from semforensics.core.progress import track
from semforensics.core.tables import read_splits, write_table
from semforensics.detector.expected import Expectation, expect_unseen
from semforensics.detector.histories import History
from semforensics.detector.panels import GRID, Cell, panel_score, restore_cells
from semforensics.detector.scoring import score_images
from semforensics.detector.tiling import cut_tiles
from semforensics.detector.traces import Traces, cell_of, measure_traces
from semforensics.detector.world_data import (
    CALIBRATION_SEED,
    WorldData,
    draw_images,
    load_world,
    read_fold,
    with_collections,
)
from semforensics.detector.world_network import Level, WorldNetwork
from semforensics.generators.common.sampling import OFF_FILE, write_off
from semforensics.params import CalibrateWorldParams, TrainWorldParams, WorldPart

CALIBRATION_FILE = "calibration.safetensors"
POWER_FILE = "power.csv"
_TILE_COUNTS = (1, 4, 16)
_ALPHA = 0.05
_LEAST_SCALE = 1e-3  # where all reals have the same score

Grey = UInt8[np.ndarray, "height width"]


@dataclass(frozen=True)
class Specimen:
    """A picture to calibrate on."""

    unit: str
    """What is exchangeable: the collection, or the paper."""
    family: str
    """The generator; empty for a real."""
    image: Grey
    part: WorldPart | None
    """The network that has not seen it; None: none has."""


@dataclass(frozen=True)
class _Scored:
    """A specimen after one of the histories."""

    specimen: Specimen
    history: History
    traces: Traces
    logits: Mapping[WorldPart, Float[np.ndarray, " tiles"]]
    """By each network that has not seen it."""


def calibrate_world(
    data: WorldData,
    networks: Path,
    folder: Path,
    *,
    params: CalibrateWorldParams,
    known: TrainWorldParams,
    device: torch.device,
) -> str:
    """Score panels by networks that have not seen them; off where `train_world` is.

    Args:
        data: That the networks learned from.
        networks: Folder of `train_world`, with a subfolder for each part.
        folder: To write: `calibration.safetensors` and `power.csv`.
        params: What else calibrates.
        known: What the networks learned from, GANs among it.
        device: Where to score.

    Returns:
        One line.

    Raises:
        FileNotFoundError: A network or a crop is missing.
        InputError: A file holds something else.
    """
    if is_off(networks):
        with atomic_folder(folder) as temporary:
            write_off(temporary, "train_world is off")
        return f"off: train_world is; {folder / OFF_FILE}"
    parts = {part: load_world(networks / part).to(device) for part in get_args(WorldPart)}
    specimens = [
        *of_folds(data, networks),
        *of_published(data, params.published),
        *of_generators(data, networks, known),
    ]
    size_px = len(read_crop(data.cropped / data.learned()["file"].iloc[0]))
    scored = []
    for specimen in track(specimens, "calibration"):
        for history in GRID.values():
            image = history.apply(specimen.image, seed=0)
            names = parts if specimen.part is None else [specimen.part]
            logits = {part: tile_logits(parts[part], image, size_px, device) for part in names}
            scored.append(_Scored(specimen, history, measure_traces(image), logits))
    levels = {part: _level(scored, part) for part in parts}
    rows, expectation = _rows(scored, levels)
    with atomic_folder(folder) as temporary:
        save_calibration(rows, levels, expectation, temporary)
    return f"{len(rows)} panels of {rows['unit'].nunique()} units; in {folder}"


def _rows(
    scored: Sequence[_Scored], levels: Mapping[WorldPart, Level]
) -> tuple[pd.DataFrame, Expectation]:
    """Standardise logits, and subtract what is expected of reals of other units.

    Returns:
        Columns cell, unit, family, shrunk and logits; and what is expected of a panel of no unit of
        them.
    """
    logits = []
    for one in scored:
        own = [(of - levels[part][0]) / levels[part][1] for part, of in one.logits.items()]
        logits.append(np.mean(own, axis=0))
    traces = [one.traces for one in scored]
    units = [one.specimen.unit for one in scored]
    reals = [not one.specimen.family for one in scored]
    scores = np.array([panel_score(of_panel) for of_panel in logits], dtype=np.float64)
    expected = expect_unseen(traces, scores, units, reals)
    rows = [
        {
            "cell": cell_of(one.traces),
            "unit": one.specimen.unit,
            "family": one.specimen.family,
            "shrunk": min(1.0, one.history.factor),
            "logits": (of_panel - usual).astype(np.float32),
        }
        for one, of_panel, usual in zip(scored, logits, expected, strict=True)
    ]
    chosen = [index for index, is_real in enumerate(reals) if is_real]
    expectation = Expectation.fit(
        [traces[index] for index in chosen], scores[reals], [units[index] for index in chosen]
    )
    return pd.DataFrame(rows), expectation


def is_off(networks: Path) -> bool:
    """Whether `train_world` trained nothing."""
    first: WorldPart = get_args(WorldPart)[0]
    return (networks / first / OFF_FILE).is_file()


def _level(scored: Sequence[_Scored], part: WorldPart) -> Level:
    """Return mean and standard deviation of reals that a network has not seen, a vote a unit."""
    reals = [one for one in scored if not one.specimen.family and part in one.logits]
    scores = np.array([panel_score(one.logits[part]) for one in reals])
    units = pd.Series([one.specimen.unit for one in reals])
    weights = (1 / units.map(units.value_counts())).to_numpy()
    center = float(np.average(scores, weights=weights))
    return center, float(np.average((scores - center) ** 2, weights=weights)) ** 0.5 + _LEAST_SCALE


def of_folds(data: WorldData, networks: Path) -> Iterator[Specimen]:
    """Yield a real of each micrograph and a fake of it, with the part that left it out.

    The fakes are of the families that this fold left out, in turn. What it left out its own file
    says, in `networks`: nothing else could promise that it has not seen a panel.
    """
    table, families = data.learned(), data.families()
    for part in get_args(WorldPart):
        fold = read_fold(networks / part)
        names = fold.families or tuple(families)[:1]
        unseen = table[table["collection"].isin(fold.collections)]
        for index, (unit, places) in enumerate(largest_blocks(data, unseen)):
            family = names[index % len(names)]
            yield Specimen(unit, "", assemble(data.cropped, places), part)
            yield Specimen(unit, family, assemble(families[family], places), part)


def of_published(data: WorldData, collections: Sequence[str]) -> Iterator[Specimen]:
    """Yield every second paper of collections of published panels: its panels calibrate only.

    The other papers are for measuring. No network has seen any of them.
    """
    table = with_collections(read_splits(data.splits))
    for collection in collections:
        papers = table[table["collection"] == collection]
        for paper in calibration_groups(papers):
            for _, places in largest_blocks(data, papers[papers["group"] == paper]):
                yield Specimen(paper, "", assemble(data.cropped, places), None)


def calibration_groups(papers: pd.DataFrame) -> list[str]:
    """Return every second group, in the order of their names, from the first on."""
    return sorted(papers["group"].unique())[::2]


def of_generators(data: WorldData, networks: Path, known: TrainWorldParams) -> Iterator[Specimen]:
    """Yield images of the generators, with the part that left out the collection they are of.

    That part has seen none of their images; where there is none, the seeds at least are new to all.
    """
    parts: list[WorldPart] = list(get_args(WorldPart))
    unseen = [part for part in parts if known.beside in read_fold(networks / part).collections]
    for name in known.generators:
        for image in draw_images(data.generators, [name], CALIBRATION_SEED):
            yield Specimen(name, name, image, unseen[0] if unseen else None)


def largest_blocks(data: WorldData, table: pd.DataFrame) -> Iterator[tuple[str, Places]]:
    """Yield the largest square of neighbouring crops of each micrograph, and its collection."""
    size_px = len(read_crop(data.cropped / table["file"].iloc[0]))
    for (unit, _), crops in table.groupby(["collection", "micrograph"]):
        yield str(unit), max(map(largest_square, blocks_of(crops, size_px)), key=len)


def tile_logits(
    network: WorldNetwork, image: Grey, size_px: int, device: torch.device
) -> Float[np.ndarray, " tiles"]:
    """Score the tiles of a picture, of `size_px` or less where it is smaller."""
    tiles = cut_tiles(image, min(size_px, *image.shape) // 8 * 8)
    return score_images(network, tiles.pixels, phases=1, device=device)


def save_calibration(
    panels: pd.DataFrame,
    levels: Mapping[WorldPart, Level],
    expectation: Expectation,
    folder: Path,
) -> None:
    """Write the logits of all panels, what makes them comparable, and the table of the power."""
    listed = panels[["cell", "unit", "family", "shrunk"]].assign(tiles=panels["logits"].map(len))
    logits = torch.from_numpy(np.concatenate(list(panels["logits"])))
    meta = {"panels": listed.to_numpy().tolist(), "levels": levels}
    meta["expected"] = expectation.numbers()
    save_checkpoint(folder / CALIBRATION_FILE, {"logits": logits}, meta)
    cells = load_calibration(folder)
    rows = [
        {
            "cell": name,
            "tiles": count,
            "units": cell.num_units,
            "families": len(cell.families),
            "power": round(cell.power(count, _ALPHA), 4),
        }
        for name, cell in cells.items()
        for count in _TILE_COUNTS
    ]
    write_table(pd.DataFrame(rows), folder / POWER_FILE)


def load_calibration(folder: Path) -> dict[str, Cell]:
    """Read the cells by their names.

    Raises:
        FileNotFoundError: There is no calibration.
        InputError: The file holds something else.
    """
    path = folder / CALIBRATION_FILE
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; `calibrate-world` makes it")
    state, meta = load_checkpoint(path)
    with refused_as(f"{path}: not a calibration of panels"):
        return restore_cells(state["logits"], meta["panels"])
