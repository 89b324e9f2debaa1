"""The pictures of a report, each as a data URI: the report stays one file that fetches nothing.

Pillow and plain SVG draw them, so that a report needs no plotting library: a bulk run draws
thousands of thumbnails. Red means toward generated and blue toward real, in Okabe and Ito's colours
that the colour-blind tell apart; wherever colour speaks, a number or a word says the same.
"""

import base64
import io
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFont

from semforensics.screening.records import Grey, Map
from semforensics.screening.write.rendering import TEMPLATES

# As in figures/style.py, which would bring matplotlib along.
REAL, FAKE, NEUTRAL = "#0072B2", "#D55E00", "#555555"
THUMBNAIL_PX, THUMBNAIL_AREA = 960, 260_000
"""Longest side and most pixels of a picture as the report shows it."""
MAP_PX = 360
"""Longest side of a panel under a map."""
TILE_LOGIT_END = 8.0
"""Logit at which a tile is fully coloured: one scale for all maps, so that they compare."""
_COVER = 0.6
"""How much a map covers the panel under it."""
_HEAT = np.array(
    [[0.0, 0, 32, 76], [0.25, 60, 77, 110], [0.5, 124, 123, 120],
     [0.75, 187, 175, 113], [1, 255, 234, 70]]
)  # fmt: skip
"""Support points of a dark blue to yellow scale that keeps its order in grey: place and RGB."""
_PLOT_WIDTH, _PLOT_HEIGHT = 420, 260
_PLOT_X, _PLOT_Y = (46, 408), (12, 220)
"""Left and right, top and bottom of a plot's axes."""


def thumbnail(grey: Grey) -> str:
    """Shrink a picture to `THUMBNAIL_PX` and `THUMBNAIL_AREA` at most, as a JPEG data URI."""
    height, width = grey.shape
    longest = max(height, width) * min(1.0, (THUMBNAIL_AREA / (height * width)) ** 0.5)
    return _jpeg(_shrink(grey, min(THUMBNAIL_PX, round(longest))))


def residual_picture(residual: Grey) -> str:
    """Return an NPR residual as a PNG data URI, each of its pixels as a square of whole pixels."""
    times = max(1, MAP_PX // max(residual.shape))
    buffer = io.BytesIO()
    Image.fromarray(residual.repeat(times, 0).repeat(times, 1)).save(buffer, "PNG")
    return _data_uri(buffer.getvalue(), "png")


def tile_map(grey: Grey, logits: Map) -> str:
    """Draw the score of every tile over its panel, as a JPEG data URI.

    Args:
        grey: The panel.
        logits: Of the tiles; NaN where there is none. Colours end at ± `TILE_LOGIT_END`, and where
            a tile is wide enough its number stands in it.
    """
    values = np.asarray(logits.values, dtype=float)
    place = np.nan_to_num(values / TILE_LOGIT_END).clip(-1, 1)[..., None]
    ends = np.where(place < 0, _rgb(REAL), _rgb(FAKE))
    colours = 255 + np.abs(place) * (ends - 255.0)  # white where the tile says nothing
    cover = np.where(np.isnan(values), 0, _COVER)
    image, (top, left, bottom, right) = _over(
        grey, logits, colours, cover, Image.Resampling.NEAREST
    )
    height, width = (bottom - top) / values.shape[0], (right - left) / values.shape[1]
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(size=min(13, max(9, width / 3.2)))
    for row, column in np.argwhere(~np.isnan(values)):
        corner = (left + column * width, top + row * height)
        if width >= 30 and height >= 16:
            middle = (corner[0] + width / 2, corner[1] + height / 2)
            text = f"{values[row, column]:+.1f}"
            draw.text(middle, text, (0, 0, 0), font, "mm", stroke_width=2, stroke_fill="white")
    return _jpeg(image)


def heat_map(grey: Grey, heat: Map) -> str:
    """Draw a map without a sign over its panel, dark where it is 0, yellow at its own maximum."""
    values = np.nan_to_num(np.asarray(heat.values, dtype=float))
    share = values.clip(0) / max(float(values.max(initial=0)), 1e-12)
    colours = np.stack([np.interp(share, _HEAT[:, 0], _HEAT[:, part]) for part in (1, 2, 3)], -1)
    cover = np.full(values.shape, _COVER)
    return _jpeg(_over(grey, heat, colours, cover, Image.Resampling.BILINEAR)[0])


def spectrum_plot(spectrum: Mapping[str, Sequence[float]]) -> str:
    """Plot a panel's radial power spectrum beside the band of real references, as an SVG data URI.

    Args:
        spectrum: `frequency` (cycles per pixel, rising, > 0), `panel`, `p05`, `p50` and `p95`, in
            decibels, all of one length.

    Raises:
        ValueError: A list is missing or of another length, or a value cannot be drawn.
    """
    names = ("panel", "p05", "p50", "p95")
    missing = [name for name in ("frequency", *names) if name not in spectrum]
    if missing:
        raise ValueError(f"spectrum: no list {', '.join(missing)}; found {', '.join(spectrum)}")
    sizes = {name: len(spectrum[name]) for name in ("frequency", *names)}
    if len(set(sizes.values())) != 1 or not sizes["frequency"]:
        raise ValueError(f"spectrum: lists of one length and not empty expected, found {sizes}")
    frequency = np.asarray(spectrum["frequency"], dtype=float)
    power = np.array([spectrum[name] for name in names], dtype=float)
    if not (np.isfinite(power).all() and np.isfinite(frequency).all() and (frequency > 0).all()):
        raise ValueError("spectrum: finite values and frequencies above 0 expected")
    ends = np.log10(frequency[[0, -1]]) + np.array([-1e-9, 1e-9])
    low, high = 10 * np.floor(power.min() / 10), 10 * np.ceil(power.max() / 10 + 1e-9)
    step = 10 if high - low <= 70 else 20
    decibels = np.arange(step * np.ceil(low / step), high + 1, step)
    ticks = np.array([0.01, 0.02, 0.05, 0.1, 0.2, 0.5])
    ticks = ticks[(ends[0] <= np.log10(ticks)) & (np.log10(ticks) <= ends[1])]
    (left, right), (top, bottom) = _PLOT_X, _PLOT_Y

    def x(frequency: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        return np.asarray(np.interp(np.log10(frequency), ends, _PLOT_X).round(1))

    def y(decibels: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        return np.asarray(np.interp(decibels, (low, high), (bottom, top)).round(1))

    drawing = TEMPLATES.get_template("spectrum.svg").render(
        width=_PLOT_WIDTH,
        height=_PLOT_HEIGHT,
        left=left,
        right=right,
        top=top,
        bottom=bottom,
        rows=zip(decibels, y(decibels), strict=True),
        columns=zip(ticks, x(ticks), strict=True),
        curves={
            name: [f"{a},{b}" for a, b in zip(x(frequency), y(curve), strict=True)]
            for name, curve in zip(names, power, strict=True)
        },
        real=REAL,
        neutral=NEUTRAL,
    )
    return _data_uri(drawing.encode(), "svg+xml")


def _over(
    grey: Grey,
    values: Map,
    colours: Float[np.ndarray, "rows columns 3"],
    cover: Float[np.ndarray, "rows columns"],
    resampling: Image.Resampling,
) -> tuple[Image.Image, tuple[int, int, int, int]]:
    """Lay colours over the box of a shrunk panel; give the image and the box in its pixels."""
    image = _shrink(grey, MAP_PX).convert("RGB")
    scale_y, scale_x = image.height / grey.shape[0], image.width / grey.shape[1]
    top, bottom = round(values.box.top * scale_y), round(values.box.bottom * scale_y)
    left, right = round(values.box.left * scale_x), round(values.box.right * scale_x)
    size = (max(1, right - left), max(1, bottom - top))
    paint = Image.fromarray(np.rint(colours).astype(np.uint8)).resize(size, resampling)
    mask = Image.fromarray(np.rint(255 * cover).astype(np.uint8)).resize(size, resampling)
    image.paste(paint, (left, top), mask)
    return image, (top, left, bottom, right)


def _shrink(grey: Grey, longest_px: int) -> Image.Image:
    """Average a picture down until its longest side fits; a smaller one stays as it is."""
    image = Image.fromarray(grey)
    scale = longest_px / max(image.size)
    if scale >= 1:
        return image
    width, height = (max(1, round(side * scale)) for side in image.size)
    return image.resize((width, height), Image.Resampling.BOX)


def _jpeg(image: Image.Image) -> str:
    """Keep what the eye sees: a third of the bytes, and a bulk run need not wait for deflate."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85, subsampling=0)
    return _data_uri(buffer.getvalue(), "jpeg")


def _data_uri(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def _rgb(code: str) -> Float[np.ndarray, " 3"]:
    return np.array([int(code[at : at + 2], 16) for at in (1, 3, 5)], dtype=float)
