"""What every detector is tested on: the columns of the cross-generator matrix.

A column is a set of images of one origin, with as many reals of the test split. Fakes of the GANs
are those of the test split. The other fakes no detector has learned from: a diffusion model, the
simulator, and re-synthesis of test reals by an autoencoder or by one up-sampler alone. Reals that
were denoised or resized are negative controls: nothing in them is generated.

What was made out of a real has that real beside it, and its group.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import pandas as pd

from semforensics.core.errors import InputError
from semforensics.core.images import read_crop
from semforensics.detector.corpus import PSEUDO, draw_evenly

Gan = Literal["fastgan", "stylegan2_ada"]
Drawn = Literal["diffusion", "simulator"]
Resynthesis = Literal["autoencoder", "nearest", "bilinear", "transposed"]
Control = Literal["denoised", "resized"]
GANS: tuple[str, ...] = get_args(Gan)
CONTROLS: tuple[str, ...] = get_args(Control)
MADE_OF_REALS: tuple[str, ...] = get_args(Resynthesis) + CONTROLS
UNSEEN: tuple[str, ...] = ("diffusion", *get_args(Resynthesis), "simulator", *CONTROLS)


@dataclass(frozen=True)
class Column:
    """Images of one origin, and the reals they are compared with."""

    name: str
    under_trained: bool
    """The generator had too little training to count; the column is left out of the headline."""
    table: pd.DataFrame
    """Rows as in `LabelledImages`, half of them reals. Controls are listed as fakes, though they
    are none, to be compared with their originals."""
    size_px: tuple[int, int]
    """Height and width common to both: the larger are cut to it."""

    @property
    def is_control(self) -> bool:
        """Whether calling these images fake is an error."""
        return self.name in CONTROLS


@dataclass(frozen=True)
class Unseen:
    """Images of kinds that no detector learned from."""

    folder: Path
    """Holds a folder of PNG files per further column. A missing or empty one: no column."""
    under_trained: bool
    """Whether the diffusion model is; its column is then left out of the headline."""


def list_columns(
    table: pd.DataFrame, unseen: Unseen, *, max_images: int, seed: int
) -> list[Column]:
    """List the columns for which there are images, with at most `max_images` of each class.

    Reals are drawn evenly over their groups. `table` holds all reals and the fakes of the GANs with
    their splits, as `list_images` returns them.

    Raises:
        InputError: What is made of reals is not named after crops of the test split.
    """
    tested = table[table["split"] == "test"]
    reals = tested[tested["class"] == "real"]
    columns = []
    for name in (*GANS, *UNSEEN):
        if name in GANS:
            others = tested[tested["generator"] == name]
        else:
            others = _list_unseen(unseen.folder / name, reals)
        if others.empty:
            continue
        count = min(max_images, len(reals), len(others))
        drawn_reals = draw_evenly(reals, count, seed)
        if name in MADE_OF_REALS:
            drawn = others.set_index("original").loc[drawn_reals["file"]].reset_index(drop=True)
        else:
            drawn = draw_evenly(others, count, seed)
        both = pd.concat([drawn_reals, drawn], ignore_index=True)[list(table.columns)]
        shapes = [read_crop(Path(rows["path"].iloc[0])).shape for rows in (drawn_reals, drawn)]
        size_px = (min(h for h, _ in shapes), min(w for _, w in shapes))
        columns.append(Column(name, unseen.under_trained and name == "diffusion", both, size_px))
    return columns


def _list_unseen(folder: Path, reals: pd.DataFrame) -> pd.DataFrame:
    """List the images of a folder; those made of reals with the groups of their originals."""
    name = folder.name
    paths = sorted(folder.glob("*.png"))
    files = [f"{name}/{path.name}" for path in paths]
    groups = files
    if name in MADE_OF_REALS and paths:
        odd = {path.name for path in paths} ^ set(reals["file"])
        if odd:
            raise InputError(f"{folder}: not one image for each test crop, as {min(odd)} shows")
        group_of = dict(zip(reals["file"], reals["group"], strict=True))
        groups = [group_of[path.name] for path in paths]
    return pd.DataFrame(
        {
            "file": files,
            "class": "fake",
            "generator": name,
            "split": "test",
            "group": groups,
            "path": paths,
            "original": [path.name for path in paths],
        }
    )


def note(generators: tuple[str, ...], column: Column) -> str:
    """Say what a cell of the matrix means to a detector that learned from `generators`.

    Returns:
        "control"; "under-trained"; "seen": it learned from this generator; "left out": it learned
        from the other GAN alone; "unseen".
    """
    learned = [name for name in generators if name != PSEUDO]
    if column.is_control:
        return "control"
    if column.under_trained:
        return "under-trained"
    if column.name in learned:
        return "seen"
    if column.name in GANS and len(generators) == 1:
        return "left out"
    return "unseen"
