"""Pictures that meet without a gutter, or with a thin one, are panels; one micrograph is one."""

import numpy as np
import pytest
from PIL import Image, ImageDraw
from tests.screening.documents import figure, micrograph, picture_of

from semforensics.core.processing import jpeg
from semforensics.screening.records import Box, Grey, Panel
from semforensics.screening.split.panels import split_panels

HEIGHT, WIDTH = 150, 180


def several(count: int) -> list[Grey]:
    """Draw micrographs that differ in nothing but the place they show."""
    return [micrograph(HEIGHT, WIDTH, seed) for seed in range(count)]


def boxes_of(panels: list[Panel]) -> list[Box]:
    """List the boxes in reading order."""
    return [panel.box for panel in panels]


def is_near(box: Box, other: Box, px: int = 2) -> bool:
    """Say whether two boxes agree on all sides."""
    sides = [
        abs(getattr(box, side) - getattr(other, side))
        for side in ("top", "left", "bottom", "right")
    ]
    return max(sides) <= px


@pytest.mark.parametrize("level", [255, 0, 128])
@pytest.mark.parametrize("gap", [1, 2, 3])
@pytest.mark.parametrize("count", [2, 4])
def test_thin_gutters_separate_panels(count: int, gap: int, level: int) -> None:
    """Two micrographs beside each other, or four in two rows: all boxes are right to 2 px."""
    panels = several(count)
    rows = [panels[:2], panels[2:]] if count == 4 else [panels]
    grey = figure(rows, gap=gap, margin=0, level=level)

    found, refused = split_panels(picture_of(grey), 32)

    assert (len(found), refused) == (count, [])
    for index, panel in enumerate(found):
        row, column = divmod(index, 2)
        top, left = row * (HEIGHT + gap), column * (WIDTH + gap)
        assert is_near(panel.box, Box(top, left, top + HEIGHT, left + WIDTH))


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("quality", [None, 85])
def test_pictures_that_touch_are_panels(axis: int, count: int, quality: int | None) -> None:
    """Without any gutter, in rows or columns, as PNG or after JPEG."""
    grey = np.concatenate(several(count), axis)
    grey = jpeg(grey, quality) if quality else grey

    found, _ = split_panels(picture_of(grey), 32)

    side = (HEIGHT, WIDTH)[axis]
    starts = [panel.box.left if axis else panel.box.top for panel in found]
    assert starts == [side * index for index in range(count)]


def test_four_that_touch_are_four_panels() -> None:
    """Two rows of two without a gutter."""
    a, b, c, d = several(4)

    found, _ = split_panels(picture_of(np.block([[a, b], [c, d]])), 32)

    assert [(box.top, box.left) for box in boxes_of(found)] == [
        (0, 0), (0, WIDTH), (HEIGHT, 0), (HEIGHT, WIDTH),
    ]  # fmt: skip


def test_a_large_panel_beside_small_ones() -> None:
    """A seam that ends at another one is found in the part that it crosses."""
    large = micrograph(2 * HEIGHT, 240, 7)
    grey = np.hstack([large, np.vstack(several(2))])

    found, _ = split_panels(picture_of(grey), 32)

    assert [(box.top, box.left) for box in boxes_of(found)] == [(0, 0), (0, 240), (HEIGHT, 240)]


def changed(kind: str) -> Grey:
    """Draw one micrograph with a fault that is no seam."""
    grey = micrograph(300, 320, 3).astype(int)
    if kind == "brightness jumps":
        grey[140:] += 30
    elif kind == "a charging line":
        grey[140:142] = 250
    elif kind == "the scan drifts at a row":
        grey[140:] = np.roll(grey[140:], 2, axis=1)
    elif kind == "a mosaic, stitched a little wrong":
        grey[:, 160:] = np.roll(grey[:, 160:], 1, axis=0) + 6
    elif kind == "a scale bar and letters":
        image = Image.fromarray(grey.astype(np.uint8))
        draw = ImageDraw.Draw(image)
        draw.rectangle((180, 270, 300, 292), fill=255)
        draw.text((190, 272), "500 nm", fill=0, font_size=18)
        draw.text((8, 4), "(a)", fill=255, font_size=30)
        grey = np.asarray(image)
    return np.clip(grey, 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    "kind",
    [
        "nothing",
        "brightness jumps",
        "a charging line",
        "the scan drifts at a row",
        "a mosaic, stitched a little wrong",
        "a scale bar and letters",
    ],
)
def test_faults_of_one_micrograph_are_no_seams(kind: str) -> None:
    """It stays one panel, and no inset is found in it."""
    found, refused = split_panels(picture_of(changed(kind)), 32)

    assert (len(found), refused) == (1, [])
    assert found[0].box.size_px == (300, 320)


@pytest.mark.parametrize("frame", [0, 1, 2])
@pytest.mark.parametrize(("top", "left"), [(0, 0), (8, 300), (120, 180)])
def test_insets_are_panels(top: int, left: int, frame: int) -> None:
    """With a frame or without, in a corner, near to one, or within; its host leaves it out."""
    grey = micrograph(360, 480, 1)
    box = Box(top + frame, left + frame, top + frame + 130, left + frame + 150)
    grey[top : box.bottom + frame, left : box.right + frame] = 255
    grey[box.top : box.bottom, box.left : box.right] = micrograph(130, 150, 2)

    host, inset = split_panels(picture_of(grey), 32)[0]

    assert is_near(inset.box, box)
    assert host.box == Box(0, 0, 360, 480)
    assert host.mask[box.top : box.bottom, box.left : box.right].all()
    assert "its inset, panel b, is left out of it" in host.notes
    assert "this is an inset of panel a" in inset.notes


def test_a_frame_around_a_detail_is_no_inset() -> None:
    """Inside of it the same micrograph goes on."""
    image = Image.fromarray(micrograph(360, 480, 1))
    ImageDraw.Draw(image).rectangle((120, 100, 280, 240), outline=255, width=2)

    found, _ = split_panels(picture_of(np.array(image)), 32)

    assert len(found) == 1


@pytest.mark.parametrize("factor", [0.75, 0.9, 1.25])
def test_seams_that_resampling_blurred_are_found(factor: float) -> None:
    """A figure brought to another size is cut where its pictures met."""
    image = Image.fromarray(np.vstack(several(2)))
    size = round(image.width * factor), round(image.height * factor)

    found, _ = split_panels(picture_of(np.array(image.resize(size, Image.Resampling.BICUBIC))), 32)

    assert len(found) == 2
    assert abs(found[0].box.bottom - HEIGHT * factor) <= 2


def test_what_may_be_a_seam_is_named() -> None:
    """A line of one level through one micrograph may be a gutter; a note says where."""
    grey = micrograph(300, 320, 3)
    grey[140:142] = 250

    (panel,), _ = split_panels(picture_of(grey), 32)

    assert panel.may_be_composite
    assert "it may be composite: two pictures may meet at row 140" in panel.notes
