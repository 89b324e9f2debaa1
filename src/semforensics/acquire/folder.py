"""Acquire micrographs from a folder of the user's own files, which lies outside the repository."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from semforensics.acquire.listing import differences, list_files, select_files
from semforensics.acquire.names import describe_name
from semforensics.core.errors import InputError, raise_problems
from semforensics.core.progress import track
from semforensics.core.tables import LISTING_COLUMNS, read_listing, read_text, write_table
from semforensics.params import FolderParams

GIVEN_COLUMNS = ("group", "sample", "area", "magnification_k", "kv", "wd_mm", "label")
"""What a CSV of groups may say of a file; `group` it must."""


def list_folder(
    folder: Path, listing: Path, params: FolderParams, groups: Path | None = None
) -> int:
    """List the selected files with size and hash; return their number.

    Args:
        folder: Where the micrographs lie.
        listing: CSV to write; what `groups` says of a file is in further columns.
        params: Which files are selected.
        groups: CSV with the columns `file` and `group`, and where known `sample`, `area`,
            `magnification_k`, `kv`, `wd_mm`, `label`; None: groups come from the file names.

    Raises:
        InputError: The selection has problems, or `groups` does not name exactly these files.
    """
    files = select_files(folder, params.include)
    given = read_groups(groups, files) if groups else None
    table = list_files(folder, files)
    if given is not None:
        table = table.merge(given, on="file")
    write_table(table, listing)
    return len(files)


def read_groups(path: Path, files: Sequence[str]) -> pd.DataFrame:
    """Read a CSV of groups.

    Returns:
        `file` and GIVEN_COLUMNS; what the CSV does not say is the empty string.

    Raises:
        InputError: Columns are missing or unknown, or it does not name every file exactly once.
    """
    table = read_text(path)
    if not {"file", "group"} <= set(table.columns) <= {"file", *GIVEN_COLUMNS}:
        raise InputError(
            f"{path}: columns {', '.join(table.columns)}; expected file, group and perhaps "
            f"{', '.join(GIVEN_COLUMNS[1:])}"
        )
    names = table["file"]
    problems = [f"{name}: not in the folder" for name in sorted(set(names) - set(files))]
    problems += [f"{name}: has no group" for name in sorted(set(files) - set(names))]
    problems += [f"{name}: named twice" for name in sorted(set(names[names.duplicated()]))]
    problems += [f"{name}: its group is empty" for name in names[table["group"].str.strip() == ""]]
    raise_problems(problems, f"problems with {path}")
    return table.reindex(columns=["file", *GIVEN_COLUMNS], fill_value="")


def acquire_folder(
    params: FolderParams, raw: Path, folder: Path, listing: Path
) -> list[dict[str, Any]]:
    """Copy the listed files of a folder, keeping their relative paths.

    Copies rather than links: what is done to a link would be done to the user's own file.

    Returns:
        Group and acquisition data of each file: from the listing, else from its name.

    Raises:
        InputError: The folder is not as it was listed; the message lists every difference.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder")
    table = read_listing(listing, LISTING_COLUMNS, LISTING_COLUMNS + GIVEN_COLUMNS)
    listed = {str(row["file"]): row for row in table.to_dict("records")}
    files = select_files(folder, params.include)
    for file in track([file for file in files if file in listed], "Copying"):
        (raw / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / file, raw / file)
    raise_problems(
        # Of the copies: a file might change between reading and copying.
        differences(
            {file: row["sha256"] for file, row in listed.items()},
            {file: raw / file for file in files},
        ),
        f"files of {folder} differ from {listing}; to list it anew, run "
        f"`semforensics list-folder {folder} {listing}`",
    )
    if "group" in table:
        names = ("file", *GIVEN_COLUMNS)
        described = [{name: listed[file][name] for name in names} for file in files]
    else:
        described = [describe_name(file) for file in files]
    return [row | {"licence": params.licence} for row in described]
