"""One look for all figures; the same figure is the same bytes."""

import io
from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure
from PIL import Image

# Blue and vermilion of Okabe and Ito's palette, which the colour-blind tell apart.
REAL = "#0072B2"
FAKE = "#D55E00"
NEUTRAL = "#555555"
DPI = 120

# Decorates a function that returns a figure.
styled = rc_context(
    {
        "font.size": 10,
        "axes.titlesize": 11,
        "axes.titleweight": "bold",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.color": "#E5E5E5",
        "grid.linewidth": 0.6,
        "axes.axisbelow": True,
        "lines.linewidth": 1.6,
        "legend.frameon": False,
        "figure.constrained_layout.h_pad": 0.08,
        "figure.constrained_layout.w_pad": 0.08,
        "figure.dpi": DPI,
        "savefig.dpi": DPI,
    }
)

_SOURCES = {"simulated": "Simulated micrographs", "boiko": "Boiko et al. 2020"}


def source_line(gan: str, data: str) -> str:
    """Say what a figure shows: which generator, and whether its micrographs are simulated."""
    return f"{gan} · {_SOURCES.get(data, 'User micrographs')}"


def add_source(figure: Figure, text: str) -> None:
    """Write the `source` of a figure, which says what it shows, below it at the right."""
    figure.supxlabel(text, x=0.99, ha="right", size=8, color=NEUTRAL)


# Pillow takes what is nearest to a pixel's values rounded down to multiples of 4; so white stays.
_GREYS = [level for level in (*range(0, 252, 4), 255) for _ in "rgb"]


def save_figure(figure: Figure, path: Path, *, dpi: int = DPI, dither: bool = False) -> None:
    """Write a PNG of 256 colours without version or date: the same figure is the same small file.

    The palette covers all colours that occur, so rare ones are not lost: pictures of grey levels
    are off by one or two levels, lines and maps by up to 15 of 255, at a third of the size.

    `dither` spreads the error of a pixel's colour over its neighbours (Floyd and Steinberg 1976).
    Coloured maps over pictures need it: they have more than 256 colours, and the nearest ones of a
    palette would draw edges where the map has none. A quarter of the palette is grey, so pictures
    beside the maps are off by five levels at most. Transparency is lost.
    """
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=dpi)
    picture = Image.open(drawn).convert("RGB")
    if dither:
        colours = _cover(picture, 192).getpalette()
        assert colours is not None
        palette = Image.new("P", (1, 1))
        palette.putpalette(colours[: 3 * 192] + _GREYS)
        small = picture.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG)
    else:
        small = _cover(picture, 256)
    small.save(path, "PNG", optimize=True)


def _cover(picture: Image.Image, num_colours: int) -> Image.Image:
    return picture.quantize(num_colours, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
