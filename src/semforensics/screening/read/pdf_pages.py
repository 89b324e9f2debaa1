"""The pictures of a PDF's pages, read by pdfium: the job of a process that may break.

A micrograph in a PDF is an image object; taken out, it has the pixels that the authors put
in, whatever its size on the page. Where a page's figure is cut into images that touch, that part of
the page is drawn instead, which resamples it: the verdict knows. Text, line drawings, plots and
images shown smaller than half an inch are left out and counted.
"""

import io
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pypdfium2 as pdfium
import pypdfium2.raw as pdfium_c
from PIL import Image

from semforensics.core.errors import InputError
from semforensics.screening.records import Grey, Limits, Picture, Provenance, Refusal

MAX_OBJECTS = 5000
"""Of a page."""
STRIPS = 3
"""Images that touch and are of one width or height, from which on they are one picture."""
SMALL_PT = 36
"""An image shown with a shorter side is an icon, a logo or a rule: it is left out."""
PLOT = 0.4
"""Share of paper white from which on an image without a textured area is a plot or drawing."""
PAPER = 250
"""Grey level from which on a background is paper; a micrograph's own is hardly ever white."""
TEXTURED = 0.1
"""Share of an image that is textured, from which on it is no plot."""

_LOSSY_FILTERS = ("DCTDecode", "JPXDecode", "JBIG2Decode")
_TOUCH_PT = 1.5
_LEAST_DPI = 72  # a page that can only be drawn coarser is refused
_MOST_PT = 4000  # an image is drawn to look for a mask
_OPAQUE = 250
_DEPTH = 8  # of forms inside forms
_BLOCK_PX = 16
_GREY_SPACES = (pdfium_c.FPDF_COLORSPACE_DEVICEGRAY, pdfium_c.FPDF_COLORSPACE_CALGRAY)
_CMYK = pdfium_c.FPDF_COLORSPACE_DEVICECMYK
_ICC = pdfium_c.FPDF_COLORSPACE_ICCBASED
_CHANNELS = {
    pdfium_c.FPDF_COLORSPACE_DEVICEGRAY: (1,),
    pdfium_c.FPDF_COLORSPACE_CALGRAY: (1,),
    pdfium_c.FPDF_COLORSPACE_INDEXED: (1,),
    pdfium_c.FPDF_COLORSPACE_SEPARATION: (1,),
    pdfium_c.FPDF_COLORSPACE_DEVICERGB: (3,),
    pdfium_c.FPDF_COLORSPACE_CALRGB: (3,),
    _CMYK: (4,),
    _ICC: (1, 3, 4),
}
_PADDING = 64  # bytes that programs write behind the samples


@dataclass(frozen=True)
class LeftOut:
    """Small images, plots, drawings and text of a page, which are no figures."""

    pieces: int


@dataclass(frozen=True)
class Opened:
    """What a document says before its first page is read."""

    n_pages: int
    metadata: dict[str, str]
    """Such as Producer and Creator."""


def read_document(
    data: bytes, first: int, limits: Limits
) -> Iterator[Opened | int | Picture | Refusal | LeftOut]:
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


def _read_page(document: Any, number: int, limits: Limits) -> Iterator[Picture | Refusal | LeftOut]:
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
        if _is_content_damaged(document, number):
            yield _refusal(where, "its content is damaged: pictures may be missing")
    except Exception as error:  # as above
        yield _refusal(where, f"cannot be read: {_reason(error)}")
        return
    left_out = len(objects) - len(sized)
    least = limits.least_px
    bounds = [_bounds(o) for o, width, height in sized if max(width, height) >= least]
    boxes = [b for b in bounds if b]
    if are_cut_up(boxes):
        note = f"its figure is cut into {len(bounds)} images that touch: the page was drawn"
        yield _draw(page, where, limits, note, boxes)
    else:
        images = [o for o, w, h in sized if min(w, h) >= least and not _is_shown_small(o)]
        left_out += len(sized) - len(images)
        turns = page.get_rotation() // 90
        for index, image in enumerate(images, start=1):
            found = _extract(image, turns, f"{where}, image {index}", limits.max_megapixels)
            if isinstance(found, Picture) and is_plot(found.grey):
                left_out += 1
            else:
                yield found
    if left_out:
        yield LeftOut(left_out)


def is_plot(grey: Grey) -> bool:
    """Say whether an image is a plot or a drawing: largely paper white, and hardly textured.

    A screenshot with a micrograph inside is textured in one place, so it is no plot.
    """
    counts = np.bincount(grey.ravel(), minlength=256)
    level = int(counts.argmax())
    if level < PAPER or counts[level - 2 :].sum() < PLOT * grey.size:
        return False
    rows, columns = (side // _BLOCK_PX for side in grey.shape)
    inside = grey[: rows * _BLOCK_PX, : columns * _BLOCK_PX]
    blocks = inside.reshape(rows, _BLOCK_PX, columns, _BLOCK_PX).swapaxes(1, 2)
    # In a texture nearly every pixel differs from the next; a line or a letter changes a few. The
    # rings of JPEG around those lie on the background.
    wide = blocks.astype(np.int16)
    differs = (np.diff(wide, axis=-1) != 0).mean(axis=(2, 3)) > 0.5
    is_covered = (np.abs(wide - level) <= 3).mean(axis=(2, 3)) < 0.1
    return bool((differs & is_covered).mean() < TEXTURED)


def _is_content_damaged(document: Any, number: int) -> bool:
    """Say whether a compressed content stream of a page cannot be unpacked to its end.

    pdfium draws what it can and says nothing. So the page is copied into a new document, which
    pdfium writes plainly, and its content streams are unpacked here.
    """
    copied = pdfium.PdfDocument.new()
    copied.import_pages(document, [number])
    buffer = io.BytesIO()
    copied.save(buffer)
    copied.close()
    data = buffer.getvalue()
    entry = re.search(rb"/Contents\s*(\[[^\]]*\]|\d+ 0 R)", data)
    for named in re.findall(rb"(\d+) 0 R", entry[1]) if entry else ():
        start = re.search(
            rb"[\r\n]" + named + rb" 0 obj\s*<<(.*?)>>\s*stream\r?\n", data, re.DOTALL
        )
        if start is None or b"/FlateDecode" not in start[1] or start[1].count(b"Decode") > 1:
            continue
        stream = data[start.end() : data.index(b"endstream", start.end())]
        if not _unpacks(stream):
            return True
    return False


def _unpacks(stream: bytes) -> bool:
    """Say whether a deflated stream is whole; a missing checksum does not matter."""
    unpacking = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        unpacking.decompress(stream[2:], 2**26)
    except zlib.error:
        return False
    return unpacking.eof or bool(unpacking.unconsumed_tail)


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


def _is_shown_small(image: Any) -> bool:
    bounds = _bounds(image)
    return bounds is not None and min(bounds[2] - bounds[0], bounds[3] - bounds[1]) < SMALL_PT


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
        grey, notes = _grey_levels(image, width, height, filters)
        seen = _visible(image, grey.shape)
        if seen is not None:
            grey = np.ascontiguousarray(grey[seen])
            notes.append("a mask hides its border on the page, which was left out")
        grey, note = _upright(grey, image.get_matrix().get(), turns)
    except InputError as error:
        return _refusal(where, str(error))
    except Exception as error:  # pdfium and its image codecs, on bytes from outside
        return _refusal(where, f"cannot be decoded: {_reason(error)}")
    codec = Provenance(f"PDF image ({', '.join(filters) or 'no filter'})")
    is_lossy = any(f in _LOSSY_FILTERS for f in filters)
    return Picture("", where, "", grey, codec, is_lossy, False, (*notes, *note))


def _grey_levels(
    image: Any, width: int, height: int, filters: Sequence[str]
) -> tuple[Grey, list[str]]:
    """Return the grey levels of an image as stored, masks ignored, and what had to be decided.

    pdfium puts colour profiles and inks through conversions that move greys. Where the samples are
    grey in any case (one channel, equal channels, black ink alone), they are taken as stored.

    Raises:
        InputError: Its data are cut off, or its colours are of a kind that is not read.
    """
    metadata = image.get_metadata()
    if metadata.colorspace == pdfium_c.FPDF_COLORSPACE_LAB:
        raise InputError("colours in Lab, which are not read")
    samples = _stored(image, width, height, metadata.colorspace, filters)
    shown = np.array(image.get_bitmap(render=False).to_pil().convert("L"))
    notes = []
    grey = None
    if samples is not None and metadata.colorspace in (*_GREY_SPACES, _CMYK, _ICC):
        grey = _exact_grey(samples)
    if grey is None:
        if metadata.colorspace == _CMYK:
            notes.append("CMYK became RGB, then grey")
        return shown, notes
    if grey.std() > 0 and np.corrcoef(grey.ravel(), shown.ravel())[0, 1] < 0:
        grey = 255 - grey  # its Decode array turns black and white around
    return grey, notes


def _exact_grey(samples: np.ndarray) -> Grey | None:
    """Return samples [height, width, channels] that are grey as such, or None.

    Four channels are inks.
    """
    n_channels = samples.shape[2]
    first = samples[..., 0]
    if n_channels == 1:
        return first
    if n_channels == 3 and (samples == first[..., None]).all():
        return first
    if n_channels == 4:
        for none, full in ((0, 255), (255, 0)):  # JPEG files of Adobe store inks inverted
            if (samples[..., :3] == none).all():
                return samples[..., 3] if full == 0 else 255 - samples[..., 3]
    return None


def _stored(
    image: Any, width: int, height: int, space: int, filters: Sequence[str]
) -> np.ndarray | None:
    """Return an image's samples of 8 bits [height, width, channels]; None for other depths.

    Raises:
        InputError: There are fewer than its size needs.
    """
    data = bytes(image.get_data(decode_simple=True))
    if filters and filters[-1] in ("DCTDecode", "JPXDecode"):
        try:
            with Image.open(io.BytesIO(data), formats=("JPEG", "JPEG2000")) as decoded:
                samples = np.array(decoded)
        except Exception as error:  # bytes from outside
            raise InputError(f"its data are damaged: {_reason(error)}") from error
        samples = samples[..., None] if samples.ndim == 2 else samples
        is_usual = samples.dtype == np.uint8 and samples.shape[:2] == (height, width)
        return samples if is_usual else None
    if filters and filters[-1] in ("CCITTFaxDecode", "JBIG2Decode"):
        return None
    # pdfium does not tell the depth as stored, so the length has to fit one of the possible ones.
    sizes = {
        (depth, channels): height * ((width * channels * depth + 7) // 8)
        for depth in (8, 1, 2, 4, 16)
        for channels in _CHANNELS.get(space, range(1, 9))
    }
    most = max(sizes.values())
    fits = [kind for kind, size in sizes.items() if size <= len(data) <= size + _PADDING]
    if not fits and len(data) < most:
        larger = min(size for size in sizes.values() if size > len(data))
        raise InputError(f"its data are cut off: {len(data)} bytes, expected {larger} or more")
    if not fits or fits[0][0] != 8:
        return None
    channels = fits[0][1]
    shape = height, width, channels
    return np.frombuffer(data, np.uint8, sizes[fits[0]]).reshape(shape).copy()


def _visible(image: Any, shape: tuple[int, int]) -> tuple[slice, slice] | None:
    """Return the rectangle of an image that the page shows; None where it shows all.

    Raises:
        InputError: What masks leave is no rectangle.
    """
    alpha = image.get_bitmap(render=True, scale_to_original=True).to_numpy()
    a, b, c, d = image.get_matrix().get()[:4]
    if alpha.ndim < 3 or alpha.shape[2] < 4 or _is_askew(a, b, c, d):
        return None
    is_seen = alpha[..., 3] >= _OPAQUE
    # Borders that lie between two pixels are a little transparent in any case.
    if is_seen[1:-1, 1:-1].all():
        return None
    rows, columns = np.flatnonzero(is_seen.any(axis=1)), np.flatnonzero(is_seen.any(axis=0))
    if len(rows):
        box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
        if is_seen.shape == shape and abs(b) < abs(a) and a > 0 and d > 0 and is_seen[box].all():
            return box
    raise InputError(
        f"a mask hides {1 - is_seen.mean():.0%} of it on the page, in a shape that is not a border"
    )


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


def _draw(
    page: Any,
    where: str,
    limits: Limits,
    note: str,
    boxes: Sequence[tuple[float, float, float, float]],
) -> Picture | Refusal:
    """Draw the part of a page that holds the images of these boxes."""
    try:
        width, height = page.get_size()  # points of 1/72 inch
        most = (limits.max_megapixels * 1e6 / max(width * height, 1e-6)) ** 0.5 * 72
        used = min(float(limits.render_dpi), most)
        if used < _LEAST_DPI or min(width, height) < 1:
            return _refusal(where, f"a page of {width:.0f}x{height:.0f} points cannot be drawn")
        bitmap = page.render(scale=used / 72, grayscale=True)
        place = bitmap.get_posconv(page)
        corners = [place.to_bitmap(*b[i : i + 2]) for b in boxes for i in (0, 2)]
        left, top = (max(min(c[i] for c in corners), 0) for i in (0, 1))
        right, bottom = (max(c[i] for c in corners) for i in (0, 1))
        grey = np.array(bitmap.to_pil().convert("L"))[top:bottom, left:right].copy()
    except Exception as error:  # as above
        return _refusal(where, f"cannot be drawn: {_reason(error)}")
    location = f"{where}, rendered at {used:.0f} dpi"
    return Picture("", location, "", grey, Provenance("PDF page"), False, True, (note,))


def _refusal(where: str, reason: str) -> Refusal:
    return Refusal("", where, None, reason)


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__
