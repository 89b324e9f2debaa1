"""Describe raw micrographs: one row of the catalogue each, with what is known of it."""

import struct
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import tifffile
from PIL import Image

from semforensics.core.errors import InputError, raise_problems
from semforensics.core.files import sha256_of
from semforensics.core.progress import track
from semforensics.core.tables import (
    CATALOGUE_COLUMNS,
    FOLDER_COLUMNS,
    check_catalogue,
    number_text,
    write_table,
)

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
    ordered = sorted(rows, key=lambda row: str(row["file"]))
    for row in track(ordered, "Describing"):
        try:
            described.append({**row, **measure_file(raw / str(row["file"]))})
        except InputError as error:
            problems.append(str(error))
    raise_problems(problems, "files are not TIFF, PNG or JPEG images")
    return described


def measure_file(path: Path) -> dict[str, str | int]:
    """Return hash, and size by its header, of an image file.

    Raises:
        InputError: Not a TIFF, PNG or JPEG file.
    """
    width, height, bits = measure_header(path)
    return {
        "sha256": sha256_of(path),
        "size_bytes": path.stat().st_size,
        "width_px": width,
        "height_px": height,
        "bit_depth": bits,
    }


def measure_header(path: Path) -> tuple[int, int, int]:
    """Return width and height in pixels, and bits per sample, of an image file.

    Raises:
        InputError: Not a TIFF, PNG or JPEG file.
    """
    with path.open("rb") as file:
        start = file.read(26)
    try:
        width, height, bits = _read_header(path, start)
    # The readers raise whatever a broken header makes them stumble over.
    except Exception as error:
        raise InputError(f"{path}: {error or type(error).__name__}") from error
    if min(width, height, bits) < 1:
        raise InputError(f"{path}: {width} x {height} px of {bits} bits, expected more than none")
    return width, height, bits


def _read_header(path: Path, start: bytes) -> tuple[int, int, int]:
    """Return width, height and bits per sample; `start` holds the first 26 bytes of the file."""
    if start.startswith(_TIFF_STARTS):
        with tifffile.TiffFile(path) as tiff:
            page = tiff.pages.first
            return int(page.imagewidth), int(page.imagelength), int(page.bitspersample)
    if start.startswith(_PNG_START):
        if len(start) < 26 or start[12:16] != b"IHDR":
            raise InputError("a PNG file without a header")
        width, height, bits, colour = struct.unpack(">IIBB", start[16:26])
        palette = 3
        return width, height, 8 if colour == palette else bits
    if start.startswith(_JPEG_START):
        with warnings.catch_warnings():
            # Nothing is decoded here; the step that decodes has its own bound.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path, formats=["JPEG"]) as image:
                return image.width, image.height, 8  # Pillow reads JPEG files of 8 bits only
    raise InputError("not a TIFF, PNG or JPEG file" if start else "empty")


def write_catalogue(rows: Iterable[Row], path: Path) -> int:
    """Write the catalogue, sorted by file, whole or not at all; return the number of rows.

    Raises:
        InputError: A row breaks the rules that `read_catalogue` checks.
    """
    texts = [
        {name: v if isinstance(v, str) else number_text(v) for name, v in row.items()}
        for row in rows
    ]
    columns = CATALOGUE_COLUMNS + (
        FOLDER_COLUMNS if any("collection" in row for row in texts) else ()
    )
    table = pd.DataFrame(texts, columns=list(columns), dtype=str).fillna("")
    table = table.sort_values("file", ignore_index=True)
    check_catalogue(table, path)
    write_table(table, path)
    return len(table)
