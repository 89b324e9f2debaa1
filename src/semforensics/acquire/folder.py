"""Acquire micrographs from a folder of the user's own files.

The folder lies outside the repository. Its listing, with hashes, is a tracked file and a dependency
of the stage: so new, missing and changed files are noticed.
"""

import csv
import os
import shutil
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track

from semforensics.acquire.catalogue import is_below, raise_problems
from semforensics.acquire.names import parse_name
from semforensics.core.errors import InputError
from semforensics.core.files import atomic_file, sha256_of
from semforensics.params import FolderParams

LISTING_COLUMNS = ("file", "size_bytes", "sha256")
GIVEN_COLUMNS = ("group", "sample", "area", "magnification_k", "kv", "wd_mm", "label")
"""What a CSV of groups may say of a file; `group` it must."""


def matches(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Say whether the parts of a path match those of a glob; `**` stands for any folders."""
    match pattern:
        case []:
            return not parts
        case ["**"]:
            return bool(parts)
        case ["**", *rest]:
            return any(matches(parts[i:], rest) for i in range(len(parts) + 1))
        case [first, *rest]:
            return bool(parts) and fnmatchcase(parts[0], first) and matches(parts[1:], rest)
    raise AssertionError(pattern)


def select_files(folder: Path, include: Sequence[str]) -> list[str]:
    """Return the files below a folder that match a pattern, as sorted relative posix paths.

    Raises:
        InputError: A pattern selects nothing, or something selected is not a readable file inside
            the folder; the message lists every one with its reason.
    """
    problems: list[str] = []
    files = sorted(_walk(folder, problems))
    selected = set[str]()
    for pattern in include:
        found = {f for f in files if matches(f.split("/"), pattern.split("/"))}
        if not found:
            problems.append(f"{folder}: no file matches the pattern {pattern!r}")
        selected |= found
    problems += [f"{folder / f}: {why}" for f in sorted(selected) if (why := _fault(folder, f))]
    raise_problems(problems, "problems with the folder")
    return sorted(selected)


def _walk(folder: Path, problems: list[str]) -> Iterator[str]:
    """Yield every file below a folder; note folders that cannot be entered."""

    def note(error: OSError) -> None:
        problems.append(f"{error.filename}: {error.strerror}")

    for parent, subfolders, names in os.walk(folder, onerror=note):
        for name in subfolders:
            if Path(parent, name).is_symlink():
                problems.append(f"{Path(parent, name)}: a link to a folder, which is not followed")
        yield from (Path(parent, name).relative_to(folder).as_posix() for name in names)


def _fault(folder: Path, file: str) -> str | None:
    """Say why a selected file cannot be used; None if it can."""
    path = folder / file
    if not is_below(file):
        return "its name holds characters that a listing cannot"
    if not path.exists():
        return "a broken link"
    if not path.resolve().is_relative_to(folder.resolve()):
        return f"a link that leads out of the folder, to {path.resolve()}"
    if not path.is_file():
        return "not a regular file"
    if not os.access(path, os.R_OK):
        return "may not be read"
    return None


def write_listing(
    folder: Path, listing: Path, params: FolderParams, groups: Path | None = None
) -> int:
    """List the selected files with size and hash; give their number.

    Args:
        folder: Where the micrographs lie.
        listing: CSV to write; what `groups` says of a file stands in further columns.
        params: Which files are selected.
        groups: CSV with the columns `file` and `group`, and where known `sample`, `area`,
            `magnification_k`, `kv`, `wd_mm`, `label`; None: groups come from the file names.

    Raises:
        InputError: The selection has problems, or `groups` does not name exactly these files.
    """
    files = select_files(folder, params.include)
    given = read_groups(groups, files) if groups else {}
    columns = LISTING_COLUMNS + (GIVEN_COLUMNS if groups else ())
    console = Console(stderr=True)
    with (
        atomic_file(listing) as temporary,
        temporary.open("w", newline="", encoding="utf-8") as out,
    ):
        writer = csv.DictWriter(out, columns, lineterminator="\n")
        writer.writeheader()
        for file in track(files, "Hashing", console=console, disable=not console.is_terminal):
            path = folder / file
            row = {"file": file, "size_bytes": path.stat().st_size, "sha256": sha256_of(path)}
            writer.writerow(row | given.get(file, {}))
    return len(files)


def read_groups(path: Path, files: Sequence[str]) -> dict[str, dict[str, str]]:
    """Read a CSV of groups: for each file what it gives, the file itself left out.

    Raises:
        InputError: Columns are missing or unknown, or it does not name every file exactly once.
    """
    rows, columns = _read_rows(path)
    if not {"file", "group"} <= set(columns) <= {"file", *GIVEN_COLUMNS}:
        raise InputError(
            f"{path}: columns {', '.join(columns)}; expected file, group and perhaps "
            f"{', '.join(GIVEN_COLUMNS[1:])}"
        )
    names = [row["file"] for row in rows]
    problems = [f"{name}: not in the folder" for name in sorted(set(names) - set(files))]
    problems += [f"{name}: has no group" for name in sorted(set(files) - set(names))]
    problems += [f"{name}: named twice" for name in sorted(set(names)) if names.count(name) > 1]
    problems += [f"{row['file']}: its group is empty" for row in rows if not row["group"].strip()]
    raise_problems(problems, f"problems with {path}")
    return {row.pop("file"): row for row in rows}


def read_listing(path: Path) -> dict[str, dict[str, str]]:
    """Read a listing: for each file its size, hash and given columns.

    Raises:
        InputError: Not a listing, or a file is listed twice or leads out of the folder.
    """
    rows, columns = _read_rows(path)
    if tuple(columns) not in (LISTING_COLUMNS, LISTING_COLUMNS + GIVEN_COLUMNS):
        raise InputError(
            f"{path}: columns {', '.join(columns)}; expected {', '.join(LISTING_COLUMNS)}, as "
            "`semforensics list-folder` writes it"
        )
    names = [row["file"] for row in rows]
    problems = [f"{name!r}: not a path below the folder" for name in names if not is_below(name)]
    problems += [f"{name}: listed twice" for name in sorted(set(names)) if names.count(name) > 1]
    raise_problems(problems, f"wrong entries in {path}")
    return {row.pop("file"): row for row in rows}


def _read_rows(path: Path) -> tuple[list[dict[str, str]], list[str]]:
    """Read a small CSV whose rows are as long as its header."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file, strict=True)
        try:
            columns, rows = list(reader.fieldnames or []), list(reader)
        except (csv.Error, UnicodeDecodeError) as error:
            raise InputError(f"{path}: not a CSV file: {error}") from error
    if any(None in row or None in row.values() for row in rows):
        raise InputError(f"{path}: rows of different lengths")
    return rows, columns


def acquire_folder(
    params: FolderParams, raw: Path, folder: Path, listing: Path
) -> list[dict[str, Any]]:
    """Copy the listed files of a folder, keeping their relative paths.

    Copies rather than links: what is done to a link would be done to the user's own file.

    Returns:
        What their names, or the listing, say of them.

    Raises:
        InputError: The folder is not as it was listed; the message lists every difference.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder")
    listed, files = read_listing(listing), select_files(folder, params.include)
    problems = [f"{file}: new" for file in sorted(set(files) - set(listed))]
    problems += [f"{file}: missing" for file in sorted(set(listed) - set(files))]
    console = Console(stderr=True)
    present = [file for file in files if file in listed]
    for file in track(present, "Copying", console=console, disable=not console.is_terminal):
        (raw / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / file, raw / file)
        # Of the copy: the file might change between reading and copying.
        if sha256_of(raw / file) != listed[file]["sha256"]:
            problems.append(f"{file}: changed")
    raise_problems(
        problems,
        f"files of {folder} differ from {listing}; to list it anew, run "
        f"`semforensics list-folder {folder} {listing}`",
    )
    return [describe_name(file, listed[file]) | {"licence": params.licence} for file in files]


def describe_name(file: str, given: dict[str, str]) -> dict[str, Any]:
    """Return group and acquisition data of a file: from the listing, else from its name.

    A file of which neither says a group is a group of its own.
    """
    if "group" in given:
        return {"file": file} | {name: given[name] for name in GIVEN_COLUMNS}
    name = parse_name(file)
    return {"file": file} | (name.row() if name else {"group": file})
