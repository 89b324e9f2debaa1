"""Images side by side, each of their pixels drawn as a whole number of the figure's."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.transforms import Affine2D

from semforensics.figures.style import DPI, FAKE, NEUTRAL, REAL, styled

Images = UInt8[np.ndarray, "n height width"]

_GAP_PX = 4
_MARGIN_PX = 16
_LINE_PX = 22  # of text
_LETTER_PX = 6.7  # of a caption


def grid_shape(size_px: int) -> tuple[int, int]:
    """Return the rows and columns of a grid about 1000 to 1500 px wide, for images of a size."""
    columns = min(8, max(3, 1536 // _cell(size_px)))
    return columns * 3 // 4, columns


@styled
def image_grid(fakes: Images, *, source: str) -> Figure:
    """Draw fakes as a grid, in the order given, unselected."""
    return _beside([("Fakes, unselected", FAKE, fakes)], source)


@styled
def fakes_beside_reals(fakes: Images, reals: Images, *, source: str) -> Figure:
    """Draw a grid of fakes beside one of as many reals, on one grey scale."""
    grids = [("Fakes, unselected", FAKE, fakes), ("Reals, unselected", REAL, reals)]
    return _beside(grids, source)


@styled
def nearest_pairs(fakes: Images, reals: Images, captions: Sequence[str], *, source: str) -> Figure:
    """Draw each fake beside its nearest real, with two lines of caption, shortened if need be."""
    cell = _cell(fakes.shape[-1])
    columns = max(2, 1400 // (2 * cell + _MARGIN_PX))
    rows = -(-len(fakes) // columns)
    pair_width, pair_height = 2 * cell + _GAP_PX, cell + 2 * _LINE_PX
    width = columns * (pair_width + _MARGIN_PX) + _MARGIN_PX
    height = rows * (pair_height + _GAP_PX) + 3 * _LINE_PX
    figure = _figure(width, height, source)
    _text(figure, _MARGIN_PX, 8, "Fake", FAKE, weight="bold", size=11)
    _text(figure, _MARGIN_PX + cell + _GAP_PX, 8, "Nearest real", REAL, weight="bold", size=11)
    for index, (fake, real, caption) in enumerate(zip(fakes, reals, captions, strict=True)):
        row, column = divmod(index, columns)
        left = _MARGIN_PX + column * (pair_width + _MARGIN_PX)
        top = 2 * _LINE_PX - 10 + row * (pair_height + _GAP_PX)
        for image, colour, offset in ((fake, FAKE, 0), (real, REAL, cell + _GAP_PX)):
            _show(figure, left + offset, top, image, cell // image.shape[-1], colour)
        lines = [_shortened(line, int(pair_width / _LETTER_PX)) for line in caption.split("\n")]
        _text(figure, left, top + cell + 6, "\n".join(lines), NEUTRAL, size=7)
    return figure


def _shortened(text: str, length: int) -> str:
    """Cut the middle out of what is too long: names differ at their ends."""
    half = length // 2
    return text if len(text) <= length else f"{text[: half - 1]}…{text[-half:]}"


def _cell(size_px: int) -> int:
    """Return the side of an image in the figure: a multiple of the image's, 128 px or more."""
    return size_px * max(1, 128 // size_px)


def _beside(grids: Sequence[tuple[str, str, Images]], source: str) -> Figure:
    """Draw titled grids from left to right."""
    scale = max(1, 128 // grids[0][2].shape[-1])
    mosaics = [_mosaic(images) for _, _, images in grids]
    height, width = (scale * side for side in mosaics[0].shape)
    figure = _figure(
        len(grids) * (width + 2 * _MARGIN_PX), height + 2 * _LINE_PX + _MARGIN_PX, source
    )
    for index, ((title, colour, _), mosaic) in enumerate(zip(grids, mosaics, strict=True)):
        left = _MARGIN_PX + index * (width + 2 * _MARGIN_PX)
        _text(figure, left, 8, title, colour, weight="bold", size=11)
        _show(figure, left, 2 * _LINE_PX - 10, mosaic, scale, colour)
    return figure


def _mosaic(images: Images) -> UInt8[np.ndarray, "rows columns"]:
    """Put images together, row by row, with white gaps; the last row may stay short."""
    n, height, width = images.shape
    gap = max(1, _GAP_PX * width // _cell(width))
    columns = min(n, grid_shape(width)[1])
    rows = -(-n // columns)
    mosaic = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap), 255, np.uint8)
    for index, image in enumerate(images):
        top, left = (index // columns) * (height + gap), (index % columns) * (width + gap)
        mosaic[top : top + height, left : left + width] = image
    return mosaic


def _figure(width_px: int, height_px: int, source: str) -> Figure:
    figure = Figure(figsize=(width_px / DPI, height_px / DPI))
    figure.text(1 - _MARGIN_PX / width_px, 8 / height_px, source, ha="right", color=NEUTRAL, size=8)
    return figure


def _text(figure: Figure, left: int, top: int, text: str, colour: str, **font: Any) -> None:
    """Write text whose upper left corner lies at a pixel counted from the upper left."""
    width, height = figure.get_size_inches() * DPI
    figure.text(left / width, 1 - top / height, text, color=colour, va="top", **font)


def _show(
    figure: Figure,
    left: int,
    top: int,
    image: UInt8[np.ndarray, "rows columns"],
    scale: int,
    colour: str,
) -> None:
    """Draw grey levels 0 … 255 as black to white, each pixel a square, in a coloured frame."""
    # As RGB: Matplotlib's grey colour map is one level off at some levels.
    drawn = np.kron(image[..., None], np.ones((scale, scale, 3), np.uint8))
    height, width = drawn.shape[:2]
    figure_width, figure_height = np.rint(figure.get_size_inches() * DPI).astype(int)
    bottom = figure_height - top - height
    figure.figimage(drawn, left, bottom, origin="upper")  # unlike imshow, it never resamples
    frame = Rectangle((left, bottom), width, height, fill=False, edgecolor=colour, linewidth=1.5)
    frame.set_transform(Affine2D().scale(1 / figure_width, 1 / figure_height) + figure.transFigure)
    figure.add_artist(frame)
