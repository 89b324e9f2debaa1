"""Files to read that are made up: micrographs of noise, figures, PDFs, archives, hostile ones."""

import io
import struct
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

from semforensics.screening.records import Grey, Picture, Provenance


def micrograph(height: int = 96, width: int = 128, seed: int = 0) -> Grey:
    """Draw soft blobs under noise: no row is flat."""
    rng = np.random.default_rng(seed)
    blobs = gaussian_filter(rng.normal(size=(height, width)), 4)
    grey = 120 + 30 * blobs / blobs.std() + rng.normal(0, 8, (height, width))
    return grey.clip(0, 255).astype(np.uint8)


def figure(
    rows: Sequence[Sequence[Grey]], gap: int = 8, margin: int = 12, level: int = 255
) -> Grey:
    """Lay panels out in rows, with gutters and a margin of one grey level."""
    lines = []
    for row in rows:
        height = max(panel.shape[0] for panel in row)
        padded = [
            np.pad(p, ((0, height - p.shape[0]), (0, gap)), constant_values=level) for p in row
        ]
        lines.append(np.hstack(padded)[:, :-gap])
    width = max(line.shape[1] for line in lines)
    lines = [
        np.pad(line, ((0, gap), (0, width - line.shape[1])), constant_values=level)
        for line in lines
    ]
    return np.pad(np.vstack(lines)[:-gap], margin, constant_values=level)


def picture_of(grey: Grey) -> Picture:
    """Wrap grey levels as the reader does."""
    return Picture("x.png", "", "00" * 32, grey, Provenance("PNG"), False, False)


def encoded(grey: Grey, kind: str, **options: object) -> bytes:
    """Encode as Pillow does."""
    buffer = io.BytesIO()
    Image.fromarray(grey).save(buffer, format=kind, **options)
    return buffer.getvalue()


def zipped(members: Mapping[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """Pack members into an archive, whatever their names."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data, method)
    return buffer.getvalue()


_RELATIONSHIPS = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"


def _relationships(targets: Sequence[str]) -> bytes:
    ids = "".join(f'<Relationship Id="r{n}" Target="{t}"/>' for n, t in enumerate(targets))
    return f"<Relationships>{ids}</Relationships>".encode()


def _showing(element: str, attribute: str, n: int) -> bytes:
    items = "".join(f'<{element} r:{attribute}="r{index}"/>' for index in range(n))
    return f'<x xmlns:r="{_RELATIONSHIPS}">{items}</x>'.encode()


def docx_with(media: Mapping[str, bytes], body: bytes | None = None) -> bytes:
    """Write a Word file that shows media files in their order."""
    return zipped(
        {
            "[Content_Types].xml": b"<Types/>",
            "word/document.xml": body or _showing("blip", "embed", len(media)),
            "word/_rels/document.xml.rels": _relationships([f"media/{name}" for name in media]),
            "word/styles.xml": b"<styles/>",
            "docProps/thumbnail.jpeg": b"no figure",
            **{f"word/media/{name}": data for name, data in media.items()},
        }
    )


def pptx_with(slides: Sequence[Mapping[str, bytes]]) -> bytes:
    """Write a PowerPoint file whose slides are stored in reverse order under their numbers."""
    parts = {"[Content_Types].xml": b"<Types/>"}
    files = [f"slide{len(slides) - n}.xml" for n in range(len(slides))]
    parts["ppt/presentation.xml"] = _showing("sldId", "id", len(slides))
    parts["ppt/_rels/presentation.xml.rels"] = _relationships([f"slides/{f}" for f in files])
    for file, media in zip(files, slides, strict=True):
        parts[f"ppt/slides/{file}"] = _showing("blip", "embed", len(media))
        targets = [f"../media/{name}" for name in media]
        parts[f"ppt/slides/_rels/{file}.rels"] = _relationships(targets)
        parts |= {f"ppt/media/{name}": data for name, data in media.items()}
    return zipped(parts)


def open_document_with(
    kind: str, slides: Sequence[Sequence[str]], media: Mapping[str, bytes]
) -> bytes:
    """Write an OpenDocument: a "text" where there is one list of pictures, or a "presentation"."""
    lines = ["".join(f'<d:image x:href="Pictures/{name}"/>' for name in shown) for shown in slides]
    body = lines[0] if kind == "text" else "".join(f"<d:page>{line}</d:page>" for line in lines)
    names = 'xmlns:d="urn:oasis:names:tc:opendocument:xmlns:drawing:1.0"'
    names += ' xmlns:x="http://www.w3.org/1999/xlink"'
    first = zipped({"mimetype": f"application/vnd.oasis.opendocument.{kind}".encode()}, 0)
    buffer = io.BytesIO(first)
    with zipfile.ZipFile(buffer, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("content.xml", f"<x {names}>{body}</x>")
        archive.writestr("styles.xml", "<x/>")
        archive.writestr("Thumbnails/thumbnail.png", b"no figure")
        for name, data in media.items():
            archive.writestr(f"Pictures/{name}", data)
    return buffer.getvalue()


@dataclass
class Pdf:
    """A document, written object by object."""

    objects: list[bytes] = field(default_factory=list)
    pages: list[int] = field(default_factory=list)

    def add(self, body: bytes) -> int:
        """Add an object, and say its number; the first two are the document."""
        self.objects.append(body)
        return len(self.objects) + 2

    def stream(self, entries: bytes, data: bytes) -> int:
        """Add a stream."""
        head = b"<< " + entries + b" /Length %d >>" % len(data)
        return self.add(head + b"\nstream\n" + data + b"\nendstream")

    def image(self, grey: Grey, *, jpeg: bool = False, more: bytes = b"") -> int:
        """Add a grey image."""
        data = encoded(grey, "JPEG", quality=90) if jpeg else zlib.compress(grey.tobytes())
        height, width = grey.shape
        entries = b"/Type /XObject /Subtype /Image /Width %d /Height %d" % (width, height)
        entries += b" /ColorSpace /DeviceGray /BitsPerComponent 8 " + more
        return self.stream(
            entries + (b" /Filter /DCTDecode" if jpeg else b" /Filter /FlateDecode"), data
        )

    def page(
        self,
        content: bytes,
        images: Sequence[int] = (),
        box: tuple[int, int] = (612, 792),
        more: bytes = b"",
    ) -> None:
        """Add a page whose content calls its images /I0, /I1 and so on."""
        drawn = self.stream(b"", content)
        names = b" ".join(b"/I%d %d 0 R" % pair for pair in enumerate(images))
        entries = b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 %d %d]" % box
        entries += b" /Resources << /XObject << %s >> >> /Contents %d 0 R " % (names, drawn)
        self.pages.append(self.add(entries + more + b" >>"))

    def to_bytes(self, trailer: bytes = b"") -> bytes:
        """Write the document down."""
        kids = b" ".join(b"%d 0 R" % page for page in self.pages)
        first = [
            b"<< /Type /Catalog /Pages 2 0 R >>",
            b"<< /Type /Pages /Kids [%s] /Count %d >>" % (kids, len(self.pages)),
        ]
        out, offsets = b"%PDF-1.7\n", []
        for number, body in enumerate([*first, *self.objects], start=1):
            offsets.append(len(out))
            out += b"%d 0 obj\n" % number + body + b"\nendobj\n"
        start = len(out)
        out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(offsets) + 1)
        out += b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
        out += b"trailer << /Size %d /Root 1 0 R %s >>\n" % (len(offsets) + 1, trailer)
        return out + b"startxref\n%d\n%%%%EOF\n" % start


def put(index: int, width: float, height: float, left: float = 50, bottom: float = 50) -> bytes:
    """Say where on the page an image lies."""
    return b"q %g 0 0 %g %g %g cm /I%d Do Q\n" % (width, height, left, bottom, index)


def pdf_with(*greys: Grey, jpeg: bool = False) -> bytes:
    """Write a document of one image per page, each scaled to 200 points."""
    pdf = Pdf()
    for grey in greys:
        pdf.page(put(0, 200, 200 * grey.shape[0] / grey.shape[1]), [pdf.image(grey, jpeg=jpeg)])
    return pdf.to_bytes()


def png_header(width: int, height: int) -> bytes:
    """Write a PNG that claims a size and has no pixels to speak of."""
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)),
        (b"IDAT", zlib.compress(b"\0" * 100)),
        (b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
