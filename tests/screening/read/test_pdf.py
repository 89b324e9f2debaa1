"""The pictures of a PDF, read by a process of its own."""

import zlib
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from tests.screening.documents import Pdf, encoded, micrograph, pdf_with, put

from semforensics.screening.read.apart import read_inputs
from semforensics.screening.read.pdf import read_pdf
from semforensics.screening.read.pdf_pages import is_plot
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


def masked(hidden: tuple[slice, slice]) -> bytes:
    """Write a document of one micrograph under a soft mask that hides a rectangle."""
    pdf = Pdf()
    seen = np.full((96, 128), 255, np.uint8)
    seen[hidden] = 0
    mask = pdf.image(seen)
    pdf.page(put(0, 200, 150), [pdf.image(micrograph(), more=b"/SMask %d 0 R" % mask)])
    return pdf.to_bytes()


def test_a_border_under_a_mask_is_left_out() -> None:
    """What no reader sees is no evidence."""
    (picture,) = read(masked(np.s_[60:]))

    np.testing.assert_array_equal(picture.grey, micrograph()[:60])
    assert picture.notes == ("a mask hides its border on the page, which was left out",)


def test_a_hole_under_a_mask_is_refused() -> None:
    """What is seen is no rectangle that could be judged."""
    found = read(masked(np.s_[40:60, 50:80]))

    reason = "a mask hides 5% of it on the page, in a shape that is not a border"
    assert found == [refusal("page 1, image 1", reason)]


@pytest.mark.parametrize("mask", [b"/Mask [0 140]", b"stencil"])
def test_stencils_and_colour_keys_are_masks(mask: bytes) -> None:
    """Both hide pixels; here they leave no rectangle."""
    pdf = Pdf()
    if mask == b"stencil":
        bits = np.zeros((96, 16), np.uint8)
        bits[30:60, 5:9] = 255
        entries = b"/Type /XObject /Subtype /Image /Width 128 /Height 96 /ImageMask true"
        entries += b" /BitsPerComponent 1 /Filter /FlateDecode"
        mask = b"/Mask %d 0 R" % pdf.stream(entries, zlib.compress(bits.tobytes()))
    pdf.page(put(0, 200, 150), [pdf.image(micrograph(), more=mask)])

    (found,) = read(pdf.to_bytes())

    assert "a mask hides" in found.reason


@pytest.mark.parametrize("is_jpeg", [True, False])
def test_an_image_that_is_cut_off_is_refused(is_jpeg: bool) -> None:
    """Its upper third is not judged; the picture before it is."""
    pdf = Pdf()
    whole = pdf.image(micrograph())
    cut = pdf.image(micrograph(seed=1), jpeg=is_jpeg)
    head, _, data = pdf.objects[cut - 3].partition(b"\nstream\n")
    data = data.removesuffix(b"\nendstream")
    data = data[: len(data) // 3]
    head = head[: head.index(b"/Length")] + b"/Length %d >>" % len(data)
    pdf.objects[cut - 3] = head + b"\nstream\n" + data + b"\nendstream"
    pdf.page(put(0, 200, 150) + put(1, 200, 150, 50, 300), [whole, cut])

    picture, refused = read(pdf.to_bytes())

    np.testing.assert_array_equal(picture.grey, micrograph())
    assert refused.location == "page 1, image 2"
    assert refused.reason.startswith("its data are " + ("damaged" if is_jpeg else "cut off"))


def test_a_page_with_damaged_content_is_named() -> None:
    """Pdfium draws nothing and says nothing; the report does."""
    pdf = Pdf()
    pdf.page(put(0, 200, 150), [pdf.image(micrograph())])
    pdf.page(put(0, 200, 150), [pdf.image(micrograph(seed=1))])
    content = zlib.compress(put(0, 200, 150) * 9)
    broken = content[: len(content) // 3]
    pdf.objects[pdf.pages[1] - 4] = (
        b"<< /Filter /FlateDecode /Length %d >>\nstream\n" % len(broken) + broken + b"\nendstream"
    )

    picture, refused = read(pdf.to_bytes())[:2]

    np.testing.assert_array_equal(picture.grey, micrograph())
    assert refused == refusal("page 2", "its content is damaged: pictures may be missing")


def coloured(samples: np.ndarray, space: bytes, pdf: Pdf) -> int:
    """Add an image of 128x96 px in a colour space."""
    entries = b"/Type /XObject /Subtype /Image /Width 128 /Height 96 /BitsPerComponent 8"
    entries += b" /Filter /FlateDecode /ColorSpace " + space
    return pdf.stream(entries, zlib.compress(np.ascontiguousarray(samples).tobytes()))


@pytest.mark.parametrize("kind", ["black ink", "palette", "ICC grey", "CalGray", "CalRGB"])
def test_greys_are_exact_in_every_colour_space(kind: str) -> None:
    """Grey levels come out as they were stored, whatever describes their colour."""
    grey = micrograph()
    pdf = Pdf()
    white = b"/WhitePoint [0.95 1 1.09]"
    match kind:
        case "black ink":
            samples = np.dstack([np.zeros_like(grey)] * 3 + [255 - grey])
            space = b"/DeviceCMYK"
        case "palette":
            levels = b"".join(b"%02x" % (255 - n) for n in range(256))
            samples, space = 255 - grey, b"[/Indexed /DeviceGray 255 <" + levels + b">]"
        case "ICC grey":
            profile = pdf.stream(b"/N 1 /Alternate /DeviceGray", b"no profile")
            samples, space = grey, b"[/ICCBased %d 0 R]" % profile
        case "CalGray":
            samples, space = grey, b"[/CalGray << " + white + b" /Gamma 2.2 >>]"
        case _:
            samples = np.dstack([grey] * 3)
            space = b"[/CalRGB << " + white + b" /Gamma [1.8 1.8 1.8] >>]"
    pdf.page(put(0, 200, 150), [coloured(samples, space, pdf)])

    (picture,) = read(pdf.to_bytes())

    np.testing.assert_array_equal(picture.grey, grey)
    assert picture.notes == ()


def test_coloured_ink_becomes_grey_with_a_note() -> None:
    """It has no grey of itself."""
    grey = micrograph()
    inks = np.dstack([255 - grey] * 2 + [np.zeros_like(grey), 255 - grey])
    pdf = Pdf()
    pdf.page(put(0, 200, 150), [coloured(inks, b"/DeviceCMYK", pdf)])

    (picture,) = read(pdf.to_bytes())

    assert picture.notes == ("CMYK became RGB, then grey",)


def test_lab_is_refused_by_name() -> None:
    """Its conversion would move greys."""
    pdf = Pdf()
    space = b"[/Lab << /WhitePoint [0.95 1 1.09] >>]"
    pdf.page(put(0, 200, 150), [coloured(np.dstack([micrograph()] * 3), space, pdf)])

    assert read(pdf.to_bytes()) == [
        refusal("page 1, image 1", "colours in Lab, which are not read")
    ]


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


def test_text_and_drawings_are_counted_in_one_line() -> None:
    """Words, rules, plots and icons are no figures; the last picture's notes say how many."""
    pdf = Pdf()
    lines = b"".join(b"%d 10 m %d 90 l S\n" % (n, n) for n in range(10, 90, 4))
    pdf.page(lines)
    plot = np.full((200, 300), 255, np.uint8)
    plot[100, 20:280] = plot[20:180, 30] = 0
    images = [pdf.image(micrograph()), pdf.image(plot), pdf.image(micrograph(seed=1))]
    places = put(0, 200, 150) + put(1, 200, 150, 50, 300) + put(2, 40, 30, 300, 300)
    pdf.page(places, images)

    (picture,) = read(pdf.to_bytes())

    assert picture.location == "page 2, image 1"
    assert picture.notes == (
        "of its document, 22 small drawings and text pieces on 2 pages left out",
    )


@pytest.mark.parametrize(
    ("name", "n_pictures"),
    [
        ("SlaviMandazhiev__Slavi_Mandazhiev_SEM_Image_Segmentation_Algorithm", 3),
        ("qi-zohair__AGUM_Paper", 7),
        ("qi-zohair__NM_Paper", 7),
    ],
)
def test_figures_of_real_documents_are_found(shared: Path, name: str, n_pictures: int) -> None:
    """Every figure with micrographs comes out; text and plots make no refusal."""
    found = read((shared / f"documents/{name}.pdf").read_bytes())

    assert all(isinstance(one, Picture) for one in found)
    assert len(found) == n_pictures


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
    """A page too large to be drawn, and one of too many objects, do not stop the others."""
    strips = b"".join(put(0, 1000, 250, 50, 50 + 250 * n) for n in range(4))
    lines = b"".join(b"%d 10 m %d 90 l S\n" % (n, n) for n in range(10, 90, 3))
    pdf = Pdf()
    pdf.page(strips, [pdf.image(micrograph(32, 128))], box=(2_000_000, 2_000_000))
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


def test_no_micrograph_is_taken_for_a_plot(shared: Path) -> None:
    """A dark or even background is no paper: real micrographs are never left out as plots."""
    folders = ("bam_tio2_zeiss", "wc_electron", "emps_papers", "boiko-pdc-partial")
    found = read_inputs([shared / "sem" / name for name in folders], Limits())

    taken = [p.path for p in found if isinstance(p, Picture) and is_plot(p.grey)]

    assert taken == []
