"""The pictures of office documents are read with their place, under limits."""

from pathlib import Path

import numpy as np
import pytest
from tests.screening.documents import (
    docx_with,
    encoded,
    micrograph,
    open_document_with,
    pptx_with,
    zipped,
)

from semforensics.screening.read.apart import read_inputs
from semforensics.screening.records import Limits, Picture, Refusal

ONE, TWO = (encoded(micrograph(seed=seed), "PNG") for seed in (1, 2))


def read(folder: Path, data: bytes, limits: Limits | None = None) -> list[Picture | Refusal]:
    """Read bytes as a file."""
    (folder / "x.docx").write_bytes(data)
    return list(read_inputs([folder / "x.docx"], limits or Limits()))


def test_pictures_of_a_word_file_are_figures_in_its_order(tmp_path: Path) -> None:
    """Order is that of the text, not of the names, and XML parts are no inputs."""
    found = read(tmp_path, docx_with({"image9.png": TWO, "image1.png": ONE}))

    assert [one.location for one in found] == [
        "figure 1 of the document",
        "figure 2 of the document",
    ]
    for picture, seed in zip(found, (2, 1), strict=True):
        assert isinstance(picture, Picture)
        np.testing.assert_array_equal(picture.grey, micrograph(seed=seed))


def test_pictures_of_a_presentation_have_their_slide(tmp_path: Path) -> None:
    """The number is that of the show, not of the file; a picture shown twice is read once."""
    found = read(tmp_path, pptx_with([{"b.png": TWO}, {}, {"a.png": ONE, "b.png": TWO}]))

    assert [one.location for one in found] == ["slide 1", "slide 3, image 1"]


@pytest.mark.parametrize(
    ("kind", "slides", "locations"),
    [
        ("text", [["b.png", "a.png"]], ["figure 1 of the document", "figure 2 of the document"]),
        ("presentation", [["b.png"], [], ["a.png", "b.png"]], ["slide 1", "slide 3, image 1"]),
        ("presentation", [[], ["b.png"]], ["slide 2", "a.png, in no slide or running text"]),
    ],
)
def test_pictures_of_an_open_document_have_their_place(
    tmp_path: Path, kind: str, slides: list[list[str]], locations: list[str]
) -> None:
    """In the order of text and slides; parts and previews are no inputs."""
    found = read(tmp_path, open_document_with(kind, slides, {"a.png": ONE, "b.png": TWO}))

    assert [one.location for one in found] == locations
    for picture, seed in zip(found, (2, 1), strict=True):
        assert isinstance(picture, Picture)
        np.testing.assert_array_equal(picture.grey, micrograph(seed=seed))


def test_drawings_are_counted_in_one_line(tmp_path: Path) -> None:
    """Drawings without pixels are not refused one by one, damaged pictures are."""
    media = {"1.emf": b"1", "2.emf": b"2", "3.wmf": b"3", "4.png": b"4", "5.png": ONE}

    damaged, picture, line = read(tmp_path, docx_with(media))

    assert isinstance(damaged, Refusal)
    assert damaged.location == "figure 4 of the document"
    assert isinstance(picture, Picture)
    assert isinstance(line, Refusal)
    assert line.reason == "drawings and other media that are not read: 2 EMF, 1 WMF"


def test_pictures_of_a_damaged_text_are_read_without_place(tmp_path: Path) -> None:
    """A broken XML part, or one with entities, hides no picture."""
    bomb = b'<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;">]><x>&b;</x>'

    for body in (b"<x", bomb):
        (picture,) = read(tmp_path, docx_with({"1.png": ONE}, body))
        assert isinstance(picture, Picture)
        assert picture.location == "1.png, in no slide or running text"


def test_hostile_documents_stay_bounded(tmp_path: Path) -> None:
    """Media files that swell, and too many of them, are refused."""
    (bomb,) = read(tmp_path, docx_with({"1.png": bytes(30_000_000)}))
    assert isinstance(bomb, Refusal)
    assert bomb.reason == "unpacks to more than 200 times its size"

    few = Limits(max_pictures=1)
    (many,) = read(tmp_path, docx_with({"1.png": ONE, "2.png": TWO}), few)
    assert isinstance(many, Refusal)
    assert many.reason == "2 media files, more than 1"


def test_a_document_in_an_archive_is_read(tmp_path: Path) -> None:
    """A supplement often holds one."""
    (picture,) = read(tmp_path, zipped({"text.docx": docx_with({"1.png": ONE})}, 0))

    assert isinstance(picture, Picture)
    assert picture.path.endswith("x.docx/text.docx")
    assert picture.location == "figure 1 of the document"


def test_pictures_of_a_workbook_are_read(tmp_path: Path) -> None:
    """They go by the names of their files."""
    parts = {"[Content_Types].xml": b"", "xl/workbook.xml": b"", "xl/media/image1.png": ONE}

    (picture,) = read(tmp_path, zipped(parts))

    assert isinstance(picture, Picture)
    assert picture.location.startswith("image1.png")


def test_a_document_without_pictures_says_so(tmp_path: Path) -> None:
    """One line, no refusal for its parts."""
    (refusal,) = read(tmp_path, docx_with({}))

    assert isinstance(refusal, Refusal)
    assert refusal.reason == "no picture of 32 px or more in the document"


def test_a_real_report_is_read(shared: Path) -> None:
    """Figures of a real DOCX are found, and none of its XML parts is refused."""
    files = sorted((shared / "documents").glob("*.docx"))
    if not files:
        pytest.skip("no documents")

    found = list(read_inputs(files, Limits()))

    assert sum(isinstance(one, Picture) for one in found) > 5
    assert not any("xml" in one.reason for one in found if isinstance(one, Refusal))
