"""Files of a folder outside the repository: selected by patterns, listed with their hashes.

A listing is a tracked file and a dependency of the stage that reads the folder, so new, missing and
changed files are noticed.
"""

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import pandas as pd

from semforensics.acquire.catalogue import measure_header
from semforensics.core.errors import InputError, raise_problems
from semforensics.core.files import sha256_of
from semforensics.core.progress import track
from semforensics.core.tables import LISTING_COLUMNS, is_below

_PICTURE_SUFFIXES = (
    ".tif", ".tiff", ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".gif", ".webp", ".avif",
    ".jp2", ".jpx", ".heic", ".dm3", ".dm4",
)  # fmt: skip
"""Files so named are pictures; one that cannot be read is named, not counted among the others."""


@dataclass(frozen=True)
class Found:
    """The files below a folder."""

    pictures: list[str]
    """Those that can be read, as sorted relative posix paths."""
    left_out: dict[str, str]
    """Pictures that cannot be read, and links and folders that are not followed, with the reason;
    sorted."""
    others: "Counter[str]"
    """How many files are no pictures, by suffix."""
    num_excluded: int
    """Pictures that the patterns exclude."""


def find_pictures(folder: Path, include: Sequence[str], exclude: Sequence[str]) -> Found:
    """Find the TIFF, PNG and JPEG files below a folder by their content; hidden files are others.

    Raises:
        InputError: There are none that `include` matches.
    """
    problems: list[str] = []
    pictures, left_out, others, num_excluded = [], dict[str, str](), Counter[str](), 0
    for file in sorted(_walk(folder, problems)):
        parts, suffix = file.split("/"), Path(file).suffix.lower()
        is_named_so = suffix in _PICTURE_SUFFIXES
        reason = _fault(folder, file) or _unreadable(folder / file)
        if any(part.startswith(".") for part in parts) or (reason and not is_named_so):
            others[suffix or "no suffix"] += 1
        elif not _is_matched(parts, include) or _is_matched(parts, exclude):
            num_excluded += 1
        elif reason:
            left_out[file] = reason
        else:
            pictures.append(file)
    for problem in problems:
        path, _, reason = problem.rpartition(": ")
        left_out[Path(path).relative_to(folder).as_posix()] = reason
    left_out = {file if is_below(file) else _printable(file): r for file, r in left_out.items()}
    if not pictures and not left_out:
        raise InputError(
            f"{folder}: no TIFF, PNG or JPEG file that acquire.folder.include "
            f"({', '.join(include)}) matches; {num_excluded} others, and {others.total()} files "
            "that are no pictures"
        )
    return Found(pictures, dict(sorted(left_out.items())), others, num_excluded)


def _printable(file: str) -> str:
    return "".join(c if c.isprintable() and c != "\\" else "?" for c in file)


def _is_matched(parts: Sequence[str], patterns: Sequence[str]) -> bool:
    return any(matches(parts, pattern.split("/")) for pattern in patterns)


def _unreadable(path: Path) -> str | None:
    """Say why a file is no picture that is read; None if its header is one."""
    try:
        measure_header(path)
    except InputError as error:
        return str(error).removeprefix(f"{path}: ")
    return None


def matches(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Say whether the parts of a path match those of a glob; `**` matches any number of folders."""
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


def list_files(folder: Path, files: Sequence[str]) -> pd.DataFrame:
    """Return size and hash of files: one row each, in their order, with LISTING_COLUMNS."""
    rows = [
        (file, (folder / file).stat().st_size, sha256_of(folder / file))
        for file in track(files, "Hashing")
    ]
    return pd.DataFrame(rows, columns=list(LISTING_COLUMNS))


def differences(listed: Mapping[str, str], found: Mapping[str, Path]) -> list[str]:
    """Say which files are new, missing or changed since they were listed.

    Args:
        listed: Their hashes, by name.
        found: The files that are there, by name; those that are not listed are not opened.
    """
    new = [f"{name}: new" for name in found if name not in listed]
    missing = [f"{name}: missing" for name in listed if name not in found]
    changed = [
        f"{name}: changed"
        for name, path in found.items()
        if name in listed and sha256_of(path) != listed[name]
    ]
    return new + missing + changed
