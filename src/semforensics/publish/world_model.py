"""Pack the detector for any instrument into the model file that `screen` loads.

One file holds the network, the logits of the calibration panels, the training domain, the search
for generated parts and the statistics of the reals. It holds weights and statistics, no pixels.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
import torch

from semforensics.core.checkpoints import load_checkpoint, refused_as, save_checkpoint
from semforensics.core.errors import InputError
from semforensics.core.files import atomic_folder, sha256_of
from semforensics.core.images import read_crop, stack_crops
from semforensics.core.tables import read_catalogue
from semforensics.detector.histories import History
from semforensics.detector.panels import GRID, Cell, restore_cells
from semforensics.detector.scoring import MODEL_FILE
from semforensics.detector.tiling import cut_tiles
from semforensics.detector.traces import CELLS
from semforensics.detector.world_calibration import (
    CALIBRATION_FILE,
    Specimen,
    is_off,
    of_folds,
    of_published,
)
from semforensics.detector.world_data import WorldData, load_world
from semforensics.detector.world_domain import TilesOfAnyNumber, WorldDomain
from semforensics.detector.world_network import ARCHITECTURE, Level, WorldEnsemble
from semforensics.generators.common.sampling import OFF_FILE, write_off
from semforensics.params import PackageWorldParams, WorldPart
from semforensics.publish.rendering import render
from semforensics.publish.world_parts import measure_world_parts
from semforensics.screening.judge.references import References
from semforensics.screening.judge.world_model import KIND

MOST_BYTES = 12_000_000
_ALPHA = 0.05
_TILE_COUNTS = (1, 4, 16)
_SEED = 0
_PAPERS = "papers"  # all of them are one collection: few have two panels


def package_world(
    data: WorldData,
    networks: Path,
    calibration: Path,
    catalogue: Path,
    folder: Path,
    *,
    params: PackageWorldParams,
    published: Sequence[str],
    source: str,
) -> str:
    """Put network, calibration and statistics into `model.safetensors`; return a summary.

    Off where `train_world` is. Beside the file stands README.md, with the sources and licences of
    the collections that were learned from.

    Args:
        data: That the networks learned from.
        networks: Folder of `train_world`, with a subfolder for each part.
        calibration: Folder of `calibrate_world`.
        catalogue: Of the micrographs.
        folder: To write.
        params: What the model says of itself.
        published: Collections for measuring of which every second group calibrates.
        source: Where the reals come from: "simulated" or "folder".

    Raises:
        InputError: The file would be larger than `MOST_BYTES`, or files do not go together.
        FileNotFoundError: A file is missing.
    """
    if is_off(networks):
        with atomic_folder(folder) as temporary:
            write_off(temporary, "train_world is off")
        return f"off: train_world is; {folder / OFF_FILE}"
    logits, known = load_checkpoint(calibration / CALIBRATION_FILE)
    cells = restore_cells(logits["logits"], known["panels"])
    ensembles = load_ensembles(networks, known["levels"])
    table = data.learned()
    size_px = len(read_crop(data.cropped / table["file"].iloc[0]))
    specimens = list(of_folds(data, networks))
    domain = _fit_domain(specimens[::2], of_published(data, published), size_px)
    references = _measure_references(data.cropped, table, params.num_references)
    parts = measure_world_parts(specimens, ensembles, size_px, seed=_SEED)
    families = sorted({family for _, _, family, *_ in known["panels"]} - {""})
    about = {
        "kind": KIND,
        "architecture": ARCHITECTURE,
        "arguments": {"members": len(get_args(WorldPart))},
        "name": params.name,
        "data": source,
        "size_px": size_px,
        "training_domain": {
            "data": source,
            "material": params.material,
            "instrument": params.instrument,
            "source": params.source,
            "generators": families,
            "train": f"{len(table)} crops of {table['collection'].nunique()} collections",
            "tiles_px": size_px,
        },
        "limits": list(params.limits),
        "panels": known["panels"],
        "expected": known["expected"],
        "domain": domain.numbers(),
        "references": references.numbers(),
        "parts": None if parts is None else parts.numbers(),
        "networks_sha256": {
            part: sha256_of(networks / part / MODEL_FILE) for part in get_args(WorldPart)
        },
    }
    with atomic_folder(folder) as temporary:
        state = ensembles[None].state_dict()
        size = _save(temporary / MODEL_FILE, state, logits, domain, references, about)
        text = _card(params, about, table, read_catalogue(catalogue), cells)
        (temporary / "README.md").write_text(text, encoding="utf-8")
    return (
        f"{params.name}: {len(known['panels'])} calibration panels, parts "
        f"{'not ' if parts is None else ''}searched for; {size / 1e6:.1f} MB in "
        f"{folder / MODEL_FILE}"
    )


def load_ensembles(
    networks: Path, levels: Mapping[WorldPart, Level]
) -> dict[WorldPart | None, WorldEnsemble]:
    """Return each network alone, standardised, and under None all of them together.

    Args:
        networks: Folder of `train_world`.
        levels: Of the calibration.

    Raises:
        FileNotFoundError: A network is missing.
        InputError: A file holds something else.
    """
    parts: list[WorldPart] = list(get_args(WorldPart))
    loaded = [load_world(networks / part) for part in parts]
    with refused_as("no levels of the networks"):
        known: list[Level] = [(float(levels[part][0]), float(levels[part][1])) for part in parts]
    alone: dict[WorldPart | None, WorldEnsemble] = {
        part: WorldEnsemble.of([network], [level])
        for part, network, level in zip(parts, loaded, known, strict=True)
    }
    return {**alone, None: WorldEnsemble.of(loaded, known)}


def _save(
    path: Path,
    network: Mapping[str, torch.Tensor],
    logits: Mapping[str, torch.Tensor],
    domain: WorldDomain,
    references: References,
    about: Mapping[str, Any],
) -> int:
    """Write a model file, the network's matrices in 16 bits; return its size in bytes."""
    state = {
        **{f"network.{n}": t.half() if t.ndim > 1 else t for n, t in network.items()},
        "calibration.logits": logits["logits"],
        **{f"domain.{name}": tensor for name, tensor in domain.tensors().items()},
        **{f"references.{name}": tensor for name, tensor in references.tensors().items()},
    }
    save_checkpoint(path, state, about)
    size = path.stat().st_size
    if size > MOST_BYTES:
        raise InputError(f"{path.name}: {size} bytes, at most {MOST_BYTES}; take fewer references")
    return size


def _fit_domain(reals: Iterable[Specimen], papers: Iterable[Specimen], size_px: int) -> WorldDomain:
    """Learn what real tiles are like, as they are and after some histories of the calibration.

    A collection of a single tile says nothing of how much tiles vary, and is left out.
    """
    panels: dict[str, list[TilesOfAnyNumber]] = defaultdict(list)
    histories = list(GRID.values())
    named = [*((real.unit, real) for real in reals), *((_PAPERS, paper) for paper in papers)]
    for index, (collection, specimen) in enumerate(named):
        for history in (History(), *histories[1 + index % 3 :: 3]):
            image = history.apply(specimen.image, seed=_SEED)
            if min(image.shape) >= size_px:
                panels[collection].append(cut_tiles(image, size_px).pixels)
    several = {name: own for name, own in panels.items() if sum(map(len, own)) > 1}
    return WorldDomain.fit(several, np.random.default_rng(_SEED))


def _measure_references(cropped: Path, table: pd.DataFrame, number: int) -> References:
    """Measure the spectra of crops, by the square root of their collections' size as in training.

    Crops are not made recognisable: of many collections some are so plain that pictures of others
    come as near to them as their own copies.
    """
    counts = table["collection"].value_counts()
    shares = counts**0.5 / (counts**0.5).sum()
    chosen = pd.concat(
        crops.sample(min(len(crops), max(1, round(number * shares[name]))), random_state=_SEED)
        for name, crops in table.groupby("collection")
    ).sort_values("file")
    return References.of_spectra(stack_crops(cropped / file for file in chosen["file"]))


def _card(
    params: PackageWorldParams,
    about: Mapping[str, Any],
    table: pd.DataFrame,
    catalogue: pd.DataFrame,
    cells: Mapping[str, Cell],
) -> str:
    """Write the model card in Markdown: what it learned from, and what was measured."""
    known = catalogue.set_index("file")
    rows = []
    for collection, crops in table.groupby("collection"):
        names = [name for name in crops["micrograph"].unique() if name in known.index]
        of, own = known.loc[names], params.origins.get(str(collection))
        rows.append(
            {
                "collection": collection,
                "micrographs": crops["micrograph"].nunique(),
                "crops": len(crops),
                **{key: "; ".join(sorted({*of[key]} - {""})) for key in ("licence", "source")},
                **(own.model_dump() if own else {}),
            }
        )
    powers = {
        name: [cell.power(count, _ALPHA) for count in _TILE_COUNTS] for name, cell in cells.items()
    }
    return render(
        "world_card.md",
        about=about,
        params=params,
        collections=rows,
        cells=cells,
        words=CELLS,
        powers=powers,
        counts=_TILE_COUNTS,
        alpha=_ALPHA,
    )
