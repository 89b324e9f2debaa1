"""Folders of other people's micrographs, from the listing to the split."""

from pathlib import Path

import pytest

from semforensics.acquire.acquire import acquire
from semforensics.acquire.folder import list_folder
from semforensics.core.tables import SPLITS, read_splits
from semforensics.micrographs.crop import crop
from semforensics.micrographs.split import split
from semforensics.params import read_params


def run(preset: Path, folder: Path, out: Path) -> list[str]:
    """Run the first stages of a preset on a folder; what each says."""
    params = read_params(preset)
    listing, raw, catalogue = out / "listing.csv", out / "raw", out / "catalogue.csv"
    said = [
        list_folder(folder, listing, params.acquire.folder, max_left_out=params.crop.max_left_out)
    ]
    acquire(
        params.acquire, raw, catalogue, seed=0, listing=listing, folder=folder, scratch=out / "tmp"
    )
    outputs = (out / "cropped", out / "crops.csv", out / "left_out.csv")
    said.append(crop(raw, catalogue, *outputs, params.crop))
    said.append(split(out / "crops.csv", out / "splits.csv", params.split, "clean", 0))
    return said


@pytest.mark.parametrize("name", ["gsc_shale_tiles", "membrane_png_small"])
def test_a_collection_of_any_instrument_is_split(
    name: str, root: Path, shared: Path, tmp_path: Path
) -> None:
    """A single collection of few groups comes to three splits, with a warning."""
    said = run(root / "presets/real_subset.yaml", shared / "sem" / name, tmp_path)

    table = read_splits(tmp_path / "splits.csv")
    assert set(table["split"]) == set(SPLITS)
    assert set(table["collection"]) == {name}
    assert "2 files that are no pictures (1 .csv, 1 .md)" in said[0]
    assert "split by micrograph" in said[2]


def test_collections_that_may_not_be_learned_from_are_test_images(
    root: Path, shared: Path, tmp_path: Path
) -> None:
    """Of several collections the ones for measuring are in the test split, and are named."""
    names = ["membrane_png_small", "gsc_shale_tiles", "tripper_cement_hitachi"]
    names += ["platelet_sbfsem_16bit"]
    for name in names:
        for path in (shared / "sem" / name).rglob("*"):
            if path.is_file():
                copy = tmp_path / "sem" / path.relative_to(shared / "sem")
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy.write_bytes(path.read_bytes())

    said = run(root / "presets/world.yaml", tmp_path / "sem", tmp_path)

    splits = read_splits(tmp_path / "splits.csv")
    of = {name: set(part["split"]) for name, part in splits.groupby("collection")}
    assert of.keys() == set(names)
    assert of.pop("membrane_png_small") == {"test"}
    assert all(len(found) == 1 for found in of.values()), "a collection is in one split"
    assert "for measuring only, in no training and no calibration (crops): membrane" in said[2]
