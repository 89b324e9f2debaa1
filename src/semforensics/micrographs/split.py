"""Assign every crop to train, test or validation.

Two protocols. `clean` keeps all crops of one sample and area on one side, since neighbours on both
sides flatter any detector, and makes the sides alike in magnification, voltage and label as far as
whole groups allow. `thesis` draws every crop by itself.
"""

import hashlib
import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from semforensics.core.errors import InputError
from semforensics.core.files import atomic_file
from semforensics.params import Protocol, Side, SplitParams

SIDES: tuple[Side, ...] = get_args(Side)
STRATA = ("magnification_k", "kv", "label")
TEXT_COLUMNS = ("file", "micrograph", "group", "label")
NUMBER_COLUMNS = {"magnification_k": float, "kv": float, "top_px": int, "left_px": int}
Distances = Float[np.ndarray, "*n_choice"]
MAX_PASSES = 20  # of the local search, which ends after 3 to 5 by itself


def read_crops(path: Path) -> pd.DataFrame:
    """Read the table of crops.

    Returns:
        One row per crop. `label` is empty where unknown, `magnification_k` and `kv` are NaN.

    Raises:
        InputError: A column is missing, a number is none, a file is listed twice or without group.
    """
    # keep_default_na: a sample called "NA" is a name.
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    missing = [c for c in (*TEXT_COLUMNS, *NUMBER_COLUMNS) if c not in table.columns]
    if missing:
        raise InputError(
            f"{path}: no column {', '.join(missing)}; found {', '.join(table.columns)}"
        )
    if table.empty:
        raise InputError(f"{path}: lists no crops")
    for column, kind in NUMBER_COLUMNS.items():
        try:
            table[column] = table[column].replace("", np.nan).astype(kind)
        except ValueError as error:
            raise InputError(f"{path}: column {column}: {error}") from error
    twice = table["file"][table["file"].duplicated()]
    if not twice.empty:
        raise InputError(f"{path}: lists {twice.iloc[0]} twice")
    nameless = table["file"][(table["file"] == "") | (table["group"] == "")]
    if not nameless.empty:
        raise InputError(f"{path}: row {nameless.index[0] + 2} has no file or no group")
    return table


def read_splits(path: Path) -> pd.DataFrame:
    """Read the table of crops with their sides.

    Returns:
        As `read_crops`, and `side`: train, test or validation.

    Raises:
        InputError: As `read_crops`; or a side has another name, or no crops.
    """
    table = read_crops(path)
    if "side" not in table.columns:
        raise InputError(f"{path}: no column side; found {', '.join(table.columns)}")
    found = set(table["side"])
    if found != set(SIDES):
        raise InputError(f"{path}: sides {sorted(found)}, expected exactly {sorted(SIDES)}")
    return table


def split_crops(
    crops: Path, splits: Path, shares: SplitParams, protocol: Protocol, seed: int
) -> str:
    """Write the table of crops again, with a column `side`, sorted by file.

    Returns:
        One line: how many crops and groups stand on each side.

    Raises:
        InputError: The table is not one of crops, or too small for three sides.
    """
    table = read_crops(crops).sort_values("file", ignore_index=True)
    match protocol:
        case "clean":
            sides = split_by_group(table, shares, seed)
        case "thesis":
            sides = split_by_file(table["file"].tolist(), shares, seed)
    table["side"] = sides
    per_group = table.groupby("group")["side"].nunique()
    assert protocol == "thesis" or per_group.max() == 1, "a group stands on two sides"
    assert set(table["side"]) == set(SIDES), "a side is empty"

    # The rows are written as they were read: numbers through a float would change their digits.
    text = pd.read_csv(crops, dtype=str, keep_default_na=False)
    text = text.sort_values("file", ignore_index=True).assign(side=table["side"])
    with atomic_file(splits) as part:
        text.to_csv(part, index=False, lineterminator="\n")
    return f"{protocol} split of {crops}: {_summary(table)}"


def _summary(table: pd.DataFrame) -> str:
    sides = table.groupby("side")["group"].agg(["size", "nunique"])
    counts = (f"{s} {n} crops of {g} groups" for s, n, g in sides.loc[list(SIDES)].itertuples())
    return ", ".join(counts)


def _shares(shares: SplitParams) -> Float[np.ndarray, " n_side"]:
    return np.array([getattr(shares, side) for side in SIDES])


def _shuffled(names: list[str], seed: int) -> list[str]:
    """Order names at random by a hash of seed and name: the same on every machine and version."""
    return sorted(names, key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).digest())


def split_by_file(files: list[str], shares: SplitParams, seed: int) -> list[Side]:
    """Draw the side of each file at random, in numbers as near to the shares as whole files allow.

    Returns:
        The side of each file, in the order given.

    Raises:
        InputError: There are fewer files than sides.
    """
    if len(files) < len(SIDES):
        raise InputError(f"{len(files)} crops, need at least {len(SIDES)}: one per side")
    # Largest remainders, at least one each.
    exact = _shares(shares) * len(files)
    counts = np.maximum(np.floor(exact), 1).astype(int)
    while counts.sum() < len(files):
        counts[np.argmax(exact - counts)] += 1
    while counts.sum() > len(files):
        counts[np.argmax(np.where(counts > 1, counts - exact, -np.inf))] -= 1
    drawn = np.repeat(np.arange(len(SIDES)), counts)
    side_of = {f: SIDES[i] for f, i in zip(_shuffled(files, seed), drawn, strict=True)}
    return [side_of[file] for file in files]


def split_by_group(table: pd.DataFrame, shares: SplitParams, seed: int) -> list[Side]:
    """Assign whole groups to sides, meeting the shares overall and within each stratum.

    Groups go, the largest first, to the side that lacks most; then single groups move and pairs
    swap as long as that brings the sides nearer to their shares of the crops, of every
    magnification, voltage and label (chi-squared distance).

    Returns:
        The side of each row, in the order given.

    Raises:
        InputError: There are fewer groups than sides.
    """
    counts = _strata_counts(table)
    if len(counts) < len(SIDES):
        raise InputError(
            f"{len(counts)} groups ({', '.join(counts.index)}), need at least {len(SIDES)} for the "
            "clean protocol: one per side"
        )
    order = _shuffled(counts.index.tolist(), seed)
    counts = counts.loc[order].sort_values("crops", ascending=False, kind="stable")
    numbers = counts.to_numpy(dtype=float)
    start = _assign_largest_first(numbers[:, 0], _shares(shares))
    assigned = _improve(numbers, start, _shares(shares))
    side_of = dict(zip(counts.index, assigned, strict=True))
    return [SIDES[side_of[group]] for group in table["group"]]


def _strata_counts(table: pd.DataFrame) -> pd.DataFrame:
    """Count the crops of each group: all (`crops`), and per magnification, voltage and label."""
    parts: list[pd.DataFrame] = [table.groupby("group").size().to_frame("crops")]
    for column in STRATA:
        values = table[column].astype(str).fillna("unknown")
        parts.append(pd.crosstab(table["group"], values).add_prefix(f"{column} "))
    return pd.concat(parts, axis=1)


def _assign_largest_first(
    sizes: Float[np.ndarray, " n_group"], shares: Float[np.ndarray, " n_side"]
) -> Int[np.ndarray, " n_group"]:
    """Return each group, in order, to the side that lacks most crops, leaving none without a group.

    A side misses its share by no more than the largest group, unless it could only come nearer by
    leaving another side empty.
    """
    lacking = shares * sizes.sum()
    assigned = np.empty(len(sizes), dtype=int)
    empty = np.ones(len(shares), dtype=bool)
    for i, size in enumerate(sizes):
        must_fill = len(sizes) - i == empty.sum()
        side = int(np.argmax(np.where(empty | (not must_fill), lacking, -np.inf)))
        assigned[i] = side
        lacking[side] -= size
        empty[side] = False
    return assigned


@dataclass(frozen=True)
class _Targets:
    """What each side should hold, and how far from it a side may be."""

    crops: Float[np.ndarray, "n_side n_column"]
    weights: Float[np.ndarray, "n_side n_column"]
    max_gap: float
    """Of the first column, the number of crops."""

    def distance(self, side: int, held: Float[np.ndarray, "*n_choice n_column"]) -> Distances:
        """Return the chi-squared distance of what a side holds; infinite beyond the gap."""
        gap = held - self.crops[side]
        squared = np.asarray((self.weights[side] * gap**2).sum(axis=-1))
        return np.where(np.abs(gap[..., 0]) > self.max_gap, np.inf, squared)


def _improve(
    counts: Float[np.ndarray, "n_group n_column"],
    assigned: Int[np.ndarray, " n_group"],
    shares: Float[np.ndarray, " n_side"],
) -> Int[np.ndarray, " n_group"]:
    """Move and swap groups while the sides get nearer to their shares of every column.

    Args:
        counts: Crops of each group: all of them in the first column, then by stratum.
        assigned: Side of each group; no side is empty.
        shares: Share of each side.

    Returns:
        Side of each group. No side is empty, and none further from its share of the crops than the
        largest group, or than the furthest was before.
    """
    targets = _targets(counts, assigned, shares)
    kinds = np.unique(counts, axis=0, return_inverse=True)[1]  # alike groups need one trial only
    in_vain = set[tuple[int, int, int]]()
    for _ in range(MAX_PASSES):
        before = assigned
        for group, away in itertools.product(range(len(counts)), range(len(shares))):
            trial = (int(kinds[group]), int(assigned[group]), away)
            if assigned[group] == away or trial in in_vain:
                continue
            exchanged = _exchange(counts, assigned, group, away, targets)
            if exchanged is assigned:
                in_vain.add(trial)
            else:
                assigned = exchanged
                in_vain.clear()
        if assigned is before:
            break
    return assigned


def _targets(
    counts: Float[np.ndarray, "n_group n_column"],
    assigned: Int[np.ndarray, " n_group"],
    shares: Float[np.ndarray, " n_side"],
) -> _Targets:
    crops = shares[:, None] * counts.sum(axis=0)
    is_total = np.arange(counts.shape[1]) == 0
    gaps = [counts[assigned == i, 0].sum() - crops[i, 0] for i in range(len(shares))]
    return _Targets(
        crops=crops,
        weights=np.where(is_total, len(STRATA), 1) / crops,  # the total as much as all strata
        max_gap=max(counts[:, 0].max(), *np.abs(gaps)),
    )


def _exchange(
    counts: Float[np.ndarray, "n_group n_column"],
    assigned: Int[np.ndarray, " n_group"],
    group: int,
    away: int,
    targets: _Targets,
) -> Int[np.ndarray, " n_group"]:
    """Move a group to another side, alone or in exchange for a group there, where that helps most.

    Returns:
        The new sides; the old ones where nothing helps.
    """
    home = int(assigned[group])
    partners = np.flatnonzero(assigned == away)
    back = counts[partners]
    if (assigned == home).sum() > 1:  # else its side would be empty
        back = np.vstack([back, np.zeros_like(counts[:1])])
    flow = counts[group] - back  # [n_choice, n_column]
    at_home, at_away = (counts[assigned == side].sum(axis=0) for side in (home, away))
    before = targets.distance(home, at_home) + targets.distance(away, at_away)
    after = targets.distance(home, at_home - flow) + targets.distance(away, at_away + flow)
    best = int(np.argmin(after))
    if after[best] >= before * (1 - 1e-9):  # rounding alone must not look like progress
        return assigned
    exchanged = assigned.copy()
    exchanged[group] = away
    exchanged[partners[best : best + 1]] = home  # none, when the group moves alone
    return exchanged
