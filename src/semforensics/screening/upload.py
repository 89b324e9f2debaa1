"""Files that a browser sends to the local page: checked before they are read, stored safely.

The body of a request is one line of JSON, `[{"name": …, "size": …}, …]`, then the bytes of the
files in that order. There is no boundary to search for, and every size is known before the first
byte of a file arrives.
"""

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from io import BufferedIOBase
from pathlib import Path, PurePosixPath

SUFFIXES = frozenset(
    (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp", ".pdf", ".zip", ".txt")
)
"""That stored files keep; others are stored without one, and judged by what they hold."""
MANIFEST_BYTES = 64 * 1024
_CHUNK_BYTES = 1 << 20
_LONGEST_NAME = 1024


@dataclass(frozen=True)
class UploadLimits:
    """How much one submission may send."""

    max_files: int = 50
    max_file_mb: int = 200
    max_total_mb: int = 500

    @property
    def max_body_bytes(self) -> int:
        """Longest body that can be a submission."""
        return self.max_total_mb * 1_000_000 + MANIFEST_BYTES


@dataclass(frozen=True)
class Entry:
    """A file that is on its way."""

    name: str
    """As its owner calls it: to show, never to open."""
    size: int


class RefusedError(Exception):
    """A request that is not answered with a report, its HTTP status and what to tell the person."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status = status


def read_manifest(body: BufferedIOBase, length: int, limits: UploadLimits) -> list[Entry]:
    """Read the first line of a body and check what it announces.

    Args:
        body: At its beginning.
        length: Of the whole body, in bytes, as its header says.
        limits: On files, bytes of each and bytes of all.

    Raises:
        RefusedError: 413 where there is too much of something, else 400.
    """
    if length > limits.max_body_bytes:
        raise _too_much(
            f"{length / 1e6:.0f} MB at once; at most {limits.max_total_mb} MB are taken"
        )
    line = body.readline(min(length, MANIFEST_BYTES))
    try:
        listed = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise _malformed("the list of files cannot be read") from error
    if not line.endswith(b"\n") or not isinstance(listed, list):
        raise _malformed("the list of files is not one line that holds a list")
    entries = [_entry(item) for item in listed]
    if not entries:
        raise _malformed("no files")
    if len(entries) > limits.max_files:
        raise _too_much(f"{len(entries)} files at once; at most {limits.max_files} are taken")
    for number, entry in enumerate(entries, 1):
        if entry.size > limits.max_file_mb * 1_000_000:
            raise _too_much(
                f"file {number} has {entry.size / 1e6:.0f} MB; at most {limits.max_file_mb} MB"
                " are taken"
            )
    announced = len(line) + sum(entry.size for entry in entries)
    if announced != length:
        raise _malformed(f"{length} bytes sent, {announced} announced")
    return entries


def store_files(body: BufferedIOBase, entries: Sequence[Entry], folder: Path) -> dict[Path, str]:
    """Write the files of a body to a folder, under names made here.

    A text and a picture whose names differ in their suffix alone keep that bond, because the text
    may be a microscope's side-car.

    Args:
        body: Behind the list of files.
        entries: As `read_manifest` gives them.
        folder: Exists and is empty.

    Returns:
        Stored file → the name to show, in the order of the entries.

    Raises:
        RefusedError: 400, the body ended early.
    """
    stored: dict[Path, str] = {}
    numbers: dict[str, int] = {}
    fresh = itertools.count()
    for entry in entries:
        name = PurePosixPath(entry.name.replace("\\", "/")).name
        suffix = PurePosixPath(name.lower()).suffix
        suffix = suffix if suffix in SUFFIXES else ""
        stem = name[: len(name) - len(suffix)]
        if stem not in numbers:
            numbers[stem] = next(fresh)
        path = folder / f"{numbers[stem]:03d}{suffix}"
        if path in stored:  # two of one name, from different folders
            numbers[stem] = next(fresh)
            path = folder / f"{numbers[stem]:03d}{suffix}"
        with path.open("xb") as file:
            left = entry.size
            while left:
                chunk = body.read(min(left, _CHUNK_BYTES))
                if not chunk:
                    raise _malformed("the connection ended before the last file did")
                file.write(chunk)
                left -= len(chunk)
        stored[path] = entry.name
    return stored


def judged_paths(stored: Sequence[Path]) -> list[Path]:
    """Return the files to screen: all but the texts that lie beside a picture of the same name."""
    pictures = {path.stem for path in stored if path.suffix != ".txt"}
    return [path for path in stored if path.suffix != ".txt" or path.stem not in pictures]


def _entry(item: object) -> Entry:
    match item:
        case {"name": str(name), "size": int(size)} if (
            0 < len(name) <= _LONGEST_NAME and size >= 0 and not isinstance(size, bool)
        ):
            return Entry(name, size)
    raise _malformed("an entry of the list of files is not a name and a size")


def _malformed(message: str) -> RefusedError:
    return RefusedError(HTTPStatus.BAD_REQUEST, message)


def _too_much(message: str) -> RefusedError:
    return RefusedError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, message)
