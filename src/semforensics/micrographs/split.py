"""Assign every crop to train, test or validation.

Two protocols. `clean` keeps all crops of one group (sample and area), or of one collection, in one
split, since neighbours in two splits flatter any detector, and makes the splits alike in
magnification, voltage and label as far as whole groups allow. `thesis` draws every crop by itself.

Under both, crops that are for measuring only are test crops, beside the shares.
"""

import hashlib
import itertools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from semforensics.core.errors import InputError
from semforensics.core.tables import MEASURE, SPLITS, read_crops, read_text, write_table
from semforensics.params import Protocol, Split, SplitParams

STRATA = ("magnification_k", "kv", "label")
Distances = Float[np.ndarray, "*n_choice"]
MAX_PASSES = 20  # of the local search, which ends after 3 to 5 by itself


def split(crops: Path, splits: Path, shares: SplitParams, protocol: Protocol, seed: int) -> str:
    """Write the table of crops again, with a column `split`, sorted by file.

    Where single micrographs have to be split, each becomes a group.

    Returns:
        How many crops and groups are in each split, which are for measuring only, and a warning if
        there are too few collections or groups.

    Raises:
        InputError: The table is not one of crops, or too small for three splits.
    """
    table = read_crops(crops).sort_values("file", ignore_index=True)
    # The rows are written as they were read: numbers through a float would change their digits.
    text = read_text(crops).sort_values("file", ignore_index=True)
    notes = []
    if protocol == "clean":
        by, table["unit"], warning = _units(table, shares.by)
        notes += warning
        if by == "micrograph":
            table["group"] = text["group"] = table["micrograph"]
    else:
        table["unit"] = table["file"]
    is_measured = _is_measured(table)
    table["split"] = "test"
    rest = table[~is_measured].assign(group=table["unit"])
    if protocol == "clean":
        table.loc[~is_measured, "split"] = split_by_group(rest, shares, seed)
    else:
        table.loc[~is_measured, "split"] = split_by_file(rest["file"].tolist(), shares, seed)
    for name in ("group", "unit"):
        per_group = table.groupby(name)["split"].nunique()
        assert protocol == "thesis" or per_group.max() == 1, f"a {name} is in two splits"
    assert set(table["split"]) == set(SPLITS), "a split is empty"
    if is_measured.any():
        notes.append(_measured(table[is_measured]))
    write_table(text.assign(split=table["split"]), splits)
    return "\n".join([f"{protocol} split of {crops}: {_summary(table)}", *notes])


def _units(table: pd.DataFrame, by: str) -> tuple[str, "pd.Series[str]", list[str]]:
    """Return what is kept in one split: its kind, its name for each crop, and perhaps a warning."""
    kinds = ["collection", "group", "micrograph"]
    if "collection" not in table:
        table = table.assign(collection="the only one")
    for kind in kinds[kinds.index(by) :]:
        units = _joined(table) if kind == "collection" else table[kind]
        count = units[~_is_measured(table.assign(unit=units))].nunique()
        if count >= len(SPLITS):
            break
    else:
        return by, table[by], []
    if kind == by:
        return by, units, []
    warning = f"warning: fewer than {len(SPLITS)} of each {by} to train on, split by {kind}"
    if kind == "micrograph":
        warning += ": images of one group are in several splits, which flatters every detector"
    return kind, units, [warning]


def _joined(table: pd.DataFrame) -> "pd.Series[str]":
    """Return the collection of each crop; collections that share a group have one name."""
    names = table["collection"]
    while True:
        joined = names.groupby(table["group"]).transform("min")
        joined = joined.groupby(table["collection"]).transform("min")
        if joined.equals(names):
            return names
        names = joined


def _is_measured(table: pd.DataFrame) -> "pd.Series[bool]":
    """Say which crops are for measuring: what is kept with one of them is, too."""
    if "use" not in table:
        return pd.Series(False, index=table.index)
    return table["unit"].isin(set(table.loc[table["use"] == MEASURE, "unit"]))


def _measured(table: pd.DataFrame) -> str:
    """Say which collections are for measuring only."""
    by = table["collection"] if "collection" in table else table["group"]
    counts = ", ".join(f"{name} {count}" for name, count in table.groupby(by).size().items())
    return f"for measuring only, in no training and no calibration (crops): {counts}"


def _summary(table: pd.DataFrame) -> str:
    splits = table.groupby("split")["group"].agg(["size", "nunique"])
    counts = (f"{s} {n} crops of {g} groups" for s, n, g in splits.loc[list(SPLITS)].itertuples())
    return ", ".join(counts)


def _shares(shares: SplitParams) -> Float[np.ndarray, " n_split"]:
    return np.array([getattr(shares, split) for split in SPLITS])


def _shuffled(names: list[str], seed: int) -> list[str]:
    """Order names at random by a hash of seed and name: the same on every machine and version."""
    return sorted(names, key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).digest())


def split_by_file(files: list[str], shares: SplitParams, seed: int) -> list[Split]:
    """Draw the split of each file at random, in numbers as near to the shares as whole files allow.

    Returns:
        The split of each file, in the order given.

    Raises:
        InputError: There are fewer files than splits.
    """
    if len(files) < len(SPLITS):
        raise InputError(f"{len(files)} crops, need at least {len(SPLITS)}: one per split")
    # Largest remainders, at least one each.
    exact = _shares(shares) * len(files)
    counts = np.maximum(np.floor(exact), 1).astype(int)
    while counts.sum() < len(files):
        counts[np.argmax(exact - counts)] += 1
    while counts.sum() > len(files):
        counts[np.argmax(np.where(counts > 1, counts - exact, -np.inf))] -= 1
    drawn = np.repeat(np.arange(len(SPLITS)), counts)
    split_of = {f: SPLITS[i] for f, i in zip(_shuffled(files, seed), drawn, strict=True)}
    return [split_of[file] for file in files]


def split_by_group(table: pd.DataFrame, shares: SplitParams, seed: int) -> list[Split]:
    """Assign whole groups to splits, meeting the shares overall and within each stratum.

    Groups go, the largest first, to the split that lacks most; then single groups move and pairs
    swap as long as that brings the splits nearer to their shares of the crops, of every
    magnification, voltage and label (chi-squared distance).

    Returns:
        The split of each row, in the order given.

    Raises:
        InputError: There are fewer groups than splits.
    """
    counts = _strata_counts(table)
    if len(counts) < len(SPLITS):
        raise InputError(
            f"{len(counts)} groups ({', '.join(counts.index)}), need at least {len(SPLITS)} for "
            "the clean protocol: one per split"
        )
    order = _shuffled(counts.index.tolist(), seed)
    counts = counts.loc[order].sort_values("crops", ascending=False, kind="stable")
    numbers = counts.to_numpy(dtype=float)
    start = _assign_largest_first(numbers[:, 0], _shares(shares))
    assigned = _improve(numbers, start, _shares(shares))
    split_of = dict(zip(counts.index, assigned, strict=True))
    return [SPLITS[split_of[group]] for group in table["group"]]


def _strata_counts(table: pd.DataFrame) -> pd.DataFrame:
    """Count the crops of each group: all (`crops`), and per magnification, voltage and label."""
    parts: list[pd.DataFrame] = [table.groupby("group").size().to_frame("crops")]
    for column in STRATA:
        values = table[column].astype(str).fillna("unknown")
        parts.append(pd.crosstab(table["group"], values).add_prefix(f"{column} "))
    return pd.concat(parts, axis=1)


def _assign_largest_first(
    sizes: Float[np.ndarray, " n_group"], shares: Float[np.ndarray, " n_split"]
) -> Int[np.ndarray, " n_group"]:
    """Assign each group, in order, to the split that lacks most crops; none stays without a group.

    A split misses its share by no more than the largest group, unless it could only come nearer by
    leaving another split empty.
    """
    lacking = shares * sizes.sum()
    assigned = np.empty(len(sizes), dtype=int)
    empty = np.ones(len(shares), dtype=bool)
    for i, size in enumerate(sizes):
        must_fill = len(sizes) - i == empty.sum()
        split = int(np.argmax(np.where(empty | (not must_fill), lacking, -np.inf)))
        assigned[i] = split
        lacking[split] -= size
        empty[split] = False
    return assigned


@dataclass(frozen=True)
class _Targets:
    """What each split should hold, and how far from it a split may be."""

    crops: Float[np.ndarray, "n_split n_column"]
    weights: Float[np.ndarray, "n_split n_column"]
    max_gap: float
    """Of the first column, the number of crops."""

    def distance(self, split: int, held: Float[np.ndarray, "*n_choice n_column"]) -> Distances:
        """Return the chi-squared distance of what a split holds; infinite beyond the gap."""
        gap = held - self.crops[split]
        squared = np.asarray((self.weights[split] * gap**2).sum(axis=-1))
        return np.where(np.abs(gap[..., 0]) > self.max_gap, np.inf, squared)


def _improve(
    counts: Float[np.ndarray, "n_group n_column"],
    assigned: Int[np.ndarray, " n_group"],
    shares: Float[np.ndarray, " n_split"],
) -> Int[np.ndarray, " n_group"]:
    """Move and swap groups while the splits get nearer to their shares of every column.

    Args:
        counts: Crops of each group: all of them in the first column, then by stratum.
        assigned: Split of each group; no split is empty.
        shares: Share of each split.

    Returns:
        Split of each group. No split is empty, and none is further from its share of the crops than
        the largest group, or than the furthest was before.
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
    shares: Float[np.ndarray, " n_split"],
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
    """Move a group to another split, alone or in exchange for a group there, where that helps most.

    Returns:
        The new splits; the old ones where nothing helps.
    """
    home = int(assigned[group])
    partners = np.flatnonzero(assigned == away)
    back = counts[partners]
    if (assigned == home).sum() > 1:  # else its split would be empty
        back = np.vstack([back, np.zeros_like(counts[:1])])
    flow = counts[group] - back  # [n_choice, n_column]
    at_home, at_away = (counts[assigned == split].sum(axis=0) for split in (home, away))
    before = targets.distance(home, at_home) + targets.distance(away, at_away)
    after = targets.distance(home, at_home - flow) + targets.distance(away, at_away + flow)
    best = int(np.argmin(after))
    if after[best] >= before * (1 - 1e-9):  # rounding alone must not look like progress
        return assigned
    exchanged = assigned.copy()
    exchanged[group] = away
    exchanged[partners[best : best + 1]] = home  # none, when the group moves alone
    return exchanged
