"""Figures on disk."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from semforensics.figures.style import save_figure


def _picture_with_marks() -> tuple[Figure, np.ndarray]:
    """Make noise of all grey levels, a pixel of it a pixel of the figure, with two small marks."""
    side = 400
    levels = np.random.default_rng(3).integers(0, 256, (side, side), dtype=np.uint8)
    levels[:4, :4] = 0
    picture = np.repeat(levels[:, :, None], 3, axis=2)
    picture[0, 0] = 255, 0, 0
    picture[2, 2] = 0, 0, 255
    figure = Figure(figsize=(4, 4), dpi=100)
    figure.add_axes((0, 0, 1, 1)).set_axis_off()
    figure.axes[0].imshow(picture, interpolation="none")
    return figure, picture


def test_a_saved_figure_keeps_every_grey_level_and_every_rare_colour(tmp_path: Path) -> None:
    """One red and one blue pixel among 160,000 grey ones are not given up for them."""
    figure, picture = _picture_with_marks()
    save_figure(figure, tmp_path / "small.png", dpi=100)
    with Image.open(tmp_path / "small.png") as image:
        assert image.mode == "P"
        saved = np.asarray(image.convert("RGB"))
    assert np.abs(saved.astype(int) - picture).max() <= 15
    assert np.abs(saved.astype(int) - picture).mean() < 1
    figure.savefig(tmp_path / "whole.png", dpi=100)
    assert (tmp_path / "small.png").stat().st_size < 0.7 * (tmp_path / "whole.png").stat().st_size


def test_the_same_figure_is_the_same_file(tmp_path: Path) -> None:
    """Whenever it is drawn."""
    for name in ("first.png", "second.png"):
        save_figure(_picture_with_marks()[0], tmp_path / name)
    assert (tmp_path / "first.png").read_bytes() == (tmp_path / "second.png").read_bytes()


def test_dithering_leaves_no_steps_in_a_smooth_map(tmp_path: Path) -> None:
    """Means over 8 x 8 pixels are those of the figure, where the nearest colours alone are off."""
    side = 400
    across, down = np.meshgrid(np.linspace(0, 1, side), np.linspace(0, 1, side))
    ramps = np.stack([across, down, 1 - across * down], axis=2)
    ramps[:40] = np.round(across[:40, :, None] * 255) / 255  # a picture beside the map
    figure = Figure(figsize=(4, 4), dpi=100)
    figure.add_axes((0, 0, 1, 1)).set_axis_off()
    figure.axes[0].imshow(ramps, interpolation="none")

    errors = []
    for dither in (False, True):
        save_figure(figure, tmp_path / "map.png", dpi=100, dither=dither)
        with Image.open(tmp_path / "map.png") as image:
            off = np.asarray(image.convert("RGB")) / 255 - ramps
        grey = np.abs(off[:40]).max() * 255
        white = np.abs(off[:40, -1]).max()
        errors.append(np.abs(off.reshape(50, 8, 50, 8, 3).mean(axis=(1, 3))).mean() * 255)

    assert white == 0
    assert grey < 6
    assert errors[1] < 1
    assert errors[0] > 3 * errors[1]
