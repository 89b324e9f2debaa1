"""The pictures of a PDF, read by a process of its own."""

import zlib
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from tests.screening.documents import Pdf, encoded, micrograph, pdf_with, put

from semforensics.screening.read.pdf import read_pdf
from semforensics.screening.read.provenance import is_pdf
from semforensics.screening.records import Limits, Picture, Refusal

LIMITS = Limits(max_pages=50, max_pictures=100, render_dpi=150)


def read(data: bytes, page_s: float = 30.0, **limits: float) -> list[Picture | Refusal]:
    """Read a document, under wide limits but for those given."""
    return list(read_pdf(data, "x.pdf", "5d", replace(LIMITS, **limits), page_s))


def refusal(location: str, reason: str) -> Refusal:
    """A part of the document that is not read."""
    return Refusal("x.pdf", location, "5d", reason)


def test_images_are_taken_out_at_their_own_pixels() -> None:
    """Whatever their size on the page, their samples are what was put in, and the codec is told."""
    greys = [micrograph(seed=n) for n in range(2)]

    found = read(pdf_with(*greys))

    assert [one.location for one in found] == ["page 1, image 1", "page 2, image 1"]
    for picture, grey in zip(found, greys, strict=True):
        np.testing.assert_array_equal(picture.grey, grey)
        assert (picture.provenance.file_format, picture.is_lossy) == (
            "PDF image (FlateDecode)",
            False,
        )
        assert (picture.is_resampled, picture.notes) == (False, ())
        assert picture.grey.flags.writeable


def test_jpegs_inside_are_lossy() -> None:
    """The filter says so; the samples are those of the JPEG."""
    (picture,) = read(pdf_with(micrograph(), jpeg=True))

    assert (picture.provenance.file_format, picture.is_lossy) == ("PDF image (DCTDecode)", True)
    assert np.abs(picture.grey.astype(int) - micrograph()).mean() < 5


@pytest.mark.parametrize(("turns", "is_flipped"), [*product(range(4), (False, True))])
def test_images_are_turned_as_the_page_shows_them(turns: int, is_flipped: bool) -> None:
    """A micrograph stored sideways or upside down comes out upright, its samples untouched."""
    upright = micrograph()
    stored = np.rot90(upright[::-1] if is_flipped else upright, turns)
    # What turns it back: `turns` quarter turns clockwise, then a flip upside down.
    sign = -1 if is_flipped else 1
    matrix = [(1, 0, 0, sign), (0, -sign, 1, 0), (-1, 0, 0, -sign), (0, sign, -1, 0)][turns]
    pdf = Pdf()
    place = b"q %d %d %d %d 300 300 cm /I0 Do Q" % tuple(100 * one for one in matrix)
    pdf.page(place, [pdf.image(np.ascontiguousarray(stored))])

    (picture,) = read(pdf.to_bytes())

    np.testing.assert_array_equal(picture.grey, upright)


def test_images_turn_with_their_page() -> None:
    """A page that is shown a quarter turn clockwise turns its images."""
    pdf = Pdf()
    pdf.page(put(0, 200, 150), [pdf.image(np.rot90(micrograph()))], more=b"/Rotate 90")

    (picture,) = read(pdf.to_bytes())

    np.testing.assert_array_equal(picture.grey, micrograph())


def test_images_at_an_angle_are_taken_as_stored() -> None:
    """They are native pixels all the same, and a note says how they lie."""
    pdf = Pdf()
    pdf.page(b"q 80 60 -60 80 300 300 cm /I0 Do Q", [pdf.image(micrograph())])

    (picture,) = read(pdf.to_bytes())

    np.testing.assert_array_equal(picture.grey, micrograph())
    assert picture.notes == ("it lies at an angle on the page; taken as stored",)


def test_masks_are_left_out_with_a_note() -> None:
    """What a mask hides on the page is looked at too, and the samples stay what they were."""
    pdf = Pdf()
    hole = np.full((96, 128), 255, np.uint8)
    hole[40:60, 50:80] = 0
    mask = pdf.image(hole)
    pdf.page(put(0, 200, 150), [pdf.image(micrograph(), more=b"/SMask %d 0 R" % mask)])

    (picture,) = read(pdf.to_bytes())

    np.testing.assert_array_equal(picture.grey, micrograph())
    assert picture.notes == ("a mask lies over it on the page and was left out",)


def test_cmyk_becomes_grey_with_a_note() -> None:
    """Black ink alone gives the grey levels that were put in, give or take the conversion."""
    grey = micrograph()
    inks = np.dstack([np.zeros_like(grey)] * 3 + [255 - grey])
    pdf = Pdf()
    entries = b"/Type /XObject /Subtype /Image /Width 128 /Height 96 /ColorSpace /DeviceCMYK"
    entries += b" /BitsPerComponent 8 /Filter /FlateDecode"
    pdf.page(put(0, 200, 150), [pdf.stream(entries, zlib.compress(inks.tobytes()))])

    (picture,) = read(pdf.to_bytes())

    assert np.corrcoef(picture.grey.ravel(), grey.ravel())[0, 1] > 0.99
    assert picture.notes == ("CMYK became RGB, then grey",)


@pytest.mark.parametrize("is_column", [True, False])
def test_figures_cut_into_strips_are_drawn(is_column: bool) -> None:
    """Images that touch are one picture; the page is drawn, and that is said."""
    grey = micrograph(96, 96)
    pdf = Pdf()
    strips = np.split(grey, 4, axis=0 if is_column else 1)
    images = [pdf.image(np.ascontiguousarray(strip)) for strip in strips]
    places = [
        put(n, 96, 24, 50, 50 + 24 * (3 - n)) if is_column else put(n, 24, 96, 50 + 24 * n, 50)
        for n in range(4)
    ]
    pdf.page(b"".join(places), images, box=(200, 200))

    (picture,) = read(pdf.to_bytes())

    assert (picture.location, picture.is_resampled) == ("page 1, rendered at 150 dpi", True)
    assert picture.notes == ("its figure is cut into 4 images that touch: the page was drawn",)
    scale = 150 / 72
    part = picture.grey[int((200 - 146) * scale) :, int(50 * scale) :][:198, :198]
    assert part.std() > 20  # the micrograph, not the empty page


def test_drawn_figures_are_drawn() -> None:
    """A page without images whose figure is lines is drawn; a page of two lines is not."""
    pdf = Pdf()
    pdf.page(b"".join(b"%d 10 m %d 90 l S\n" % (n, n) for n in range(10, 90, 3)), box=(100, 100))
    pdf.page(b"10 10 m 90 90 l S\n", box=(100, 100))

    (picture,) = read(pdf.to_bytes())

    assert picture.location == "page 1, rendered at 150 dpi"
    assert picture.grey.shape == (209, 209)


def test_small_images_are_left_out() -> None:
    """Icons are no figures; a document without others says what it lacks."""
    found = read(pdf_with(micrograph(20, 20)))

    assert found == [refusal("", "no image of 32 px or more on 1 pages")]


def test_a_document_names_its_programs() -> None:
    """Producer and creator are evidence like any tag, in PDF's own encoding or in UTF-16."""
    pdf = Pdf()
    pdf.page(put(0, 200, 150), [pdf.image(micrograph())])
    creator = "Écrivain 3".encode("utf-16").hex().encode()
    info = pdf.add(b"<< /Producer (pdfTeX-1.40) /Creator <%s> /Title (Gold) >>" % creator)

    (picture,) = read(pdf.to_bytes(b"/Info %d 0 R" % info))

    assert picture.provenance.software == {
        "PDF Producer": "pdfTeX-1.40",
        "PDF Creator": "Écrivain 3",
    }


def test_limits_hold() -> None:
    """Pages, pictures and pixels are bounded, and what is beyond is refused by name."""
    data = pdf_with(*[micrograph(40, 40, n) for n in range(3)])

    assert read(data, max_pages=2)[2:] == [refusal("from page 3 on", "more than 2 pages")]
    assert read(data, max_pictures=2)[2:] == [refusal("from page 3 on", "more than 2 pictures")]
    assert "too large: 40x40 px" in read(data, max_megapixels=0.001)[0].reason


def test_passwords_are_asked_of_nobody() -> None:
    """A document that needs a password is refused with that reason."""
    pdf = Pdf()
    pdf.page(put(0, 200, 150), [pdf.image(micrograph())])
    lock = b"/Filter /Standard /V 1 /R 2 /P -4 /O (%s) /U (%s)" % (b"o" * 32, b"u" * 32)
    number = pdf.add(b"<< " + lock + b" >>")

    with pytest.raises(ValueError, match="it needs a password"):
        read(pdf.to_bytes(b"/Encrypt %d 0 R /ID [(1) (1)]" % number))


def test_a_document_that_is_none_is_refused() -> None:
    """The mark alone does not make a PDF."""
    with pytest.raises(ValueError, match="not a readable PDF"):
        read(b"%PDF-1.7\nnothing else")


def test_pages_beyond_measure_are_refused() -> None:
    """A page that is too large to be drawn, and one of too many objects, leave the others be."""
    lines = b"".join(b"%d 10 m %d 90 l S\n" % (n, n) for n in range(10, 90, 3))
    pdf = Pdf()
    pdf.page(lines, box=(2_000_000, 2_000_000))
    pdf.page(lines * 300)
    pdf.page(put(0, 200, 150), [pdf.image(micrograph())])

    too_large, too_many, picture = read(pdf.to_bytes())

    assert too_large.reason.endswith("points cannot be drawn")
    assert too_many == refusal("page 2", "more than 5000 objects on the page")
    assert picture.location == "page 3, image 1"


def test_a_page_that_never_ends_is_refused_and_the_next_one_is_read() -> None:
    """Forms that call forms, ten times each, are cut off after the time of a page."""
    pdf = Pdf()
    inner = pdf.stream(b"/Type /XObject /Subtype /Form /BBox [0 0 9 9]", b"0 0 1 1 re f")
    for _ in range(12):
        resources = b"/Resources << /XObject << /F %d 0 R >> >>" % inner
        entries = b"/Type /XObject /Subtype /Form /BBox [0 0 9 9] " + resources
        inner = pdf.stream(entries, b"/F Do " * 10)
    pdf.page(b"/I0 Do", [inner])
    pdf.page(put(0, 200, 150), [pdf.image(micrograph())])

    broken, picture = read(pdf.to_bytes(), page_s=2.0)

    assert broken.location == "page 1"
    assert broken.reason in ("not read within 2 s", "more than 5000 objects on the page")
    np.testing.assert_array_equal(picture.grey, micrograph())


def test_leaving_early_leaves_no_process_behind() -> None:
    """Whoever wants only the first picture ends the reading."""
    found = read_pdf(pdf_with(*[micrograph(seed=n) for n in range(20)]), "x.pdf", "5d", LIMITS)
    next(found)

    found.close()

    with pytest.raises(StopIteration):
        next(found)


def test_an_image_that_mentions_a_pdf_is_an_image() -> None:
    """The mark of a PDF inside a picture's text does not count."""
    assert is_pdf(b"\n%PDF-1.4")
    assert not is_pdf(encoded(micrograph(), "JPEG", comment=b"%PDF-1.4"))
