"""Composite figures are cut into panels by a plain rule."""

import io
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage
from tests.screening.documents import figure, micrograph, picture_of

from semforensics.detector.tiling import cut_tiles
from semforensics.screening.read.apart import read_inputs
from semforensics.screening.records import Box, Limits, Picture, Refusal
from semforensics.screening.split.panels import is_of_text, split_panels
from semforensics.screening.split.seams import find_seams


def with_bar(grey: np.ndarray, rows: int = 24) -> np.ndarray:
    """Print a black info bar with text below a micrograph."""
    bar = Image.new("L", (grey.shape[1], rows), 0)
    ImageDraw.Draw(bar).text((6, 6), "SU8000 10.0kV x100k", fill=255)
    return np.vstack([grey, np.asarray(bar)])


def jpeg(grey: np.ndarray, quality: int = 75) -> np.ndarray:
    """Send grey levels through JPEG."""
    buffer = io.BytesIO()
    Image.fromarray(grey).save(buffer, format="JPEG", quality=quality)
    return np.array(Image.open(buffer))


@pytest.mark.parametrize("level", [255, 0, 128])
def test_figures_are_cut_along_their_gutters(level: int) -> None:
    """Panels of two rows come out in reading order, to the pixel, whatever the gutters' level."""
    panels = [[micrograph(64, 80, 1), micrograph(64, 96, 2)], [micrograph(72, 184, 3)]]

    found, refused = split_panels(picture_of(figure(panels, level=level)), 32)

    assert [panel.name for panel in found] == ["a", "b", "c"]
    assert refused == []
    for panel, grey in zip(found, [*panels[0], *panels[1]], strict=True):
        np.testing.assert_array_equal(panel.grey, grey)
    assert found[1].box == Box(12, 100, 76, 196)
    assert all(panel.notes == () for panel in found)


def test_noise_of_jpeg_in_gutters_is_let_pass() -> None:
    """A figure saved as JPEG is cut where it was cut before, give or take a few pixels."""
    panels = [[micrograph(64, 80, 1), micrograph(64, 96, 2)]]

    found, _ = split_panels(picture_of(jpeg(figure(panels))), 32)

    assert len(found) == 2
    for panel, width in zip(found, (80, 96), strict=True):
        assert np.abs(np.subtract(panel.box.size_px, (64, width))).max() <= 4


def test_one_micrograph_is_one_panel() -> None:
    """It has no name, and is not touched."""
    (panel,), refused = split_panels(picture_of(micrograph()), 32)

    assert (panel.name, panel.notes, refused) == ("", (), [])
    np.testing.assert_array_equal(panel.grey, micrograph())


def test_a_background_clipped_to_black_is_no_gutter() -> None:
    """Things that rise from black little by little belong to one micrograph."""
    rows, columns = np.mgrid[:120, :160]
    rng = np.random.default_rng(0)
    grey = np.zeros((120, 160))
    for row, column in ((30, 40), (30, 118), (88, 80)):
        height = 24 - np.hypot(rows - row, columns - column)
        grey += 12 * height.clip(0) ** 0.9 * (1 + 0.1 * rng.normal(size=grey.shape))

    found, refused = split_panels(picture_of(grey.clip(0, 255).astype(np.uint8)), 32)

    assert len(found) + len(refused) == 1


def test_info_bars_are_cut_off_panels() -> None:
    """Each panel loses its own bar, and says so."""
    panels = [[with_bar(micrograph(120, 160, n)) for n in range(2)]]

    found, refused = split_panels(picture_of(figure(panels)), 32)

    assert refused == []
    for index, panel in enumerate(found):
        np.testing.assert_array_equal(panel.grey, micrograph(120, 160, index))
        # Rows of the bar's own background at its lower edge count as a margin.
        assert panel.notes[0].startswith("36 rows below the panels, from row 132 on, were cut off")


def test_a_strip_below_a_composite_is_not_called_its_bar() -> None:
    """It may be a caption; an inset has no note of it."""
    panels = [[micrograph(160, 200, 1), micrograph(160, 200, 2)]]
    grey = with_bar(figure(panels, margin=0), 30)

    found, _ = split_panels(picture_of(grey), 32)

    note = "30 rows below the panels, from row 160 on, were cut off as info bars or a caption"
    assert [panel.notes for panel in found] == [(note,), (note,)]


def test_the_rows_of_a_bar_can_be_given() -> None:
    """Then nothing is looked for."""
    (panel,), _ = split_panels(picture_of(micrograph(120, 160)), 32, info_bar=30)

    assert panel.grey.shape == (90, 160)
    assert panel.notes == ("30 rows cut off at the bottom, as asked",)


def test_rows_that_may_be_a_bar_are_left_out() -> None:
    """A flat strip without text is neither clearly a bar nor clearly none; all above is judged."""
    grey = micrograph(120, 160)
    grey[100:] = 90
    grey[100:, ::2] = 91  # not constant, so no margin either

    (panel,), refused = split_panels(picture_of(grey), 32)

    assert refused == []
    assert panel.grey.shape == (120, 160)
    assert panel.drawn == (("bar", 100, 0, 120, 160),)
    assert panel.notes[0].startswith("the rows from 100 on may be an info bar and are left out (")


@pytest.mark.parametrize("quality", [None, 90])
def test_rows_of_a_bar_are_those_of_the_frame(quality: int | None) -> None:
    """Given or found, also where its lower rows are as black as a margin."""
    frame = np.vstack([with_bar(micrograph(240, 320), 24), np.zeros((12, 320), np.uint8)])
    frame = frame if quality is None else jpeg(frame, quality)

    (given,), _ = split_panels(picture_of(frame), 32, info_bar=36)
    (found,), _ = split_panels(picture_of(frame), 32)

    assert given.box == found.box == Box(0, 0, 240, 320)
    assert given.notes[0] == "36 rows cut off at the bottom, as asked"
    assert found.notes[0] == "info bar of 36 rows cut off at the bottom, from row 240 on"


def test_text_over_a_micrograph_is_noted() -> None:
    """Its box is in pixels of the panel; the whole panel is kept."""
    grey = Image.fromarray(micrograph(240, 320))
    ImageDraw.Draw(grey).text((180, 200), "500 nm", 255, ImageFont.load_default(24))
    ImageDraw.Draw(grey).rectangle((180, 230, 299, 233), 255)

    panels, _ = split_panels(picture_of(figure([[micrograph(240, 320, 1), np.array(grey)]])), 32)

    assert [panel.drawn for panel in panels[:1]] == [()]
    assert panels[1].box.size_px == (240, 320)
    assert ("line", 230, 180, 234, 300) in panels[1].drawn
    assert panels[1].notes == ("text or lines drawn over it in 2 places are left out",)
    assert panels[1].mask[200:230, 180:260].mean() > 0.9
    assert panels[1].micrograph_px > 0.95 * 240 * 320


def test_no_piece_of_a_bar_is_a_panel_or_a_refusal() -> None:
    """A bar of cells between white lines is cut off whole."""
    cells = np.zeros((40, 480), np.uint8)
    for left in range(0, 480, 96):
        cell = Image.new("L", (90, 34), 0)
        ImageDraw.Draw(cell).text((8, 8), "10.0 kV", 255, ImageFont.load_default(14))
        cells[3:37, left + 3 : left + 93] = np.asarray(cell)
    cells[:, :4] = cells[:, -4:] = cells[:4] = cells[-4:] = 255
    cells[:, 94:480:96] = 255

    panels, refused = split_panels(picture_of(np.vstack([micrograph(360, 480), cells])), 32)

    assert refused == []
    assert [panel.box for panel in panels] == [Box(0, 0, 360, 480)]


def test_drawings_are_refused_by_name() -> None:
    """A plot beside a micrograph is no micrograph."""
    plot = Image.new("L", (96, 96), 255)
    ImageDraw.Draw(plot).line([(0, 0), (95, 0), (95, 95), (0, 95), (0, 0), (95, 95)], 0, width=2)

    found, (refusal,) = split_panels(picture_of(figure([[micrograph(96, 96), np.array(plot)]])), 32)

    assert [panel.name for panel in found] == ["a"]
    assert refusal.location == "panel b"
    assert "% of it is of grey level 255, as in a drawing" in refusal.reason


def test_small_panels_are_refused_by_name() -> None:
    """The refusal says what was found and what is needed."""
    panels = [[micrograph(64, 80, 1), micrograph(64, 40, 2)]]

    found, (refusal,) = split_panels(picture_of(figure(panels)), 64)

    assert [panel.name for panel in found] == ["a"]
    assert (refusal.location, refusal.sha256) == ("panel b", "00" * 32)
    assert refusal.reason == "too small: 40x64 px, need at least 64x64"


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1), (2, 2), (33, 33)])
@pytest.mark.parametrize("level", [0, 90, 255])
def test_pictures_of_next_to_nothing_are_refused(shape: tuple[int, int], level: int) -> None:
    """One pixel, one row and blank pictures end in a refusal."""
    found, refused = split_panels(picture_of(np.full(shape, level, np.uint8)), 32)

    assert (len(found), len(refused)) == (0, 1)


BARS = {
    "ampis_powder": {},
    "ampis_uhcs_spheroidite": {},
    "ananikov_tdnc_pdc": {},
    "bai2022-nanocomposite": {"*": 960},
    "bam_tio2_zeiss": {"*": 712},
    "boiko-pdc-partial": {"*_with_bar/*": 890},
    "cell_biology_jpeg": {},
    "gsc_shale_tiles": {},
    "hitachi_tm4000_sidecar": {"*": 901},
    "kier_fei_thermo": {"*/1_1.tif": 442, "*": 1024},
    "membrane_png_small": {},
    "nanofibre_pan_rgb_filtered": {},
    "nasa_ebc": {},
    "nasa_superalloy": {},
    "not_sem_tem": {"*Colloidal_silver.webp": 960},
    "openfibsem_thermo": {},
    "platelet_sbfsem_16bit": {},
    "pollen3d_zeiss_resaved": {},
    "pyxelr_am_zeiss": {"*": 691},
    "soot_fei_rgba": {"*": 884},
    "tripper_cement_hitachi": {},
    "wc_electron": {},
    "wood_hitachi_palette": {},
    "zeiss_tiff_meta_test": {},
}
"""Collection -> first row of the info bar by the names of its files, as they look; else none."""


QUARTERED = ("bai2022-nanocomposite", "boiko-pdc-partial", "kier_fei_thermo", "nasa_ebc")


@pytest.mark.timeout(600)
@pytest.mark.parametrize("collection", BARS)
def test_real_micrographs_are_never_cut(shared: Path, collection: str) -> None:
    """Each is one panel that ends exactly where its bar begins, of which at least 90 % are judged.

    Not so one picture, a transmission micrograph of which three quarters are white. Of some
    collections each quarter of the image above the bar is one panel of full width, too.
    """
    found_one = False
    for picture in read_inputs([shared / "sem" / collection], Limits()):
        if isinstance(picture, Refusal) or "PSMA_Fiber" in picture.path:
            continue  # notes beside the pictures
        found_one = True
        height, width = picture.grey.shape
        bars = BARS[collection].items()
        bottom = next((row for name, row in bars if fnmatch(picture.path, name)), height)
        panels, refused = split_panels(picture, 128)
        assert (len(panels), refused) == (1, []), picture.path
        (panel,) = panels
        assert panel.box.bottom == bottom, picture.path
        assert panel.grey.size >= 0.98 * bottom * width, picture.path  # white margins are cut off
        tiles = cut_tiles(panel.grey, 128, panel.mask)
        assert tiles.areas.sum() >= 0.9 * panel.micrograph_px, picture.path
        if collection in QUARTERED:
            check_quarters(picture, panel.grey)
    assert found_one


def check_quarters(picture: Picture, grey: np.ndarray) -> None:
    """Each quarter of an image is one panel of full width."""
    height, width = (side // 2 for side in grey.shape)
    for top, left in ((0, 0), (0, width), (height, 0), (height, width)):
        quarter = grey[top : top + height, left : left + width]
        panels, refused = split_panels(replace(picture, grey=quarter), 128)
        assert (len(panels), refused) == (1, []), (picture.path, top, left)
        assert panels[0].box.size_px[1] == width, (picture.path, top, left)


def test_published_panels_are_judged_whole(shared: Path) -> None:
    """Of 80 panels of papers, with letters, scale bars and bars, 95 % of the area is judged.

    They went through JPEG and resampling; 14 of them have an info bar. In a few a rectangle of the
    image is taken for an inset, or straight sides for seams.
    """
    area = judged = whole = bars = 0
    for picture in read_inputs([shared / "sem/emps_papers"], Limits()):
        if isinstance(picture, Refusal):
            continue
        panels, _ = split_panels(picture, 128)
        whole += len(panels) == 1
        bars += any("info bar of" in note for panel in panels for note in panel.notes)
        area += sum(panel.micrograph_px for panel in panels)
        tiles = [cut_tiles(panel.grey, 128, panel.mask) for panel in panels]
        judged += sum(int(part.areas.sum()) for part in tiles)

    assert judged >= 0.95 * area
    assert whole >= 75
    assert bars == 14


def test_no_tile_holds_transparent_pixels() -> None:
    """What is hidden in the middle of a panel is masked, whatever its shape."""
    rng = np.random.default_rng(0)
    grey = rng.integers(60, 200, (300, 400)).astype(np.uint8)
    rows, columns = np.ogrid[:300, :400]
    hidden = (rows - 150) ** 2 + (columns - 200) ** 2 < 60**2
    grey[hidden] = 255

    (panel,), _ = split_panels(replace(picture_of(grey), hidden=hidden), 64)

    assert panel.mask[panel.box.cut(hidden)].all()
    assert panel.mask.mean() < 0.3
    assert panel.micrograph_px < grey.size - hidden.sum()


def sphere_with_label(rows: int = 150, columns: int = 72) -> np.ndarray:
    """A noisy sphere, and a white label with a letter in the upper left corner."""
    rng = np.random.default_rng(2)
    y, x = np.mgrid[:477, :680]
    grey = 70 + ndimage.gaussian_filter(rng.normal(0, 1, (477, 680)), 30) * 600
    grey += 6 * rng.normal(0, 1, (477, 680)) + 70 * (np.hypot(y - 240, x - 340) < 230)
    grey = ndimage.gaussian_filter(grey, 0.8).clip(5, 235)
    image = Image.fromarray(grey.astype(np.uint8))
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 0, columns - 1, rows - 1), fill=255)
    draw.text((20, rows // 2 - 35), "b", fill=0, font=ImageFont.load_default(60))
    return np.array(image)


def test_the_side_of_a_label_is_no_place_where_pictures_meet() -> None:
    """A line that is gone beside the label is no doubt; one that goes on is."""
    grey = sphere_with_label()
    assert [seam.end for seam in find_seams(grey)[1]] == [72]  # so there is something to doubt

    ((panel,), refused) = split_panels(picture_of(grey), 128)
    pasted = grey.copy()
    pasted[150:, 72:] = ndimage.gaussian_filter(pasted[150:, 72:], 0.6)
    assert [seam.end for seam in find_seams(pasted)[1]] == [72]

    assert (panel.may_be_composite, refused) == (False, [])
    assert is_of_text(panel, "column", 72)
    assert not is_of_text(replace(panel, grey=pasted), "column", 72)
    assert not is_of_text(panel, "column", 300)
