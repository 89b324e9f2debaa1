"""The info bar below a simulated micrograph, laid out as that of the Hitachi SU8000."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

FULL_ROWS, FULL_HEIGHT, FULL_WIDTH = 134, 1024, 1280
BLACK, WHITE = 2, 255
"""Grey levels of the published bars."""
LENGTHS_NM = (1000, 500, 200, 100, 50, 20, 10)
"""The instrument's scale bars."""


def bar_rows(height_px: int) -> int:
    """Rows of the info bar of a frame: 134 of 1024, in proportion for other heights."""
    return round(height_px * FULL_ROWS / FULL_HEIGHT)


def draw_info_bar(
    width_px: int, height_px: int, *, lines: tuple[str, str], note: str, pixel_nm: float
) -> NDArray[np.uint8]:
    """Draw the bar: grey levels, `bar_rows(height_px)` x `width_px`.

    `height_px` is that of the frame, bar included. The lines are those of instrument and specimen,
    the note is small print at the lower right, and `pixel_nm` sets the scale bar.
    """
    scale = min(height_px / FULL_HEIGHT, width_px / FULL_WIDTH)
    bar = Image.new("L", (width_px, bar_rows(height_px)), BLACK)
    draw = ImageDraw.Draw(bar)

    def write(text: str, x: float, y: float, size: float, anchor: str) -> None:
        font = ImageFont.load_default(max(size * scale, 6))
        draw.text((round(x), round(y * scale)), text, fill=WHITE, font=font, anchor=anchor)

    # Places and sizes in pixels of the full frame, read off the published bars.
    right = width_px - 25 * scale
    write(lines[0], 12 * scale, 54, 37, "ls")
    write(lines[1], 12 * scale, 95, 33, "ls")
    write(note, right, 121, 17, "rs")
    # The longest of at most 45 % of the field of view.
    field_nm = width_px * pixel_nm
    length_nm = next((n for n in LENGTHS_NM if n <= 0.45 * field_nm), LENGTHS_NM[-1])
    text = f"{length_nm / 1000:.2f}um" if length_nm >= 1000 else f"{length_nm}nm"
    write(text, right - 18 * scale, 54, 37, "rs")
    thickness = max(1, round(4 * scale))
    for tick in range(11):
        x = round(right - length_nm / pixel_nm * tick / 10)
        top = 0 if tick % 5 == 0 else round(6 * scale)
        draw.rectangle((x - thickness + 1, top, x, round(19 * scale)), fill=WHITE)
    return np.asarray(bar)
