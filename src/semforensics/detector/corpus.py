"""Which images a classifier sees, and in which split: reals by their table, fakes by their seed.

Reals keep the split that the table of splits gives them. Fakes are numbered by their seeds. Under
the clean protocol the seeds, in order, fall into three ranges, train, test and validation, in the
shares of the split; under the thesis's each fake draws its split at random in the same shares.
Pseudo-fakes are reconstructions of reals, named after them: each has the split and the group of its
original.

Every split is balanced, so that accuracy and average precision have a prevalence of one half: the
larger class is thinned at random to the size of the smaller one. Reals are thinned evenly over
their groups: one of every group, then a second of every group that has one, and so on.
"""

import hashlib
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import pandas as pd
import torch
from jaxtyping import Bool, UInt8
from torch import Tensor

from semforensics.core.errors import InputError
from semforensics.core.images import stack_crops
from semforensics.core.tables import read_splits
from semforensics.detector.networks import MIN_SIZE_PX
from semforensics.micrographs.split import split_by_file
from semforensics.params import Protocol, Split, SplitParams

DETECTORS: dict[str, tuple[str, ...]] = {
    "fastgan": ("fastgan",),
    "stylegan2_ada": ("stylegan2_ada",),
    "both": ("fastgan", "stylegan2_ada"),
    "both_pseudo": ("fastgan", "stylegan2_ada", "pseudo"),
}
"""The generators whose fakes each detector learns from, in equal parts."""

PSEUDO = "pseudo"
"""The folder of fakes that were made out of reals."""


@dataclass(frozen=True)
class LabelledImages:
    """Images in memory beside what is known of them."""

    table: pd.DataFrame
    """One row per image: file, class (real or fake), generator (empty for reals), split, group (a
    fake is a group of its own, a pseudo-fake is in that of its original), path."""
    images: UInt8[Tensor, "n 1 height width"]

    @property
    def is_fake(self) -> Bool[Tensor, " n"]:
        """The class of each image."""
        return torch.tensor((self.table["class"] == "fake").to_numpy())

    @property
    def num_groups(self) -> int:
        """Groups of reals: what counts as independent."""
        return int(self.table.loc[self.table["class"] == "real", "group"].nunique())


def generators_of(name: str) -> tuple[str, ...]:
    """Return the generators whose fakes a detector learns from.

    Raises:
        InputError: There is no such detector.
    """
    if name not in DETECTORS:
        raise InputError(f"detector {name!r}: expected one of {', '.join(DETECTORS)}")
    return DETECTORS[name]


@dataclass(frozen=True)
class Corpus:
    """The images of a run and how they are divided into train, test and validation."""

    cropped: Path
    """Folder of the reals."""
    splits: Path
    """The table of crops with their splits."""
    fakes: Path
    """Holds one folder of fakes per generator."""
    protocol: Protocol
    """How fakes are divided."""
    shares: SplitParams
    """In which parts."""
    seed: int
    """Of the thesis protocol's draw, and of the draws that balance the splits."""

    def list_images(self, generators: tuple[str, ...]) -> pd.DataFrame:
        """List all reals, and the fakes of some generators, with their splits.

        Args:
            generators: Names of folders in `fakes`.

        Returns:
            Rows as in `LabelledImages`, sorted by class and file.

        Raises:
            InputError: A folder of fakes holds anything but PNG files named after seeds, or too
                few; or the pseudo-fakes are not those of these reals.
            FileNotFoundError: A folder of fakes is missing.
        """
        reals = read_splits(self.splits)[["file", "split", "group"]].sort_values("file")
        reals["path"] = [self.cropped / file for file in reals["file"]]
        parts = [reals.assign(**{"class": "real", "generator": ""})]
        for generator in generators:
            if generator == PSEUDO:
                parts.append(_pseudo_fakes(reals, self.fakes / PSEUDO))
                continue
            files = _fake_files(self.fakes / generator)
            names = [f"{generator}/{path.name}" for path in files]
            match self.protocol:
                case "clean":
                    splits = contiguous_splits(len(files), self.shares)
                case "thesis":
                    splits = split_by_file(names, self.shares, self.seed)
            columns = {"file": names, "split": splits, "group": names, "path": files}
            parts.append(pd.DataFrame(columns).assign(**{"class": "fake", "generator": generator}))
        order = ["file", "class", "generator", "split", "group", "path"]
        return pd.concat(parts, ignore_index=True)[order]

    def list_images_of(self, meta: dict[str, Any], name: str | None = None) -> pd.DataFrame:
        """List the images that a classifier was trained on, and those it may be tested on.

        Args:
            meta: What training wrote beside the weights; its seed is taken in place of ours.
            name: The detector that is expected; None: any.

        Returns:
            As `list_images`.

        Raises:
            InputError: It is another detector; it was trained under another protocol or with other
                shares; or images changed splits since, so that test images might be among the
                training images.
        """
        missing = {"detector", "protocol", "shares", "seed", "splits_sha256"} - meta.keys()
        if missing:
            raise InputError(f"the classifier does not say its {min(missing)}; train it again")
        if name is not None and meta["detector"] != name:
            raise InputError(f"the classifier is {meta['detector']}, expected {name}")
        for key, value in (
            ("protocol", self.protocol),
            ("shares", self.shares.model_dump(exclude={"by"})),
        ):
            if meta[key] != value:
                raise InputError(
                    f"the classifier was trained with {key} {meta[key]}, found {value}"
                )
        corpus = replace(self, seed=meta["seed"])
        table = corpus.list_images(generators_of(meta["detector"]))
        if fingerprint(table) != meta["splits_sha256"]:
            raise InputError(
                f"{self.splits} or {self.fakes}: not the images and splits that the classifier was "
                "trained on"
            )
        return table

    def load_test_split(self, meta: dict[str, Any], name: str | None = None) -> LabelledImages:
        """Load the images that a classifier may be tested on; arguments as in `list_images_of`.

        Raises:
            InputError: As `list_images_of`; or the images have another size than those of the
                training.
        """
        return load_test_images(self.list_images_of(meta, name), meta)


def _fake_files(folder: Path) -> list[Path]:
    """List the fakes of one generator by growing seed."""
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder of fakes")
    files = sorted(folder.iterdir())
    for path in files:
        if not re.fullmatch(r"\d+\.png", path.name):
            raise InputError(f"{path}: not a fake, expected a name like 000042.png")
    if len(files) < len(get_args(Split)):
        raise InputError(f"{folder}: {len(files)} fakes, need at least one for each split")
    return sorted(files, key=lambda path: (int(path.stem), path.name))


def _pseudo_fakes(reals: pd.DataFrame, folder: Path) -> pd.DataFrame:
    """List the reconstructions of all reals, each in the split and the group of its original."""
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder of fakes")
    odd = {path.name for path in folder.iterdir()} ^ set(reals["file"])
    if odd:
        raise InputError(f"{folder}: not one pseudo-fake for each real, as {min(odd)} shows")
    return reals.assign(
        **{
            "file": [f"{PSEUDO}/{file}" for file in reals["file"]],
            "path": [folder / file for file in reals["file"]],
            "class": "fake",
            "generator": PSEUDO,
        }
    )


def contiguous_splits(count: int, shares: SplitParams) -> list[Split]:
    """Divide fakes into train, test and validation, in this order.

    Raises:
        InputError: A split would stay empty.
    """
    last_train = round(shares.train * count)
    last_test = round((shares.train + shares.test) * count)
    sizes = (last_train, last_test - last_train, count - last_test)
    if min(sizes) < 1:
        raise InputError(f"{count} fakes: too few for three splits in the shares of the split")
    splits: tuple[Split, ...] = ("train", "test", "validation")
    return [split for split, size in zip(splits, sizes, strict=True) for _ in range(size)]


def draw_training_split(table: pd.DataFrame, split: Split, seed: int) -> pd.DataFrame:
    """Draw as many fakes as reals, in equal parts from each generator: to learn and to calibrate.

    Where there are fewer reals than generators, all of them and one fake of each.

    Raises:
        InputError: The split has no real, or no fake of a generator.
    """
    num_generators = table.loc[table["class"] == "fake", "generator"].nunique()
    return _draw(table, split, num_generators, seed)


def draw_test_split(table: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Draw reals once and as many fakes of each generator: every generator is tested by itself."""
    return _draw(table, "test", 1, seed)


def _draw(table: pd.DataFrame, split: Split, reals_per_fake: int, seed: int) -> pd.DataFrame:
    """Draw as many fakes of each generator as can be, and so many times as many reals."""
    of_split = table[table["split"] == split]
    reals, fakes = (of_split[of_split["class"] == c] for c in ("real", "fake"))
    fewest = int(fakes.groupby("generator").size().min())
    count = min(fewest, max(1, len(reals) // reals_per_fake))
    if not count or reals.empty:
        raise InputError(
            f"{split} split: {len(reals)} reals and {fewest} fakes of the rarest generator, need "
            "one of each"
        )
    parts = [draw_evenly(reals, count * reals_per_fake, seed)]
    parts += [draw_evenly(part, count, seed) for _, part in fakes.groupby("generator")]
    drawn = pd.concat(parts).sort_values(["class", "file"], ascending=[False, True])
    return drawn.reset_index(drop=True)


def draw_evenly(rows: pd.DataFrame, count: int, seed: int) -> pd.DataFrame:
    """Draw rows at random, spread evenly over their groups.

    The draw hashes the seed with the file names, so it does not depend on the order of the rows,
    and a larger `count` keeps every row of a smaller one.
    """
    hashes = [hashlib.sha256(f"{seed}:{file}".encode()).hexdigest() for file in rows["file"]]
    shuffled = rows.assign(hash=hashes).sort_values("hash")
    turn = shuffled.groupby("group").cumcount()
    return shuffled.assign(turn=turn).sort_values(["turn", "hash"]).head(count)[rows.columns]


def load_images(table: pd.DataFrame) -> LabelledImages:
    """Read all images of a table into memory.

    Raises:
        InputError: Images differ in size, have an odd side, are smaller than 16 px, or are no 8-bit
            grey PNG files.
        FileNotFoundError: A file is missing.
    """
    images = stack_crops(map(Path, table["path"]))
    height, width = images.shape[1:]
    if height % 2 or width % 2 or min(height, width) < MIN_SIZE_PX:
        raise InputError(
            f"{table['path'].iloc[0]}: {width}x{height} px, expected even sides of at least "
            f"{MIN_SIZE_PX} px"
        )
    return LabelledImages(table, torch.from_numpy(images[:, None]))


def load_test_images(table: pd.DataFrame, meta: dict[str, Any]) -> LabelledImages:
    """Load the test split of a listing, balanced as the training balances its splits.

    Args:
        table: As `Corpus.list_images_of` returns it.
        meta: What training wrote beside the weights.

    Raises:
        InputError: The images have another size than those of the training.
    """
    test = load_images(draw_test_split(table, meta["seed"]))
    if list(test.images.shape[-2:]) != meta["size_px"]:
        raise InputError(
            f"{test.table['path'].iloc[0]}: images of {list(test.images.shape[-2:])} px, trained "
            f"on {meta['size_px']}"
        )
    return test


def check_same_size(*sets: LabelledImages) -> None:
    """Refuse sets whose images differ in size.

    Raises:
        InputError: They do; the message names a file of each size.
    """
    sizes = {tuple(s.images.shape[-2:]): s.table["path"].iloc[0] for s in sets}
    if len(sizes) > 1:
        found = ", ".join(f"{path}: {w}x{h} px" for (h, w), path in sizes.items())
        raise InputError(f"images of one size expected; found {found}")


def fingerprint(table: pd.DataFrame) -> str:
    """Hash which images are in which split, so that a test can tell that nothing moved.

    Pixels are not part of it.
    """
    columns = table[["file", "class", "generator", "split", "group"]]
    # The name of the column is part of the hashes in released models.
    text = columns.rename(columns={"split": "side"}).to_csv(index=False)
    return hashlib.sha256(text.encode()).hexdigest()
