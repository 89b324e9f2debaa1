"""What a file says of its origin: evidence shown with a verdict, never part of it.

Vendors' tags in TIFF and EXIF: FEI and Thermo Fisher write their settings into tags 34680, 34682
and 34683, Zeiss into 34118, Tescan into 50431; Hitachi and JEOL write a text file beside the image.
Anybody can copy such text and most programs drop it, so a tag is no proof and its absence is no
guilt.
"""

import io
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from PIL import Image, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from semforensics.screening.read.bombs import refuse_bombs
from semforensics.screening.read.settings.chosen import Chosen
from semforensics.screening.read.settings.entries import (
    Entry,
    parse_fei,
    parse_hitachi,
    parse_jeol,
    parse_sections,
    parse_tescan,
    parse_zeiss,
)
from semforensics.screening.read.settings.text import MAX_PARSED, clean, decode_tag
from semforensics.screening.records import FORMATS, Provenance

_SETTINGS_TAGS = {
    34682: "FEI/Thermo",
    34680: "FEI/Thermo",
    34683: "FEI/Thermo",
    34118: "Zeiss",
    50431: "Tescan",
}
"""Tags of settings, and who writes them; the first that can be read counts."""
_UNREAD_TAGS = {51023: "Fibics", 37706: "TVIPS"}
"""Tags of settings that this program does not read."""
_HITACHI_COMMENT = 40092
_MAKE, _MODEL = 271, 272
_SOFTWARE_TAGS = {
    270: "ImageDescription",
    _MAKE: "Make",
    _MODEL: "Model",
    305: "Software",
    306: "DateTime",
    315: "Artist",
}
_MAX_ENTRIES, _MAX_FRAMES = 60, 1000
_EXIF_MARK = b"Exif\0\0"
_PNG_START = b"\x89PNG"
_C2PA_MARKS = (b"c2pa", b"jumb")
_NO_PDF = (
    _PNG_START, b"\xff\xd8\xff", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"BM", b"RIFF", b"PK\3\4"
)  # fmt: skip


def is_pdf(data: bytes) -> bool:
    """Say whether bytes are a PDF: its mark may follow other bytes, but no image's or ZIP's."""
    return b"%PDF-" in data[:1024] and not data.startswith(_NO_PDF)


@dataclass(frozen=True)
class _Settings:
    """Settings of one tag or text."""

    source: str
    vendor: str
    entries: list[Entry]


def read_provenance(data: bytes, name: str, side_car: str | None) -> Provenance:
    """Read what a file, and the text beside it, say of the instrument and of programs.

    Args:
        data: An image, or anything else, of which only marks are looked for.
        name: Of the file, to name the side-car after.
        side_car: The text beside it, if there is any.

    Returns:
        Empty where nothing is known; a file that cannot be read says nothing. The instrument's
        settings begin with those of `CHOSEN`, in units that all vendors share; the instrument's
        own entries follow, first those that the chosen ones were read from. A note counts what is
        left out.
    """
    tags: Mapping[int, Any] = {}
    tag_kind = ""
    size: tuple[int, int] | None = None
    notes: list[str] = []
    software: dict[str, str] = {}
    kind = "PDF" if is_pdf(data) else "?"
    try:
        refuse_bombs(data, _MAX_FRAMES)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                kind = image.format or "?"
                size = image.size
                tag_kind = "TIFF" if isinstance(image, TiffImageFile) else "EXIF"
                tags = _tags(image)
                software = _software(image, tags)
    except UnidentifiedImageError:  # no image: it has no tags
        pass
    except Exception as error:  # a decoder may raise anything on bytes from outside
        kind = "PNG" if data.startswith(_PNG_START) else kind
        notes.append(f"its tags cannot be read: {_reason(error)}")
    xmp = re.search(rb"<xmp:CreatorTool>([^<]{1,300})<|xmp:CreatorTool=\"([^\"]{1,300})\"", data)
    if xmp:
        software["XMP CreatorTool"] = clean((xmp[1] or xmp[2]).decode("utf-8", "replace"))
    found = _settings(tags, tag_kind, side_car, name)
    instrument: dict[str, str] = {}
    if found:
        instrument, more = _shown(found, size)
        notes += more
    source = found.source if found else None
    return Provenance(kind, instrument, source, software, _c2pa(data, kind), tuple(notes))


def _reason(error: Exception) -> str:
    """Say why tags cannot be read; Pillow names its limit on texts of PNG by a constant."""
    text = clean(str(error) or type(error).__name__)
    is_long = "MAX_TEXT_CHUNK" in text or "text chunks" in text
    return "a text or colour profile in it is larger than 1 MB" if is_long else text


def _tags(image: Image.Image) -> Mapping[int, Any]:
    """Return a TIFF's tags, or the EXIF of another image."""
    if isinstance(image, TiffImageFile):
        return image.tag_v2
    if image.format == "PNG":
        image.load()  # tags may follow the pixels
    # EXIF is a TIFF, whose tags may claim the same bytes again and again. Pillow looks for it
    # behind up to two marks.
    exif = image.info.get("exif", b"").removeprefix(_EXIF_MARK).removeprefix(_EXIF_MARK)
    refuse_bombs(exif, _MAX_FRAMES)
    return image.getexif()


def _software(image: Image.Image, tags: Mapping[int, Any]) -> dict[str, str]:
    prefix = "" if isinstance(image, TiffImageFile) else "EXIF "
    found = {
        prefix + name: clean(_as_text(tags[tag]))
        for tag, name in _SOFTWARE_TAGS.items()
        if tag in tags
    }
    texts: Mapping[Any, Any] = image.info
    for key in ("comment", "Software", "Comment", "Description", "parameters", "Creation Time"):
        if key in texts:
            found.setdefault(str(key), clean(_as_text(texts[key])))
    return {key: value for key, value in found.items() if value}


def _settings(
    tags: Mapping[int, Any], tag_kind: str, side_car: str | None, name: str
) -> _Settings | None:
    """Find settings: in a vendor's tag, in the text beside, in comments; else name what is unread.

    An unread tag gives settings without entries.
    """
    unread = {tag: vendor for tag, vendor in _UNREAD_TAGS.items() if tag in tags}
    for tag, vendor in _SETTINGS_TAGS.items():
        if tag in tags:
            entries = _parse_tag(vendor, tags[tag])
            if entries:
                return _Settings(f"{tag_kind} tag {tag} ({vendor})", vendor, entries)
            unread[tag] = vendor
    if side_car and (beside := _parse_side_car(side_car)):
        vendor, entries = beside
        source = f"text file beside {name.rsplit('/', 1)[-1]} ({vendor})"
        return _Settings(source, vendor, entries)
    if _HITACHI_COMMENT in tags:
        entries = parse_hitachi(decode_tag(tags[_HITACHI_COMMENT]))
        if any(entry.key == "Condition.Vacc" for entry in entries):
            source = f"{tag_kind} tag {_HITACHI_COMMENT} (Hitachi)"
            return _Settings(source, "Hitachi", entries)
    for tag, vendor in unread.items():
        source = f"{tag_kind} tag {tag} ({vendor}): settings in a form this program does not read"
        return _Settings(source, vendor, [])
    maker = " ".join(clean(_as_text(tags[tag])) for tag in (_MAKE, _MODEL) if tag in tags).strip()
    if maker:
        entry = Entry("Instrument", "Instrument", clean(maker))
        return _Settings(f"{tag_kind} tags Make and Model", "", [entry])
    return None


def _parse_tag(vendor: str, value: Any) -> list[Entry]:
    match vendor:
        case "Zeiss":
            return parse_zeiss(decode_tag(value))
        case "Tescan":
            return parse_tescan(value)
    return parse_fei(decode_tag(value))


def _parse_side_car(text: str) -> tuple[str, list[Entry]] | None:
    """Read the text beside an image; what has no line of settings, such as notes, is none."""
    head = text[:MAX_PARSED]
    if re.search(r"^\s*\$\$?[CS]M_", head, re.MULTILINE):
        vendor, entries = "JEOL", parse_jeol(text)
    elif "[SemImageFile]" in head:
        vendor, entries = "Hitachi", parse_hitachi(text)
    else:
        vendor, entries = "unknown instrument", parse_sections(text)
    return (vendor, entries) if entries else None


def _shown(found: _Settings, size: tuple[int, int] | None) -> tuple[dict[str, str], list[str]]:
    """Return the settings in the order of a report, and notes for its reader."""
    values: dict[str, str] = {}
    for entry in found.entries:
        values.setdefault(entry.key, entry.value)
    chosen = Chosen(found.vendor, values)
    notes = chosen.contradictions(*size) if size else []
    places = {key: place for place, key in enumerate(chosen.keys)}
    shown = dict(chosen.settings)
    for entry in sorted(found.entries, key=lambda entry: places.get(entry.key, len(places))):
        if len(shown) == _MAX_ENTRIES:
            break
        name = entry.name if entry.name not in shown else f"{entry.name} ({entry.key})"
        shown.setdefault(name, entry.value)
    n_left = len(found.entries) + len(chosen.settings) - len(shown)
    if n_left > 0:
        notes.append(f"{n_left} further entries of the instrument's settings are left out")
    return shown, notes


def _c2pa(data: bytes, kind: str) -> str:
    """Say whether content credentials are there; their signature is for c2pa to check."""
    has_mark = all(mark in data for mark in _C2PA_MARKS)
    try:
        import c2pa
    except ImportError:
        seen = "a manifest seems to be there" if has_mark else "no mark of one"
        return f"not checked: needs semforensics[c2pa]; {seen}"
    if not has_mark:
        return "none"
    types = {"PNG": "image/png", "JPEG": "image/jpeg", "TIFF": "image/tiff", "WEBP": "image/webp",
             "PDF": "application/pdf"}  # fmt: skip
    # Nothing leaves the machine: not even a look at a manifest that lies elsewhere.
    offline = c2pa.Settings.from_dict(
        {"verify": {"remote_manifest_fetch": False, "ocsp_fetch": False}}
    )
    try:
        kind_of_file = types.get(kind, "application/octet-stream")
        with (
            c2pa.Context(offline) as context,
            c2pa.Reader(kind_of_file, io.BytesIO(data), context=context) as reader,
        ):
            return f"present: {clean(str(reader.get_validation_state()))}"
    except Exception as error:  # a damaged manifest is one all the same
        return f"present, cannot be read: {clean(str(error) or type(error).__name__)}"


def _as_text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, tuple | list):
        return " ".join(map(str, value[:20]))
    return str(value)
