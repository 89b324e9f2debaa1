"""Splits of crops: whole groups or single files, in the shares asked for."""

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semforensics.core.tables import SPLITS, read_crops, read_splits
from semforensics.micrographs.split import split, split_by_file, split_by_group
from semforensics.params import SplitParams
from tests.conftest import Call

SHARES = SplitParams(by="group", train=0.6, test=0.3, validation=0.1)
seeds = st.integers(0, 2**32)
group_sizes = st.lists(st.integers(1, 60), min_size=3, max_size=40)


def table_of(
    sizes: list[int], magnifications: list[float] | None = None, labels: list[str] | None = None
) -> pd.DataFrame:
    """A table of crops with groups of the sizes given."""
    group = np.repeat(np.arange(len(sizes)), sizes)
    n = len(group)
    return pd.DataFrame(
        {
            "file": [f"{i:05d}.png" for i in range(n)],
            "micrograph": [f"{g}.tif" for g in group],
            "group": [f"S1-A{g}" for g in group],
            "label": np.array(labels or [""] * len(sizes))[group],
            "magnification_k": np.array(magnifications or [np.nan] * len(sizes))[group],
            "kv": np.full(n, np.nan),
            "top_px": np.zeros(n, dtype=int),
            "left_px": np.zeros(n, dtype=int),
        }
    )


def write(table: pd.DataFrame, path: Path) -> Path:
    """Write a table of crops."""
    table.to_csv(path, index=False)
    return path


@settings(max_examples=50)
@given(group_sizes, seeds)
def test_groups_stay_together_and_shares_hold(sizes: list[int], seed: int) -> None:
    """No group stands on two sides, none is empty, and shares hold to within the largest group."""
    table = table_of(sizes)

    sides = pd.Series(split_by_group(table, SHARES, seed))

    assert (sides.groupby(table["group"]).nunique() == 1).all()
    assert set(sides) == set(SPLITS)
    for side in SPLITS:
        assert abs((sides == side).sum() - getattr(SHARES, side) * len(table)) <= max(sizes)


@given(st.integers(3, 500), seeds)
def test_single_files_meet_the_shares(n: int, seed: int) -> None:
    """The shares of a split by file hold to within a file, and no side is empty."""
    sides = split_by_file([f"{i}.png" for i in range(n)], SHARES, seed)

    assert len(sides) == n
    for side in SPLITS:
        assert sides.count(side) >= 1
        assert abs(sides.count(side) - max(1, getattr(SHARES, side) * n)) <= 1


@settings(max_examples=25)
@given(group_sizes, seeds, st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(sizes: list[int], seed: int, random) -> None:
    """The same crops in another order come to the same splits."""
    table = table_of(sizes)
    order = list(range(len(table)))
    random.shuffle(order)

    for draw in (
        lambda t: split_by_group(t, SHARES, seed),
        lambda t: split_by_file(t["file"].tolist(), SHARES, seed),
    ):
        straight = dict(zip(table["file"], draw(table), strict=True))
        mixed = table.iloc[order]
        assert dict(zip(mixed["file"], draw(mixed), strict=True)) == straight


@pytest.mark.parametrize("protocol", ["clean", "thesis"])
def test_the_seed_decides(tmp_path: Path, protocol: str) -> None:
    """The same seed gives the same file, another seed another one."""
    crops = write(table_of([10] * 20), tmp_path / "crops.csv")

    for name, seed in [("a", 0), ("b", 0), ("c", 1)]:
        split(crops, tmp_path / name, SHARES, protocol, seed)

    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert (tmp_path / "a").read_bytes() != (tmp_path / "c").read_bytes()


def test_the_draw_is_the_same_on_every_machine() -> None:
    """The split by file is fixed by hashes, so it never changes with a library's version."""
    files = [f"{i:06d}.png" for i in range(10)]
    by_hash = sorted(files, key=lambda f: hashlib.sha256(f"7:{f}".encode()).hexdigest())

    side_of = dict(zip(files, split_by_file(files, SHARES, 7), strict=True))

    assert [side_of[f] for f in by_hash] == ["train"] * 6 + ["test"] * 3 + ["validation"]


@settings(max_examples=25)
@given(seeds)
def test_sides_are_alike_in_magnification_and_label(seed: int) -> None:
    """With many groups every stratum meets the shares, however it lies in the table."""
    rng = np.random.default_rng(seed)
    table = table_of(
        [15] * 90,
        rng.permutation(np.repeat([50.0, 100.0, 200.0], 30)).tolist(),
        rng.permutation(["ordered"] * 60 + ["disordered"] * 30).tolist(),
    )

    table["split"] = split_by_group(table, SHARES, seed)

    for column in ("magnification_k", "label"):
        shares = pd.crosstab(table[column], table["split"], normalize="index")
        for side in SPLITS:
            assert np.abs(shares[side] - getattr(SHARES, side)).max() < 0.07


def test_clean_keeps_what_thesis_mixes(tmp_path: Path) -> None:
    """On the same crops the clean protocol has no group on two sides; the thesis's has."""
    crops = write(table_of([12] * 10), tmp_path / "crops.csv")
    most = {}

    for protocol in ("clean", "thesis"):
        summary = split(crops, tmp_path / protocol, SHARES, protocol, 0)
        table = read_splits(tmp_path / protocol)
        most[protocol] = table.groupby("group")["split"].nunique().max()
        counts = table["split"].value_counts()
        assert f"train {counts['train']} crops of" in summary
        assert sorted(table["file"]) == sorted(read_crops(crops)["file"])

    assert most == {"clean": 1, "thesis": 3}


def with_collections(sizes: list[int], collections: str, measured: str = "") -> pd.DataFrame:
    """A table whose groups are of collections named by letters; some are for measuring."""
    table = table_of(sizes)
    letters = dict(zip(dict.fromkeys(table["group"]), collections, strict=True))
    table["collection"] = table["group"].map(letters)
    use = np.where(table["collection"].isin(list(measured)), "measure", "train")
    return table.assign(use=use)


def test_a_collection_stays_in_one_split(tmp_path: Path) -> None:
    """Where collections are split, no collection is in two splits; where groups are, it may be."""
    crops = write(with_collections([6] * 12, "aaabbbcccddd"), tmp_path / "crops.csv")
    most = {}

    for by in ("collection", "group"):
        shares = SHARES.model_copy(update={"by": by})
        split(crops, tmp_path / by, shares, "clean", 0)
        table = read_splits(tmp_path / by)
        most[by] = table.groupby("collection")["split"].nunique().max()
        assert (table.groupby("group")["split"].nunique() == 1).all()

    assert most["collection"] == 1 < most["group"]


def test_collections_that_share_a_group_are_split_as_one(tmp_path: Path) -> None:
    """Two folders with views of one area are in one split."""
    table = with_collections([6] * 12, "aaabbbcccddd")
    table.loc[table["group"] == "S1-A3", "group"] = "S1-A2"  # of a and of b
    crops = write(table, tmp_path / "crops.csv")

    split(crops, tmp_path / "s", SHARES.model_copy(update={"by": "collection"}), "clean", 0)

    splits = read_splits(tmp_path / "s")
    assert splits.loc[splits["collection"].isin(["a", "b"]), "split"].nunique() == 1
    assert (splits.groupby("collection")["split"].nunique() == 1).all()


@pytest.mark.parametrize("protocol", ["clean", "thesis"])
@pytest.mark.parametrize("by", ["collection", "group"])
def test_what_is_for_measuring_is_never_trained_on(tmp_path: Path, protocol: str, by: str) -> None:
    """Crops for measuring are test crops beside the shares, and the text names their collection."""
    table = with_collections([10] * 9, "aabbccddm", measured="m")
    crops = write(table, tmp_path / "crops.csv")

    shares = SHARES.model_copy(update={"by": by})
    text = split(crops, tmp_path / "splits.csv", shares, protocol, 0)

    splits = read_splits(tmp_path / "splits.csv")
    assert set(splits.loc[splits["use"] == "measure", "split"]) == {"test"}
    trained_on = splits[splits["use"] == "train"]
    assert set(trained_on["split"]) == set(SPLITS)
    assert text.endswith("for measuring only, in no training and no calibration (crops): m 10")


def test_too_few_groups_are_split_by_micrograph_with_a_warning(tmp_path: Path) -> None:
    """Two groups of six micrographs become six groups, and the text says that this flatters."""
    table = table_of([4] * 6).assign(group=np.repeat(["S1", "S2"], 12))
    crops = write(table, tmp_path / "crops.csv")

    text = split(crops, tmp_path / "splits.csv", SHARES, "clean", 0)

    splits = read_splits(tmp_path / "splits.csv")
    assert (splits["group"] == splits["micrograph"]).all()
    assert (splits.groupby("micrograph")["split"].nunique() == 1).all()
    assert "warning: fewer than 3 of each group to train on, split by micrograph" in text


def test_rows_are_kept_as_they_were_written(tmp_path: Path) -> None:
    """A split adds its column and changes no other character."""
    text = ["file,micrograph,group,label,magnification_k,kv,top_px,left_px"]
    text += [f"{i}.png,NA.tif,NA,null,50.0,1e1,0,{i}" for i in range(4)]
    text += [f"{i}.png,b.tif,{i},,,,0,0" for i in range(4, 9)]
    (tmp_path / "crops.csv").write_text("\n".join(text) + "\n")

    split(tmp_path / "crops.csv", tmp_path / "splits.csv", SHARES, "clean", 0)

    lines = (tmp_path / "splits.csv").read_text().splitlines()
    assert [line.rsplit(",", 1)[0] for line in lines] == text
    table = read_splits(tmp_path / "splits.csv")
    assert table["group"].tolist()[:5] == ["NA"] * 4 + ["4"]
    assert table["magnification_k"].tolist()[0] == 50
    assert table["kv"].isna().sum() == 5


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda t: t.drop(columns="group"), "no column group"),
        (lambda t: t.assign(top_px="x"), "top_px 'x'"),
        (lambda t: t.assign(file="a.png"), "a.png: listed twice"),
        (lambda t: t.assign(group=""), "00000.png: no group"),
        (lambda t: t.assign(file=""), "'': not a path"),
        (lambda t: t.head(0), "lists nothing"),
        (lambda t: t.drop(columns="split"), "no column split"),
        (lambda t: t.assign(split="left"), "splits .'left'., expected exactly"),
        (lambda t: t[t["split"] != "test"], "splits .'train', 'validation'., expected exactly"),
    ],
)
def test_broken_tables_are_refused(tmp_path: Path, change, reason: str) -> None:
    """A table that lacks a column, a split or a name is refused, saying which."""
    table = table_of([3, 3, 3]).assign(split=np.repeat(SPLITS, 3))
    path = write(change(table), tmp_path / "splits.csv")

    with pytest.raises(ValueError, match=rf"(?s)splits\.csv:.*{reason}"):
        read_splits(path)


def test_the_command_splits(root: Path, tmp_path: Path, call: Call) -> None:
    """The command writes the splits and says how many; bad input ends in exit code 2."""
    crops = write(table_of([15] * 10), tmp_path / "crops.csv")
    arguments = ("split", crops, tmp_path / "splits.csv", "--params", root / "presets/demo.yaml")

    good = call(*arguments)
    before = (tmp_path / "splits.csv").read_bytes()
    write(table_of([15]), crops)
    bad = call(*arguments)

    assert (good.returncode, good.stderr) == (0, "")
    assert good.stdout.endswith(
        "train 75 crops of 5 groups, test 45 crops of 3 groups, validation 30 crops of 2 groups\n"
    )
    assert bad.returncode == 2
    assert bad.stderr.startswith("error: 1 groups (S1-A0), need at least 3")
    assert (tmp_path / "splits.csv").read_bytes() == before
