"""Panels that show the same place are found however they are turned; other places are not."""

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from semforensics.acquire.simulated import draw_area, simulate_view
from semforensics.core.images import read_grey
from semforensics.params import SimulatedParams
from semforensics.screening.judge.reuse import MOST_PANELS, find_features, find_reuse
from semforensics.screening.records import Box, Grey, Reuse

TRANSFORMS = (
    "as it is", "turned by 90 degrees", "turned by 180 degrees", "turned by 270 degrees",
    "mirrored", "mirrored, then turned by 90 degrees", "mirrored, then turned by 180 degrees",
    "mirrored, then turned by 270 degrees",
)  # fmt: skip


def turn(grey: Grey, transform: int) -> Grey:
    """Mirror and turn a panel as `TRANSFORMS` says."""
    return np.rot90(grey[:, ::-1] if transform >= 4 else grey, transform % 4)


def view(area: int, magnification_k: int = 100) -> Grey:
    """A simulated micrograph of 512 x 448 px without its info bar."""
    params = SimulatedParams(
        num_areas=16,
        magnifications_k=(50, 100),
        width_px=512,
        height_px=512,
        ordered_share=0.75,
        compression="none",
    )
    return simulate_view(draw_area(params, area, seed=3), magnification_k, 512, 512)[:448]


@pytest.fixture(scope="module")
def micrograph() -> Grey:
    """What is copied."""
    return view(0)


def compare(*panels: Grey) -> list[Reuse]:
    """Compare panels named after their place in the list."""
    return find_reuse([((str(i), "", ""), panel) for i, panel in enumerate(panels)]).reuses


def jpeg(grey: Grey, quality: int) -> Grey:
    """Send a panel through JPEG."""
    file = BytesIO()
    Image.fromarray(np.ascontiguousarray(grey)).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def back(transform: int) -> int:
    """The transform that undoes another one: mirroring ones undo themselves."""
    return transform if transform >= 4 else -transform % 4


@pytest.mark.parametrize("transform", range(8))
def test_a_turned_part_is_found_where_it_was_cut(micrograph: Grey, transform: int) -> None:
    """Each flip and turn is named, and the overlap is exact to the pixel, at odd places too."""
    part = turn(micrograph[101:331, 57:398], transform)

    (reuse,) = compare(micrograph, part)

    assert (reuse.first[0], reuse.second[0]) == ("0", "1")
    assert reuse.transform == TRANSFORMS[back(transform)]
    assert reuse.overlap == Box(101, 57, 331, 398)
    assert reuse.correlation > 0.99


@pytest.mark.parametrize(("quality", "gamma"), [(95, 1.0), (50, 1.0), (75, 1.6), (75, 0.6)])
def test_jpeg_and_another_contrast_hide_nothing(
    micrograph: Grey, quality: int, gamma: float
) -> None:
    """Two fields of view that share a quarter are found after JPEG and a change of gamma."""
    other = micrograph[200:, 220:]
    other = jpeg((255 * (other / 255) ** gamma).astype(np.uint8), quality)

    (reuse,) = compare(micrograph[:340, :400], turn(other, 6))

    assert reuse.transform == TRANSFORMS[6]
    assert reuse.overlap == Box(200, 220, 340, 400)


def test_an_arrow_and_a_label_hide_nothing(micrograph: Grey) -> None:
    """A copy that was written on is found; the strength of agreement is that of most blocks."""
    copy = micrograph.copy()
    copy[:64, :96] = 255
    copy[200:240, 150:400] = 0

    (reuse,) = compare(micrograph, copy)

    assert reuse.overlap == Box(0, 0, 448, 512)
    assert reuse.correlation > 0.9


def test_other_areas_are_not_reuse() -> None:
    """Simulated views of different areas, and of one at two magnifications, are kept apart."""
    views = [view(area) for area in range(12)] + [view(0, 50)]

    assert compare(*views) == []


def test_a_shared_label_is_not_reuse() -> None:
    """The same scale bar and letters on different areas make no finding."""
    views = [view(area) for area in (1, 2, 3)]
    for panel in views:
        panel[380:420, 300:480] = 0
        for start in range(310, 470, 30):
            panel[390:412, start : start + 12] = 255

    assert compare(*views) == []


def test_real_micrographs_of_other_areas_are_not_reuse(shared: Path) -> None:
    """The 29 raw micrographs show different places, and none is said to be another."""
    folder = shared / "sem/boiko-pdc-partial"
    files = sorted([*folder.glob("original_with_bar/*/*"), *folder.glob("cropped_890/*/*")])

    reals = [read_grey(file)[:890:2, ::2] for file in files]

    assert len(reals) == 29
    assert compare(*reals) == []


def test_a_part_of_a_real_micrograph_is_found_among_others(shared: Path) -> None:
    """One mirrored part, after JPEG, among ten micrographs: one finding."""
    files = sorted((shared / "sem/boiko-pdc-partial/original_with_bar").glob("*/*.tif"))
    reals = [read_grey(file)[:890] for file in files]
    planted = jpeg(turn(reals[4][301:700, 401:900], 4), 75)

    (reuse,) = compare(*reals, planted)

    assert (reuse.first[0], reuse.second[0]) == ("4", str(len(reals)))
    assert (reuse.transform, reuse.overlap) == ("mirrored", Box(301, 401, 700, 900))


def lattice(kind: str, seed: int, period_px: int = 30) -> Grey:
    """A view of a structure that repeats, at a place and with noise of its own."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:384, :448] + rng.uniform(0, period_px, (2, 1, 1))
    angles = {"grating": [0.0], "squares": [0.0, np.pi / 2], "hexagons": [0, np.pi / 3, -np.pi / 3]}
    waves = [
        np.cos(2 * np.pi / period_px * (rows * np.cos(angle) + columns * np.sin(angle)))
        for angle in angles[kind]
    ]
    levels = 128 + 60 * np.mean(waves, axis=0) + rng.normal(0, 10, rows.shape)
    return levels.round().clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("kind", ["grating", "squares", "hexagons"])
def test_a_copy_of_a_lattice_is_told_from_other_views_of_it(kind: str) -> None:
    """Five views of one structure agree everywhere and are not listed; a turned copy is."""
    views = [lattice(kind, seed) for seed in range(5)]

    views.append(jpeg(turn(views[3], 1), 75))
    comparison = find_reuse([((str(i), "", ""), panel) for i, panel in enumerate(views)])

    (reuse,) = comparison.reuses
    assert (reuse.first[0], reuse.second[0], reuse.transform) == ("3", "5", TRANSFORMS[3])


def test_views_of_a_lattice_are_counted_where_they_cannot_be_told_apart() -> None:
    """Two views that agree at many places are not listed, and the report says so."""
    views = [lattice("squares", seed, period_px=60) for seed in range(2)]

    comparison = find_reuse([((str(i), "", ""), panel) for i, panel in enumerate(views)])

    assert comparison.reuses == []
    assert comparison.n_recurring == 1
    assert "1 pairs of a recurring structure" in comparison.note()


def resized(grey: Grey, scale: float) -> Grey:
    """A panel at another size."""
    size = round(grey.shape[1] * scale), round(grey.shape[0] * scale)
    return np.asarray(Image.fromarray(grey).resize(size, Image.Resampling.BICUBIC))


@pytest.mark.parametrize("scale", [0.7, 0.85, 1.2, 1.4])
def test_a_resized_part_is_found(micrograph: Grey, scale: float) -> None:
    """A part that was resized, mirrored and saved as JPEG is found with its scale."""
    part = jpeg(turn(resized(micrograph[90:390, 100:400], scale), 5), 75)

    (reuse,) = compare(micrograph, part)

    assert reuse.transform == TRANSFORMS[5]
    assert reuse.scale == pytest.approx(1 / scale, rel=0.01)
    box = reuse.overlap
    assert (
        np.abs(np.array([box.top, box.left, box.bottom, box.right]) - [90, 100, 390, 400]).max()
        <= 3
    )


def test_a_part_turned_by_any_angle_is_found(micrograph: Grey) -> None:
    """The angle is said in whole degrees, anticlockwise from the second panel to the first."""
    turned = np.asarray(Image.fromarray(micrograph).rotate(-20, Image.Resampling.BICUBIC))

    (reuse,) = compare(micrograph, turned[100:350, 120:400])

    assert reuse.transform == "turned by 20 degrees"
    assert reuse.scale == pytest.approx(1, abs=0.01)


def test_of_many_lattices_only_some_are_looked_at() -> None:
    """Pairs left out are counted, and a copy among them is found all the same."""
    views = [lattice("squares", seed)[:200, :220] for seed in range(13)]

    comparison = find_reuse(
        [((str(i), "", ""), panel) for i, panel in enumerate([*views, views[0]])]
    )

    assert [(one.first[0], one.second[0]) for one in comparison.reuses] == [("0", "13")]
    assert comparison.n_unseen > 0
    assert f"{comparison.n_unseen} pairs not looked at" in comparison.note()


def test_a_stack_of_frames_is_listed_once(micrograph: Grey) -> None:
    """Each frame is listed with the first one that shows its place, not with all others."""
    rng = np.random.default_rng(0)
    frames = [
        (micrograph[:300, :400] + rng.normal(0, 4, (300, 400))).round().clip(0, 255)
        for _ in range(5)
    ]
    panels = [frame.astype(np.uint8) for frame in frames]

    assert [(one.first[0], one.second[0]) for one in compare(*panels)] == [
        ("0", str(second)) for second in range(1, 5)
    ]


def test_flat_and_tiny_panels_have_no_landmarks() -> None:
    """Constant panels are not each other's copies, nor are panels of a few pixels."""
    flat, tiny = np.full((300, 300), 90, np.uint8), np.arange(64, dtype=np.uint8).reshape(8, 8)

    assert len(find_features(flat, 100).places) == 0
    assert compare(flat, flat.copy(), tiny, tiny.copy()) == []


def test_too_many_panels_are_refused() -> None:
    """The number of panels is bounded; the message names both numbers."""
    panel = np.zeros((8, 8), np.uint8)

    with pytest.raises(ValueError, match=f"{MOST_PANELS + 1} panels.*at most {MOST_PANELS}"):
        find_reuse([(("a", "", ""), panel)] * (MOST_PANELS + 1))


def test_what_a_change_of_tone_made_dark_is_no_print(micrograph: Grey) -> None:
    """Features are found all over a darkened panel; a black area as large holds none."""
    dark = (micrograph * (12 / micrograph.max())).round().astype(np.uint8)
    black = micrograph.copy()
    black[:, 256:] = 0

    assert (dark < 5).mean() > 0.25
    assert len(find_features(dark, 500).places) > 100
    assert find_features(black, 500).places[:, 0].max() < 256
