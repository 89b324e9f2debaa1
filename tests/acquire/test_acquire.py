"""From each source to a folder and a catalogue."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from tests.conftest import Call

from semforensics.acquire.acquire import acquire
from semforensics.acquire.folder import list_folder
from semforensics.core.files import sha256_of
from semforensics.core.tables import CATALOGUE_COLUMNS, FOLDER_COLUMNS, read_catalogue
from semforensics.params import AcquireParams, read_params


@pytest.fixture
def params(root: Path) -> AcquireParams:
    """The demo's parameters, with the folder as source."""
    demo = read_params(root / "presets/demo.yaml").acquire
    return demo.model_copy(update={"source": "folder"})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two micrographs: one of 8 bits in a subfolder, one of 16 bits."""
    folder = tmp_path / "mine"
    (folder / "sub").mkdir(parents=True)
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (8, 10), np.uint8)).save(
        folder / "sub/7-S2-A3-200k-disordered.tif"
    )
    Image.fromarray(rng.integers(0, 2**16, (6, 12), np.uint16)).save(folder / "b.png")
    return folder


def run(params: AcquireParams, tmp_path: Path, folder: Path | None) -> int:
    """Acquire into `raw` and `catalogue.csv`."""
    return acquire(
        params,
        tmp_path / "raw",
        tmp_path / "catalogue.csv",
        seed=0,
        listing=tmp_path / "listing.csv",
        folder=folder,
        scratch=tmp_path / "scratch",
    )


def test_a_folder_becomes_raw_files_and_a_catalogue(
    params: AcquireParams, folder: Path, tmp_path: Path
) -> None:
    """Files keep their paths; the catalogue describes each, with the unknown left empty."""
    list_folder(folder, tmp_path / "listing.csv", params.folder, max_left_out=0)

    assert run(params, tmp_path, folder) == 2

    table = read_catalogue(tmp_path / "catalogue.csv").set_index("file")
    assert sorted(table.index) == ["b.png", "sub/7-S2-A3-200k-disordered.tif"]
    for file in table.index:
        assert table.loc[file, "sha256"] == sha256_of(tmp_path / "raw" / file)
    columns = ["width_px", "height_px", "bit_depth", "group", "label", "source"]
    assert list(table.loc["b.png", columns]) == [12, 6, 16, "b.png", "", "folder"]
    assert list(table.iloc[1][columns]) == [10, 8, 8, "S2-A3", "disordered", "folder"]
    assert table["magnification_k"].isna().tolist() == [True, False]
    assert (tmp_path / "catalogue.csv").read_text().splitlines()[0] == ",".join(
        CATALOGUE_COLUMNS + FOLDER_COLUMNS
    )


def test_the_simulated_set_has_a_catalogue_of_its_own(
    params: AcquireParams, tmp_path: Path
) -> None:
    """Without any folder the simulator fills the raw folder, and every file says that it did."""
    small = {"num_areas": 3, "magnifications_k": (100, 200), "width_px": 160, "height_px": 128}
    simulated = params.simulated.model_copy(update=small)

    count = run(
        params.model_copy(update={"source": "simulated", "simulated": simulated}), tmp_path, None
    )

    table = read_catalogue(tmp_path / "catalogue.csv")
    assert count == len(table) == 6
    assert set(table["source"]) == {"simulated"}
    assert table["group"].nunique() == 3
    assert set(table["magnification_k"]) == {100, 200}
    assert set(table["width_px"]) == {160}
    assert table["kv"].notna().all()
    assert sorted(table["file"]) == sorted(p.name for p in (tmp_path / "raw").iterdir())


def test_an_older_folder_is_replaced_whole(
    params: AcquireParams, folder: Path, tmp_path: Path
) -> None:
    """What an earlier run left is gone."""
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw/older.tif").touch()
    list_folder(folder, tmp_path / "listing.csv", params.folder, max_left_out=0)

    run(params, tmp_path, folder)

    assert not (tmp_path / "raw/older.tif").exists()


def test_files_that_are_no_images_change_nothing(
    params: AcquireParams, folder: Path, tmp_path: Path
) -> None:
    """A file that is no picture any more is named, and the outputs stay as they were."""
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw/older.tif").touch()
    list_folder(folder, tmp_path / "listing.csv", params.folder, max_left_out=0)
    (folder / "b.png").write_bytes(b"")

    with pytest.raises(ValueError, match=r"1 files of .*mine differ from(?s:.*)b\.png: missing"):
        run(params, tmp_path, folder)

    assert [path.name for path in (tmp_path / "raw").iterdir()] == ["older.tif"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["listing.csv", "mine", "raw"]


def test_the_folder_must_be_named(params: AcquireParams, tmp_path: Path) -> None:
    """Without a folder the error says how to name one."""
    with pytest.raises(ValueError, match="SEMFORENSICS_FOLDER"):
        run(params, tmp_path, None)

    assert not (tmp_path / "raw").exists()


def test_commands_list_and_acquire(root: Path, folder: Path, tmp_path: Path, call: Call) -> None:
    """The two commands work together; a file added between them is an error of exit code 2."""
    document = yaml.safe_load((root / "presets/demo.yaml").read_text())
    document["acquire"]["source"] = "folder"
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(document))
    options = ("--params", str(tmp_path / "params.yaml"))
    paths = [str(tmp_path / name) for name in ("listing.csv", "raw", "catalogue.csv")]

    listed = call("list-folder", folder, paths[0], *options)
    acquired = call("acquire", *paths, *options, SEMFORENSICS_FOLDER=str(folder))
    shutil.copy(folder / "b.png", folder / "c.png")
    stale = call("acquire", *paths, *options, SEMFORENSICS_FOLDER=str(folder))

    assert (listed.returncode, acquired.returncode, stale.returncode) == (0, 0, 2), stale.stderr
    assert acquired.stdout == f"2 folder micrographs in {tmp_path / 'raw'}\n"
    assert "c.png: new" in stale.stderr
    assert "Traceback" not in stale.stderr
    assert not (tmp_path / "raw/c.png").exists()
