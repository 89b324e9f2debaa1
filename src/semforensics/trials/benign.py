"""The listing of benign micrographs from outside the repository: their sets, files and hashes."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from semforensics.acquire.listing import differences, list_files, select_files
from semforensics.core.errors import InputError, raise_problems
from semforensics.core.tables import LISTING_COLUMNS, read_listing, write_table

BENIGN_COLUMNS = ("set", *LISTING_COLUMNS)


def list_benign(folder: Path, listing: Path, sets: Mapping[str, Sequence[str]]) -> int:
    """List the micrographs of all sets with size and hash; return their number.

    `sets` holds glob patterns below `folder`, by the name of the set. Without sets the listing
    holds its header only.

    Raises:
        InputError: A pattern selects nothing, or something selected is not a readable file.
    """
    selected = _selected(folder, sets)
    table = list_files(folder, [file for _, file in selected])
    table.insert(0, "set", [name for name, _ in selected])
    write_table(table, listing)
    return len(table)


def _selected(folder: Path, sets: Mapping[str, Sequence[str]]) -> list[tuple[str, str]]:
    """Return the files of all sets, as (set, file), sorted."""
    return [(name, file) for name in sorted(sets) for file in select_files(folder, sets[name])]


def read_benign_listing(
    listing: Path, folder: Path | None, sets: Mapping[str, Sequence[str]]
) -> list[tuple[str, str]]:
    """Check the folder against its listing, and return the files of all sets, as (set, file).

    If nothing is listed and no folder is named, there are none.

    Raises:
        InputError: It is no such listing, or holds no file of the sets; files are new, missing or
            changed since; or no folder is named for those that are listed.
    """
    table = read_listing(listing, BENIGN_COLUMNS)
    if table.empty:
        if sets and folder is not None:
            raise InputError(
                f"{listing}: lists nothing, but count_false_alarms.sets names {', '.join(sets)}; "
                f"to list their files, run `semforensics list-benign FOLDER {listing}` "
                "(`make repro BENIGN=FOLDER` does so)"
            )
        return []
    if folder is None:
        raise InputError(
            f"{listing} lists {len(table)} micrographs; SEMFORENSICS_BENIGN must say where they lie"
        )
    present = _selected(folder, sets)
    raise_problems(
        differences(
            dict(zip(table["set"] + ": " + table["file"], table["sha256"], strict=True)),
            {f"{name}: {file}": folder / file for name, file in present},
        ),
        f"files of {folder} differ from {listing}; to list them again, run "
        f"`semforensics list-benign {folder} {listing}`",
    )
    return present
