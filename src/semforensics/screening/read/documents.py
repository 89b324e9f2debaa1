"""The pictures of office documents, with their place.

Word, PowerPoint and Excel files (Office Open XML, ECMA-376) are ZIP archives of XML parts. A part
names its pictures by ids, and the relationships beside it say which file of the archive an id
stands for. Those of LibreOffice (OpenDocument, ISO/IEC 26300) have one part, which names the files
themselves. Nothing outside the archive is opened.
"""

import posixpath
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final
from xml.parsers import expat

from semforensics.core.errors import InputError
from semforensics.screening.read.archive import Archive, is_zip
from semforensics.screening.records import Limits, Refusal

XML_MB = 32.0
"""Of one XML part, unpacked."""
MAX_ELEMENTS = 2_000_000
"""In all XML parts of a document that are looked at; places behind them are not known."""

_TYPES = "[Content_Types].xml"
_MAIN: Final = ("word/document.xml", "ppt/presentation.xml", "xl/workbook.xml")
_OPEN_TYPE, _OPEN_MAIN = b"mimetypeapplication/vnd.oasis.opendocument.", "content.xml"
_OPEN_MEDIA = "Pictures/"
_COPIES = ("svgBlip", "imgLayer")  # a second form of a picture that is there as PNG or JPEG
_NAMES = ("embed", "pict", "link")


@dataclass(frozen=True)
class Embedded:
    """A media file of a document."""

    location: str
    """Such as "figure 3 of the document" or "slide 2, image 1"."""
    ending: str
    """Of its name, in lower case and without the dot."""
    data: bytes


@dataclass(frozen=True)
class _Element:
    name: str
    """Without its namespace."""
    ids: dict[str, str]
    """Attributes that have a namespace, by their names without it."""
    plain: dict[str, str]
    """The other attributes."""


def is_document(data: bytes, limits: Limits) -> bool:
    """Say whether bytes are a document of one of these kinds; a damaged archive is none."""
    is_open = _OPEN_TYPE in data[:200]  # the first file of the archive, and not compressed
    if not is_zip(data) or not (is_open or _TYPES.encode() in data):
        return False
    try:
        names = {info.filename for info in Archive(data, limits).files}
    except InputError:
        return False
    if is_open:
        return _OPEN_MAIN in names
    return _TYPES in names and not names.isdisjoint(_MAIN)


def read_document(data: bytes, limits: Limits) -> Iterator[Embedded | Refusal]:
    """Unpack the media files of a document in their order; each once, at its first place.

    Args:
        data: The file.
        limits: On the number of media files and on unpacked sizes, as for an archive.

    Yields:
        Media files of any kind, and refusals of those that cannot be unpacked.

    Raises:
        InputError: The archive cannot be read, or has too many files.
    """
    document = _Document(Archive(data, limits))
    media = document.media
    if len(media) > limits.max_pictures:
        raise InputError(f"{len(media)} media files, more than {limits.max_pictures}")
    places = document.places()
    copies = document.copies
    for name in [*places, *(n for n in media if n not in places and n not in copies)]:
        file = posixpath.basename(name)
        location = places.get(name, f"{_shown(file)}, in no slide or running text")
        try:
            content = document.read(name, limits.max_file_mb)
        except InputError as error:
            yield Refusal("", location, None, str(error))
            continue
        yield Embedded(location, _shown(file.rpartition(".")[2].lower()), content)


class _Document:
    """The parts of a document and how they refer to each other."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self.files = {info.filename: info for info in archive.files}
        self._n_elements = 0
        self.copies: set[str] = set()
        """Media files that are a second form of another picture."""

    @property
    def media(self) -> list[str]:
        """The files that may be pictures of the text; previews are none."""
        if self._is_open:
            return [name for name in self.files if name.startswith(_OPEN_MEDIA)]
        return [name for name in self.files if "/media/" in name]

    @property
    def _is_open(self) -> bool:
        return _TYPES not in self.files

    def read(self, name: str, most_mb: float) -> bytes:
        return self._archive.read(self.files[name], most_mb)

    def places(self) -> dict[str, str]:
        """Return the media files that the text or the slides show, in order, and where."""
        if self._is_open:
            before, *slides = self._open_slides()
            return _on_slides(slides) if slides else _in_text(before)
        if "ppt/presentation.xml" in self.files:
            return _on_slides(self._slides())
        return _in_text(self._media_of("word/document.xml"))

    def _open_slides(self) -> list[list[str]]:
        """Return the media files before the first slide of an OpenDocument, and on each."""
        slides: list[list[str]] = [[]]
        media = {*self.media}
        for element in self._elements(_OPEN_MAIN):
            if element.name == "page":
                slides.append([])
            elif (name := posixpath.normpath(element.ids.get("href", ""))) in media:
                slides[-1].append(name)
        return [list(dict.fromkeys(slide)) for slide in slides]

    def _slides(self) -> list[Sequence[str]]:
        """Return the media files of the slides of a PowerPoint file."""
        targets = self._targets("ppt/presentation.xml")
        slides = dict.fromkeys(
            targets.get(element.ids.get("id", ""), "")
            for element in self._elements("ppt/presentation.xml")
            if element.name == "sldId"
        )
        return [self._media_of(slide) for slide in slides]

    def _media_of(self, part: str) -> Sequence[str]:
        """Return the media files that a part shows, each once, in order."""
        targets = self._targets(part)
        shown: dict[str, None] = {}
        for element in self._elements(part):
            names = ("id",) if element.name == "imagedata" else _NAMES  # VML has ids
            for key in names:
                target = targets.get(element.ids.get(key, ""))
                if target is None or "/media/" not in target:
                    continue
                if element.name in _COPIES:
                    self.copies.add(target)
                else:
                    shown[target] = None
        return list(shown)

    def _targets(self, part: str) -> dict[str, str]:
        """Return the files of the archive that the ids of a part stand for."""
        folder, name = posixpath.split(part)
        found: dict[str, str] = {}
        for element in self._elements(f"{folder}/_rels/{name}.rels"):
            values = element.plain
            if element.name == "Relationship" and values.get("TargetMode") != "External":
                target = posixpath.normpath(posixpath.join("/", folder, values.get("Target", "")))
                if target[1:] in self.files:
                    found[values.get("Id", "")] = target[1:]
        return found

    def _elements(self, part: str) -> list[_Element]:
        """Return the elements of an XML part; as many as can be read of a damaged one."""
        found: list[_Element] = []

        def start(name: str, attributes: dict[str, str]) -> None:
            self._n_elements += 1
            if self._n_elements > MAX_ELEMENTS:
                raise InputError(f"more than {MAX_ELEMENTS} elements")
            ids = {k.rpartition(" ")[2]: v for k, v in attributes.items() if " " in k}
            plain = {k: v for k, v in attributes.items() if " " not in k}
            local = name.rpartition(" ")[2]
            named = not ids.keys().isdisjoint((*_NAMES, "id", "href"))
            if named or local in ("Relationship", "page"):
                found.append(_Element(local, ids, plain))

        def refuse(*_: object) -> None:
            raise InputError("a document type")  # its entities could swell; no such file has one

        if part not in self.files:
            return found
        parser = expat.ParserCreate(namespace_separator=" ")
        parser.StartElementHandler = start
        parser.StartDoctypeDeclHandler = refuse
        # Of a damaged part the pictures are read all the same, without a place.
        with suppress(InputError, expat.ExpatError, ValueError, LookupError):
            parser.Parse(self.read(part, XML_MB), True)
        return found


def _in_text(media: Sequence[str]) -> dict[str, str]:
    return {name: f"figure {n} of the document" for n, name in enumerate(media, start=1)}


def _on_slides(slides: Sequence[Sequence[str]]) -> dict[str, str]:
    places: dict[str, str] = {}
    for number, shown in enumerate(slides, start=1):
        for index, name in enumerate(shown, start=1):
            image = f", image {index}" if len(shown) > 1 else ""
            places.setdefault(name, f"slide {number}{image}")
    return places


def _shown(name: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in name)[:100]
