"""What a file says of its own origin."""

import io
import struct
import time

import numpy as np
import pytest
import tifffile
from PIL import Image, PngImagePlugin
from tests.screening.documents import encoded, micrograph

from semforensics.screening.read.provenance import read_provenance
from semforensics.screening.records import Provenance


def tiff(*tags: tuple[int, str]) -> bytes:
    """Write a TIFF with texts in further tags."""
    buffer = io.BytesIO()
    extra = [(number, "s", len(text) + 1, text, True) for number, text in tags]
    tifffile.imwrite(buffer, micrograph(), extratags=extra, software="MeX 1", metadata=None)
    return buffer.getvalue()


def read(data: bytes, side_car: str | None = None) -> Provenance:
    """Read bytes named as a file."""
    return read_provenance(data, "fig/x.tif", side_car)


def test_a_vendors_tag_goes_before_the_text_beside_an_image() -> None:
    """Both are read; the source names the one that is shown."""
    text = "[SemImageFile]\nInstructName=SU8000\n"

    beside = read(encoded(micrograph(), "TIFF"), text)
    inside = read(tiff((34682, "[Beam]\nHV=1000\n")), text)

    assert beside.instrument_source == "text file beside x.tif (Hitachi)"
    assert beside.instrument["Instrument"] == "Hitachi SU8000"
    assert inside.instrument_source == "TIFF tag 34682 (FEI/Thermo)"
    assert inside.instrument == {"Accelerating voltage": "1 kV", "Beam.HV": "1000"}
    assert inside.software["Software"] == "MeX 1"


def test_notes_beside_an_image_are_no_settings() -> None:
    """A text without lines of "name=value" says nothing of the instrument."""
    found = read(encoded(micrograph(), "TIFF"), "about the samples\nprepared on Monday\n")

    assert (found.instrument, found.instrument_source) == ({}, None)


def test_tags_of_programs_are_read() -> None:
    """PNG text, EXIF, JPEG comments and XMP's CreatorTool, each under its name."""
    text = PngImagePlugin.PngInfo()
    text.add_text("Software", "Painter 3")
    text.add_text("parameters", "a micrograph of gold, steps 20")
    exif = Image.Exif()
    exif[305] = "Camera 2"
    xmp = b"<xmp:CreatorTool>Shop 5</xmp:CreatorTool>"

    png = read(encoded(micrograph(), "PNG", pnginfo=text)).software
    jpeg = read(encoded(micrograph(), "JPEG", exif=exif, comment="by hand", xmp=xmp)).software

    assert png == {"Software": "Painter 3", "parameters": "a micrograph of gold, steps 20"}
    assert jpeg == {"EXIF Software": "Camera 2", "comment": "by hand", "XMP CreatorTool": "Shop 5"}


def test_no_tag_is_nothing_said() -> None:
    """A bare file gives its format and nothing else."""
    found = read(encoded(micrograph(), "PNG"))

    assert (found.file_format, found.instrument, found.software) == ("PNG", {}, {})
    assert (found.instrument_source, found.notes) == (None, ())


def test_values_are_fit_to_be_shown() -> None:
    """Control characters go, and what is endless is cut, in length and number."""
    text = "A=\x1b[31mred\x07\n" + "".join(f"k{n}=" + "v" * 999 + "\n" for n in range(99))

    found = read(tiff((34682, text)))

    assert found.instrument["A"] == "[31mred"
    assert len(found.instrument["k1"]) == 300
    assert len(found.instrument) == 60
    assert found.notes == ("40 further entries of the instrument's settings are left out",)


def test_content_credentials_are_looked_for() -> None:
    """None is said plainly; a damaged box is still told."""
    pytest.importorskip("c2pa", reason="needs semforensics[c2pa]")
    png = encoded(micrograph(), "PNG")
    box = struct.pack(">I4s", 40, b"jumb") + b"jumdc2pa" + bytes(24)

    assert read(png).c2pa == "none"
    assert read(png[:-12] + box + png[-12:]).c2pa.startswith("present, cannot be read: ")


def test_without_the_extra_the_mark_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever lacks the library learns whether there is something to look at."""
    monkeypatch.setitem(__import__("sys").modules, "c2pa", None)
    png = encoded(micrograph(), "PNG")

    assert read(png).c2pa == "not checked: needs semforensics[c2pa]; no mark of one"
    assert read(png + b"jumb c2pa").c2pa.endswith("a manifest seems to be there")


def test_tags_that_claim_too_much_are_told() -> None:
    """EXIF whose tags each claim all of it is not read, and a note says so."""
    head = struct.pack("<2sHIH", b"II", 42, 8, 40)
    tags = b"".join(struct.pack("<HHII", 40_000 + n, 7, 480, 8) for n in range(40))
    data = encoded(micrograph(), "JPEG", exif=b"Exif\0\0" + head + tags + bytes(4))

    assert read(data).notes == (
        "its tags cannot be read: its tags claim more bytes than the file has",
    )


def test_texts_that_are_too_long_are_told_in_our_words() -> None:
    """The format is still known, and the note states the limit instead of a library's constant."""
    text = PngImagePlugin.PngInfo()
    text.add_text("Comment", "x" * 2_000_000, zip=True)

    found = read(encoded(micrograph(), "PNG", pnginfo=text))

    assert found.file_format == "PNG"
    assert found.notes == (
        "its tags cannot be read: a text or colour profile in it is larger than 1 MB",
    )


def test_only_the_mark_is_taken_off_exif() -> None:
    """Bytes that the mark's letters occur in are EXIF; a second mark is none."""
    head = struct.pack("<2sHIH", b"II", 42, 8, 40)
    tags = b"".join(struct.pack("<HHII", 40_000 + n, 7, 480, 8) for n in range(40))
    bomb = head + tags + bytes(4)

    def notes(exif: bytes) -> tuple[str, ...]:
        return read(encoded(micrograph(), "JPEG", exif=exif)).notes

    assert "claim more bytes" in notes(b"Exif\0\0Exif\0\0" + bomb)[0]
    assert notes(b"Exif\0\0fix" + bomb) == ()


def test_what_is_no_image_says_nothing() -> None:
    """The reader refuses it; here it is no error."""
    assert read(np.random.default_rng(0).bytes(500)).file_format == "?"


def test_long_lines_take_no_time() -> None:
    """A megabyte of blanks inside a value is read in a moment."""
    text = "[SemImageFile]\nHV=5" + " " * 1_000_000 + "x\nWD=4"
    start = time.process_time()

    found = read_provenance(encoded(micrograph(64, 96), "PNG"), "x.png", text)

    assert time.process_time() - start < 2
    assert found.instrument["SemImageFile.HV"] == "5"
