"""The published set: records, description, catalogue rows."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from semforensics.acquire.boiko import (
    NUM_IMAGES,
    acquire_boiko,
    describe_image,
    read_description,
)
from semforensics.acquire.catalogue import describe_files, write_catalogue
from semforensics.core.tables import read_catalogue
from semforensics.params import BoikoParams

from .conftest import Figshare

RECORD = 11783661
PARAMS = BoikoParams(records=(RECORD,))
HEADER = (
    'Filename,Sample,Area,"AcceleratingVoltage, Volt","WorkingDistance, um",'
    '"Magnification, times"\n'
)
NAMES = [f"{i}-S1-A{i // 3}-{m}k-ordered.tif" for i, m in enumerate([50, 100, 200] * 2)]
DESCRIPTION = HEADER + "".join(
    f"{name},S1,A{i // 3},{(i + 1) * 1000},{8300 + i},{name.split('-')[3][:-1]}000\n"
    for i, name in enumerate(NAMES)
)


def tiff(level: int) -> bytes:
    """A small picture of one grey level."""
    buffer = io.BytesIO()
    Image.fromarray(np.full((4, 5), level, np.uint8)).save(buffer, "TIFF")
    return buffer.getvalue()


@pytest.fixture(autouse=True)
def record(figshare: Figshare) -> dict[str, bytes]:
    """A record of six micrographs and their description."""
    figshare.files = {name: tiff(i) for i, name in enumerate(NAMES)}
    figshare.files["Dataset1_description_w_units.csv"] = DESCRIPTION.encode()
    return figshare.files


def acquire(figshare: Figshare, tmp_path: Path, **changes: Any) -> list[dict[str, Any]]:
    """Acquire the record of six micrographs."""
    (tmp_path / "raw").mkdir(exist_ok=True)
    arguments = {"client": figshare.client(), "num_images": {RECORD: 6}}
    return acquire_boiko(PARAMS, tmp_path / "raw", tmp_path / "scratch", **{**arguments, **changes})


def test_published_records_have_a_thousand_micrographs() -> None:
    """Dataset 1 has 750 micrographs, Dataset 2 has 250."""
    assert dict(NUM_IMAGES) == {11783661: 750, 11783667: 250}


def test_micrographs_arrive_with_their_description(figshare: Figshare, tmp_path: Path) -> None:
    """Every micrograph lies below its record, and voltage and distance come in kV and mm."""
    rows = acquire(figshare, tmp_path)

    assert rows[1] == {
        "file": f"{RECORD}/{NAMES[1]}",
        "sample": "S1",
        "area": "A0",
        "magnification_k": 100,
        "kv": 2.0,
        "wd_mm": 8.301,
        "group": "S1-A0",
        "label": "ordered",
        "licence": "CC BY 4.0",
    }
    folder = tmp_path / "raw" / str(RECORD)
    assert {path.name for path in folder.iterdir()} == set(NAMES)
    assert all((folder / name).read_bytes() == figshare.files[name] for name in NAMES)


def test_rows_make_a_catalogue(figshare: Figshare, tmp_path: Path) -> None:
    """What is known of the micrographs, and what their files say, is a valid catalogue."""
    rows = describe_files(tmp_path / "raw", acquire(figshare, tmp_path))

    write_catalogue([row | {"source": "boiko"} for row in rows], tmp_path / "catalogue.csv")

    table = read_catalogue(tmp_path / "catalogue.csv")
    assert list(table["kv"]) == [1, 2, 3, 4, 5, 6]
    assert list(table["group"]) == ["S1-A0"] * 3 + ["S1-A1"] * 3
    assert set(table["width_px"]) == {5}


def test_second_run_downloads_nothing(figshare: Figshare, tmp_path: Path) -> None:
    """What lies in the scratch folder is linked into place again, without a download."""
    acquire(figshare, tmp_path)
    (tmp_path / "raw").rename(tmp_path / "older")
    figshare.asked.clear()

    acquire(figshare, tmp_path)

    assert {what for _, what in figshare.asked} == {"page 1", "page 2"}
    assert len(list((tmp_path / "raw" / str(RECORD)).iterdir())) == 6


def test_listings_that_end_early_are_noticed(figshare: Figshare, tmp_path: Path) -> None:
    """A record with fewer micrographs than published is refused before a download."""
    del figshare.files[NAMES[0]]

    with pytest.raises(
        ValueError, match=r"record 11783661: 5 micrographs and 1 .* expected 6 and 1"
    ):
        acquire(figshare, tmp_path)

    assert not (tmp_path / "scratch").exists()


def test_one_name_for_two_files_is_refused(figshare: Figshare, tmp_path: Path) -> None:
    """Two files that share a name, but for capitals, would overwrite each other."""
    figshare.files[NAMES[0].upper()] = b"another"

    with pytest.raises(ValueError, match="0-s1-a0-50k-ordered"):
        acquire(figshare, tmp_path)


def test_other_files_of_a_record_are_named(
    figshare: Figshare, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file that is neither micrograph nor description is not fetched, and the user is told."""
    figshare.files["readme.txt"] = b"hello"

    acquire(figshare, tmp_path)

    assert "not fetched: readme.txt" in capsys.readouterr().err
    assert figshare.requests_for("readme.txt") == []


def test_names_of_another_form_are_refused(figshare: Figshare, tmp_path: Path) -> None:
    """A micrograph whose name says no sample and area has no group."""
    figshare.files["photo.tif"] = figshare.files.pop(NAMES[0])

    with pytest.raises(ValueError, match=r"photo\.tif, expected <id>-<sample>-<area>"):
        acquire(figshare, tmp_path)


def test_what_the_description_leaves_out_is_unknown(
    figshare: Figshare, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A micrograph without a line has no voltage, and the user is told how many there are."""
    lines = DESCRIPTION.splitlines(keepends=True)
    text = "".join([*lines[:2], lines[2].replace("S1", "S9"), *lines[3:-1]])
    figshare.files["Dataset1_description_w_units.csv"] = text.encode()

    rows = acquire(figshare, tmp_path)

    assert rows[-1]["kv"] is None
    assert rows[-1]["magnification_k"] == 200
    message = capsys.readouterr().err
    assert "leaves out 2 micrographs, and gives 0" in message


def test_a_description_of_something_else_is_refused(figshare: Figshare, tmp_path: Path) -> None:
    """A description that names none of the micrographs is an error."""
    text = DESCRIPTION.replace("ordered", "other")
    figshare.files["Dataset1_description_w_units.csv"] = text.encode()

    with pytest.raises(ValueError, match="names none of its 6 micrographs"):
        acquire(figshare, tmp_path)


@pytest.mark.parametrize(
    ("units", "values", "expected"),
    [
        (("Volt", "um", "times"), "30000,8300,50000", (30.0, 8.3, 50.0)),
        (("kV", "mm", "k"), "30,8.3,50", (30.0, 8.3, 50.0)),
        (("V", "µm", "x"), "30000,8300,50000", (30.0, 8.3, 50.0)),
        (("V", "nm", ""), "500,8300000,200000", (0.5, 8.3, 200.0)),
        (("V", "mm", "x"), ",,", (None, None, None)),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1"])
def test_units_stand_in_the_header(
    units: tuple[str, str, str],
    values: str,
    expected: tuple[float | None, ...],
    encoding: str,
    tmp_path: Path,
) -> None:
    """Values come out in kV, mm and thousands, whatever units and encoding the file has."""
    names = ("AcceleratingVoltage", "WorkingDistance", "Magnification")
    columns = [f'"{name}, {unit}"' for name, unit in zip(names, units, strict=True)]
    text = f"Filename,Sample,Area,{','.join(columns)}\na-1.tif,S1,no_area,{values}\n"
    (tmp_path / "a.csv").write_bytes(text.encode(encoding))

    row = read_description(tmp_path / "a.csv")["a-1"]

    assert (row["kv"], row["wd_mm"], row["magnification_k"]) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no column AcceleratingVoltage, Area, Filename"),
        (HEADER.replace("Sample", "Specimen"), "no column Sample"),
        (
            HEADER.replace(" Volt", " furlong"),
            "AcceleratingVoltage in 'furlong', expected one of v,",
        ),
        (HEADER + "a.tif,S1,A1,high,1,1\n", "AcceleratingVoltage: 'high' is not a number"),
        (HEADER + "a.tif,S1,A1\n", "3 values for 6 columns"),
    ],
)
def test_broken_descriptions_are_refused(text: str, message: str, tmp_path: Path) -> None:
    """A description that cannot be understood is named with what is wrong."""
    (tmp_path / "a.csv").write_text(text)

    with pytest.raises(ValueError, match=rf"a\.csv: .*{message}"):
        read_description(tmp_path / "a.csv")


def test_names_count_where_the_description_differs() -> None:
    """Sample, area and magnification are those of the file name."""
    said = {"1-s1-a2-50k-ordered": {"sample": "S9", "area": "A9", "magnification_k": 1, "kv": 5.0}}

    row = describe_image(RECORD, "1-S1-A2-50k-ordered.tif", said)

    assert (row["group"], row["magnification_k"], row["kv"]) == ("S1-A2", 50, 5.0)
