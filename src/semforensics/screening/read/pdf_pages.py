"""The pictures of a PDF's pages, read by pdfium: the job of a process that may break.

A micrograph in a PDF is an image object; taken out, it has the pixels that the authors put
in, whatever its size on the page. Where a page's figure is cut into images that touch, or is drawn
by lines and shadings, the page is drawn instead, which resamples it: the verdict knows.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pypdfium2 as pdfium
import pypdfium2.raw as pdfium_c

from semforensics.core.errors import InputError
from semforensics.screening.records import Grey, Limits, Picture, Provenance, Refusal

MAX_OBJECTS = 5000
"""Of a page."""
STRIPS = 3
"""Images that touch and are of one width or height, from which on they are one picture."""
DRAWN = 20
"""Paths and shadings of a page without images, from which on it may hold a figure."""

_LOSSY_FILTERS = ("DCTDecode", "JPXDecode", "JBIG2Decode")
_TOUCH_PT = 1.5
_LEAST_DPI = 72  # a page that can only be drawn coarser is refused
_MOST_PT = 4000  # an image is drawn to look for a mask
_OPAQUE = 250
_DEPTH = 8  # of forms inside forms


@dataclass(frozen=True)
class Opened:
    """What a document says before its first page is read."""

    n_pages: int
    metadata: dict[str, str]
    """Such as Producer and Creator."""


def read_document(
    data: bytes, first: int, limits: Limits
) -> Iterator[Opened | int | Picture | Refusal]:
    """Read the pictures of a document.

    Args:
        data: The file.
        first: Page to begin with; the first page is number 0.
        limits: On pages and pictures.

    Yields:
        First what the document says; then, for each page, its number and its pictures and
        refusals. Their paths and hashes are for the caller to fill in.

    Raises:
        InputError: It is no PDF that can be opened, such as one with a password.
    """
    try:
        document = pdfium.PdfDocument(data)
        n_pages = len(document)
        metadata = document.get_metadata_dict(skip_empty=True)
    except Exception as error:  # pdfium on bytes from outside
        needs = "password" in str(error).lower()
        reason = "it needs a password" if needs else f"not a readable PDF: {_reason(error)}"
        raise InputError(reason) from error
    yield Opened(n_pages, metadata)
    for number in range(first, min(n_pages, limits.max_pages)):
        yield number
        yield from _read_page(document, number, limits)


def _read_page(document: Any, number: int, limits: Limits) -> Iterator[Picture | Refusal]:
    where = f"page {number + 1}"
    try:
        page = document[number]
        objects = []
        for one in page.get_objects(max_depth=_DEPTH):
            objects.append(one)
            if len(objects) > MAX_OBJECTS:
                yield _refusal(where, f"more than {MAX_OBJECTS} objects on the page")
                return
        sized = [(o, *o.get_px_size()) for o in objects if o.type == pdfium_c.FPDF_PAGEOBJ_IMAGE]
    except Exception as error:  # as above
        yield _refusal(where, f"cannot be read: {_reason(error)}")
        return
    drawn = sum(
        o.type in (pdfium_c.FPDF_PAGEOBJ_PATH, pdfium_c.FPDF_PAGEOBJ_SHADING) for o in objects
    )
    least = limits.least_px
    images = [o for o, width, height in sized if min(width, height) >= least]
    bounds = [_bounds(o) for o, width, height in sized if max(width, height) >= least]
    if are_cut_up([b for b in bounds if b]):
        note = f"its figure is cut into {len(bounds)} images that touch: the page was drawn"
        yield _draw(page, where, limits, note)
    elif not images and drawn >= DRAWN:
        note = f"its figure is drawn by {drawn} lines and shadings: the page was drawn"
        yield _draw(page, where, limits, note)
    else:
        turns = page.get_rotation() // 90
        for index, image in enumerate(images, start=1):
            yield _extract(image, turns, f"{where}, image {index}", limits.max_megapixels)


def are_cut_up(boxes: Sequence[tuple[float, float, float, float]]) -> bool:
    """Say whether boxes lie edge to edge in a row or column, as programs cut large pictures up.

    Args:
        boxes: Left, bottom, right and top, in points.
    """
    turned = [(bottom, left, top, right) for left, bottom, right, top in boxes]
    return _has_stack(boxes) or _has_stack(turned)


def _has_stack(boxes: Sequence[tuple[float, float, float, float]]) -> bool:
    run = 1
    ordered = sorted(boxes, key=lambda b: (round(b[0] / _TOUCH_PT), b[1]))
    for (left, _, right, top), (left2, bottom2, right2, _) in pairwise(ordered):
        is_same = abs(left - left2) < _TOUCH_PT and abs(right - right2) < _TOUCH_PT
        run = run + 1 if is_same and abs(top - bottom2) < _TOUCH_PT else 1
        if run >= STRIPS:
            return True
    return False


def _bounds(image: Any) -> tuple[float, float, float, float] | None:
    try:
        left, bottom, right, top = image.get_bounds()
    except pdfium.PdfiumError:  # an object without bounds is no strip
        return None
    return left, bottom, right, top


def _extract(image: Any, turns: int, where: str, max_megapixels: float) -> Picture | Refusal:
    """Take an image out at its own pixels, upright as the page shows it."""
    try:
        width, height = image.get_px_size()
        if width * height > max_megapixels * 1e6:
            reason = f"too large: {width}x{height} px, more than {max_megapixels:g} megapixels"
            return _refusal(where, reason)
        filters = list(image.get_filters())
        # Ignores masks and the place on the page, so that samples stay what they were.
        grey = np.array(image.get_bitmap(render=False).to_pil().convert("L"))
        notes = []
        if image.get_metadata().colorspace == pdfium_c.FPDF_COLORSPACE_DEVICECMYK:
            notes.append("CMYK became RGB, then grey")
        if _is_masked(image):
            notes.append("a mask lies over it on the page and was left out")
        grey, note = _upright(grey, image.get_matrix().get(), turns)
    except Exception as error:  # pdfium and its image codecs, on bytes from outside
        return _refusal(where, f"cannot be decoded: {_reason(error)}")
    codec = Provenance(f"PDF image ({', '.join(filters) or 'no filter'})")
    is_lossy = any(f in _LOSSY_FILTERS for f in filters)
    return Picture("", where, "", grey, codec, is_lossy, False, (*notes, *note))


def _is_masked(image: Any) -> bool:
    """Say whether the page shows a part of an image as transparent."""
    a, b, c, d = image.get_matrix().get()[:4]
    if _is_askew(a, b, c, d) or max(abs(a), abs(b), abs(c), abs(d)) > _MOST_PT:
        return False  # drawn askew, its corners would be transparent; drawn huge, it takes memory
    alpha = image.get_bitmap(render=True, scale_to_original=False).to_numpy()
    # Borders that lie between two pixels are a little transparent in any case.
    inside = alpha[1:-1, 1:-1]
    return bool(inside.ndim == 3 and inside.shape[2] == 4 and (inside[..., 3] < _OPAQUE).any())


def _is_askew(a: float, b: float, c: float, d: float) -> bool:
    """Say whether a matrix turns by anything but right angles."""
    least = min(max(abs(a), abs(d)), max(abs(b), abs(c)))
    return least > 0.02 * max(abs(a), abs(b), abs(c), abs(d))


def _upright(grey: Grey, matrix: Sequence[float], turns: int) -> tuple[Grey, list[str]]:
    """Turn an image by right angles as the page does, so that its info bar is at the bottom.

    Args:
        grey: As stored.
        matrix: a, b, c, d of the image on the page: x goes to (a, b), y, upwards, to (c, d).
        turns: Quarter turns of the page, clockwise.
    """
    a, b, c, d = matrix[:4]
    if _is_askew(a, b, c, d):
        return grey, ["it lies at an angle on the page; taken as stored"]
    if abs(b) > abs(a):
        grey, a, d = np.rot90(grey), b, -c  # a quarter turn counter-clockwise, then mirrored
        mirrored = (d < 0, a < 0)
    else:
        mirrored = (a < 0, d < 0)
    grey = grey[:: -1 if mirrored[1] else 1, :: -1 if mirrored[0] else 1]
    return np.ascontiguousarray(np.rot90(grey, -turns)), []


def _draw(page: Any, where: str, limits: Limits, note: str) -> Picture | Refusal:
    """Draw a whole page."""
    try:
        width, height = page.get_size()  # points of 1/72 inch
        most = (limits.max_megapixels * 1e6 / max(width * height, 1e-6)) ** 0.5 * 72
        used = min(float(limits.render_dpi), most)
        if used < _LEAST_DPI or min(width, height) < 1:
            return _refusal(where, f"a page of {width:.0f}x{height:.0f} points cannot be drawn")
        grey = np.array(page.render(scale=used / 72, grayscale=True).to_pil().convert("L"))
    except Exception as error:  # as above
        return _refusal(where, f"cannot be drawn: {_reason(error)}")
    location = f"{where}, rendered at {used:.0f} dpi"
    return Picture("", location, "", grey, Provenance("PDF page"), False, True, (note,))


def _refusal(where: str, reason: str) -> Refusal:
    return Refusal("", where, None, reason)


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__
