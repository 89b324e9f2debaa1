"""The pictures of a screening report."""

import base64
import io
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from PIL import Image

from semforensics.figures import style
from semforensics.screening.records import Box, Map, TileScores
from semforensics.screening.write import figures

NAMES = ("frequency", "panel", "p05", "p50", "p95")


def picture(uri: str) -> np.ndarray:
    """Samples of a data URI."""
    kind, data = uri.split(",")
    assert kind in ("data:image/png;base64", "data:image/jpeg;base64")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


def test_colours_are_those_of_the_plots() -> None:
    """A report's colours are those of all other figures."""
    assert (figures.REAL, figures.FAKE, figures.NEUTRAL) == (style.REAL, style.FAKE, style.NEUTRAL)


@pytest.mark.parametrize("shape", [(1, 1), (400, 500), (1024, 1280), (50, 30000)])
def test_a_thumbnail_is_bounded_and_keeps_its_proportions(shape: tuple[int, int]) -> None:
    """A picture is never enlarged, and shrunk alike along both sides."""
    small = picture(figures.thumbnail(np.full(shape, 77, np.uint8)))

    assert (small == 77).all()
    assert max(small.shape) <= figures.THUMBNAIL_PX
    assert small.size <= figures.THUMBNAIL_AREA * 1.01
    scale = max(small.shape) / max(shape)
    assert small.shape[0] == pytest.approx(shape[0] * scale, abs=1)
    if shape[0] * shape[1] < figures.THUMBNAIL_AREA and max(shape) < figures.THUMBNAIL_PX:
        assert small.shape == shape


def test_an_icon_takes_a_few_kilobytes() -> None:
    """Even of noise, which compresses worst; a page may hold a hundred."""
    noise = np.random.default_rng(0).integers(0, 256, (1280, 890), np.uint8)

    icon = figures.icon(noise)

    assert max(picture(icon).shape) == figures.ICON_PX
    assert len(icon) < 12_000
    small = np.random.default_rng(0).integers(0, 256, (128, 128), np.uint8)
    assert len(figures.icon(small)) < 20_000


def test_a_tile_map_is_vermilion_where_positive_and_blue_where_negative() -> None:
    """Colour follows the sign; what no tile covers stays grey."""
    grey = np.full((100, 200), 128, np.uint8)
    tiles = TileScores(np.array([[0, 0], [0, 25], [0, 50]]), 25, np.array([8.0, -8.0, 0.0]))

    drawn = picture(figures.tile_map(grey, tiles)).astype(int)

    suspected, real, neutral, empty = drawn[2, [2, 27, 52, 77]]
    assert suspected[0] > suspected[2] + 80
    assert real[2] > real[0] + 80
    assert np.ptp(neutral) < 8  # JPEG
    assert neutral[0] > 150
    assert (np.abs(empty - 128) < 4).all()  # JPEG
    assert (np.abs(drawn[60:] - 128) < 4).all()


def test_tile_maps_share_one_scale() -> None:
    """The same logit has the same colour, whatever the other tiles of its panel score."""
    grey, corners = np.zeros((100, 200), np.uint8), np.array([[0, 0], [0, 100]])

    calm = picture(figures.tile_map(grey, TileScores(corners, 100, np.array([2.0, 0.0]))))
    wild = picture(figures.tile_map(grey, TileScores(corners, 100, np.array([2.0, 90.0]))))

    assert (np.abs(calm[5, 5].astype(int) - wild[5, 5]) < 4).all()
    assert np.ptp(calm[5, 5]) > 20


def test_of_tiles_that_overlap_the_first_one_shows() -> None:
    """A tile at the edge shows only what the tiles side by side leave."""
    grey = np.full((100, 150), 128, np.uint8)
    tiles = TileScores(np.array([[0, 0], [0, 50]]), 100, np.array([-8.0, 8.0]))

    drawn = picture(figures.tile_map(grey, tiles)).astype(int)

    assert drawn[2, 90, 2] > drawn[2, 90, 0] + 80
    assert drawn[2, 110, 0] > drawn[2, 110, 2] + 80


def test_heat_maps_share_one_scale() -> None:
    """Yellow marks what a generated tile reaches; an almost empty map is as dark as zeros."""
    grey, box = np.zeros((64, 64), np.uint8), Box(0, 0, 64, 64)
    heat = np.zeros((8, 8))
    heat[1:4, 4:7] = figures.GRAD_CAM_END

    full, above, faint, flat = (
        picture(figures.heat_map(grey, Map(heat * factor, box, "logit"))).astype(int)
        for factor in (1, 10, 0.002 / figures.GRAD_CAM_END, 0)
    )

    assert full[20, 44].max() > 140
    assert full[20, 44].sum() > 2 * full[50, 10].sum()
    assert np.abs(above[20, 44] - full[20, 44]).max() < 8
    assert flat.max() < 60
    assert np.abs(faint - flat).max() < 8


def test_a_residual_keeps_its_pixels() -> None:
    """Pixels are enlarged as squares: taking one of each gives the residual back."""
    residual = np.random.default_rng(0).integers(0, 256, (32, 48)).astype(np.uint8)

    shown = picture(figures.residual_picture(residual))

    times = shown.shape[0] // 32
    assert times > 1
    assert (shown[::times, ::times] == residual).all()


def test_a_spectrum_shows_panel_median_and_band() -> None:
    """The drawing is SVG; what has more power stands higher."""
    spectrum = {"frequency": [0.01, 0.1, 0.5]}
    spectrum |= {name: [40.0, 30.0, level] for name, level in
                 {"panel": 25.0, "p05": 5.0, "p50": 10.0, "p95": 15.0}.items()}  # fmt: skip

    uri = figures.spectrum_plot(spectrum)

    assert uri.startswith("data:image/svg+xml;base64,")
    root = ET.fromstring(base64.b64decode(uri.split(",")[1]))
    median, panel = [
        [tuple(map(float, pair.split(","))) for pair in line.attrib["points"].split()]
        for line in root.iter("{http://www.w3.org/2000/svg}polyline")
    ]
    assert panel[0] == median[0]
    assert panel[-1][1] < median[-1][1]
    assert len(list(root.iter("{http://www.w3.org/2000/svg}polygon"))) == 1


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"p95": None}, KeyError, "p95"),
        ({"panel": [1.0]}, ValueError, "inhomogeneous shape"),
        ({name: [] for name in NAMES}, ValueError, "found"),
        ({"panel": [1.0, float("nan")]}, ValueError, "finite"),
        ({"frequency": [0.0, 0.1]}, ValueError, "above 0"),
    ],
)
def test_a_spectrum_that_cannot_be_drawn_is_refused(
    change: dict, error: type[Exception], message: str
) -> None:
    """A list that is missing, empty, of another length or without a place in a plot is an error."""
    lists = {name: [0.1, 0.2] for name in NAMES} | change
    spectrum = {name: values for name, values in lists.items() if values is not None}

    with pytest.raises(error, match=message):
        figures.spectrum_plot(spectrum)
