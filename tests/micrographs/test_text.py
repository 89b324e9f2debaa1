"""What is drawn into a micrograph is found, and nothing of the micrograph itself."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image, ImageDraw, ImageFont

from semforensics.acquire.simulated import draw_area, simulate_view
from semforensics.core.images import read_grey
from semforensics.micrographs.drawn import MARGIN_PX
from semforensics.micrographs.text import Drawn, find_drawn
from semforensics.params import read_params
from tests.micrographs.drawing import as_jpeg, draw_bar, draw_scene, to_grey

seeds = st.integers(0, 2**32 - 1)
Draw = Callable[[ImageDraw.ImageDraw], None]


def draw_on(scene: np.ndarray, draw: Draw) -> tuple[np.ndarray, np.ndarray]:
    """The scene with something drawn into it, and which pixels that changed by much."""
    image = Image.fromarray(scene)
    draw(ImageDraw.Draw(image))
    drawn = np.array(image)
    return drawn, np.abs(drawn.astype(int) - scene) >= 60


def found_share(drawn: Drawn, changed: np.ndarray) -> float:
    """Share of the drawn pixels that are masked."""
    return float(drawn.mask[changed].mean())


def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's built-in font."""
    return ImageFont.load_default(size)


def scale_bar(draw: ImageDraw.ImageDraw) -> None:
    """A white scale bar and its length above it."""
    draw.rectangle((350, 440, 549, 445), fill=255)
    draw.text((410, 405), "500 nm", fill=255, font=font(28))


def black_text(draw: ImageDraw.ImageDraw) -> None:
    """A black label."""
    draw.text((420, 400), "200 um", fill=0, font=font(26))


def panel_letter(draw: ImageDraw.ImageDraw) -> None:
    """A white panel letter in the upper left corner."""
    draw.text((14, 8), "(a)", fill=255, font=font(40))


def legend(draw: ImageDraw.ImageDraw) -> None:
    """Black text in a white box."""
    draw.rectangle((430, 380, 589, 439), fill=255)
    draw.text((450, 390), "1 um", fill=0, font=font(30))


def frame(draw: ImageDraw.ImageDraw) -> None:
    """A white frame around a part of the image."""
    draw.rectangle((100, 100, 299, 279), outline=255, width=3)


def arrow(draw: ImageDraw.ImageDraw) -> None:
    """A white arrow."""
    draw.line((300, 200, 360, 200), fill=255, width=7)
    draw.polygon([(360, 185), (390, 200), (360, 215)], fill=255)


def ruler(draw: ImageDraw.ImageDraw) -> None:
    """Text over the image and a ruler of ticks, as on a Hitachi without a bar."""
    draw.text((10, 450), "10.0kV 14.4mm x1.00k SE(M)", fill=255, font=font(22))
    for left in range(380, 630, 24):
        draw.rectangle((left, 440, left + 2, 452), fill=255)


@pytest.mark.parametrize("quality", [None, 90])
@pytest.mark.parametrize("draw", [scale_bar, black_text, panel_letter, legend, arrow, ruler])
def test_masks_what_is_drawn(draw: Draw, quality: int | None) -> None:
    """Text, scale bars, legends, arrows and rulers are masked, in lossless and JPEG files."""
    scene = draw_scene(1, 480, 640, noise=8)

    image, changed = draw_on(scene, draw)
    drawn = find_drawn(image if quality is None else as_jpeg(image, quality))

    assert found_share(drawn, changed) >= 0.97
    y, x = np.nonzero(changed)
    near = np.zeros_like(changed)
    near[max(y.min() - 4 * MARGIN_PX, 0) : y.max() + 4 * MARGIN_PX] = True
    near[:, : max(x.min() - 4 * MARGIN_PX, 0)] = False
    near[:, x.max() + 4 * MARGIN_PX :] = False
    assert not drawn.mask[~near].any()
    assert drawn.info_bar is None


def test_of_a_frame_only_the_outline_is_masked() -> None:
    """What a drawn frame surrounds is still image."""
    image, changed = draw_on(draw_scene(2, 480, 640, noise=8), frame)

    drawn = find_drawn(image)

    assert found_share(drawn, changed) == 1
    assert not drawn.mask[130:250, 130:270].any()
    assert [box.kind for box in drawn.boxes] == ["line"]


def test_a_scale_bar_has_its_box() -> None:
    """The box of a scale bar is exact and of its own kind."""
    image, _ = draw_on(draw_scene(3, 480, 640, noise=8), scale_bar)

    drawn = find_drawn(image)

    assert ("line", 440, 350, 446, 550) in [tuple(box) for box in drawn.boxes]


def test_a_scale_bar_leaves_most_of_the_image() -> None:
    """Of a frame of 1280x890 with a bar of 600x6 px and text, more than 90 % remain."""
    scene = draw_scene(4, 890, 1280)
    image, changed = draw_on(
        scene,
        lambda draw: (
            draw.rectangle((600, 800, 1199, 805), fill=255),
            draw.text((850, 760), "500 nm", fill=255, font=font(30)),
        )[0],
    )

    drawn = find_drawn(image)

    assert found_share(drawn, changed) == 1
    assert drawn.mask.mean() < 0.05
    assert drawn.info_bar is None


@settings(max_examples=15)
@given(seeds, st.sampled_from([0, 40, 255]), st.booleans())
def test_finds_info_bars_at_both_edges(seed: int, background: int, at_top: bool) -> None:
    """Black, dark grey and white bars are found exactly, at the bottom and at the top."""
    scene, bar = draw_scene(seed, 400, 640, level=110), draw_bar(48, 640, background)

    drawn = find_drawn(np.vstack([bar, scene] if at_top else [scene, bar]))

    assert drawn.info_bar == ((0, 47) if at_top else (400, 447))
    assert drawn.mask[slice(0, 48) if at_top else slice(400, 448)].all()


def test_finds_bars_of_cells() -> None:
    """A bar of cells in two grey levels below a white line, as FEI and Tescan draw, is found."""
    bar = draw_bar(60, 640, 30).copy()
    bar[30:, 320:] = np.where(bar[30:, 320:] == 30, 70, bar[30:, 320:])
    bar[[0, 29, 30]] = 255
    bar[:, ::80] = 255

    drawn = find_drawn(np.vstack([draw_scene(5, 420, 640), bar]))

    assert drawn.info_bar == (420, 479)


@settings(max_examples=25)
@given(seeds, st.integers(30, 220), st.floats(4, 30), st.sampled_from([None, 60, 90]))
def test_nothing_is_drawn_into_a_plain_scene(
    seed: int, level: int, noise: float, quality: int | None
) -> None:
    """Specks, noise, clipping and JPEG are no text: at most 1 % of an image is masked."""
    scene = draw_scene(seed, 256, 384, level, noise)

    drawn = find_drawn(scene if quality is None else as_jpeg(scene, quality))

    assert drawn.mask.mean() <= 0.01
    assert drawn.info_bar is None


@pytest.mark.parametrize("magnification", [50, 100, 200])
def test_simulated_micrographs_hold_no_text(root: Path, magnification: int) -> None:
    """What the simulator draws is found at its bar alone, so all of the demo's crops are kept."""
    params = read_params(root / "presets/demo.yaml").acquire.simulated
    height, width = params.height_px, params.width_px
    for number in range(2):
        area = draw_area(params, number, seed=0)

        drawn = find_drawn(simulate_view(area, magnification, width, height))

        assert [box.kind for box in drawn.boxes] == ["bar"]


@settings(max_examples=15)
@given(seeds)
def test_saturated_particles_are_no_text(seed: int) -> None:
    """Bright particles clipped to white, with the soft edges of a beam, are not masked."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:300, :400]
    scene = np.full(y.shape, 70.0)
    for _ in range(25):
        distance = np.hypot(y - rng.integers(300), x - rng.integers(400))
        scene = np.maximum(scene, 330 - 260 / (1 + np.exp(-(distance - rng.uniform(6, 25)) / 2)))

    drawn = find_drawn(to_grey(scene + rng.normal(0, 6, scene.shape)))

    assert drawn.mask.mean() <= 0.01


@settings(max_examples=50)
@given(arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=40)))
def test_any_image_has_an_answer(grey: np.ndarray) -> None:
    """Images down to one pixel have a mask of their size, and boxes inside of it."""
    drawn = find_drawn(grey)

    assert drawn.mask.shape == grey.shape
    for box in drawn.boxes:
        assert box.top >= 0
        assert box.left >= 0
        assert box.bottom <= grey.shape[0]
        assert box.right <= grey.shape[1]


@pytest.mark.parametrize("level", [0, 77, 255])
def test_nothing_is_drawn_into_a_constant_image(level: int) -> None:
    """One grey level holds no text."""
    drawn = find_drawn(np.full((200, 300), level, dtype=np.uint8))

    assert drawn.boxes == ()
    assert not drawn.mask.any()


@pytest.mark.parametrize(
    ("pattern", "count", "row"),
    [
        ("kier_fei_thermo/meta2jpg/_SEM/[!1]*.tif", 2, 1024),
        ("kier_fei_thermo/meta2jpg/_SEM/1_1.tif", 1, 442),
        ("hitachi_tm4000_sidecar/*.tif", 3, 901),
        ("soot_fei_rgba/*.tif", 1, 884),
        ("bam_tio2_zeiss/*.tif", 8, 712),
        ("pyxelr_am_zeiss/*.tif", 2, 691),
        ("boiko-pdc-partial/original_with_bar/*/1-*.tif", 1, 890),
        ("bai2022-nanocomposite/images_with_bar/10*1.jpg", 1, 960),
    ],
)
def test_info_bars_of_real_micrographs(shared: Path, pattern: str, count: int, row: int) -> None:
    """The info bars of FEI, Hitachi, Zeiss and JEOL begin at their known rows."""
    images = [read_grey(path) for path in sorted((shared / "sem").glob(pattern))]

    bars = [find_drawn(image).info_bar for image in images]

    assert bars == [(row, len(image) - 1) for image in images]
    assert len(bars) == count


def test_text_over_real_micrographs(shared: Path) -> None:
    """Text that a Hitachi writes over the image is masked; most of the image is not."""
    paths = sorted((shared / "sem" / "wood_hitachi_palette").glob("*.tif"))

    for image in map(read_grey, paths):
        drawn = find_drawn(image)
        assert drawn.info_bar is None
        assert drawn.mask[920:955, 10:400].mean() >= 0.9
        assert drawn.mask[:880].mean() <= 0.01
    assert len(paths) == 6


@pytest.mark.parametrize(
    "pattern",
    ["boiko-pdc-partial/cropped_890/*/*.tif", "nasa_ebc/*/*/*.tif", "gsc_shale_tiles/*/*.tif"],
)
def test_real_micrographs_without_text_are_left_alone(shared: Path, pattern: str) -> None:
    """Less than 1 % of the 128 px tiles of clean micrographs hold a masked pixel."""
    masked = []
    for path in sorted((shared / "sem").glob(pattern)):
        mask = find_drawn(read_grey(path)).mask
        rows, columns = mask.shape[0] // 128, mask.shape[1] // 128
        tiles = mask[: rows * 128, : columns * 128].reshape(rows, 128, columns, 128)
        masked += list(tiles.any(axis=(1, 3)).ravel())

    assert len(masked) > 0
    assert np.mean(masked) < 0.01
