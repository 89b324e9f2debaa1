"""The tables that stages pass on as CSV files: one reader for each kind."""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import get_args

import pandas as pd

from semforensics.core.errors import InputError, raise_problems
from semforensics.core.files import atomic_file
from semforensics.core.types import Split

CATALOGUE_COLUMNS = (
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
FOLDER_COLUMNS = ("collection", "instrument", "pixels", "info_bar", "use")
"""Of the catalogue of a folder: after the others."""
LISTING_COLUMNS = ("file", "size_bytes", "sha256")
CROP_COLUMNS = (
    "file",
    "micrograph",
    "group",
    "label",
    "magnification_k",
    "kv",
    "top_px",
    "left_px",
)
LEFT_OUT_COLUMNS = ("file", "num_tiles", "reason")
MEASURE = "measure"
"""In the column `use`: the image is for measuring, and no training or calibration sees it."""
SPLITS: tuple[Split, ...] = get_args(Split)
_LEAST = {"size_bytes": 1, "width_px": 1, "height_px": 1, "bit_depth": 1, "top_px": 0, "left_px": 0}
"""Columns of whole numbers, with their least value."""
_MEASURES = ("magnification_k", "kv", "wd_mm")
"""Columns of numbers above 0, empty where unknown."""


def read_text(path: Path, columns: Sequence[str] = ()) -> pd.DataFrame:
    """Read a CSV file as text: unknown values are the empty string, numbers keep their digits.

    It must have `columns`, and may have others.

    Raises:
        InputError: The file is no CSV file, its rows differ in length, or a column is missing.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            header, *rows = [row for row in csv.reader(file, strict=True) if row] or [[]]
    except (csv.Error, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a CSV file: {error}") from error
    _refuse_missing(path, header, columns)
    if any(len(row) != len(header) for row in rows):
        raise InputError(f"{path}: rows of different lengths")
    return pd.DataFrame(rows, columns=header, dtype=str)


def read_table(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """Read a CSV file that a stage has written; pandas finds the types of its columns.

    Raises:
        InputError: The file is no CSV file, or a column is missing.
    """
    try:
        table = pd.read_csv(path)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a CSV file: {error}") from error
    _refuse_missing(path, table.columns, columns)
    return table


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write a table as CSV, whole or not at all."""
    with atomic_file(path) as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n")


def number_text(value: float | None) -> str:
    """Write 100.0 as 100, and nothing for an unknown number."""
    return "" if value is None or pd.isna(value) else f"{value:.10g}"


def read_catalogue(path: Path) -> pd.DataFrame:
    """Read and check a catalogue.

    Returns:
        One row per micrograph, in the order of the file. Text columns hold the empty string where
        unknown; `size_bytes`, `width_px`, `height_px` and `bit_depth` are integers;
        `magnification_k`, `kv` and `wd_mm` are floats, NaN where unknown.

    Raises:
        InputError: Columns are missing or unknown, there are no rows, a file is listed twice or
            leads out of the folder, or a value is not what its column says; the message lists
            every one.
    """
    return check_catalogue(read_text(path), path)


def check_catalogue(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Turn the texts of a catalogue into what `read_catalogue` returns; errors as there."""
    check_columns(path, table.columns, [CATALOGUE_COLUMNS, CATALOGUE_COLUMNS + FOLDER_COLUMNS])
    bad = ~table["sha256"].str.fullmatch("[0-9a-f]{64}")
    values = table.loc[bad, ["file", "sha256"]].to_numpy()
    return _with_numbers(table, path, [f"{file}: sha256 {value!r}" for file, value in values])


def read_crops(path: Path) -> pd.DataFrame:
    """Read the table of crops.

    Returns:
        One row per crop, with CROP_COLUMNS and perhaps others. `label` is empty where unknown,
        `magnification_k` and `kv` are NaN.

    Raises:
        InputError: A column is missing, there are no rows, a number is none, a file is listed
            twice or without group; the message lists every one.
    """
    return _with_numbers(read_text(path, CROP_COLUMNS), path, [])


def read_splits(path: Path) -> pd.DataFrame:
    """Read the table of crops with their splits.

    Returns:
        As `read_crops`, and `split`: train, test or validation.

    Raises:
        InputError: As `read_crops`; or a split has another name, or no crops.
    """
    table = _with_numbers(read_text(path, [*CROP_COLUMNS, "split"]), path, [])
    if (found := set(table["split"])) != set(SPLITS):
        raise InputError(f"{path}: splits {sorted(found)}, expected exactly {sorted(SPLITS)}")
    return table


def _with_numbers(table: pd.DataFrame, path: Path, problems: Sequence[str]) -> pd.DataFrame:
    """Turn the columns of numbers into numbers; refuse a table with wrong entries or none."""
    if table.empty:
        raise InputError(f"{path}: lists nothing")
    table, problems = table.copy(), list(problems)
    for name in [name for name in (*_LEAST, *_MEASURES) if name in table]:
        numbers = pd.to_numeric(table[name], errors="coerce")
        if name in _LEAST:
            bad = ~(numbers >= _LEAST[name]) | (numbers % 1 != 0)
        else:
            bad = ~(numbers > 0) & (table[name] != "")
        problems += [f"{f}: {name} {v!r}" for f, v in table.loc[bad, ["file", name]].to_numpy()]
        table[name] = numbers if bad.any() else numbers.astype(int if name in _LEAST else float)
    problems += [f"{file}: no group" for file in table.loc[table["group"] == "", "file"]]
    raise_problems(problems + _file_problems(table, ["file"]), f"wrong entries in {path}")
    return table


def read_listing(path: Path, *layouts: Sequence[str]) -> pd.DataFrame:
    """Read the listing of a folder outside the repository, as text.

    It may have the columns of any of the layouts; without one, LISTING_COLUMNS.

    Raises:
        InputError: Not a listing, or a file is listed twice (in one set, where the listing has
            sets) or leads out of the folder.
    """
    table = read_text(path)
    check_columns(path, table.columns, layouts or [LISTING_COLUMNS])
    names = [name for name in ("set", "file") if name in table]
    raise_problems(_file_problems(table, names), f"wrong entries in {path}")
    return table


def _refuse_missing(path: Path, found: Iterable[str], columns: Sequence[str]) -> None:
    if missing := [name for name in columns if name not in set(found)]:
        raise InputError(f"{path}: no column {', '.join(missing)}; found {', '.join(found)}")


def check_columns(path: Path, found: Iterable[str], layouts: Sequence[Sequence[str]]) -> None:
    """Refuse a table whose columns are not exactly those of one of the layouts.

    Raises:
        InputError: The message names the columns of the first layout.
    """
    if tuple(found) not in [tuple(layout) for layout in layouts]:
        raise InputError(f"{path}: columns {', '.join(found)}; expected {', '.join(layouts[0])}")


def _file_problems(table: pd.DataFrame, names: list[str]) -> list[str]:
    """Say which files are listed twice or are no paths below their folder."""
    twice = table.loc[table.duplicated(names), "file"]
    return [f"{file}: listed twice" for file in twice] + [
        f"{file!r}: not a path below the folder" for file in table["file"] if not is_below(file)
    ]


def is_below(file: str) -> bool:
    """Say whether a relative posix path stays below its folder and is written in its plain form."""
    path = PurePosixPath(file)
    plain = str(path) == file and file != "." and "\\" not in file and file.isprintable()
    return plain and not path.is_absolute() and ".." not in path.parts


def is_measured(table: pd.DataFrame) -> "pd.Series[bool]":
    """Say which crops of a table are for measuring only."""
    return table.get("use", pd.Series("", table.index)) == MEASURE
