"""False alarms are counted on processed reals and on foreign micrographs, by tile and by image."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from tests.detector.conftest import Folders, original, upsampled, write_data

from semforensics.acquire.names import describe_name
from semforensics.detector.perturbations import GRID
from semforensics.params import CropParams, FalseAlarmsParams
from semforensics.trials.benign import list_benign, read_benign_listing
from semforensics.trials.false_alarms import (
    count,
    count_false_alarms,
    known_groups,
    pool_images,
    summarise,
)
from semforensics.trials.intervals import wilson_interval

CPU = torch.device("cpu")
ALPHA = 0.2  # the validation split has 6 images of each class
CROP = CropParams(
    geometry="tiles",
    size_px=32,
    info_bar=0,
    max_flat_share=None,
    max_tiles=None,
    max_left_out=0,
    max_megapixels=1,
)
NOTHING_REFUSED = pd.DataFrame(columns=["set", "file", "group", "groups", "reason"])
SETS = {"doubled": ("doubled/*",), "plain": ("plain/**/*.png",)}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    """Images on disk, and a classifier of them in `model`."""
    root = tmp_path_factory.mktemp("trained")
    folders = write_data(root)
    folders.train(epochs=30)
    return folders


@pytest.fixture
def benign(tmp_path: Path) -> Path:
    """Three plain frames, one of a training group, one too small; two frames of doubled pixels."""
    rng = np.random.default_rng(7)
    folder = tmp_path / "benign"
    (folder / "plain/sub").mkdir(parents=True)
    (folder / "doubled").mkdir()
    for name, image in (
        ("plain/1-S1-A0-100k-ordered_blurred.png", original(rng, 128)),  # A0: training split
        ("plain/2-S1-A99-100k-ordered.png", original(rng, 128)),
        ("plain/sub/other.png", original(rng, 100)),
        ("plain/sub/tiny.png", original(rng, 30)),
        ("doubled/a.png", upsampled(rng, 128)),
        ("doubled/b.png", upsampled(rng, 128)),
        ("doubled/not_selected/c.png", upsampled(rng, 128)),
    ):
        (folder / name).parent.mkdir(exist_ok=True)
        Image.fromarray(image).save(folder / name)
    return folder


def measure(folders: Folders, listing: Path, folder: Path | None, output: Path) -> str:
    """Run the stage."""
    return count_false_alarms(
        folders.under_test(alpha=ALPHA), listing, folder, output / "m.json", output / "plots",
        params=FalseAlarmsParams(pooling="mean", sets=SETS if folder else {}), crop=CROP,
    )  # fmt: skip


def test_the_listing_names_every_file_of_every_set(benign: Path, tmp_path: Path) -> None:
    """Files stand under their set with size and hash; what no pattern matches is left out."""
    listing = tmp_path / "listing.csv"

    number = list_benign(benign, listing, SETS)

    table = pd.read_csv(listing)
    assert number == len(table) == 6
    assert table["set"].tolist() == ["doubled"] * 2 + ["plain"] * 4
    assert table["file"].tolist()[:3] == [
        "doubled/a.png", "doubled/b.png", "plain/1-S1-A0-100k-ordered_blurred.png",
    ]  # fmt: skip
    assert table["size_bytes"][0] == (benign / "doubled/a.png").stat().st_size
    assert read_benign_listing(listing, benign, SETS) == list(
        zip(table["set"], table["file"], strict=True)
    )


def test_a_folder_must_be_as_it_was_listed(benign: Path, tmp_path: Path) -> None:
    """New, missing and changed files are named, all in one message."""
    listing = tmp_path / "listing.csv"
    list_benign(benign, listing, SETS)
    (benign / "doubled/a.png").unlink()
    (benign / "plain/sub/other.png").write_bytes(b"other")
    (benign / "doubled/new.png").write_bytes(b"new")

    with pytest.raises(ValueError, match=r"3 files of .* differ") as caught:
        read_benign_listing(listing, benign, SETS)

    for line in (
        "doubled: doubled/new.png: new",
        "doubled: doubled/a.png: missing",
        "plain: plain/sub/other.png: changed",
    ):
        assert line in str(caught.value)


def test_listed_files_need_their_folder(benign: Path, tmp_path: Path) -> None:
    """A listing with files and no folder is an error, and so are sets without files."""
    listing, empty = tmp_path / "listing.csv", tmp_path / "empty.csv"
    list_benign(benign, listing, SETS)
    list_benign(benign, empty, {})

    assert empty.read_text() == "set,file,size_bytes,sha256\n"
    assert read_benign_listing(empty, None, {}) == []
    with pytest.raises(ValueError, match=r"lists nothing, but .* names doubled, plain"):
        read_benign_listing(empty, benign, SETS)
    with pytest.raises(ValueError, match="SEMFORENSICS_BENIGN"):
        read_benign_listing(listing, None, SETS)
    listing.write_text("file,sha256\na,b\n")
    with pytest.raises(ValueError, match="expected set, file, size_bytes, sha256"):
        read_benign_listing(listing, benign, SETS)


def scored(logits: list[float], files: list[str], inside: str) -> pd.DataFrame:
    """Tiles of one set, each file a group."""
    return pd.DataFrame(
        {
            "kind": "foreign", "set": "s", "file": files, "group": files, "groups": "new",
            "logit": np.array(logits, dtype=np.float32), "verdict": "consistent",
            "is_inside": [letter == "y" for letter in inside],
        }
    )  # fmt: skip


def test_tiles_are_pooled_by_every_rule(trained: Folders) -> None:
    """Mean, median and maximum of an image's tiles; inside when more than half of them are."""
    tested = trained.under_test(alpha=ALPHA)
    tiles = scored([-50, 1, 4, 60, 80], ["a", "a", "a", "b", "b"], "yynny")

    images = pool_images(tested, tiles).set_index(["file", "pooling"])

    assert images.loc["a", "logit"].to_dict() == {"mean": -15, "median": 1, "max": 4}
    assert images.loc["a", "num_tiles"].tolist() == [3, 3, 3]
    assert images.loc["a", "is_inside"].all()
    assert not images.loc["b", "is_inside"].any()
    assert images.loc[("a", "mean"), "verdict"] == "consistent"
    assert set(images.loc["b", "verdict"]) == {"inconclusive"}  # outside, for all its logit


def test_alarms_are_counted_by_tile_and_image() -> None:
    """Shares above the threshold and of the verdict, with Wilson's interval, images and groups."""
    tiles = scored([1, 1, -1, -1], ["a", "a", "b", "c"], "yyyn")
    tiles["verdict"] = ["ai-suspected", "inconclusive", "consistent", "inconclusive"]
    images = scored([1, -1, -1], ["a", "b", "c"], "yyn").assign(pooling="mean", num_tiles=1)
    refused = pd.DataFrame(
        {"set": ["s"], "file": ["d"], "group": ["d"], "groups": ["new"], "reason": ["small"]}
    )

    counted = count(tiles, images, refused, 0.0).set_index("level")

    tile, image = counted.loc["tile"], counted.loc["image"]
    assert (tile["n"], tile["n_images"], tile["n_groups"], tile["n_refused"]) == (4, 3, 3, 1)
    assert (image["n"], image["n_images"]) == (3, 3)
    assert (tile["flagged"], image["flagged"]) == (0.5, pytest.approx(1 / 3))
    assert (tile["flagged_low"], tile["flagged_high"]) == wilson_interval(2, 4)
    assert (tile["false_alarms"], tile["decided"]) == (0.25, 0.5)
    assert tile["false_alarms_of_decided"] == 0.5
    assert (image["false_alarms"], image["decided"], image["inside"]) == (0, 1, 2 / 3)


def test_the_stage_tells_known_from_new_groups(
    trained: Folders, benign: Path, tmp_path: Path
) -> None:
    """The headline holds new groups only; refused files are listed with their reason."""
    listing = tmp_path / "listing.csv"
    list_benign(benign, listing, SETS)

    lines = measure(trained, listing, benign, tmp_path).splitlines()

    plots = tmp_path / "plots"
    assert {p.name for p in plots.iterdir()} == {
        "false_alarms.csv", "images.csv", "false_alarms.png",
    }  # fmt: skip
    images = pd.read_csv(plots / "images.csv").set_index("file")
    foreign = images[images["set"].isin(SETS)]
    groups = foreign.groupby("file")["groups"].first().to_dict()
    assert groups == {
        "plain/1-S1-A0-100k-ordered_blurred.png": "known",
        "plain/2-S1-A99-100k-ordered.png": "new",
        "plain/sub/other.png": "new",
        "plain/sub/tiny.png": "new",
        "doubled/a.png": "new",
        "doubled/b.png": "new",
    }
    assert "30x30 px" in images.loc["plain/sub/tiny.png", "reason"]
    assert foreign.loc["plain/sub/other.png", "num_tiles"].tolist() == [9, 9, 9]

    numbers = json.loads((tmp_path / "m.json").read_text())
    assert set(numbers["foreign"]) == {"plain", "doubled"}
    plain, doubled = numbers["foreign"]["plain"], numbers["foreign"]["doubled"]
    assert (plain["n"], plain["n_groups"], plain["n_refused"]) == (2, 2, 1)
    assert (plain["flagged"], doubled["flagged"]) == (0, 1)
    assert numbers["processed_calibrated"]["n_kinds"] == 0
    assert numbers["processed_others"]["n_kinds"] == sum(cell.benign for cell in GRID)
    assert numbers["original"]["n"] == 18
    counted = pd.read_csv(plots / "false_alarms.csv", keep_default_na=False)
    tiles = counted[(counted["set"] == "plain") & (counted["level"] == "tile")]
    assert tiles.set_index("groups")["n"].to_dict() == {"known": 16, "new": 25}
    single = counted[(counted["kind"] == "processed") & (counted["level"] == "tile")]
    assert numbers["processed_others"]["flagged_worst"] == single["flagged"].iloc[1:].max()
    assert "2 micrographs of 2 new groups (1 refused), mean of tiles" in lines[2]


def test_without_foreign_sets_the_stage_says_so(trained: Folders, tmp_path: Path) -> None:
    """A listing of a header counts processed reals alone, the same each time."""
    listing = tmp_path / "listing.csv"
    list_benign(tmp_path, listing, {})

    for name in ("one", "two"):
        lines = measure(trained, listing, None, tmp_path / name).splitlines()

    assert lines[-1] == "no foreign sets are listed, so none were counted"
    assert json.loads((tmp_path / "one/m.json").read_text())["foreign"] == {}
    for name in ("m.json", "plots/false_alarms.csv", "plots/false_alarms.png"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_known_groups_make_no_headline(trained: Folders, tmp_path: Path) -> None:
    """Where every test group has a crop in the training split too, metrics stay empty."""
    splits = tmp_path / "splits.csv"
    table = pd.read_csv(trained.splits, keep_default_na=False)
    table["group"] = "S1-A0"
    table.to_csv(splits, index=False)
    tested = trained.under_test(alpha=ALPHA)

    tiles = scored([1, -1], ["a", "b"], "yy").assign(kind="processed", group="S1-A0")
    tiles["groups"] = np.where(tiles["group"].isin(known_groups(splits)), "known", "new")
    counted = count(tiles, pool_images(tested, tiles), NOTHING_REFUSED, 0.0)
    numbers = summarise(counted, tested, "mean")

    assert set(counted["groups"]) == {"known"}
    assert numbers["original"] == numbers["foreign"] == {}
    assert numbers["processed_others"] == {}


def test_a_set_that_cannot_be_read_at_all_is_an_error(
    trained: Folders, benign: Path, tmp_path: Path
) -> None:
    """Nothing is left out in silence: the message names the set and the first reason."""
    for name in ("a", "b"):
        Image.fromarray(np.zeros((20, 20), dtype=np.uint8)).save(benign / f"doubled/{name}.png")
    listing = tmp_path / "listing.csv"
    list_benign(benign, listing, SETS)

    with pytest.raises(ValueError, match=r"doubled: none of its 2 micrographs can be read.*20x20"):
        measure(trained, listing, benign, tmp_path)


def test_tiles_of_another_size_are_refused(trained: Folders, tmp_path: Path) -> None:
    """A detector judges the size that it was trained on."""
    listing = tmp_path / "listing.csv"
    list_benign(tmp_path, listing, {})

    with pytest.raises(ValueError, match="crops have 64 px"):
        count_false_alarms(
            trained.under_test(), listing, None, tmp_path / "m.json", tmp_path / "plots",
            params=FalseAlarmsParams(pooling="mean", sets={}),
            crop=CROP.model_copy(update={"size_px": 64}),
        )  # fmt: skip


def test_denoised_micrographs_belong_to_their_originals_group(shared: Path, tmp_path: Path) -> None:
    """The published denoised files are listed, and named so that their group is known."""
    listing = tmp_path / "listing.csv"
    sets = {"denoised": ("boiko-pdc-partial/denoised_890/**/*.tif",)}

    number = list_benign(shared / "sem", listing, sets)

    files = pd.read_csv(listing)["file"]
    assert number == 12
    assert {describe_name(file)["group"] for file in files} >= {"S4-A51", "S1-A154"}
