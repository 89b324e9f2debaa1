"""The images of a PDF at their own pixels, and drawn pages where a figure is no whole image.

A micrograph in a PDF is an image object; taken out, it has the pixels that the authors put in,
whatever its size on the page. Where images lie in strips that make up one picture, or where a page
draws its figure otherwise, the page is drawn instead, which resamples it: the verdict knows.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pypdfium2 as pdfium
import pypdfium2.raw as pdfium_c

from semforensics.screening.records import Grey

_LOSSY_FILTERS = ("DCTDecode", "JPXDecode", "JBIG2Decode")
_MAX_OBJECTS = 5000  # of a page
_MAX_SECONDS = 120.0  # for a document
_STRIPS = 3  # images of one width that touch, from which on they are one picture
_TOUCH_PT = 1.5
_DRAWN = 20  # paths and shadings of a page without images, from which on it may hold a figure


@dataclass(frozen=True)
class PdfPicture:
    """A picture of a PDF."""

    location: str
    grey: Grey
    codec: str
    is_lossy: bool
    is_resampled: bool
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class PdfRefusal:
    """A part of a PDF that is not read."""

    location: str
    reason: str


def is_pdf(data: bytes) -> bool:
    """Say whether bytes are a PDF: its mark may follow other bytes."""
    return b"%PDF-" in data[:1024]


def read_pdf(
    data: bytes,
    *,
    max_pages: int,
    max_pictures: int,
    max_megapixels: float,
    least_px: int,
    dpi: int,
) -> Iterator[PdfPicture | PdfRefusal]:
    """Read the pictures of a document, page by page.

    Args:
        data: The file.
        max_pages: A longer document is read up to here, and the rest is refused.
        max_pictures: Of the whole document, likewise.
        max_megapixels: Of one picture; a larger one is refused.
        least_px: Images with a shorter side are left out: icons and rules.
        dpi: At which a page is drawn; fewer where it would become too large.

    Raises:
        ValueError: It is no PDF that can be opened, such as one with a password.
    """
    try:
        document = pdfium.PdfDocument(data)
    except pdfium.PdfiumError as error:
        raise ValueError(f"not a readable PDF: {error}") from error
    started, count = time.monotonic(), 0
    try:
        pages = len(document)
        for number in range(min(pages, max_pages)):
            if time.monotonic() - started > _MAX_SECONDS:
                yield PdfRefusal(
                    f"page {number + 1}", f"the document takes over {_MAX_SECONDS:g} s"
                )
                return
            for found in _read_page(document, number, max_megapixels, least_px, dpi):
                if count == max_pictures:
                    reason = f"more than {max_pictures} pictures"
                    yield PdfRefusal(f"from page {number + 1} on", reason)
                    return
                count += isinstance(found, PdfPicture)
                yield found
        if pages > max_pages:
            yield PdfRefusal(f"from page {max_pages + 1} on", f"more than {max_pages} pages")
        elif count == 0:
            yield PdfRefusal("", f"no image of {least_px} px or more on {pages} pages")
    finally:
        document.close()


def _read_page(
    document: Any, number: int, max_megapixels: float, least_px: int, dpi: int
) -> Iterator[PdfPicture | PdfRefusal]:
    where = f"page {number + 1}"
    try:
        page = document[number]
        objects = []
        for one in page.get_objects(max_depth=8):
            objects.append(one)
            if len(objects) > _MAX_OBJECTS:
                yield PdfRefusal(where, f"more than {_MAX_OBJECTS} objects on the page")
                return
    except pdfium.PdfiumError as error:
        yield PdfRefusal(where, f"cannot be read: {error}")
        return
    images = [o for o in objects if o.type == pdfium_c.FPDF_PAGEOBJ_IMAGE]
    drawn = sum(
        o.type in (pdfium_c.FPDF_PAGEOBJ_PATH, pdfium_c.FPDF_PAGEOBJ_SHADING) for o in objects
    )
    if _are_strips(images):
        note = f"its figure is cut into {len(images)} images that touch: the page was drawn"
        yield _draw(page, where, max_megapixels, dpi, note)
    elif not images and drawn >= _DRAWN:
        yield _draw(page, where, max_megapixels, dpi, "its figure is no image: the page was drawn")
    else:
        for index, image in enumerate(images, start=1):
            found = _extract(image, f"{where}, image {index}", max_megapixels, least_px)
            if found is not None:
                yield found


def _extract(
    image: Any, where: str, max_megapixels: float, least_px: int
) -> PdfPicture | PdfRefusal | None:
    """Take an image out at its own pixels; None for what is too small to be looked at."""
    try:
        width, height = image.get_px_size()
        if min(width, height) < least_px:
            return None
        if width * height > max_megapixels * 1e6:
            reason = f"too large: {width}x{height} px, more than {max_megapixels:g} megapixels"
            return PdfRefusal(where, reason)
        filters = list(image.get_filters())
        bitmap = image.get_bitmap(render=False)
        grey = np.array(bitmap.to_pil().convert("L"))
    except Exception as error:  # pdfium and its image codecs, on bytes from outside
        return PdfRefusal(where, f"cannot be decoded: {str(error) or type(error).__name__}")
    codec = f"PDF image ({', '.join(filters) or 'no filter'})"
    return PdfPicture(where, grey, codec, any(f in _LOSSY_FILTERS for f in filters), False)


def _draw(
    page: Any, where: str, max_megapixels: float, dpi: int, note: str
) -> PdfPicture | PdfRefusal:
    """Draw a whole page."""
    try:
        width, height = page.get_size()  # points of 1/72 inch
        most = (max_megapixels * 1e6 / max(width * height, 1e-6)) ** 0.5 * 72
        used = min(float(dpi), most)
        if used < 72 or min(width, height) < 1:
            return PdfRefusal(where, f"a page of {width:.0f}x{height:.0f} points cannot be drawn")
        grey = np.array(page.render(scale=used / 72, grayscale=True).to_pil().convert("L"))
    except Exception as error:  # as above
        return PdfRefusal(where, f"cannot be drawn: {str(error) or type(error).__name__}")
    location = f"{where}, rendered at {used:.0f} dpi"
    return PdfPicture(location, grey, "PDF page", False, True, (note,))


def _are_strips(images: Sequence[Any]) -> bool:
    """Say whether images of one width lie edge to edge, as programs cut large pictures up."""
    try:
        boxes = sorted((o.get_bounds() for o in images), key=lambda b: (b[0], b[1]))
    except Exception:  # an object without bounds is no strip
        return False
    run = 1
    for (left, _, right, top), (left2, bottom2, right2, _) in pairwise(boxes):
        touches = abs(left - left2) < _TOUCH_PT and abs(right - right2) < _TOUCH_PT
        run = run + 1 if touches and abs(top - bottom2) < _TOUCH_PT else 1
        if run >= _STRIPS:
            return True
    return False
