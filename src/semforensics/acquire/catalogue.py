"""The catalogue: one row per raw micrograph, with what is known of it."""

import csv
import struct
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd
import tifffile
from PIL import Image
from rich.console import Console
from rich.progress import track

from semforensics.core.errors import InputError
from semforensics.core.files import atomic_file, sha256_of

COLUMNS = (
    "file",
    "sha256",
    "size_bytes",
    "width_px",
    "height_px",
    "bit_depth",
    "sample",
    "area",
    "magnification_k",
    "kv",
    "wd_mm",
    "group",
    "label",
    "source",
    "licence",
)
_COUNTS = ("size_bytes", "width_px", "height_px", "bit_depth")
_MEASURES = ("magnification_k", "kv", "wd_mm")
_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_PNG_START = b"\x89PNG\r\n\x1a\n"
_JPEG_START = b"\xff\xd8\xff"

Row = Mapping[str, str | int | float | None]
"""Values of some columns; None and the empty string mean unknown."""


def describe_files(raw: Path, rows: Iterable[Row]) -> list[dict[str, Any]]:
    """Add hash, size in bytes and pixels, and bit depth to rows that name their file.

    Args:
        raw: Folder that the files lie in.
        rows: One per file, with `file` as a path below `raw`.

    Returns:
        The rows, sorted by file.

    Raises:
        InputError: Some files are not images; the message lists each of them with its reason.
    """
    described, problems = [], []
    console = Console(stderr=True)
    ordered = sorted(rows, key=lambda row: str(row["file"]))
    for row in track(ordered, "Describing", console=console, disable=not console.is_terminal):
        try:
            described.append({**row, **measure_file(raw / str(row["file"]))})
        except ValueError as error:
            problems.append(str(error))
    raise_problems(problems, "files are not TIFF, PNG or JPEG images")
    return described


def raise_problems(problems: list[str], what: str) -> None:
    """Raise one ValueError that lists all problems, if there are any."""
    if problems:
        raise InputError(f"{len(problems)} {what}:\n  " + "\n  ".join(problems))


def measure_file(path: Path) -> dict[str, str | int]:
    """Return hash and size of an image file, from its header alone.

    Raises:
        InputError: Not a TIFF, PNG or JPEG file.
    """
    with path.open("rb") as file:
        start = file.read(26)
    try:
        if start.startswith(_TIFF_STARTS):
            width, height, bits = _read_tiff_header(path)
        elif start.startswith(_PNG_START):
            width, height, bits = _read_png_header(start)
        elif start.startswith(_JPEG_START):
            width, height, bits = _read_jpeg_header(path)
        else:
            raise InputError("empty" if not start else "not a TIFF, PNG or JPEG file")
    # The readers raise whatever a broken header makes them stumble over.
    except Exception as error:
        raise InputError(f"{path}: {error or type(error).__name__}") from error
    if min(width, height, bits) < 1:
        raise InputError(f"{path}: {width} x {height} px of {bits} bits, expected more than none")
    return {
        "sha256": sha256_of(path),
        "size_bytes": path.stat().st_size,
        "width_px": width,
        "height_px": height,
        "bit_depth": bits,
    }


def _read_tiff_header(path: Path) -> tuple[int, int, int]:
    """Width, height and bits per sample of the first page."""
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages.first
        return int(page.imagewidth), int(page.imagelength), int(page.bitspersample)


def _read_png_header(start: bytes) -> tuple[int, int, int]:
    """Width, height and bits per sample from the first 26 bytes."""
    if len(start) < 26 or start[12:16] != b"IHDR":
        raise InputError("a PNG file without a header")
    width, height, bits, colour = struct.unpack(">IIBB", start[16:26])
    palette = 3
    return width, height, 8 if colour == palette else bits


def _read_jpeg_header(path: Path) -> tuple[int, int, int]:
    """Width, height and bits per sample; Pillow reads JPEG files of 8 bits only."""
    with warnings.catch_warnings():
        # Nothing is decoded here; the step that decodes has its own bound.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        with Image.open(path, formats=["JPEG"]) as image:
            return image.width, image.height, 8


def write_catalogue(rows: Iterable[Row], path: Path) -> int:
    """Write the catalogue, sorted by file, whole or not at all; give the number of rows.

    Raises:
        InputError: A row breaks the rules that `read_catalogue` checks.
    """
    ordered = sorted(rows, key=lambda row: str(row["file"]))
    with atomic_file(path) as temporary:
        with temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            writer.writeheader()
            for row in ordered:
                writer.writerow({name: _as_text(value) for name, value in row.items()})
        _check(pd.read_csv(temporary, dtype=str, keep_default_na=False), path)
    return len(ordered)


def _as_text(value: str | int | float | None) -> str:
    """Write 100.0 as 100, and nothing for the unknown."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.10g}"
    return str(value)


def read_catalogue(path: Path) -> pd.DataFrame:
    """Read and check a catalogue.

    Returns:
        One row per micrograph. Text columns hold the empty string where unknown; `size_bytes`,
        `width_px`, `height_px` and `bit_depth` are integers; `magnification_k`, `kv` and `wd_mm`
        are floats, NaN where unknown.

    Raises:
        InputError: Columns are missing or unknown, a file is listed twice or leads out of the
            folder, or a value is not what its column says; the message lists every one.
    """
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a CSV file: {error}") from error
    return _check(table, path)


def _check(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Return the columns their types, or say what is wrong with which row."""
    if tuple(table.columns) != COLUMNS:
        raise InputError(
            f"{path}: columns {', '.join(table.columns)}; expected {', '.join(COLUMNS)}"
        )
    problems = []
    for name in _COUNTS + _MEASURES:
        numbers = pd.to_numeric(table[name], errors="coerce")
        required = name in _COUNTS
        bad = ~(numbers > 0) & (required | (table[name] != ""))
        if required:
            bad |= numbers % 1 != 0
        problems += [f"{f}: {name} {v!r}" for f, v in table.loc[bad, ["file", name]].to_numpy()]
        table[name] = numbers if bad.any() else numbers.astype("int64" if required else "float64")
    bad = ~table["sha256"].str.fullmatch("[0-9a-f]{64}")
    problems += [f"{f}: sha256 {v!r}" for f, v in table.loc[bad, ["file", "sha256"]].to_numpy()]
    problems += [f"{f}: no group" for f in table.loc[table["group"] == "", "file"]]
    problems += [f"{f}: listed twice" for f in table.loc[table["file"].duplicated(), "file"]]
    problems += [f"{f!r}: not a path below the folder" for f in table["file"] if not is_below(f)]
    raise_problems(problems, f"wrong entries in {path}")
    return table


def is_below(file: str) -> bool:
    """Say whether a relative posix path stays below its folder and is written in its plain form."""
    path = PurePosixPath(file)
    plain = str(path) == file and file != "." and "\\" not in file and file.isprintable()
    return plain and not path.is_absolute() and ".." not in path.parts
