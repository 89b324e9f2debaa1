"""Text of one vendor → entries, with the names and values that the instrument wrote.

Zeiss writes a key in one line and "name = value" in the next one. FEI and Thermo Fisher write INI
sections or XML, Hitachi and Tescan INI sections, JEOL lines of "$NAME value". Each parser returns
no entries for what it cannot read.
"""

import re
from collections.abc import Iterator
from typing import Any, Final, NamedTuple
from xml.etree import ElementTree

from semforensics.screening.read.settings.text import (
    MAX_PARSED,
    clean,
    decode_text,
    lines_of,
    tag_bytes,
)

_MAX_NAME = 80
_MAX_DEPTH = 32
_XML_CHUNK = 65_536
_ZEISS_KEY: Final = re.compile(r"(?:AP|DP|SV)_\w{1,80}", re.ASCII)
_DECLARATION: Final = re.compile(r"<\?xml[^>]{0,200}\?>")
_JPEG_START, _JPEG_END = b"\xff\xd8\xff", b"\xff\xd9"


class Entry(NamedTuple):
    """One setting as the instrument wrote it."""

    key: str
    """By which a program finds it, such as "AP_WD" or "Beam.HV"."""
    name: str
    """For readers, such as "WD"; the same as the key where the vendor has one name only."""
    value: str


def _entry(key: str, name: str, value: str) -> Iterator[Entry]:
    """Yield an entry fit to be shown, or nothing where its name or value is empty."""
    value = clean(value)
    shown = clean(name)[:_MAX_NAME] if value else ""
    if shown:
        yield Entry(shown if key == name else clean(key)[:_MAX_NAME], shown, value)


def parse_zeiss(text: str) -> list[Entry]:
    """Read pairs of lines: a key such as AP_WD, then "WD = 2.8 mm" or "Date :18 Jul 2019"."""
    entries: list[Entry] = []
    key = ""
    for line in lines_of(text):
        if _ZEISS_KEY.fullmatch(line):
            key = line
            continue
        if key:
            name, *value = re.split("[=:]", line, maxsplit=1)
            entries += _entry(key, name, value[0]) if value else _entry(key, key, line)
        key = ""
    return entries


def parse_sections(text: str) -> list[Entry]:
    """Read lines of "name=value" with the section they stand in, as "Section.name"."""
    entries: list[Entry] = []
    section = ""
    for line in lines_of(text):
        if line.startswith("[") and line.endswith("]"):
            section = f"{line[1:-1][:_MAX_NAME]}."
        elif "=" in line:
            name, _, value = line.partition("=")
            entries += _entry(section + name, section + name, value) if name else []
    return entries


def parse_hitachi(text: str) -> list[Entry]:
    """Read the section of a side-car, or the lines of an image's comment.

    The comment packs several settings into one line, "Condition=Vacc=15.0kV Mag=x600": its parts
    are entries such as "Condition.Vacc".
    """
    entries: list[Entry] = []
    for entry in parse_sections(text):
        if entry.key == "Condition":
            parts = (part.partition("=") for part in entry.value.split())
            entries += [Entry(f"Condition.{p[0]}", f"Condition.{p[0]}", p[2]) for p in parts]
        else:
            entries.append(entry)
    return entries


def parse_jeol(text: str) -> list[Entry]:
    """Read lines of "$NAME value" or "$$NAME value"."""
    entries: list[Entry] = []
    for line in lines_of(text):
        if line.startswith("$"):
            name, *value = line.lstrip("$").split(maxsplit=1)[:2] or [""]
            entries += _entry(name, name, " ".join(value))
    return entries


def parse_tescan(value: object) -> list[Entry]:
    """Read "name=value" lines, in sections or between the binary heads of Tescan's blocks."""
    data = tag_bytes(value)
    if _JPEG_START in data:  # a thumbnail may come before the text
        data = data[: data.find(_JPEG_START)] + data[data.rfind(_JPEG_END) :]
    text = re.sub(r"[\x00-\x1f\x7f-\x9f]+", "\n", decode_text(data)[:MAX_PARSED])
    lines = (line for line in lines_of(text) if re.match(r"\[|\w[\w .]{1,79}=", line, re.ASCII))
    return parse_sections("\n".join(lines))


def parse_fei(text: str) -> list[Entry]:
    """Read FEI's sections or XML."""
    return _parse_xml(text) if text.lstrip().startswith("<") else parse_sections(text)


def _parse_xml(text: str) -> list[Entry]:
    """Read the leaves of XML as "Optics.AccelerationVoltage", without the name of the root.

    Elements that hold a Label and a Value, and perhaps a Unit, are one entry. Entities and deep
    nesting are not read: no instrument writes them.
    """
    text = _DECLARATION.sub("", text[:MAX_PARSED], count=1).strip("\0 \t\r\n")
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        return []
    parser: Any = ElementTree.XMLPullParser(("start", "end"))  # typeshed: of any event
    entries: list[Entry] = []
    path: list[str] = []
    try:
        for start in range(0, len(text), _XML_CHUNK):
            parser.feed(text[start : start + _XML_CHUNK])
            for event, element in parser.read_events():
                if event == "start":
                    path.append(element.tag.rpartition("}")[2])
                    if len(path) > _MAX_DEPTH:
                        return []
                else:
                    entries += _xml_entry(path, element)
                    path.pop()
    except ElementTree.ParseError:
        pass  # what came before the fault is read
    return entries


def _xml_entry(path: list[str], element: "ElementTree.Element[str]") -> Iterator[Entry]:
    if len(element):
        label, value = element.findtext("Label"), element.findtext("Value")
        if label and value:
            yield from _entry(label, label, f"{value} {element.findtext('Unit') or ''}")
    elif path[-1] not in ("Label", "Value", "Unit"):
        name = ".".join(path[1:])
        yield from _entry(name, name, element.text or "")
