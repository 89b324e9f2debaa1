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
from PIL import Image, ImageColor, ImageDraw, ImageFont
from scipy.ndimage import find_objects

from semforensics.screening.records import Grey, Map, TileScores
from semforensics.screening.write.rendering import TEMPLATES

# As in figures/style.py, which would bring matplotlib along.
REAL, FAKE, NEUTRAL = "#0072B2", "#D55E00", "#555555"
THUMBNAIL_PX, THUMBNAIL_AREA = 960, 260_000
"""Longest side and most pixels of a picture as the report shows it."""
ICON_PX = 144
"""Longest side of a picture in the list of all pictures."""
MAP_PX = 360
"""Longest side of a panel under a map."""
TILE_LOGIT_END = 8.0
"""Logit at which a tile is fully coloured: one scale for all maps, so that they compare."""
GRAD_CAM_END = 0.15
"""Value at which a Grad-CAM map is fully yellow: one scale for all panels. Measured on 200
fakes of both released generators: half of their tiles reach 0.10, one in twenty 0.16."""
_COVER = 0.6
"""How much a map covers the panel under it."""
_HEAT = np.array(
    [[0.0, 0, 32, 76], [0.25, 60, 77, 110], [0.5, 124, 123, 120],
     [0.75, 187, 175, 113], [1, 255, 234, 70]]
)  # fmt: skip
"""Support points of a dark blue to yellow scale that keeps its order in grey: place and RGB."""


def thumbnail(grey: Grey) -> str:
    """Shrink a picture to `THUMBNAIL_PX` and `THUMBNAIL_AREA` at most, as a JPEG data URI."""
    height, width = grey.shape
    longest = max(height, width) * min(1.0, (THUMBNAIL_AREA / (height * width)) ** 0.5)
    return _jpeg(_shrink(grey, min(THUMBNAIL_PX, round(longest))))


def icon(grey: Grey) -> str:
    """Shrink a picture to `ICON_PX`, as a JPEG data URI of a few kB."""
    return _jpeg(_shrink(grey, ICON_PX), quality=70)


def residual_picture(residual: Grey) -> str:
    """Return an NPR residual as a PNG data URI, each of its pixels as a square of whole pixels."""
    times = max(1, MAP_PX // max(residual.shape))
    buffer = io.BytesIO()
    Image.fromarray(residual.repeat(times, 0).repeat(times, 1)).save(buffer, "PNG")
    return _data_uri(buffer.getvalue(), "png")


def tile_map(grey: Grey, tiles: TileScores) -> str:
    """Draw the score of every tile over its panel, as a JPEG data URI.

    Args:
        grey: The panel.
        tiles: Of those that overlap the first one shows. Colours end at ± `TILE_LOGIT_END`, and
            where there is room in what shows of a tile its number is in it.
    """
    image = _shrink(grey, MAP_PX).convert("RGB")
    scale = np.array([image.height, image.width]) / grey.shape
    shown = np.full((image.height, image.width), len(tiles.logits))  # which tile shows
    boxes = np.rint(np.hstack([tiles.corners, tiles.corners + tiles.size_px]) * np.tile(scale, 2))
    for index, (top, left, bottom, right) in reversed(list(enumerate(boxes.astype(int)))):
        shown[top:bottom, left:right] = index
    colours = _signed_colours(tiles.logits)  # white where the tile says nothing
    pixels, is_tile = np.array(image), shown < len(tiles.logits)
    mixed = (1 - _COVER) * pixels[is_tile] + _COVER * colours[shown[is_tile]]
    pixels[is_tile] = np.rint(mixed)
    image = Image.fromarray(pixels)
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(size=min(13, tiles.size_px * scale[1] / 3.2))
    places = find_objects(shown + 1)
    for index, logit in enumerate(tiles.logits):
        rows, columns = places[index] or (slice(0, 0), slice(0, 0))
        if columns.stop - columns.start >= 30 and rows.stop - rows.start >= 16:
            middle = ((columns.start + columns.stop) / 2, (rows.start + rows.stop) / 2)
            text = f"{logit:+.1f}"
            draw.text(middle, text, (0, 0, 0), font, "mm", stroke_width=2, stroke_fill="white")
    return _jpeg(image)


def heat_map(grey: Grey, heat: Map) -> str:
    """Draw a map without a sign over its panel: dark at 0, yellow from `GRAD_CAM_END` on."""
    share = np.nan_to_num(np.asarray(heat.values, dtype=float) / GRAD_CAM_END).clip(0, 1)
    colours = np.stack([np.interp(share, _HEAT[:, 0], _HEAT[:, part]) for part in (1, 2, 3)], -1)
    return _covered(grey, heat, colours)


def logit_map(grey: Grey, logits: Map) -> str:
    """Draw a map of logits over its panel, in the colours of `tile_map`."""
    return _covered(grey, logits, _signed_colours(np.nan_to_num(logits.values)))


def _signed_colours(logits: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n 3"]:
    """Return colours from that of real over white to that of generated, at ± `TILE_LOGIT_END`."""
    strength = (np.asarray(logits, dtype=float)[..., None] / TILE_LOGIT_END).clip(-1, 1)
    ends = np.where(strength < 0, ImageColor.getrgb(REAL), ImageColor.getrgb(FAKE))
    return np.asarray(255 + np.abs(strength) * (ends - 255.0))


def _covered(grey: Grey, shown: Map, colours: Float[np.ndarray, "rows columns 3"]) -> str:
    """Lay the colours of a map over its panel, as a JPEG data URI; NaN covers nothing."""
    cover = np.where(np.isnan(np.asarray(shown.values, dtype=float)), 0, _COVER)
    image = _shrink(grey, MAP_PX).convert("RGB")
    scale_y, scale_x = image.height / grey.shape[0], image.width / grey.shape[1]
    top, bottom = round(shown.box.top * scale_y), round(shown.box.bottom * scale_y)
    left, right = round(shown.box.left * scale_x), round(shown.box.right * scale_x)
    size = (max(1, right - left), max(1, bottom - top))
    paint, mask = (
        Image.fromarray(np.rint(one).astype(np.uint8)).resize(size, Image.Resampling.BILINEAR)
        for one in (colours, 255 * cover)
    )
    image.paste(paint, (left, top), mask)
    return _jpeg(image)


def spectrum_plot(spectrum: Mapping[str, Sequence[float]]) -> str:
    """Plot a panel's radial power spectrum beside the band of real references, as an SVG data URI.

    Args:
        spectrum: `frequency` (cycles per pixel, rising, > 0), `panel`, `p05`, `p50` and `p95`, in
            decibels, all of one length.

    Raises:
        KeyError: A list is missing.
        ValueError: Lists differ in length, are empty or hold what cannot be drawn.
    """
    names = ("frequency", "panel", "p05", "p50", "p95")
    lists = np.array([spectrum[name] for name in names], dtype=float)
    if not (lists.size and np.isfinite(lists).all() and (lists[0] > 0).all()):
        raise ValueError(f"spectrum: frequencies above 0 and finite values expected, found {lists}")
    log_frequency, curves = np.log10(lists[0]), lists[1:]
    low, high = 10 * np.floor(curves.min() / 10), 10 * np.ceil(curves.max() / 10 + 1e-9)
    step = 10 if high - low <= 70 else 20
    ticks = {f: np.log10(f) for f in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)}
    first, last = log_frequency[0] - 1e-9, log_frequency[-1] + 1e-9
    drawing = TEMPLATES.get_template("spectrum.svg").render(
        first=first,
        last=last,
        low=low,
        high=high,
        decibels=np.arange(step * np.ceil(low / step), high + 1, step),
        frequencies={f: log for f, log in ticks.items() if first <= log <= last},
        curves={
            name: [*zip(log_frequency.tolist(), curve, strict=True)]
            for name, curve in zip(names[1:], curves.tolist(), strict=True)
        },
        real=REAL,
        neutral=NEUTRAL,
    )
    return _data_uri(drawing.encode(), "svg+xml")


def _shrink(grey: Grey, longest_px: int) -> Image.Image:
    """Average a picture down until its longest side fits; a smaller one stays as it is."""
    image = Image.fromarray(grey)
    scale = longest_px / max(image.size)
    if scale >= 1:
        return image
    width, height = (max(1, round(side * scale)) for side in image.size)
    return image.resize((width, height), Image.Resampling.BOX)


def _jpeg(image: Image.Image, quality: int = 85) -> str:
    """Keep what the eye sees: a third of the bytes, and a bulk run need not wait for deflate."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality, subsampling=0)
    return _data_uri(buffer.getvalue(), "jpeg")


def _data_uri(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
