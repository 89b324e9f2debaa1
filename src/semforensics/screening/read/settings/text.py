"""Text of unknown encoding and length → text that can be parsed and shown."""

import base64
import binascii
import codecs
import re
from collections.abc import Iterator
from typing import Any, Final

MAX_PARSED: Final = 1_000_000
"""Characters of one text that are looked at; an instrument writes fewer."""
MAX_LINE: Final = 1000
MAX_SHOWN: Final = 300
"""Characters of a value."""

_BOMS: Final = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_JAPANESE: Final = re.compile("[\u3000-\u30ff\u4e00-\u9fff]")
_BASE64: Final = re.compile(r"[A-Za-z0-9+/\s]{16,}={0,2}\s*")


def decode_text(data: bytes, *, may_be_japanese: bool = False) -> str:
    """Decode a text by its byte-order mark, else as UTF-16, UTF-8 or a code page.

    Args:
        data: The text's bytes.
        may_be_japanese: Whether Shift-JIS is tried before Windows-1252. Almost any Western text
            is valid Shift-JIS too, so it counts only if the result has Japanese characters.
    """
    data = data[: 4 * MAX_PARSED]
    for mark, encoding in _BOMS:
        if data.startswith(mark):
            return data[len(mark) :].decode(encoding, "replace")
    if utf16 := _utf16_without_mark(data):
        return data.decode(utf16, "replace")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        pass
    if may_be_japanese:
        text = data.decode("cp932", "replace")
        if "\ufffd" not in text and _JAPANESE.search(text):
            return text
    return data.decode("cp1252", "replace")


def _utf16_without_mark(data: bytes) -> str | None:
    """Recognise UTF-16 of mostly Latin letters by its zero bytes."""
    even, odd = data[:2000:2], data[1:2000:2]
    if len(odd) < 4:
        return None
    zeros_even, zeros_odd = even.count(0) / len(even), odd.count(0) / len(odd)
    if zeros_odd > 0.7 and zeros_even < 0.1:
        return "utf-16-le"
    return "utf-16-be" if zeros_even > 0.7 and zeros_odd < 0.1 else None


def tag_bytes(value: Any) -> bytes:
    """Return the bytes of a tag's value as Pillow hands it over; empty for numbers."""
    if isinstance(value, str):  # Pillow decodes texts of TIFF as Latin-1
        return value[: 4 * MAX_PARSED].encode("latin-1", "replace")
    if isinstance(value, tuple) and len(value) == 1:
        value = value[0]
    return bytes(value[: 4 * MAX_PARSED]) if isinstance(value, bytes) else b""


def decode_tag(value: Any) -> str:
    """Decode the value of a vendor's tag: text of any encoding, plain or in base64."""
    text = decode_text(tag_bytes(value)).strip("\0 \t\r\n")
    if _BASE64.fullmatch(text):
        try:
            return decode_text(base64.b64decode(text, validate=False))
        except (binascii.Error, ValueError):
            return text
    return text


def lines_of(text: str) -> Iterator[str]:
    """Split a text into lines without the blanks around them; bounded in number and length."""
    for line in text[:MAX_PARSED].replace("\0", "\n").splitlines():
        yield line[:MAX_LINE].strip()


def clean(text: str) -> str:
    """Take control characters out of a text, and cut it to a length that can be read."""
    flat = re.sub(r"\s+", " ", "".join(c if c.isprintable() else " " for c in text)).strip()
    return flat if len(flat) <= MAX_SHOWN else f"{flat[: MAX_SHOWN - 1]}…"
