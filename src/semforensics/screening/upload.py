"""Files that a browser sends to the local page: checked before they are read, stored safely.

A page from elsewhere that the same browser has open must not send any, so a submission has to name
our page as its origin, and a secret that only our page knows. Its body is one line of JSON,
`[{"name": …, "size": …}, …]`, then the bytes of the files in that order. There is no boundary to
search for, and every size is known before the first byte of a file arrives.
"""

import json
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from pathlib import Path, PurePosixPath

_SUFFIXES = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp", ".pdf", ".zip", ".txt",
             ".avif", ".gif", ".jp2", ".docx", ".pptx", ".odt", ".odp"}  # fmt: skip
"""Kept in the names of stored files. Others are dropped: a file is read by what it holds."""
_LIST_BYTES = 64 * 1024
_LONGEST_NAME = 1024


@dataclass(frozen=True)
class PageLimits:
    """How much a submission may send, and how much time and how many connections the page gives."""

    max_files: int = 50
    max_file_mb: int = 200
    max_total_mb: int = 500
    header_s: float = 10
    """Most seconds until the headers of a request are complete."""
    stall_s: float = 15
    """Seconds that any body may take, on top of its bytes over `slowest_bytes_per_s`."""
    slowest_bytes_per_s: float = 200_000
    screening_s: float = 1800
    """Most seconds that screening a submission may take."""
    max_connections: int = 16
    max_waiting: int = 3
    """Submissions that wait while another one is screened; the next is told to come back."""

    @property
    def max_body_bytes(self) -> int:
        """Longest body that can be a submission."""
        return self.max_total_mb * 1_000_000 + _LIST_BYTES


class RefusedError(Exception):
    """A request that is not answered with a report, its HTTP status and what to tell the person."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status = status


_malformed = partial(RefusedError, HTTPStatus.BAD_REQUEST)
_too_much = partial(RefusedError, HTTPStatus.REQUEST_ENTITY_TOO_LARGE)


def check_submission(headers: Mapping[str, str], token: str, limits: PageLimits) -> int:
    """Refuse a submission that does not come from our own page, or of no length or a wrong one.

    Args:
        headers: Of a request whose host is checked already; names without regard to case.
        token: The secret of our own page.
        limits: On the length of the body.

    Returns:
        The length of the body, in bytes.

    Raises:
        RefusedError: 403, 415, 411 or 413.
    """
    if headers.get("Origin") != f"http://{headers['Host']}":
        raise RefusedError(HTTPStatus.FORBIDDEN, "sent from another page")
    sent = headers.get("X-Semforensics-Token", "")
    if not secrets.compare_digest(sent.encode(), token.encode()):
        raise RefusedError(HTTPStatus.FORBIDDEN, "out of date: load the page again")
    if headers.get("Content-Type") != "application/octet-stream":
        raise RefusedError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "not sent by this page's script")
    if "Transfer-Encoding" in headers or "Content-Length" not in headers:
        raise RefusedError(HTTPStatus.LENGTH_REQUIRED, "its length has to be given")
    length = int(headers["Content-Length"])  # one number: the server refuses all else
    if length > limits.max_body_bytes:
        raise RefusedError(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            f"too much at once; at most {limits.max_total_mb} MB are taken",
        )
    return length


async def receive_files(
    chunks: AsyncIterator[bytes], length: int, limits: PageLimits, folder: Path
) -> dict[Path, str]:
    """Write the files of a request to a folder, under names made here.

    A text and a picture whose names differ in their suffix alone keep that bond, because the text
    may be a microscope's side-car.

    Args:
        chunks: The body, of `length` bytes.
        length: As the header says; the server sees to it that no byte is missing.
        limits: On the number of files and the bytes of each.
        folder: Exists and is empty.

    Returns:
        Stored file → the name that its owner gave it, in the order of the list: to show, never to
        open.

    Raises:
        RefusedError: 413 where there is too much of something, else 400.
    """
    held = b""
    while b"\n" not in held and len(held) < _LIST_BYTES and (chunk := await anext(chunks, b"")):
        held += chunk
    line, newline, held = held.partition(b"\n")
    stored: dict[Path, str] = {}
    numbers: dict[str, int] = {}
    for sent_name, size in _read_list(line + newline, length, limits):
        name = PurePosixPath(sent_name.replace("\\", "/")).name
        suffix = PurePosixPath(name.lower()).suffix
        suffix = suffix if suffix in _SUFFIXES else ""
        stem = name[: len(name) - len(suffix)]
        path = folder / f"{numbers.setdefault(stem, len(stored)):03d}{suffix}"
        if path in stored:  # two of one name, from different folders
            numbers[stem] = len(stored)
            path = folder / f"{numbers[stem]:03d}{suffix}"
        with path.open("xb") as file:
            while left := size - file.tell():
                held = held or await anext(chunks)
                held = held[file.write(held[:left]) :]
        stored[path] = sent_name
    return stored


def _read_list(line: bytes, length: int, limits: PageLimits) -> list[tuple[str, int]]:
    """Read the first line of a body, names and sizes in bytes, and check what it announces."""
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
    for number, (_, size) in enumerate(entries, 1):
        if size > limits.max_file_mb * 1_000_000:
            raise _too_much(
                f"file {number} has {size / 1e6:.0f} MB; at most {limits.max_file_mb} MB are taken"
            )
    announced = len(line) + sum(size for _, size in entries)
    if announced != length:
        raise _malformed(f"{length} bytes sent, {announced} announced")
    return entries


def _entry(item: object) -> tuple[str, int]:
    match item:
        case {"name": str(name), "size": int(size)} if (
            0 < len(name) <= _LONGEST_NAME and size >= 0 and not isinstance(size, bool)
        ):
            return name, size
    raise _malformed("an entry of the list of files is not a name and a size")


def screened_paths(stored: Sequence[Path]) -> list[Path]:
    """Return the files to screen: all but the texts that lie beside a picture of the same name."""
    pictures = {path.stem for path in stored if path.suffix != ".txt"}
    return [path for path in stored if path.suffix != ".txt" or path.stem not in pictures]
