"""Any file from outside becomes pictures, or a reason why not."""

import hashlib
import io
import os
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import ExifTags, Image, ImageOps
from tests.screening.documents import encoded, micrograph, pdf_with, png_header, zipped

from semforensics.screening.read.apart import read_inputs
from semforensics.screening.read.bombs import MAX_SCANS
from semforensics.screening.read.intake import decode, list_inputs
from semforensics.screening.records import Limits, Picture, Refusal


def read(folder: Path, data: bytes, name: str = "x.png", limits: Limits | None = None) -> list:
    """Read bytes as a file."""
    (folder / name).write_bytes(data)
    return list(read_inputs([folder / name], limits or Limits()))


def only(found: list) -> Picture:
    """Say that there is one picture and nothing else."""
    (picture,) = found
    assert isinstance(picture, Picture), picture
    return picture


def reason(found: list) -> str:
    """Say that there is one refusal and nothing else, and why."""
    (refusal,) = found
    assert isinstance(refusal, Refusal), refusal
    return refusal.reason


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP"])
def test_lossless_files_keep_their_grey_levels(kind: str, tmp_path: Path) -> None:
    """What the file holds is what is judged, and the hash is the file's."""
    grey = micrograph()
    data = encoded(grey, kind)

    picture = only(read(tmp_path, data, f"x.{kind.lower()}"))

    np.testing.assert_array_equal(picture.grey, grey)
    assert picture.sha256 == hashlib.sha256(data).hexdigest()
    assert (picture.location, picture.is_lossy, picture.is_resampled) == ("", False, False)
    assert picture.provenance.file_format == kind


@pytest.mark.parametrize(
    ("kind", "options", "is_lossy"),
    [
        ("JPEG", {}, True),
        ("WEBP", {"lossless": False}, True),
        ("WEBP", {"lossless": True}, False),
        ("TIFF", {"compression": "jpeg"}, True),
        ("TIFF", {"compression": "tiff_lzw"}, False),
    ],
)
def test_lossy_codecs_are_known(
    kind: str, options: dict[str, object], is_lossy: bool, tmp_path: Path
) -> None:
    """The container tells whether its samples are still the ones that were put in."""
    assert only(read(tmp_path, encoded(micrograph(), kind, **options))).is_lossy == is_lossy


def test_the_content_decides_what_a_file_is(tmp_path: Path) -> None:
    """A JPEG with the name of a PDF is a JPEG."""
    assert only(read(tmp_path, encoded(micrograph(), "JPEG"), "x.pdf")).is_lossy


def test_frames_of_a_tiff_are_pictures_of_their_own(tmp_path: Path) -> None:
    """Each frame is read, in order, under the name of its number."""
    frames = np.stack([micrograph(seed=n) for n in range(3)])
    tifffile.imwrite(tmp_path / "x.tif", frames, photometric="minisblack")

    found = list(read_inputs([tmp_path / "x.tif"], Limits()))

    assert [picture.location for picture in found] == ["", "frame 2", "frame 3"]
    for picture, frame in zip(found, frames, strict=True):
        np.testing.assert_array_equal(picture.grey, frame)


def test_16_bits_become_8_with_a_note(tmp_path: Path) -> None:
    """The whole range of a 16-bit file is used, and the picture says that this was done."""
    tifffile.imwrite(tmp_path / "x.tif", micrograph().astype(np.uint16) * 100)

    picture = only(list(read_inputs([tmp_path / "x.tif"], Limits())))

    assert (picture.grey.min(), picture.grey.max()) == (0, 255)
    assert "16 bits became 8" in picture.notes[0]


@pytest.mark.parametrize(
    ("samples", "options", "message"),
    [
        (micrograph().astype(np.int16), {}, "signed or floating-point"),
        (micrograph().astype(np.float32), {}, "signed or floating-point"),
        (micrograph().astype(np.float64), {}, "a TIFF file that is damaged, or of a rare kind"),
        (
            np.stack([micrograph(), micrograph(), micrograph(seed=1)], -1).astype(np.uint16),
            {"photometric": "rgb"},
            "16 bits per colour channel that differ",
        ),
    ],
)
def test_samples_that_would_be_cut_are_refused(
    samples: np.ndarray, options: dict[str, object], message: str, tmp_path: Path
) -> None:
    """Nothing is taken for unsigned, or cut to fewer bits, in silence."""
    tifffile.imwrite(tmp_path / "x.tif", samples, **options)

    assert message in reason(list(read_inputs([tmp_path / "x.tif"], Limits())))


def test_transparent_parts_are_laid_on_white_with_a_note(tmp_path: Path) -> None:
    """A figure saved with a transparent margin is read as it is seen."""
    rgba = np.dstack([micrograph()] * 3 + [np.full((96, 128), 255, np.uint8)])
    rgba[:10] = 0
    buffer = io.BytesIO()
    Image.fromarray(rgba).save(buffer, format="PNG")

    picture = only(read(tmp_path, buffer.getvalue()))

    assert (picture.grey[:10] == 255).all()
    np.testing.assert_array_equal(picture.grey[10:], micrograph()[10:])
    assert picture.hidden[:10].all()
    assert not picture.hidden[10:].any()
    assert picture.notes == ("transparent parts were laid on white and are not judged",)


@pytest.mark.parametrize("factor", [257, 256, 16, 1])
@pytest.mark.parametrize("order", ["<", ">"])
def test_8_bit_samples_in_16_bits_are_read_as_they_were(
    factor: int, order: str, tmp_path: Path
) -> None:
    """What a program did to store 8-bit samples in 16 bits changes no grey level."""
    wide = micrograph().astype(np.uint16) * factor
    tifffile.imwrite(tmp_path / "x.tif", wide, byteorder=order)

    picture = only(list(read_inputs([tmp_path / "x.tif"], Limits())))

    np.testing.assert_array_equal(picture.grey, micrograph())
    assert picture.notes == ("its 16 bits hold samples of 8 bits, which are read as they were",)


@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_16_bit_colour_of_equal_channels_is_grey(planar: str, tmp_path: Path) -> None:
    """A grey micrograph that was saved as 16-bit colour is read in full depth."""
    samples = micrograph().astype(np.uint16) * 100
    colour = np.stack([samples] * 3, -1 if planar == "contig" else 0)
    tifffile.imwrite(tmp_path / "x.tif", colour, photometric="rgb", planarconfig=planar)
    tifffile.imwrite(tmp_path / "grey.tif", samples)

    picture, grey = (
        only(list(read_inputs([tmp_path / name], Limits()))) for name in ("x.tif", "grey.tif")
    )

    np.testing.assert_array_equal(picture.grey, grey.grey)


def wide_png(samples: np.ndarray, colour_type: int) -> bytes:
    """A PNG of 16 bits; every second row is stored as the difference from the one above it."""
    header = struct.pack(">IIBBBBB", samples.shape[1], samples.shape[0], 16, colour_type, 0, 0, 0)
    rows = samples.astype(">u2").reshape(len(samples), -1).view(np.uint8).copy()
    rows[1::2] -= rows[::2]
    filters = np.array([[0], [2]] * (len(rows) // 2), np.uint8)
    content = zlib.compress(np.hstack([filters, rows]).tobytes())
    chunks = [b"IHDR" + header, b"IDAT" + content, b"IEND"]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        (len(c) - 4).to_bytes(4) + c + zlib.crc32(c).to_bytes(4) for c in chunks
    )


@pytest.mark.parametrize(("colour_type", "channels"), [(2, 3), (4, 2), (6, 4)])
@pytest.mark.parametrize("factor", [257, 100])
def test_16_bit_colour_png_of_equal_channels_is_grey(
    colour_type: int, channels: int, factor: int, tmp_path: Path
) -> None:
    """The same rule as for TIFF, in full depth, with an opaque alpha channel or without."""
    grey = micrograph().astype(np.uint16) * factor
    samples = np.stack([grey] * channels, -1)
    if channels != 3:
        samples[..., -1] = 65535
    tifffile.imwrite(tmp_path / "grey.tif", grey)

    picture = only(read(tmp_path, wide_png(samples, colour_type)))

    expected = only(list(read_inputs([tmp_path / "grey.tif"], Limits())))
    np.testing.assert_array_equal(picture.grey, expected.grey)
    assert picture.notes == expected.notes


@pytest.mark.parametrize(
    ("colour_type", "channels", "message"),
    [(2, 3, "that differ"), (4, 2, "or are not opaque"), (6, 4, "or are not opaque")],
)
def test_16_bit_png_of_other_kinds_is_refused_in_plain_words(
    colour_type: int, channels: int, message: str, tmp_path: Path
) -> None:
    """Channels that differ in their low bytes alone, and transparent pixels."""
    grey = micrograph().astype(np.uint16) * 257
    samples = np.stack([grey] * channels, -1)
    samples[5, 5, -1] ^= 1

    assert message in reason(read(tmp_path, wide_png(samples, colour_type)))


@pytest.mark.parametrize("orientation", range(2, 9))
@pytest.mark.parametrize("kind", ["AVIF", "PNG", "TIFF", "WEBP"])
def test_exif_orientation_counts_in_every_format(
    kind: str, orientation: int, tmp_path: Path
) -> None:
    """A picture is judged as a reader sees it, whatever the container."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    options = {"WEBP": {"lossless": True}, "AVIF": {"quality": 100, "subsampling": "4:4:4"}}
    shown = ImageOps.exif_transpose(Image.open(io.BytesIO(encoded(micrograph(), "PNG", exif=exif))))
    data = encoded(micrograph(), kind, exif=exif, **options.get(kind, {}))

    grey = only(read(tmp_path, data)).grey

    np.testing.assert_allclose(grey, np.array(shown), atol=2 if kind == "AVIF" else 0)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_16_bit_colour_tiff_is_turned_like_any_other(orientation: int, tmp_path: Path) -> None:
    """It is decoded by another program, which does not turn it."""
    wide = np.stack([micrograph().astype(np.uint16) * 257] * 3, -1)
    tag = (274, 3, 1, orientation, True)
    tifffile.imwrite(tmp_path / "x.tif", wide, photometric="rgb", extratags=[tag])
    tifffile.imwrite(tmp_path / "grey.tif", micrograph(), extratags=[tag])

    turned, grey = (
        only(list(read_inputs([tmp_path / name], Limits()))).grey for name in ("x.tif", "grey.tif")
    )

    np.testing.assert_array_equal(turned, grey)


@pytest.mark.parametrize("orientation", range(2, 9))
def test_exif_orientation_counts_in_jpeg(orientation: int, tmp_path: Path) -> None:
    """A lossy picture is turned after it is decoded."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    data = encoded(micrograph(), "JPEG", exif=exif)

    picture = only(read(tmp_path, data))

    shown = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    np.testing.assert_array_equal(picture.grey, np.array(shown))


@pytest.mark.parametrize("order", ["<", ">"])
def test_16_bit_colour_with_opaque_alpha_is_grey(order: str, tmp_path: Path) -> None:
    """An alpha channel that hides nothing, in either byte order, changes no grey level."""
    wide = micrograph().astype(np.uint16) * 257
    rgba = np.stack([wide, wide, wide, np.full_like(wide, 65535)], -1)
    tifffile.imwrite(
        tmp_path / "x.tif", rgba, photometric="rgb", extrasamples=["unassalpha"], byteorder=order
    )

    picture = only(list(read_inputs([tmp_path / "x.tif"], Limits())))

    np.testing.assert_array_equal(picture.grey, micrograph())


def test_a_palette_of_greys_is_read_exactly(tmp_path: Path) -> None:
    """The palette decides the grey of an index."""
    image = Image.fromarray(255 - micrograph())
    image = Image.frombytes("P", image.size, image.tobytes())
    image.putpalette([255 - level for level in range(256) for _ in range(3)])
    image.save(tmp_path / "x.tif")

    picture = only(list(read_inputs([tmp_path / "x.tif"], Limits())))

    np.testing.assert_array_equal(picture.grey, micrograph())


def test_pages_of_a_tiff_may_differ_in_size(tmp_path: Path) -> None:
    """Each page is a picture of its own size."""
    with tifffile.TiffWriter(tmp_path / "x.tif") as tiff:
        for size in ((96, 128), (64, 80)):
            tiff.write(micrograph(*size), photometric="minisblack")

    found = list(read_inputs([tmp_path / "x.tif"], Limits()))

    assert [picture.grey.shape for picture in found] == [(96, 128), (64, 80)]


@pytest.mark.parametrize("kind", ["AVIF", "GIF", "JPEG2000"])
def test_further_formats_are_read_and_known_as_lossy(kind: str, tmp_path: Path) -> None:
    """Their samples may be others than the instrument's, so nothing is called consistent."""
    picture = only(read(tmp_path, encoded(micrograph(), kind)))

    assert picture.is_lossy
    assert np.abs(picture.grey.astype(int) - micrograph()).mean() < 12


def test_of_an_animation_the_first_frame_is_read(tmp_path: Path) -> None:
    """The note says that there were more."""
    first, second = (Image.fromarray(micrograph(seed=n)) for n in range(2))
    buffer = io.BytesIO()
    first.save(buffer, "GIF", save_all=True, append_images=[second])

    picture = only(read(tmp_path, buffer.getvalue()))

    assert picture.notes == ("an animation: the first frame was read",)


@pytest.mark.parametrize("kind", ["zTXt", "iTXt", "iCCP"])
def test_a_long_text_or_profile_is_no_reason_to_refuse_a_picture(kind: str, tmp_path: Path) -> None:
    """Pillow refuses PNG files whose texts are long; pixels do not depend on them."""
    packed = zlib.compress(bytes(2_000_000))
    content = b"x\0\1\0\0\0" + packed if kind == "iTXt" else b"x\0\0" + packed
    chunk = kind.encode() + content
    text = len(content).to_bytes(4) + chunk + zlib.crc32(chunk).to_bytes(4)
    png = encoded(micrograph(), "PNG")

    picture = only(read(tmp_path, png[:33] + text + png[33:]))

    np.testing.assert_array_equal(picture.grey, micrograph())


def test_huge_pictures_are_refused_in_plain_words(tmp_path: Path) -> None:
    """The reason names our limit, and no attack."""
    words = "too large: more than 64 megapixels"
    tifffile.imwrite(tmp_path / "x.tif", shape=(20_000, 20_000), dtype=np.uint8)  # sparse

    assert reason(read(tmp_path, png_header(20_000, 20_000))) == words
    assert reason(list(read_inputs([tmp_path / "x.tif"], Limits()))) == words


PNG = encoded(micrograph(), "PNG")
JPEG = encoded(micrograph(), "JPEG")
TIFF = encoded(micrograph(), "TIFF")
FRAME = struct.pack("<HHHIIHHIII", 2, 256, 3, 1, 1, 257, 3, 1, 1, 8)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty file"),
        (
            b"sample;area\n1;2\n",
            "not a PNG, JPEG, TIFF, BMP, WebP, AVIF, GIF or JPEG 2000 image, PDF, DOCX,",
        ),
        (PNG[: len(PNG) // 2], "cannot be decoded"),
        (JPEG[: len(JPEG) // 2], "truncated"),
        (TIFF[: len(TIFF) // 2], "cannot be decoded"),
        (PNG[:60] + b"\xff" + PNG[61:], "cannot be decoded"),
        (png_header(30_000, 30_000), "too large"),
        (png_header(2**31 - 1, 2**31 - 1), "too large"),
        (png_header(500, 500), "cannot be decoded"),
        (JPEG + b"\xff\xda" * MAX_SCANS, f"scans in a JPEG, more than {MAX_SCANS}"),
        # A directory whose next one is itself.
        (struct.pack("<2sHI", b"II", 42, 8) + FRAME, "frames, or directories that form a circle"),
        # 30 tags that each claim the whole file.
        (
            struct.pack("<2sHIH", b"II", 42, 8, 30)
            + b"".join(struct.pack("<HHII", 40_000 + n, 7, 350, 8) for n in range(30))
            + bytes(4),
            "its tags claim more bytes than the file has",
        ),
    ],
)
def test_files_that_are_no_pictures_are_refused(data: bytes, message: str, tmp_path: Path) -> None:
    """Each gives one refusal with its reason, and the hash of what was looked at."""
    (refusal,) = read(tmp_path, data)

    assert isinstance(refusal, Refusal)
    assert message in refusal.reason
    assert refusal.sha256 == hashlib.sha256(data).hexdigest()
    assert "0x" not in refusal.reason  # no word of objects in memory


def test_limits_hold(tmp_path: Path) -> None:
    """File size, pixels of a picture, number and pixels of frames can be bounded."""
    stack = io.BytesIO()
    tifffile.imwrite(stack, np.stack([micrograph()] * 3), photometric="minisblack")

    assert "more than 0.001" in reason(read(tmp_path, PNG, limits=Limits(max_file_mb=0.001)))
    assert "too large: 128x96" in reason(read(tmp_path, PNG, limits=Limits(max_megapixels=0.01)))
    assert "too long: 128x96 px" in reason(read(tmp_path, PNG, limits=Limits(max_side_px=100)))
    frames = reason(read(tmp_path, stack.getvalue(), limits=Limits(max_pictures=2)))
    assert "more than 2 frames" in frames
    *pictures, refusal = read(tmp_path, stack.getvalue(), limits=Limits(max_total_megapixels=0.03))
    assert len(pictures) == 2
    assert "more than 0.03 megapixels" in refusal.reason


def test_folders_are_read_in_order_and_one_input_never_stops_the_others(tmp_path: Path) -> None:
    """Hidden files and texts beside images are left out; what is broken is refused in its place."""
    (tmp_path / "sub").mkdir()
    for name in ("b.png", "sub/c.png", ".hidden.png"):
        (tmp_path / name).write_bytes(PNG)
    (tmp_path / "a.png").write_bytes(b"broken")
    (tmp_path / "b.txt").write_text("[SemImageFile]\nMagnification=100000\n")
    (tmp_path / "notes.txt").write_text("about the samples")

    files = [str(path.relative_to(tmp_path)) for path in list_inputs([tmp_path])]
    found = list(read_inputs([tmp_path], Limits()))

    assert files == ["a.png", "b.png", "notes.txt", "sub/c.png"]
    assert [isinstance(one, Picture) for one in found] == [False, True, False, True]
    assert found[1].provenance.instrument["Magnification"] == "100000 x"


def test_a_path_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    """It is the user's slip of the pen, not a file to be refused."""
    with pytest.raises(FileNotFoundError, match=r"none\.png: no such file or folder"):
        list(read_inputs([tmp_path / "none.png"], Limits()))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes with names are of Unix")
def test_a_pipe_is_refused(tmp_path: Path) -> None:
    """What may never end is not begun."""
    os.mkfifo(tmp_path / "x.png")

    assert reason(list(read_inputs([tmp_path / "x.png"], Limits()))) == "not a file"


def test_reading_is_lazy(tmp_path: Path) -> None:
    """The second file is not touched before the first one's pictures are taken."""
    for name in "ab":
        (tmp_path / name).write_bytes(PNG)
    found = read_inputs([tmp_path], Limits())
    next(found)

    (tmp_path / "b").write_bytes(b"changed meanwhile")

    assert isinstance(next(found), Refusal)


def test_decoding_leaves_the_callers_warnings_alone() -> None:
    """Between two frames warnings are what they were: only a decoder's own are silent."""
    stack = io.BytesIO()
    tifffile.imwrite(stack, np.stack([micrograph()] * 2), photometric="minisblack")
    filters = [*warnings.filters]

    for _ in decode(stack.getvalue(), Limits()):
        assert warnings.filters == filters
        with pytest.warns(UserWarning, match="mine"):
            warnings.warn("mine", stacklevel=1)


def test_decoding_gives_arrays_that_can_be_written_to() -> None:
    """Tensors are made of them without a copy."""
    ((grey, *_),) = decode(PNG, Limits())

    assert grey.flags.writeable


def test_an_archive_that_begins_with_a_stored_document_is_an_archive(tmp_path: Path) -> None:
    """The document's mark stands near the start, uncompressed; the other members still count."""
    path = tmp_path / "x.zip"
    png = encoded(micrograph(64, 96), "PNG")
    members = {"a.pdf": pdf_with(micrograph(64, 96)), "Figure 1: overview.png": png}
    path.write_bytes(zipped(members, 0))

    found = list(read_inputs([path], Limits()))

    assert all(isinstance(one, Picture) for one in found), found
    assert len(found) == 2


def test_archives_hold_pictures_documents_and_texts(tmp_path: Path) -> None:
    """Members are named by archive and member; a PDF inside is read, an archive inside is not."""
    members = {
        "fig/1.png": PNG,
        "fig/1.txt": b"$CM_MAG 100000\n",
        "paper.pdf": pdf_with(micrograph()),
        "inner.zip": zipped({"1.png": PNG}),
        "__MACOSX/._1.png": b"x",
    }

    found = read(tmp_path, zipped(members), "s.zip")

    root = f"{tmp_path / 's.zip'}"
    assert [one.path for one in found] == [
        f"{root}/fig/1.png",
        f"{root}/inner.zip",
        f"{root}/paper.pdf",
    ]
    assert found[0].sha256 == hashlib.sha256(PNG).hexdigest()
    assert found[0].provenance.instrument["Magnification"] == "100000 x"
    assert found[1].reason == "an archive inside an archive; unpack it first"
    assert found[2].location == "page 1, image 1"
