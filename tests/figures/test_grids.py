import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from semforensics.figures.grids import fakes_beside_reals, grid_shape, image_grid, nearest_pairs


def noise(n: int, side: int, seed: int = 0) -> np.ndarray:
    """Images of noise: every resampling would show."""
    return np.random.default_rng(seed).integers(0, 256, (n, side, side), dtype=np.uint8)


def render(figure: Figure) -> np.ndarray:
    """Draw a figure into pixels."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]


def texts(figure: Figure) -> list[str]:
    """All texts of a figure."""
    return [text.get_text() for text in figure.findobj(Text)]


def contains(picture: np.ndarray, patch: np.ndarray, scale: int) -> bool:
    """Say whether a picture holds a grey patch, each of its pixels drawn as a square."""
    drawn = np.kron(patch, np.ones((scale, scale), np.uint8))
    grey = picture[..., 0]
    windows = np.lib.stride_tricks.sliding_window_view(grey, drawn.shape[1], axis=1)
    rows, columns = np.nonzero((windows == drawn[0]).all(axis=-1))
    height, width = drawn.shape
    return any(
        (picture[r : r + height, c : c + width] == drawn[..., None]).all()
        for r, c in zip(rows, columns, strict=True)
    )


@pytest.mark.parametrize(("side", "scale"), [(16, 8), (64, 2), (100, 1), (130, 1)])
def test_every_pixel_is_drawn_as_a_square(side, scale):
    """Images appear unaltered, in whole multiples of their size, at black to white."""
    images = noise(5, side)

    picture = render(image_grid(images, source="fastgan"))

    # The coloured frame covers the outermost pixels.
    assert all(contains(picture, image[2:-2, 2:-2], scale) for image in images)


def test_fakes_and_reals_stand_side_by_side():
    """Both grids are drawn, labelled, with the source."""
    fakes, reals = noise(4, 64, seed=1), noise(4, 64, seed=2)

    figure = fakes_beside_reals(fakes, reals, source="fastgan, simulated")

    picture = render(figure)
    middle = picture.shape[1] // 2
    assert all(contains(picture[:, :middle], image[2:-2, 2:-2], 2) for image in fakes)
    assert all(contains(picture[:, middle:], image[2:-2, 2:-2], 2) for image in reals)
    assert {"Fakes, unselected", "Reals, unselected", "fastgan, simulated"} <= set(texts(figure))


def test_nearest_pairs_keep_their_order():
    """Each fake stands before its real, under it both lines of its caption, long ones shortened."""
    fakes, reals = noise(7, 32, seed=1), noise(7, 32, seed=2)
    captions = [f"fake {i}\n{i}{'x' * 99}{i}" for i in range(7)]

    figure = nearest_pairs(fakes, reals, captions, source="fastgan")

    picture = render(figure)
    assert all(contains(picture, image[1:-1, 1:-1], 4) for image in (*fakes, *reals))
    places = [(-image.oy, image.ox) for image in figure.images]
    assert places == sorted(places)
    for index, (fake, real) in enumerate(zip(fakes, reals, strict=True)):
        pair = figure.images[2 * index : 2 * index + 2]
        assert (pair[0].get_array()[::4, ::4, 0] == fake).all()
        assert (pair[1].get_array()[::4, ::4, 0] == real).all()
    shown = [text for text in texts(figure) if text.startswith("fake ")]
    assert [text.split("\n")[0] for text in shown] == [f"fake {i}" for i in range(7)]
    assert all(len(text.split("\n")[1]) < 45 for text in shown)
    assert all(text.split("\n")[1][0] == text[-1] == str(i) for i, text in enumerate(shown))


@pytest.mark.parametrize("side", [16, 64, 128, 256, 512, 1024])
def test_grids_stay_within_a_page(side):
    """A full grid of any size is 700 to 3100 px wide and wider than high."""
    rows, columns = grid_shape(side)

    figure = image_grid(noise(rows * columns, side), source="fastgan")

    width, height = figure.get_size_inches() * figure.dpi
    assert 700 < width < 3200
    assert height < width
