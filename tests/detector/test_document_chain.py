"""An image comes out of a document as a reader would get it."""

import io

import numpy as np
import pytest
from PIL import Image

from semforensics.detector.document_chain import (
    annotate,
    screenshot,
    through_pdf,
)


def textured(size: int = 128) -> np.ndarray:
    """Smooth waves with some noise."""
    y, x = np.mgrid[:size, :size]
    rng = np.random.default_rng(0)
    levels = 120 + 40 * np.sin(x / 9) * np.cos(y / 13) + rng.normal(0, 5, (size, size))
    return levels.round().clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize(("dpi", "side"), [(150, 100), (300, 201)])
def test_a_figure_is_resampled_to_its_resolution(dpi: int, side: int) -> None:
    """170 mm at 150 dpi are 1004 px for a frame of 1280: 0.78 of the size; twice that at 300."""
    image = textured()

    result = through_pdf(image, dpi)

    assert result.shape == (side, side)
    placed = np.array(Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC))
    error = result.astype(float) - placed
    # As far off as the same JPEG by itself, but for the place of its blocks.
    buffer = io.BytesIO()
    Image.fromarray(placed).save(buffer, "JPEG", quality=80)
    alone = np.array(Image.open(buffer)).astype(float) - placed
    assert error.std() == pytest.approx(alone.std(), rel=0.15)
    assert abs(error.mean()) < 0.3
    assert error.std() > 0.5


def test_no_paper_is_left_around_the_image() -> None:
    """The cut-out of a dark image is dark up to its edges; JPEG rings only a little there."""
    result = through_pdf(np.full((128, 128), 20, dtype=np.uint8), 150)

    assert result.max() < 60
    assert np.median(result) == 20


def test_a_screenshot_is_larger_and_lossless() -> None:
    """x1.25 by bilinear interpolation, nothing else: a slope stays one."""
    slope = np.arange(0, 128, dtype=np.uint8)[None].repeat(64, axis=0)

    shown = screenshot(slope, 1.25)

    assert shown.shape == (80, 160)
    inside = np.arange(4, 156)
    assert np.abs(shown[0, inside] - ((inside + 0.5) / 1.25 - 0.5)).max() <= 0.5


@pytest.mark.parametrize("size", [64, 128, 512])
def test_annotations_stand_in_two_corners(size: int) -> None:
    """Bar and letter touch the lower right and the upper left quarter, a tenth of the image."""
    image = np.full((size, size), 90, dtype=np.uint8)

    changed = annotate(image) != image

    half = size // 2
    assert changed[:half, :half].any()
    assert changed[half:, half:].any()
    assert not changed[half:, :half].any()
    assert not changed[: half // 2, half:].any()
    assert changed.mean() < 0.15
