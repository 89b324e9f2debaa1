"""What a micrograph goes through on its way into a document and out again."""

import io

import numpy as np
import pypdfium2
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont
from pypdfium2.raw import FPDF_PAGEOBJ_IMAGE

Grey = UInt8[np.ndarray, "height width"]
NewGrey = UInt8[np.ndarray, "new_height new_width"]

FRAME_PX = 1280
"""Width of a whole frame of the instrument (Hitachi SU8000), of which an image is a part."""
FIGURE_MM = 170
"""Width at which a document shows a whole frame: a page's text."""
PDF_QUALITY = 80
"""Of the JPEG inside the PDF (filter DCTDecode)."""
_MARGIN_PX = 13  # of paper around the image; no multiple of 8, so the JPEG's blocks cross its edges
_PAPER = 255


def through_pdf(image: Grey, dpi: int) -> NewGrey:
    """Place an image in a figure, save the figure as PDF, extract and cut out the image.

    A whole frame of 1280 px is shown 170 mm wide; its part is resampled (bicubic) as the figure's
    resolution asks: to 0.78 times its size at 150 dpi, 1.57 times at 300 dpi.

    Args:
        image: Grey levels 0 … 255, part of a frame at native resolution.
        dpi: Of the figure, in pixels per inch.
    """
    factor = FIGURE_MM / 25.4 * dpi / FRAME_PX
    height, width = (round(side * factor) for side in image.shape)
    placed = Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC)
    figure = Image.new("L", (width + 2 * _MARGIN_PX, height + 2 * _MARGIN_PX), _PAPER)
    figure.paste(placed, (_MARGIN_PX, _MARGIN_PX))

    pdf = io.BytesIO()
    figure.save(pdf, "PDF", resolution=dpi, quality=PDF_QUALITY)
    extracted = _extract_image(pdf.getvalue())
    return extracted[_MARGIN_PX : _MARGIN_PX + height, _MARGIN_PX : _MARGIN_PX + width]


def _extract_image(pdf: bytes) -> Grey:
    """Decode the only image on the first page of a PDF, at the resolution it is stored in."""
    document = pypdfium2.PdfDocument(pdf)
    try:
        (image,) = document[0].get_objects(filter=[FPDF_PAGEOBJ_IMAGE])
        pixels = image.get_bitmap(render=False).to_numpy()
        # a copy: the bitmap's memory goes with the document
        return np.array(pixels[..., 0] if pixels.ndim == 3 else pixels)
    finally:
        document.close()


def screenshot(image: Grey, zoom: float) -> NewGrey:
    """Enlarge an image as a screen does (bilinear); a screenshot is stored without loss."""
    height, width = (round(side * zoom) for side in image.shape)
    return np.array(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))


def annotate(image: Grey) -> Grey:
    """Draw a scale bar with its length at the lower right, and a panel letter at the upper left.

    Both are white on black and hide less than a tenth of the image.
    """
    height, width = image.shape
    canvas = Image.fromarray(image)
    draw = ImageDraw.Draw(canvas)
    size_px = max(8, height // 14)
    font = ImageFont.load_default(size_px)
    edge = max(2, width // 32)
    right, bottom = width - 1 - edge, height - 1 - edge
    thick = max(2, height // 40)
    draw.rectangle((right - width // 4, bottom - thick, right, bottom), fill=255, outline=0)
    above_bar = (right - width // 8, bottom - thick - 2)
    draw.text(above_bar, "200 nm", fill=255, font=font, anchor="ms", stroke_width=1, stroke_fill=0)
    draw.rectangle((edge, edge, edge + 2 * size_px, edge + size_px + 2), fill=0)
    draw.text((edge + size_px, edge + 1), "(a)", fill=255, font=font, anchor="ma")
    return np.array(canvas)
