"""What a file says of its origin: evidence shown with a verdict, never part of it.

Vendors' tags in TIFF: FEI and Thermo Fisher write their settings as text into tags 34680 and 34682,
Zeiss into 34118; Hitachi and JEOL write a text file beside the image. Anybody can copy such text
and most programs drop it, so a tag is no proof and its absence is no guilt.
"""

import io
import re
import warnings
from collections.abc import Mapping
from typing import Any

from PIL import ExifTags, Image, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from semforensics.screening.read.bombs import refuse_bombs
from semforensics.screening.records import FORMATS, Provenance

_VENDOR_TAGS = {34680: "FEI/Thermo", 34682: "FEI/Thermo", 34118: "Zeiss"}
_SOFTWARE_TAGS = {270: "ImageDescription", 305: "Software", 306: "DateTime", 315: "Artist"}
_MAX_TEXT, _MAX_ENTRIES, _MAX_FRAMES = 300, 60, 1000
_MAX_PARSED, _MAX_LINE = 1_000_000, 1000  # characters: an instrument writes fewer
_LINE = re.compile(r"^\s*\$?([\w .()/#%-]{1,80}?)\s*(?:=|\s)\s*(.+)$")
_EXIF_MARK = b"Exif\0\0"
_C2PA_MARKS = (b"c2pa", b"jumb")
_NO_PDF = (
    b"\x89PNG", b"\xff\xd8\xff", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"BM", b"RIFF", b"PK\3\4"
)  # fmt: skip


def is_pdf(data: bytes) -> bool:
    """Say whether bytes are a PDF: its mark may follow other bytes, but no image's or ZIP's."""
    return b"%PDF-" in data[:1024] and not data.startswith(_NO_PDF)


def read_provenance(data: bytes, name: str, side_car: str | None) -> Provenance:
    """Read what a file, and the text beside it, say of the instrument and of programs.

    Args:
        data: An image, or anything else, of which only marks are looked for.
        name: Of the file, to name the side-car after.
        side_car: The text beside it, if there is any.

    Returns:
        Empty where nothing is known; a file that cannot be read says nothing.
    """
    instrument: dict[str, str] = {}
    source: str | None = None
    notes: list[str] = []
    software: dict[str, str] = {}
    kind = "PDF" if is_pdf(data) else "?"
    try:
        refuse_bombs(data, _MAX_FRAMES)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                kind = image.format or "?"
                instrument, source = _vendor_tags(image)
                software = _software(image)
    except UnidentifiedImageError:  # no image: it has no tags
        pass
    except Exception as error:  # a decoder may raise anything on bytes from outside
        notes.append(f"its tags cannot be read: {clean(str(error) or type(error).__name__)}")
    xmp = re.search(rb"<xmp:CreatorTool>([^<]{1,300})<|xmp:CreatorTool=\"([^\"]{1,300})\"", data)
    if xmp:
        software["XMP CreatorTool"] = clean((xmp[1] or xmp[2]).decode("utf-8", "replace"))
    if not instrument and side_car:
        instrument = _parse(side_car)
        if instrument:
            vendor = _vendor_of(side_car)
            source = f"text file beside {name.rsplit('/', 1)[-1]} ({vendor})"
    return Provenance(kind, instrument, source, software, _c2pa(data, kind), tuple(notes))


def _vendor_tags(image: Image.Image) -> tuple[dict[str, str], str | None]:
    if isinstance(image, TiffImageFile):
        for tag, vendor in _VENDOR_TAGS.items():
            value = image.tag_v2.get(tag)
            settings = _parse(_as_text(value)) if value is not None else {}
            if settings:
                return settings, f"TIFF tag {tag} ({vendor})"
    return {}, None


def _software(image: Image.Image) -> dict[str, str]:
    found: dict[str, str] = {}
    if isinstance(image, TiffImageFile):
        for tag, name in _SOFTWARE_TAGS.items():
            if tag in image.tag_v2:
                found[name] = clean(_as_text(image.tag_v2[tag]))
    else:
        if image.format == "PNG":
            image.load()  # tags may follow the pixels
        # EXIF is a TIFF, whose tags may claim the same bytes again and again. Pillow looks for it
        # behind up to two marks.
        exif = image.info.get("exif", b"").removeprefix(_EXIF_MARK).removeprefix(_EXIF_MARK)
        refuse_bombs(exif, _MAX_FRAMES)
        for tag, value in image.getexif().items():
            name = ExifTags.TAGS.get(tag, str(tag))
            if name in ("Software", "Make", "Model", "DateTime", "Artist", "ImageDescription"):
                found[f"EXIF {name}"] = clean(_as_text(value))
    texts: Mapping[Any, Any] = image.info
    for key in ("comment", "Software", "Comment", "Description", "parameters", "Creation Time"):
        if key in texts:
            found.setdefault(str(key), clean(_as_text(texts[key])))
    return {key: value for key, value in found.items() if value}


def _parse(text: str) -> dict[str, str]:
    """Read lines of "name=value", "name value" or "$NAME value", with the section they stand in."""
    settings: dict[str, str] = {}
    section = ""
    for line in text[:_MAX_PARSED].replace("\0", "\n").splitlines():
        line = line[:_MAX_LINE].strip()
        if heading := re.fullmatch(r"\s*\[(.{1,80})\]\s*", line):
            section = f"{clean(heading[1])}."
        elif len(settings) < _MAX_ENTRIES and (pair := _LINE.match(line)):
            settings[section + clean(pair[1])] = clean(pair[2])
    return settings


def _vendor_of(text: str) -> str:
    if "$CM_" in text:
        return "JEOL"
    return "Hitachi" if "[SemImageFile]" in text else "unknown instrument"


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


def clean(text: str) -> str:
    """Take control characters out of a text, and cut it to a length that can be read."""
    flat = re.sub(r"\s+", " ", "".join(c if c.isprintable() else " " for c in text)).strip()
    return flat if len(flat) <= _MAX_TEXT else f"{flat[: _MAX_TEXT - 1]}…"
