"""Acquire micrographs from a folder of the user's own files, which lies outside the repository."""

import shutil
import sys
from pathlib import Path
from typing import Any

import pandas as pd

from semforensics.acquire.listing import Found, differences, find_pictures, list_files, matches
from semforensics.acquire.manifest import COLUMNS, read_manifests
from semforensics.acquire.names import describe_name
from semforensics.core.errors import InputError, raise_problems
from semforensics.core.progress import track
from semforensics.core.tables import LISTING_COLUMNS, MEASURE, read_listing, write_table
from semforensics.params import FolderParams

FOLDER_LISTING_COLUMNS = (*LISTING_COLUMNS, *COLUMNS, "left_out")


def list_folder(
    folder: Path,
    listing: Path,
    params: FolderParams,
    *,
    max_left_out: float,
    manifest: Path | None = None,
) -> str:
    """List the pictures below a folder with hashes, what is known of them, and what is left out.

    A picture that is byte by byte another one is left out: the two might get into two splits.

    Args:
        folder: Where the micrographs lie.
        listing: CSV to write: FOLDER_LISTING_COLUMNS; `left_out` is the reason, empty for the
            pictures that are used.
        params: Which files are selected.
        max_left_out: Share of the pictures that may be unreadable.
        manifest: As for `read_manifests`.

    Returns:
        How many pictures and collections are used, and how many files are not, and why.

    Raises:
        InputError: There is no picture, too many are unreadable (all are listed), or a table is
            wrong.
    """
    found = find_pictures(folder, params.include, params.exclude)
    refuse_too_many(found.left_out, len(found.pictures), max_left_out, f"pictures of {folder}")
    table = list_files(folder, found.pictures).astype(str)
    table = table.merge(read_manifests(folder, found.pictures, manifest), on="file")
    first = table["sha256"].map(table.drop_duplicates("sha256").set_index("sha256")["file"])
    table["left_out"] = [
        "" if file == other else f"the same file as {other}"
        for file, other in zip(table["file"], first, strict=True)
    ]
    lost = pd.DataFrame(
        {"file": list(found.left_out), "left_out": list(found.left_out.values())}, dtype=str
    )
    table = pd.concat([table, lost]).reindex(columns=list(FOLDER_LISTING_COLUMNS)).fillna("")
    table = table.sort_values("file")
    write_table(table, listing)
    unused = table[table["left_out"] != ""]
    for file, reason in zip(unused["file"], unused["left_out"], strict=True):
        print(f"left out: {file}: {reason}", file=sys.stderr)
    used = table[table["left_out"] == ""]
    return (
        f"{len(used)} pictures of {used['collection'].nunique()} collections in {folder}; "
        f"left out: {len(unused)} pictures{_excluded(found)}"
    )


def _excluded(found: Found) -> str:
    kinds = ", ".join(f"{count} {suffix}" for suffix, count in sorted(found.others.items()))
    return (f", {found.num_excluded} by pattern" if found.num_excluded else "") + (
        f", {found.others.total()} files that are no pictures ({kinds})" if kinds else ""
    )


def refuse_too_many(left_out: dict[str, str], num_used: int, max_share: float, what: str) -> None:
    """Stop where too large a share cannot be used.

    Args:
        left_out: Files with the reason.
        num_used: How many others there are.
        max_share: 0 … 1.
        what: Of what they are the files.

    Raises:
        InputError: The message lists all files that are left out.
    """
    if left_out and len(left_out) > max_share * (len(left_out) + num_used):
        raise_problems(
            [f"{file}: {reason}" for file, reason in left_out.items()],
            f"of {len(left_out) + num_used} {what} cannot be used, more than the share "
            f"{max_share:g} that crop.max_left_out allows",
        )


def acquire_folder(
    params: FolderParams, raw: Path, folder: Path, listing: Path
) -> list[dict[str, Any]]:
    """Copy the listed pictures of a folder, keeping their relative paths.

    Copies rather than links: what is done to a link would be done to the user's own file.

    Returns:
        What is known of each picture: from the listing, else from its name.

    Raises:
        InputError: The folder is not as it was listed; the message lists every difference.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder")
    again = f"`semforensics list-folder {folder} {listing}`"
    table = read_listing(listing, FOLDER_LISTING_COLUMNS, LISTING_COLUMNS)
    if table.empty or "left_out" not in table:
        raise InputError(f"{listing}: not a list of the pictures of {folder}; run {again}")
    listed = table[table["left_out"] == ""]
    skipped = set(table["file"]) - set(listed["file"])
    files = [
        file
        for file in find_pictures(folder, params.include, params.exclude).pictures
        if file not in skipped
    ]
    hashes = dict(zip(listed["file"], listed["sha256"], strict=True))
    for file in track([file for file in files if file in hashes], "Copying"):
        (raw / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / file, raw / file)
    raise_problems(
        # Of the copies: a file might change between reading and copying.
        differences(hashes, {file: raw / file for file in files}),
        f"files of {folder} differ from {listing}; to list it anew, run {again}",
    )
    return [_describe(row, params) for row in _distinct_groups(listed).to_dict("records")]


def _describe(listed: dict[Any, Any], params: FolderParams) -> dict[str, Any]:
    """Say what is known of a picture; where a table and its name tell, the table counts."""
    file = listed["file"]
    told = {name: listed[name] for name in COLUMNS if listed[name]}
    row = describe_name(file)
    if "group" not in told and {"sample", "area"} <= told.keys():
        told["group"] = f"{told['sample']}-{told['area']}"
    is_measure = any(matches(file.split("/"), pattern.split("/")) for pattern in params.measure)
    use = MEASURE if is_measure else told.get("use", "train")
    return {**row, "licence": params.licence, **told, "use": use}


def _distinct_groups(listed: pd.DataFrame) -> pd.DataFrame:
    """Put the collection before a group of the tables that several collections use.

    Groups by name of file need none: two views of one area are one group in whichever folder.
    """
    count = listed.groupby("group")["collection"].transform("nunique")
    named = listed["collection"] + "/" + listed["group"]
    is_shared = (count > 1) & (listed["group"] != "")
    return listed.assign(group=listed["group"].where(~is_shared, named))
