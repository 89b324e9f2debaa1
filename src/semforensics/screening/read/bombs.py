"""Refuse files that are small to look at and huge to read, by their structure alone.

Sizes in pixels are asked of headers elsewhere. Here: TIFF directories that are endless, or whose
tags claim the same bytes again and again; JPEGs of so many scans that each pixel is decoded over
and over.
"""

import struct
from typing import Final

from semforensics.core.errors import InputError

MAX_TAGS = 50_000
"""In all directories of a TIFF together; a stack of 1000 frames has about 20,000."""
MAX_SCANS = 64
"""Of a JPEG; progressive ones have about ten."""
SHARED = 2
"""How often the bytes of a TIFF may be claimed by its tags, on average."""

_TIFF_STARTS: Final = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_JPEG_START, _JPEG_SCAN = b"\xff\xd8\xff", b"\xff\xda"
_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4,
               16: 8, 17: 8, 18: 8}  # fmt: skip


def refuse_bombs(data: bytes, max_frames: int) -> None:
    """Look at a file's structure before a decoder does.

    Args:
        data: The file, of any kind.
        max_frames: Of a TIFF.

    Raises:
        InputError: It asks for too much; the message says of what.
    """
    if data.startswith(_TIFF_STARTS):
        _refuse_directories(data, max_frames)
    elif data.startswith(_JPEG_START) and (scans := data.count(_JPEG_SCAN)) > MAX_SCANS:
        raise InputError(f"{scans} scans in a JPEG, more than {MAX_SCANS}")


def _refuse_directories(data: bytes, max_frames: int) -> None:
    order = "<" if data.startswith(b"II") else ">"
    is_big = 43 in (data[2], data[3])
    count_format, entry_bytes, offset_format = ("Q", 20, "Q") if is_big else ("H", 12, "I")
    count_bytes, inline = struct.calcsize(count_format), struct.calcsize(offset_format)
    (at,) = struct.unpack_from(order + offset_format, data.ljust(16, b"\0"), 8 if is_big else 4)
    frames = tags = claimed = 0
    while at and at + count_bytes <= len(data):
        frames += 1
        (entries,) = struct.unpack_from(order + count_format, data, at)
        at += count_bytes
        tags += entries
        if frames > max_frames:
            raise InputError(f"more than {max_frames} frames, or directories that form a circle")
        if tags > MAX_TAGS:
            raise InputError(f"more than {MAX_TAGS} tags")
        for index in range(entries):
            entry = data[at + index * entry_bytes : at + (index + 1) * entry_bytes]
            if len(entry) < entry_bytes:
                return  # cut off: the decoder says so
            kind, count = struct.unpack_from(f"{order}2x{'HQ' if is_big else 'HI'}", entry)
            size = count * _TYPE_BYTES.get(kind, 0)
            claimed += min(size, len(data)) if size > inline else 0
        if claimed > SHARED * len(data):
            raise InputError("its tags claim more bytes than the file has")
        at += entries * entry_bytes
        if at + inline > len(data):
            return
        (at,) = struct.unpack_from(order + offset_format, data, at)
