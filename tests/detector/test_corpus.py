"""Which images are in which split, and how they are read."""

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from semforensics.core.errors import InputError
from semforensics.detector.corpus import (
    check_same_size,
    contiguous_splits,
    draw_evenly,
    draw_test_split,
    draw_training_split,
    fingerprint,
    generators_of,
    load_images,
)
from tests.detector.conftest import SHARES, Folders, labelled


def listing(folders: Folders, protocol: str = "clean", seed: int = 0) -> pd.DataFrame:
    """The images of detector fastgan."""
    return folders.corpus(protocol=protocol, seed=seed).list_images(("fastgan",))


def test_clean_fakes_have_disjoint_ranges_of_seeds(folders: Folders) -> None:
    """Under the clean protocol the seeds, in order, fall into train, test and validation."""
    table = listing(folders)
    fakes = table[table["class"] == "fake"]

    assert fakes["file"].tolist() == [f"fastgan/{seed:06d}.png" for seed in range(60)]
    assert fakes["split"].tolist() == ["train"] * 36 + ["test"] * 18 + ["validation"] * 6


def test_thesis_fakes_are_drawn_at_random(folders: Folders) -> None:
    """Under the thesis's protocol the splits mix, in the same shares, by the seed."""
    table = listing(folders, "thesis")
    splits = table[table["class"] == "fake"]["split"].tolist()

    assert sorted(splits) == ["test"] * 18 + ["train"] * 36 + ["validation"] * 6
    assert splits != sorted(splits, key=["train", "test", "validation"].index)
    assert splits == listing(folders, "thesis")[table["class"] == "fake"]["split"].tolist()
    assert splits != listing(folders, "thesis", seed=1)[table["class"] == "fake"]["split"].tolist()


def test_seeds_count_as_numbers(folders: Folders) -> None:
    """The seed after 999999 follows it, though its name has a digit more."""
    folder = folders.fakes / "fastgan"
    for seed in range(60):
        (folder / f"{seed:06d}.png").rename(folder / f"{seed + 999_970:06d}.png")

    table = listing(folders)

    files = table[table["class"] == "fake"]["file"].tolist()
    assert files[29:31] == ["fastgan/999999.png", "fastgan/1000000.png"]


@given(st.integers(10, 3000))
def test_ranges_hold_the_shares(count: int) -> None:
    """Every fake has one split, in numbers within one of the shares."""
    splits = contiguous_splits(count, SHARES)

    assert len(splits) == count
    for split in ("train", "test", "validation"):
        assert abs(splits.count(split) - getattr(SHARES, split) * count) <= 1


def test_a_side_without_fakes_is_refused() -> None:
    """Too few fakes for three splits are refused."""
    with pytest.raises(ValueError, match="3 fakes: too few"):
        contiguous_splits(3, SHARES)


def test_splits_are_balanced_and_disjoint(folders: Folders) -> None:
    """Every split has as many fakes as reals; no image is in two; groups of reals stay whole."""
    table = listing(folders)

    splits = [draw_training_split(table, s, 0) for s in ("train", "validation")]
    splits.append(draw_test_split(table, 0))

    assert [len(split) for split in splits] == [72, 12, 36]
    for split in splits:
        assert (split["class"] == "fake").sum() == (split["class"] == "real").sum()
    drawn = pd.concat(splits)
    assert drawn["file"].is_unique
    reals = drawn[drawn["class"] == "real"]
    assert (reals.groupby("group")["split"].nunique() == 1).all()


def test_few_reals_stand_beside_a_fake_of_each_generator(folders: Folders) -> None:
    """A tiny collection trains; without a real, or with a generator that has no fake, none does."""
    table = listing(folders).assign(split="train")
    reals, fakes = (table[table["class"] == c] for c in ("real", "fake"))
    three = pd.concat(fakes.assign(generator=name) for name in ("a", "b", "c"))

    train = draw_training_split(pd.concat([reals.head(2), three]), "train", 0)

    assert train["class"].value_counts().to_dict() == {"fake": 3, "real": 2}
    assert sorted(filter(None, train["generator"])) == ["a", "b", "c"]
    with pytest.raises(InputError, match="train split: 0 reals and 60 fakes"):
        draw_training_split(fakes, "train", 0)


def test_two_generators_share_the_training_and_are_tested_alone() -> None:
    """A classifier learns from half of each generator, and each is tested with as many as reals."""
    parts = [{"file": f"r{i}", "class": "real", "generator": "", "group": i % 3} for i in range(9)]
    for generator, count in (("a", 20), ("b", 7)):
        parts += [
            {"file": f"{generator}{i}", "class": "fake", "generator": generator, "group": i}
            for i in range(count)
        ]
    table = pd.DataFrame(parts)

    train = draw_training_split(table.assign(split="train"), "train", 0)
    test = draw_test_split(table.assign(split="test"), 0)

    assert train["generator"].value_counts().to_dict() == {"": 8, "a": 4, "b": 4}
    assert test["generator"].value_counts().to_dict() == {"": 7, "a": 7, "b": 7}


@given(st.lists(st.integers(1, 8), min_size=1, max_size=6), st.integers(1, 48), st.integers(0, 9))
def test_reals_are_thinned_evenly_over_groups(sizes: list[int], count: int, seed: int) -> None:
    """No group gives two images more than another that has some left, in any order of the rows."""
    rows = [{"file": f"{g}_{i}", "group": g} for g, n in enumerate(sizes) for i in range(n)]
    table = pd.DataFrame(rows)

    drawn = draw_evenly(table, count, seed)

    assert len(drawn) == min(count, len(table))
    taken = [(drawn["group"] == g).sum() for g in range(len(sizes))]
    unexhausted = [t for t, size in zip(taken, sizes, strict=True) if t < size]
    assert not unexhausted or max(taken) - min(unexhausted) <= 1
    backwards = draw_evenly(table[::-1], count, seed)
    assert drawn["file"].tolist() == backwards["file"].tolist()


def test_images_are_read_as_they_are(folders: Folders) -> None:
    """Pixels come unchanged, in the order of the table, with their class."""
    table = draw_test_split(listing(folders), 0)

    loaded = load_images(table)

    assert loaded.images.shape == (36, 1, 32, 32)
    assert loaded.is_fake.tolist() == [False] * 18 + [True] * 18
    assert loaded.num_groups == 3
    for index in (0, 35):
        with Image.open(table["path"][index]) as image:
            assert np.array_equal(loaded.images[index, 0].numpy(), np.asarray(image))


@pytest.mark.parametrize(
    ("size", "found"), [((33, 33), "33x33 px, expected even"), ((8, 8), "8x8 px, expected even")]
)
def test_odd_and_tiny_images_are_refused(
    folders: Folders, size: tuple[int, int], found: str
) -> None:
    """A set whose images are of odd size or below 16 px is refused by its first file."""
    table = draw_test_split(listing(folders), 0)
    for path in table["path"]:
        Image.new("L", size).save(path)

    with pytest.raises(ValueError, match=found):
        load_images(table)


def test_a_file_of_another_size_is_named(folders: Folders) -> None:
    """One image of another size is refused, with both sizes and both names."""
    table = draw_test_split(listing(folders), 0)
    Image.new("L", (64, 32)).save(table["path"][20])

    with pytest.raises(ValueError, match=r"0000\d\d.png: 64x32 px, expected 32x32 px as .*S1-A6_0"):
        load_images(table)


def test_sets_of_two_sizes_are_refused() -> None:
    """Two sets whose images differ in size do not go together."""
    one, other = labelled(2, 0), labelled(2, 1)
    other = type(other)(other.table, other.images[..., :16, :16])

    check_same_size(one, one)
    with pytest.raises(ValueError, match=r"32x32 px.*16x16 px"):
        check_same_size(one, other)


def test_foreign_files_among_the_fakes_are_refused(folders: Folders) -> None:
    """A file that is not named after a seed is refused, not skipped."""
    (folders.fakes / "fastgan/notes.txt").write_text("")

    with pytest.raises(ValueError, match=r"notes.txt: not a fake"):
        listing(folders)


def test_missing_images_are_named(folders: Folders) -> None:
    """A missing folder of fakes, and a missing real, are named."""
    next(folders.cropped.glob("S1-A0_*")).unlink()
    with pytest.raises(FileNotFoundError, match="S1-A0_"):
        load_images(draw_training_split(listing(folders), "train", 0))

    (folders.fakes / "fastgan").rename(folders.fakes / "other")
    with pytest.raises(FileNotFoundError, match="fastgan: no such folder of fakes"):
        listing(folders)


def write_pseudo(folders: Folders) -> None:
    """Write a pseudo-fake of every real, and fakes of both generators."""
    shutil.copytree(folders.cropped, folders.fakes / "pseudo")
    shutil.copytree(folders.fakes / "fastgan", folders.fakes / "stylegan2_ada")


def list_all(folders: Folders) -> pd.DataFrame:
    """The images of detector both_pseudo."""
    return folders.corpus().list_images(generators_of("both_pseudo"))


def test_a_pseudo_fake_stands_where_its_original_does(folders: Folders) -> None:
    """It has the name, the split and the group of its original; every real has one."""
    write_pseudo(folders)

    table = list_all(folders)

    pseudo = table[table["generator"] == "pseudo"].reset_index(drop=True)
    reals = table[table["class"] == "real"].reset_index(drop=True)
    assert (pseudo["file"] == "pseudo/" + reals["file"]).all()
    assert pseudo[["split", "group"]].equals(reals[["split", "group"]])
    assert set(pseudo["class"]) == {"fake"}
    train = draw_training_split(table, "train", 0)
    assert train["generator"].value_counts().to_dict() == {
        "": 36, "fastgan": 12, "stylegan2_ada": 12, "pseudo": 12,
    }  # fmt: skip
    test = load_images(draw_test_split(table, 0))
    assert test.num_groups == 3
    assert test.images.shape[0] == 4 * 18


@pytest.mark.parametrize("change", ["missing", "stray"])
def test_pseudo_fakes_of_other_reals_are_refused(folders: Folders, change: str) -> None:
    """A real without its reconstruction, or the reverse, is named."""
    write_pseudo(folders)
    path = folders.fakes / "pseudo/S1-A0_0.png"
    path.unlink() if change == "missing" else path.rename(path.with_name("S1-A0_00.png"))

    with pytest.raises(ValueError, match=r"not one pseudo-fake for each real, as S1-A0_0\.png"):
        list_all(folders)


def test_unknown_detectors_are_refused() -> None:
    """A detector that is none of the pipeline is refused with the names of those that are."""
    assert generators_of("fastgan") == ("fastgan",)
    with pytest.raises(ValueError, match="'stylegan9': expected one of fastgan"):
        generators_of("stylegan9")


def test_the_fingerprint_changes_with_a_split(folders: Folders, tmp_path: Path) -> None:
    """The fingerprint is of names and splits, not of where the folders lie."""
    table = listing(folders)
    moved = table.assign(path=[tmp_path / "elsewhere" / p.name for p in table["path"]])
    other = table.copy()
    other.loc[0, "split"] = "test"

    assert fingerprint(table) == fingerprint(moved)
    assert fingerprint(table) != fingerprint(other)


def test_the_fingerprint_is_that_of_released_models(folders: Folders) -> None:
    """Models released before the column was called `split` carry hashes under its old name."""
    table = listing(folders)
    columns = ["file", "class", "generator", "side", "group"]

    old = table.rename(columns={"split": "side"})[columns].to_csv(index=False)

    assert fingerprint(table) == hashlib.sha256(old.encode()).hexdigest()


def test_a_classifier_that_does_not_say_its_images_is_refused(folders: Folders) -> None:
    """Metadata without the hash of the splits, or of another detector, ends in one sentence."""
    corpus = folders.corpus()
    meta = {
        "detector": "fastgan",
        "protocol": "clean",
        "shares": SHARES.model_dump(exclude={"by"}),
        "seed": 0,
    }
    with pytest.raises(InputError, match="does not say its splits_sha256"):
        corpus.list_images_of(meta)

    whole = meta | {"splits_sha256": fingerprint(corpus.list_images(("fastgan",)))}
    assert len(corpus.list_images_of(whole, "fastgan")) == 120
    with pytest.raises(InputError, match="the classifier is fastgan, expected both"):
        corpus.list_images_of(whole, "both")
