"""The files of a ZIP archive, unpacked in memory under limits.

Nothing is written anywhere, so a name cannot lead out of a folder; names that try, links, encrypted
members and members that swell beyond reason are refused one by one.
"""

import io
import re
import stat
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from semforensics.core.errors import InputError
from semforensics.screening.read.settings.text import decode_text
from semforensics.screening.records import Limits, Refusal

MAX_RATIO = 200
"""Of a member's size to its packed size; a flat picture without compression reaches about 100."""
RATIO_FROM_MB = 10.0
"""Size of a member from which on the ratio matters, in 10^6 bytes."""
SIDE_CAR_MB = 1.0
"""Of a text beside a picture; a larger one is none."""

_ZIP_STARTS = (b"PK\x03\x04", b"PK\x05\x06")
_ENTRY = b"PK\x01\x02"  # begins each entry of the table of contents
_CHUNK = 2**20
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


@dataclass(frozen=True)
class Member:
    """A file of an archive."""

    name: str
    """Fit to be shown: no control characters, not endless."""
    data: bytes
    side_car: str | None
    """The text beside it: a member of the same name with the ending `.txt`."""


def is_zip(data: bytes) -> bool:
    """Say whether bytes are a ZIP archive."""
    return data.startswith(_ZIP_STARTS)


def read_zip(data: bytes, limits: Limits) -> Iterator[Member | Refusal]:
    """Unpack the files of an archive one by one, sorted by name.

    Folders, hidden files, what macOS adds and texts beside a picture of that name are left out.

    Args:
        data: The archive.
        limits: On the number of members and their unpacked sizes, of each and of all together.

    Yields:
        Members, and refusals under their names; `path` is the name inside the archive.

    Raises:
        InputError: It cannot be read, is empty, or has too many members.
    """
    max_members = limits.max_pictures
    archive = Archive(data, limits)
    files = [i for i in archive.files if not _is_clutter(i.filename)]
    if not files:
        raise InputError("an archive without files")
    if len(files) > max_members:
        raise InputError(f"{len(files)} members, more than {max_members}")
    others = {_stem(i.filename) for i in files if not _is_text(i.filename)}
    texts = {
        _stem(i.filename): i for i in files if _is_text(i.filename) and _stem(i.filename) in others
    }
    seen: set[str] = set()
    for info in files:
        text = texts.get(_stem(info.filename))
        if text is info:
            continue
        name = "".join(c if c.isprintable() else "?" for c in info.filename)[:300]
        try:
            _refuse(info)
            if name in seen:  # in a report the two could not be told apart
                raise InputError("a second member of this name")
            seen.add(name)
            member = archive.read(info, limits.max_file_mb)
        except InputError as error:
            yield Refusal(name, "", None, str(error))
            continue
        yield Member(name, member, _side_car(archive, text))
        del member


class Archive:
    """An opened archive whose files are unpacked under limits."""

    def __init__(self, data: bytes, limits: Limits) -> None:
        """Read the table of contents.

        Args:
            data: The archive.
            limits: On the number of entries and on what all files together may unpack to.

        Raises:
            InputError: It cannot be read, or has too many entries.
        """
        # zipfile makes an object for each entry, so count before it does; folders may be among them
        if (entries := data.count(_ENTRY)) > (most := 20 * limits.max_pictures):
            raise InputError(f"{entries} entries, more than {most}")
        try:
            self._zip = zipfile.ZipFile(io.BytesIO(data))
            infos = sorted(self._zip.infolist(), key=lambda info: info.filename)
        except Exception as error:  # zipfile raises many kinds on damaged archives
            raise InputError(f"not a readable ZIP archive: {error}") from error
        # Not `is_dir()`, which fails on an empty name in Python 3.11.
        self.files = [info for info in infos if not info.filename.endswith("/")]
        """Sorted by name, without folders."""
        self._budget = _Budget(int(limits.max_unpacked_mb * 1e6))

    def read(self, info: zipfile.ZipInfo, most_mb: float) -> bytes:
        """Unpack a file.

        Raises:
            InputError: It is of a kind that is not unpacked, is damaged or becomes too large.
        """
        _refuse(info)
        return _unpack(self._zip, info, int(most_mb * 1e6), self._budget)


@dataclass
class _Budget:
    """Bytes that the members of an archive may still take."""

    left: int


_DRIVE = re.compile(r"[A-Za-z]:")


def _refuse(info: zipfile.ZipInfo) -> None:
    """Refuse a member that a submission cannot need, or that is dangerous to unpack."""
    if not info.filename:
        raise InputError("a member without a name")
    path = PurePosixPath(info.filename.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or _DRIVE.match(info.filename):
        raise InputError("a name that points out of the archive")
    if stat.S_ISLNK(info.external_attr >> 16):
        raise InputError("a link, not a file")
    if info.flag_bits & 1:
        raise InputError("encrypted: needs a password")
    if info.compress_type not in _METHODS:  # others may ask for gigabytes before the first byte
        raise InputError(f"packed by method {info.compress_type}, expected stored or deflated")


def _unpack(archive: zipfile.ZipFile, info: zipfile.ZipInfo, most: int, budget: _Budget) -> bytes:
    """Unpack a member in chunks; what its header says of its size is not believed.

    Args:
        archive: That holds it.
        info: The member.
        most: Bytes of a member.
        budget: Of all members; what this one takes is taken off.
    """
    parts: list[bytes] = []
    size = 0
    packed = max(info.compress_size, 1)
    try:
        with archive.open(info) as file:
            while chunk := file.read(_CHUNK):
                size += len(chunk)
                budget.left -= len(chunk)
                if size > most:
                    raise InputError(f"unpacks to more than {most / 1e6:g} MB")
                if budget.left < 0:
                    budget.left = 0
                    raise InputError("the archive unpacks to more than is read of one")
                if size > RATIO_FROM_MB * 1e6 and size > MAX_RATIO * packed:
                    raise InputError(f"unpacks to more than {MAX_RATIO} times its size")
                parts.append(chunk)
    except InputError:
        raise
    except Exception as error:  # damaged streams
        raise InputError(f"cannot be unpacked: {error or type(error).__name__}") from error
    return b"".join(parts)


def _side_car(archive: Archive, info: zipfile.ZipInfo | None) -> str | None:
    if info is None:
        return None
    try:
        return decode_text(archive.read(info, SIDE_CAR_MB), may_be_japanese=True)
    except InputError:  # the picture is judged without it; a text is no evidence that it needs
        return None


def _is_clutter(name: str) -> bool:
    parts = name.replace("\\", "/").split("/")
    return parts[0] == "__MACOSX" or parts[-1].startswith(".")


def _is_text(name: str) -> bool:
    return name.lower().endswith(".txt")


def _stem(name: str) -> str:
    return name.rsplit(".", 1)[0]
