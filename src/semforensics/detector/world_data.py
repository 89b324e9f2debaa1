"""What the detector for any instrument learns from, and what each of its trainings leaves out."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import UInt8

from semforensics.core.checkpoints import load_checkpoint, load_network, refused_as
from semforensics.core.errors import InputError
from semforensics.core.tables import is_measured, read_splits
from semforensics.detector.scoring import MODEL_FILE
from semforensics.detector.world_network import ARCHITECTURE, WorldNetwork
from semforensics.generators.common.sampling import OFF_FILE, generate_grey
from semforensics.generators.generate_fakes import load_generator

NUM_FOLDS = 3
TRAINING_SEED, CALIBRATION_SEED = 5000, 8000
"""Of the first image of a generator: far from each other, and from those of its tests."""


@dataclass(frozen=True)
class Fold:
    """What one network does not see."""

    collections: tuple[str, ...] = ()
    families: tuple[str, ...] = ()
    """Of reconstructions; none where there is only one, or nothing is left out."""


@dataclass(frozen=True)
class WorldData:
    """Where the images of `train_world` lie."""

    cropped: Path
    splits: Path
    reconstructed: Path
    """One subfolder for each family of fakes that are made of crops, under the crops' names."""
    pseudo: Path
    """Reconstructions by one encoder-decoder, likewise: the family where there is no other. Its
    crops were reconstructed one by one, so blocks of them have seams."""
    generators: Path
    """Folder of finished GANs, `<name>.safetensors`."""

    def families(self) -> dict[str, Path]:
        """Return the folder of each family of reconstructions."""
        folders = [p for p in sorted(self.reconstructed.iterdir()) if not p.name.startswith(".")]
        on = {path.name: path for path in folders if not (path / OFF_FILE).is_file()}
        return on or {self.pseudo.name: self.pseudo}

    def learned(self) -> pd.DataFrame:
        """Return the crops that training and calibration may see, with their collections.

        Those that are not for measuring; where no crop is, those outside of the test split. Without
        a column `collection`, groups take the place of collections.
        """
        table = read_splits(self.splits)
        left_out = is_measured(table)
        if not left_out.any():
            left_out = table["split"] == "test"
        return with_collections(table[~left_out])

    def folds(self) -> list[Fold]:
        """Divide the collections."""
        return divide(self.learned()["collection"].tolist(), list(self.families()), NUM_FOLDS)


def with_collections(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table of crops that has collections: its own, or else its groups."""
    return table if "collection" in table else table.assign(collection=table["group"])


def load_world(folder: Path) -> WorldNetwork:
    """Rebuild a network, in eval mode, from its folder.

    Raises:
        FileNotFoundError: It holds none.
        InputError: The file holds something else.
    """
    known = {ARCHITECTURE: WorldNetwork}
    return load_network(folder / MODEL_FILE, known, "train-world")[0].eval()


def read_fold(folder: Path) -> Fold:
    """Return what a network has not seen, as its own file says.

    Raises:
        FileNotFoundError: The folder holds no network.
        InputError: The file does not say so.
    """
    path = folder / MODEL_FILE
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; `train-world` makes it")
    _, meta = load_checkpoint(path)
    with refused_as(f"{path}: does not say what it has not seen"):
        return Fold(*(tuple(map(str, meta[key])) for key in ("left_out", "families_left_out")))


def divide(collections: Sequence[str], families: Sequence[str], number: int) -> list[Fold]:
    """Divide collections into folds of about equal size: the largest first, to the smallest fold.

    Families of reconstructions are divided in turn; each fold leaves out at least one of several.
    Size is the square root of the number of crops, by which pairs are drawn.

    Raises:
        InputError: There are fewer collections than folds.
    """
    counts = pd.Series(collections).value_counts()
    if len(counts) < number:
        raise InputError(
            f"{len(counts)} collections, need at least {number} for as many folds; with"
            " train_world.steps 0 in params.yaml there is no detector for any instrument"
        )
    parts: list[list[str]] = [[] for _ in range(number)]
    sizes = [0.0] * number
    for name in sorted(counts.index, key=lambda name: (-counts[name], name)):
        smallest = int(np.argmin(sizes))
        parts[smallest].append(name)
        sizes[smallest] += float(counts[name]) ** 0.5
    several = families if len(families) > 1 else ()
    spare = [*several] * number  # again, where there are too few
    spare = spare[: max(number, len(several))]
    return [
        Fold(tuple(sorted(part)), tuple(spare[index::number])) for index, part in enumerate(parts)
    ]


def draw_images(
    folder: Path, names: Sequence[str], first_seed: int, count: int = 200
) -> list[UInt8[np.ndarray, "height width"]]:
    """Draw images of finished generators: uint8 [height, width] each.

    Raises:
        FileNotFoundError: The folder does not hold one of them.
    """
    seeds = range(first_seed, first_seed + count)
    paths = [folder / f"{name}.safetensors" for name in names]
    if missing := [path for path in paths if not path.is_file()]:
        raise FileNotFoundError(f"{missing[0]}: no such file; `dvc pull {folder}.dvc` fetches it")
    generators = [load_generator(path) for path in paths]
    return [image for network in generators for image in generate_grey(network, seeds).numpy()]
