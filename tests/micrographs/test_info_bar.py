"""Where the info bar begins: on real micrographs, and on drawn ones of every kind."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from semforensics.acquire.simulated import draw_area, simulate_view
from semforensics.core.images import read_grey
from semforensics.micrographs.info_bar import UnsureError, find_info_bar
from semforensics.params import SimulatedParams
from tests.micrographs.drawing import as_jpeg, draw_bar, draw_scene, to_grey

seeds = st.integers(0, 2**32 - 1)
quick = settings(max_examples=25)
bar_rows = st.integers(16, 48)
backgrounds = st.one_of(st.sampled_from([0, 255]), st.integers(0, 255))


def with_bar(scene: np.ndarray, rows: int, background: int = 0) -> np.ndarray:
    """A scene with a drawn bar below."""
    return np.vstack([scene, draw_bar(rows, scene.shape[1], background)])


@pytest.mark.parametrize(
    ("pattern", "count", "row"),
    [
        ("boiko-pdc-partial/original_with_bar/*/*.tif", 10, 890),
        ("boiko-pdc-partial/jpeg_with_bar/*/*.jpg", 1, 890),
        ("bai2022-nanocomposite/images_with_bar/*.jpg", 27, 960),
        ("boiko-pdc-partial/cropped_890/*/*.tif", 19, None),
        ("boiko-pdc-partial/denoised_890/*/*.tif", 12, None),
    ],
)
def test_finds_the_bar_of_real_micrographs(
    shared: Path, pattern: str, count: int, row: int | None
) -> None:
    """Every real micrograph of two instruments is cut at its known row, or not at all."""
    paths = sorted((shared / "sem").glob(pattern))

    found = {path.name: find_info_bar(read_grey(path)) for path in paths}

    assert len(found) == count
    assert set(found.values()) == {row}


@pytest.mark.parametrize(("width", "height"), [(1280, 1024), (480, 384), (256, 208), (160, 128)])
def test_finds_the_bar_of_simulated_micrographs(width: int, height: int) -> None:
    """Simulated frames are cut where their bar was put, at every magnification and frame size."""
    params = SimulatedParams(
        num_areas=3,
        magnifications_k=(50, 100, 200),
        width_px=width,
        height_px=height,
        ordered_share=0.5,
        compression="none",
    )
    areas = [draw_area(params, index, seed=4) for index in (0, 2)]

    found = [
        find_info_bar(simulate_view(area, magnification, width, height))
        for area in areas
        for magnification in params.magnifications_k
    ]

    assert found == [height - round(height * 134 / 1024)] * 6


@quick
@given(seeds, bar_rows, backgrounds, st.integers(10, 200))
def test_finds_bars_of_any_height_and_background(
    seed: int, rows: int, background: int, level: int
) -> None:
    """The first row is exact whatever the grey levels of bar and image, if they differ."""
    assume(abs(background - level) >= 40)
    frame = with_bar(draw_scene(seed, level=level), rows, background)

    assert find_info_bar(frame) == 160


@quick
@given(seeds, bar_rows, backgrounds, st.integers(80, 95))
def test_finds_bars_in_jpeg_files(seed: int, rows: int, background: int, quality: int) -> None:
    """JPEG of usual quality moves no bar: it is found exactly, or refused."""
    frame = as_jpeg(with_bar(draw_scene(seed), rows, background), quality)

    try:
        found = find_info_bar(frame)
    except UnsureError:
        return
    assert found == 160


@quick
@given(seeds, bar_rows, st.floats(0.5, 3))
def test_finds_bars_under_noise(seed: int, rows: int, sigma: float) -> None:
    """Noise of a few grey levels over the whole frame, bar included, changes nothing."""
    frame = with_bar(draw_scene(seed), rows, background=128)
    noise = np.random.default_rng(seed).normal(0, sigma, frame.shape)

    assert find_info_bar(to_grey(frame + noise)) == 160


@quick
@given(seeds, bar_rows)
def test_mirrored_frames_have_the_same_bar(seed: int, rows: int) -> None:
    """A flip from left to right moves nothing; a bar at the top is refused, not left in."""
    frame = with_bar(draw_scene(seed), rows)

    assert find_info_bar(frame[:, ::-1]) == 160
    with pytest.raises(UnsureError, match="top edge"):
        find_info_bar(frame[::-1])


@quick
@given(seeds, st.integers(5, 240), st.floats(3, 30))
@example(seed=0, level=5, noise=30)  # 43 % of it are clipped to black
def test_finds_no_bar_where_there_is_none(seed: int, level: int, noise: float) -> None:
    """Dark, bright, clipped and noisy images have no bar, up to half of one grey level."""
    scene = draw_scene(seed, level=level, noise=noise)
    assume(np.bincount(scene.ravel()).max() < 0.45 * scene.size)

    assert find_info_bar(scene) is None


def test_refuses_an_image_half_of_which_is_clipped() -> None:
    """Where half of the image is as white as a bar could be, no bar could stand out."""
    scene = draw_scene(0, level=218, noise=24.0)

    with pytest.raises(UnsureError, match="most of the image is of one grey level, 255"):
        find_info_bar(scene)


@quick
@given(seeds, st.integers(5, 240), st.floats(0, 30), st.integers(30, 95))
def test_cuts_nothing_off_images_without_bar(
    seed: int, level: int, noise: float, quality: int
) -> None:
    """However flat or compressed an image is, no row of it is taken for a bar."""
    scene = as_jpeg(draw_scene(seed, level=level, noise=noise), quality)

    try:
        found = find_info_bar(scene)
    except UnsureError:
        return
    assert found is None


@quick
@given(seeds, st.integers(0, 60))
def test_dark_bottoms_are_no_bars(seed: int, brightness: int) -> None:
    """An image that darkens gradually towards the bottom has no bar."""
    fade = np.linspace(1, brightness / 100, 160)[:, None]
    noise = np.random.default_rng(seed).normal(0, 8, (160, 240))

    scene = to_grey(draw_scene(seed, level=120, noise=0) * fade + noise)

    assert find_info_bar(scene) is None


@settings(max_examples=100)
@given(seeds, bar_rows, backgrounds, st.floats(0.1, 1.5), st.integers(-60, 60), st.integers(40, 95))
def test_never_cuts_at_a_wrong_row(
    seed: int, rows: int, background: int, gain: float, offset: int, quality: int
) -> None:
    """Whatever is done to the image, the bar is found exactly or the frame is refused."""
    scene = to_grey(draw_scene(seed) * gain + offset)
    frame = as_jpeg(with_bar(scene, rows, background), quality)

    try:
        found = find_info_bar(frame)
    except UnsureError:
        return
    assert found == 160


@pytest.mark.parametrize(("height", "width"), [(1024, 1280), (384, 480), (256, 320), (128, 160)])
def test_finds_bars_of_frames_of_any_size(height: int, width: int) -> None:
    """Bars in the proportion of the Hitachi SU8000's, 134 of 1024 rows, are found at every size."""
    rows = round(height * 134 / 1024)

    frame = with_bar(draw_scene(1, height - rows, width), rows)

    assert find_info_bar(frame) == height - rows


@quick
@given(arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=20)))
def test_tiny_images_have_no_bar(grey: np.ndarray) -> None:
    """An image of a few rows, down to a single pixel, has no bar or is refused."""
    try:
        found = find_info_bar(grey)
    except UnsureError:
        return
    assert found is None


@pytest.mark.parametrize("line_rows", [1, 2, 3])
def test_a_line_along_the_upper_edge_belongs_to_the_bar(line_rows: int) -> None:
    """A white line between image and bar is cut off with it."""
    line = np.full((line_rows, 240), 255, dtype=np.uint8)

    frame = np.vstack([draw_scene(2), line, draw_bar(30, 240)])

    assert find_info_bar(frame) == 160


def test_separators_and_boxes_belong_to_the_bar() -> None:
    """Vertical lines and an inverted field inside the bar do not disturb."""
    bar = draw_bar(30, 240).copy()
    bar[:, ::60] = 255
    bar[6:24, 150:200] = 200

    assert find_info_bar(np.vstack([draw_scene(3), bar])) == 160


def test_an_inset_bar_is_cut_at_four_to_three() -> None:
    """Where image shows below the bar and the frame has room for one beyond 4:3, all of it goes."""
    scene = draw_scene(4, height=512, width=640)  # 640x480 and 32 rows
    scene[483:511] = draw_bar(28, 640)

    assert find_info_bar(scene) == 480


def test_an_inset_bar_elsewhere_is_cut_at_its_first_row() -> None:
    """Where the frame above an inset bar is not 4:3, the cut is at the bar itself."""
    scene = draw_scene(4, height=500, width=640)
    scene[471:499] = draw_bar(28, 640)

    assert find_info_bar(scene) == 471


def blank_strip() -> np.ndarray:
    """A strip without text."""
    return np.vstack([draw_scene(5), np.zeros((24, 240), dtype=np.uint8)])


def aborted_scan() -> np.ndarray:
    """A scan that ended half-way: the rest of the frame is black."""
    return np.vstack([draw_scene(5, height=80), np.zeros((80, 240), dtype=np.uint8)])


def thin_strip() -> np.ndarray:
    """A few rows of one level at the bottom."""
    return np.vstack([draw_scene(5), np.zeros((4, 240), dtype=np.uint8)])


def black_image_with_bar() -> np.ndarray:
    """An image that is clipped to black almost everywhere, above a black bar."""
    return with_bar(to_grey(draw_scene(5) * 1.0 - 110), 30)


def uniform_image() -> np.ndarray:
    """One grey level."""
    return np.full((160, 240), 77, dtype=np.uint8)


@pytest.mark.parametrize(
    "frame",
    [blank_strip, aborted_scan, thin_strip, black_image_with_bar, uniform_image],
    ids=lambda f: f.__name__,
)
def test_refuses_when_unsure(frame) -> None:
    """What has only some marks of a bar is refused, and the message names the way out."""
    with pytest.raises(UnsureError, match=r"unsure of the info bar: .+; set crop\.info_bar"):
        find_info_bar(frame())
