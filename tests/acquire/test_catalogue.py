"""The catalogue and what it reads from file headers."""

import hashlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from semforensics.acquire.catalogue import (
    describe_files,
    measure_file,
    write_catalogue,
)
from semforensics.core.tables import CATALOGUE_COLUMNS, is_below, read_catalogue

ROW: dict[str, Any] = {
    "file": "a/b.tif",
    "sha256": "0" * 64,
    "size_bytes": 10,
    "width_px": 5,
    "height_px": 4,
    "bit_depth": 8,
    "sample": "S1",
    "area": None,
    "magnification_k": 100.0,
    "kv": None,
    "wd_mm": 8.3,
    "group": "S1-no_area",
    "label": "",
    "source": "folder",
    "licence": "CC BY 4.0",
}


def grey(dtype: str) -> np.ndarray:
    """A grey picture, 5 px wide and 4 px high."""
    return np.arange(20, dtype=dtype).reshape(4, 5)


def save(path: Path, kind: str) -> None:
    """Write a picture of 5 x 4 px in a format."""
    match kind:
        case "tiff8" | "tiff16":
            tifffile.imwrite(path, grey(f"uint{kind[4:]}"))
        case "bigtiff":
            tifffile.imwrite(path, grey("uint16"), bigtiff=True, byteorder=">")
        case "tiff rgb16":
            tifffile.imwrite(path, np.zeros((4, 5, 3), np.uint16), photometric="rgb")
        case "tiff lzw":
            Image.fromarray(grey("uint8")).save(path, "TIFF", compression="tiff_lzw")
        case "png16":
            Image.fromarray(grey("uint16")).save(path, "PNG")
        case "palette":
            Image.fromarray(grey("uint8")).quantize(2).save(path, "PNG", bits=1)
        case "cmyk":
            Image.new("CMYK", (5, 4)).save(path, "JPEG")
        case _:
            Image.fromarray(grey("uint8")).save(path, kind)


@pytest.mark.parametrize(
    ("kind", "bits"),
    [
        ("tiff8", 8),
        ("tiff16", 16),
        ("bigtiff", 16),
        ("tiff rgb16", 16),
        ("tiff lzw", 8),
        ("PNG", 8),
        ("png16", 16),
        ("palette", 8),
        ("JPEG", 8),
        ("cmyk", 8),
    ],
)
def test_headers_tell_size_and_bit_depth(kind: str, bits: int, tmp_path: Path) -> None:
    """Width, height, bits, bytes and hash of every format are those of the file."""
    path = tmp_path / "a"
    save(path, kind)

    measured = measure_file(path)

    data = path.read_bytes()
    assert measured == {
        "sha256": hashlib.sha256(data).hexdigest(),
        "size_bytes": len(data),
        "width_px": 5,
        "height_px": 4,
        "bit_depth": bits,
    }


def test_huge_pictures_are_measured_without_decoding(tmp_path: Path) -> None:
    """A header that promises a hundred million pixels is read without making room for them."""
    whole = io.BytesIO()
    Image.new("L", (16, 16)).save(whole, "JPEG")
    # The frame header holds height and width, after its marker, length and precision.
    place = whole.getvalue().index(b"\xff\xc0") + 5
    data = bytearray(whole.getvalue())
    data[place : place + 4] = (10_000).to_bytes(2) * 2
    (tmp_path / "a.jpg").write_bytes(data)
    png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + (100_000).to_bytes(4) * 2 + b"\x08\0\0\0\0"
    (tmp_path / "a.png").write_bytes(png)

    assert measure_file(tmp_path / "a.jpg")["width_px"] == 10_000
    assert measure_file(tmp_path / "a.png")["height_px"] == 100_000


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hello, this is no image at all",
        b"II*\0",
        b"II*\0\xff\xff\xff\x7f" + b"\0" * 20,
        b"\x89PNG\r\n\x1a\n",
        b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + b"\0" * 13,
        b"\xff\xd8\xff\xe0 and nothing more",
        b"GIF89a" + b"\0" * 30,
    ],
)
def test_other_files_are_listed_with_their_reason(data: bytes, tmp_path: Path) -> None:
    """Everything that is no image ends in one error that names every such file."""
    save(tmp_path / "good.png", "PNG")
    for name in ("bad.tif", "worse.tif"):
        (tmp_path / name).write_bytes(data)

    with pytest.raises(ValueError, match="2 files are not TIFF, PNG or JPEG") as caught:
        describe_files(tmp_path, [{"file": f} for f in ("worse.tif", "good.png", "bad.tif")])

    lines = str(caught.value).splitlines()
    assert [line.split("/")[-1].split(":")[0] for line in lines[1:]] == ["bad.tif", "worse.tif"]
    assert all(line.split(": ", 1)[1].strip() for line in lines[1:]), "each has a reason"


def size_of(path: Path) -> tuple[object, object] | None:
    """Width and height of a file; None if it is refused."""
    try:
        measured = measure_file(path)
    except ValueError:
        return None
    return measured["width_px"], measured["height_px"]


def test_every_cut_of_a_tiff_is_measured_or_refused(tmp_path: Path) -> None:
    """A TIFF file cut anywhere gives its true size or a clear error, never anything else."""
    save(tmp_path / "a.tif", "tiff8")
    data = (tmp_path / "a.tif").read_bytes()

    found = set()
    for length in range(len(data)):
        (tmp_path / "cut.tif").write_bytes(data[:length])
        found.add(size_of(tmp_path / "cut.tif"))

    assert found == {None, (5, 4)}


def test_catalogue_survives_a_round_trip(tmp_path: Path) -> None:
    """What is written is read back, sorted by file, with the unknown as NaN or empty text."""
    rows = [ROW, ROW | {"file": "a.tif", "kv": 30, "magnification_k": None, "sample": "NA"}]

    assert write_catalogue(rows, tmp_path / "catalogue.csv") == 2
    table = read_catalogue(tmp_path / "catalogue.csv")

    assert tuple(table.columns) == CATALOGUE_COLUMNS
    assert list(table["file"]) == ["a.tif", "a/b.tif"]
    assert list(table["sample"]) == ["NA", "S1"]
    assert list(table["area"]) == ["", ""]
    np.testing.assert_array_equal(table["kv"], [30, np.nan])
    np.testing.assert_array_equal(table["magnification_k"], [np.nan, 100])
    np.testing.assert_array_equal(table["wd_mm"], [8.3, 8.3])
    assert table["size_bytes"].dtype == np.int64


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sha256": "xyz"}, "sha256 'xyz'"),
        ({"size_bytes": 0}, "size_bytes '0'"),
        ({"width_px": 1.5}, "width_px '1.5'"),
        ({"height_px": None}, "height_px ''"),
        ({"bit_depth": "eight"}, "bit_depth 'eight'"),
        ({"kv": "20 kV"}, "kv '20 kV'"),
        ({"wd_mm": -1}, "wd_mm '-1'"),
        ({"group": ""}, "no group"),
        ({"file": "../b.tif"}, "not a path below the folder"),
        ({"file": "/b.tif"}, "not a path below the folder"),
    ],
)
def test_wrong_values_are_not_written(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    """A row that says something impossible is refused, and no catalogue is left behind."""
    path = tmp_path / "catalogue.csv"

    with pytest.raises(ValueError, match=message):
        write_catalogue([ROW | {"file": "other.tif"}, ROW | change], path)

    assert list(tmp_path.iterdir()) == []


def test_every_wrong_entry_is_listed(tmp_path: Path) -> None:
    """A catalogue edited by hand is refused with all its faults at once."""
    path = tmp_path / "catalogue.csv"
    write_catalogue([ROW, ROW | {"file": "c.tif"}], path)
    path.write_text(path.read_text().replace("c.tif", "a/b.tif").replace(",5,4,", ",five,4,"))

    with pytest.raises(ValueError, match=r"(?s)3 wrong entries.*width_px 'five'.*listed twice"):
        read_catalogue(path)


@pytest.mark.parametrize("text", ["", "file,group\na,b\n", "\0\0"])
def test_other_files_are_no_catalogue(text: str, tmp_path: Path) -> None:
    """Another CSV, or none, is refused by name."""
    (tmp_path / "catalogue.csv").write_text(text)

    with pytest.raises(ValueError, match=r"catalogue\.csv: "):
        read_catalogue(tmp_path / "catalogue.csv")


@pytest.mark.parametrize("file", ["a.tif", "a/b c.tif", "ä/..b.tif"])
def test_plain_paths_are_below(file: str) -> None:
    """A plain relative path stays below its folder."""
    assert is_below(file)


@pytest.mark.parametrize(
    "file", ["", ".", "..", "a/../b", "/a", "a//b", "./a", "a/", "a\\b", "a\nb", "a\0b"]
)
def test_other_paths_are_not_below(file: str) -> None:
    """Whatever could lead elsewhere, or be written in two ways, is refused."""
    assert not is_below(file)
