"""Small micrographs and info bars, drawn for the tests."""

import io

import numpy as np
from PIL import Image, ImageDraw, ImageFont


def draw_scene(
    seed: int, height: int = 160, width: int = 240, level: float = 90, noise: float = 12
) -> np.ndarray:
    """Bright specks on a shaded, noisy ground, as 8-bit grey."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    scene = level * (1 + 0.3 * np.sin(x / width * 3 + seed) * np.cos(y / height * 2))
    for _ in range(height * width // 800):
        top, left = rng.integers(height - 4), rng.integers(width - 4)
        scene[top : top + rng.integers(2, 5), left : left + rng.integers(2, 5)] += rng.uniform(
            30, 120
        )
    return to_grey(scene + rng.normal(0, noise, scene.shape))


def draw_bar(height: int, width: int, background: int = 0) -> np.ndarray:
    """Text lines and the ticks of a scale bar on one grey level."""
    ink = 255 if background < 128 else 0
    bar = Image.new("L", (width, height), background)
    draw = ImageDraw.Draw(bar)
    font = ImageFont.load_default(max(7, height // 4))
    for top in range(3, height - height // 4, max(8, height // 3)):
        draw.text((4, top), "SU8000 20.0kV 9.6mm x50.0k SE(U)", fill=ink, font=font)
    for left in range(width * 2 // 3, width - 4, width // 30):
        draw.line([(left, 0), (left, height // 12)], fill=ink)
    return np.asarray(bar)


def to_grey(image: np.ndarray) -> np.ndarray:
    """Round and clip to 8-bit grey."""
    return image.round().clip(0, 255).astype(np.uint8)


def as_jpeg(grey: np.ndarray, quality: int) -> np.ndarray:
    """Send an image through JPEG."""
    stream = io.BytesIO()
    Image.fromarray(grey).save(stream, "JPEG", quality=quality)
    return np.asarray(Image.open(stream))
