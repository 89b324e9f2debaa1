"""Every cell of the grid does what its name says, image by image."""

from collections import Counter

import numpy as np
import pytest

from semforensics.core.processing import jpeg
from semforensics.detector.perturbations import (
    AXES,
    GRID,
    Perturbation,
    apply_to_all,
    centre,
    clahe,
    contrast,
    crop_to_even,
    double_jpeg,
    fewer_bits,
    find,
    gamma,
    gaussian_noise,
    lower_dose,
    match_spectrum,
    median,
    non_local_means,
    offset,
    poisson_gaussian_noise,
    resize,
    rng_of,
    rotate,
    shifted_jpeg,
    unsharp,
)

SIZE_PX = 64


def textured(seed: int = 0, size: int = SIZE_PX) -> np.ndarray:
    """A bright disc on a slope, with noise: all frequencies, no symmetry."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size]
    disc = 60.0 * ((y - size / 3) ** 2 + (x - size / 2.5) ** 2 < (size / 5) ** 2)
    levels = 60 + 0.5 * x + disc + rng.normal(0, 6, (size, size))
    return levels.round().clip(0, 255).astype(np.uint8)


def cell(level: str) -> Perturbation:
    """The cell of a name."""
    (found,) = [p for p in GRID if p.level == level]
    return found


def test_the_grid_is_whole() -> None:
    """All axes are there with all their levels, each under a name of its own."""
    counts = Counter(p.axis for p in GRID)

    assert tuple(counts) == AXES
    assert counts == {
        "jpeg": 14, "resize": 24, "filter": 6, "noise": 5, "tone": 6, "geometry": 7,
        "document": 4, "laundering": 3,
    }  # fmt: skip
    assert len({(p.axis, p.level) for p in GRID}) == len(GRID)
    for quality in (95, 90, 85, 75, 60, 50):
        assert cell(f"quality {quality}").axis == "jpeg"
    for factor in ("0.5", "0.75", "0.9", "1.1", "1.5", "2"):
        for kernel in ("bilinear", "bicubic", "lanczos", "area"):
            assert cell(f"x{factor} {kernel}").axis == "resize"


@pytest.mark.parametrize("perturbation", GRID, ids=lambda p: f"{p.axis}-{p.level}")
def test_every_cell_is_a_function_of_image_and_file(perturbation: Perturbation) -> None:
    """A cell gives an even grey image, the same each time, and leaves its input alone.

    What it draws depends on seed, cell and file name alone.
    """
    image, donor = textured(), textured(1)
    image.flags.writeable = False

    def run(seed: int, file: str) -> np.ndarray:
        return perturbation.apply(image, rng_of(seed, perturbation, file), donor)

    result = run(0, "a.png")

    assert result.dtype == np.uint8
    assert result.ndim == 2
    assert all(side % 2 == 0 for side in result.shape)
    assert not np.array_equal(result, image)
    assert np.array_equal(result, run(0, "a.png"))
    is_random = perturbation.axis == "noise" or perturbation.level == "fresh noise"
    assert np.array_equal(result, run(0, "b.png")) != is_random
    assert np.array_equal(result, run(1, "a.png")) != is_random


def test_too_small_a_result_is_refused_by_name() -> None:
    """Half of 24 px is less than the detector takes; the message says of which cell."""
    small = textured(size=24)

    with pytest.raises(ValueError, match=r"resize x0.5 area: 12x12 px of 24x24 px, need at least"):
        cell("x0.5 area").apply(small, np.random.default_rng(0), small)


def test_sizes_are_cut_to_even() -> None:
    """The last row or column goes; sizes follow the factor, rounded down."""
    assert np.array_equal(crop_to_even(textured()[:33, :47]), textured()[:32, :46])
    assert resize(textured(), 0.9, "bicubic").shape == (56, 56)  # 57.6
    assert resize(textured(), 1.1, "area").shape == (70, 70)  # 70.4
    assert centre(textured(), 0.6).shape == (38, 38)  # 38.4


def test_a_centre_begins_at_even_coordinates() -> None:
    """The 2x2 grid of NPR stays where it was."""
    rows = np.arange(64, dtype=np.uint8)[:, None].repeat(64, axis=1)

    kept = centre(rows, 0.6)

    assert kept[0, 0] == 12
    assert kept[-1, 0] == 49


def test_offsets_cut_the_first_rows_and_columns() -> None:
    """One row off: the 2x2 grid begins a row later, and the sides are even again."""
    image = textured()

    shifted = cell("offset (1, 0)").apply(image, np.random.default_rng(0), image)

    assert np.array_equal(offset(image, 1, 1), image[1:, 1:])
    assert np.array_equal(shifted, image[1:63])


def test_area_is_the_mean_of_what_a_pixel_covers() -> None:
    """Half the size: the mean of four pixels. Double: the pixel itself, four times."""
    image = textured()

    half, double = resize(image, 0.5, "area"), resize(image, 2.0, "area")

    means = image.reshape(32, 2, 32, 2).mean(axis=(1, 3))
    assert np.abs(half - means).max() <= 0.5
    assert np.array_equal(double, np.kron(image, np.ones((2, 2), dtype=np.uint8)))


@pytest.mark.parametrize("kernel", ["bilinear", "bicubic", "lanczos", "area"])
@pytest.mark.parametrize("factor", [0.5, 0.9, 1.5])
def test_resizing_keeps_constants_and_slopes(kernel: str, factor: float) -> None:
    """A grey surface stays what it is, a slope keeps its ends."""
    constant = np.full((64, 64), 99, dtype=np.uint8)
    slope = np.arange(0, 128, 2, dtype=np.uint8)[None].repeat(64, axis=0)

    assert (resize(constant, factor, kernel) == 99).all()
    resized = resize(slope, factor, kernel).astype(float)
    assert resized.mean() == pytest.approx(slope.mean(), abs=0.6)
    assert np.ptp(resized, axis=0).max() <= 1  # halves may round either way
    assert (np.diff(resized[0]) >= 0).all()


def test_a_shifted_grid_costs_more() -> None:
    """A second JPEG on the first one's grid changes less than one between its blocks."""
    image = textured()
    once = jpeg(image, 75)

    aligned, shifted = (
        np.abs(double_jpeg(image, 75, 75, px).astype(float) - once[px:, px:]).mean()
        for px in (0, 4)
    )

    assert aligned < 0.5 * shifted
    assert np.array_equal(shifted_jpeg(image, 75, 4), once[4:, 4:])


def test_filters_do_what_they_are_called() -> None:
    """A median removes a spike, non-local means take noise but no edge, unsharp steepens."""
    rng = np.random.default_rng(0)
    edge = np.full((64, 64), 60.0)
    edge[:, 32:] = 180
    noisy = (edge + rng.normal(0, 8, edge.shape)).round().astype(np.uint8)
    spike = np.full((16, 16), 50, dtype=np.uint8)
    spike[8, 8] = 250

    assert (median(spike, 3) == 50).all()
    denoised = non_local_means(noisy, 0.8).astype(float)
    assert denoised[:, :28].std() < 0.6 * noisy[:, :28].std()
    assert denoised[:, 33].mean() - denoised[:, 30].mean() > 100
    clean = edge.astype(np.uint8)
    assert unsharp(clean, 1.0, 1.0)[0, 32] > 200
    assert unsharp(clean, 1.0, 1.0)[0, 31] < 40
    assert (unsharp(spike[:4, :4], 1.0, 1.0) == 50).all()


def test_noise_has_the_variance_that_is_asked_for() -> None:
    """Normal noise sigma^2; thinning level * (1 - dose) / dose; fresh noise gain * level + sigma^2.

    65536 pixels: the variance is known to 0.6 % (one standard deviation).
    """
    grey = np.full((256, 256), 120, dtype=np.uint8)

    for noisy, variance in (
        (gaussian_noise(grey, np.random.default_rng(0), 5.0), 25 + 1 / 12),
        (lower_dose(grey, np.random.default_rng(0), 0.5), 120),
        (lower_dose(grey, np.random.default_rng(0), 0.25), 360),
        (poisson_gaussian_noise(grey, np.random.default_rng(0), 0.5, 3.0), 69 + 1 / 12),
    ):
        assert noisy.mean() == pytest.approx(120, abs=0.3)
        assert noisy.var() == pytest.approx(variance, rel=0.03)
    assert np.array_equal(lower_dose(grey, np.random.default_rng(0), 1.0), grey)


def test_tones_change_levels_and_no_place() -> None:
    """Gamma fixes black and white, contrast the mean, 6 bits leave 64 levels; CLAHE spreads."""
    image = textured()
    scale = np.arange(256, dtype=np.uint8).reshape(16, 16)

    assert (gamma(scale, 0.7).ravel()[[0, 255]] == [0, 255]).all()
    assert (gamma(scale, 0.7) >= scale).all()
    assert (gamma(scale, 1.4) <= scale).all()
    assert contrast(image, 0.8).mean() == pytest.approx(image.mean(), abs=0.3)
    assert contrast(image, 0.8).std() == pytest.approx(0.8 * image.std(), rel=0.02)
    assert len(np.unique(fewer_bits(scale, 6))) == 64
    assert (scale - fewer_bits(scale, 6)).max() == 3
    assert clahe(image).std() > 1.2 * image.std()


def test_a_rotation_leaves_no_empty_corner() -> None:
    """A constant image stays one; structure turns counter-clockwise about the centre."""
    constant = np.full((64, 96), 130, dtype=np.uint8)
    dot = np.zeros((128, 128), dtype=np.uint8)
    dot[62:67, 102:107] = 255

    turned = rotate(constant, 3.0)
    moved = rotate(dot, 3.0).astype(float)

    assert (turned == 130).all()
    assert turned.shape == (56, 86)  # shrunk by 0.928, and a pixel at each edge
    y, x = np.mgrid[: moved.shape[0], : moved.shape[1]]
    middle = (moved.shape[0] - 1) / 2
    # 40.5 px to the right, 0.5 below the centre, turned by 3 degrees: up by 40.5 sin 3
    assert (moved * (middle - y)).sum() / moved.sum() == pytest.approx(1.6, abs=0.2)
    assert (moved * (x - middle)).sum() / moved.sum() == pytest.approx(40.5, abs=0.2)


def test_a_spectrum_is_matched_ring_by_ring() -> None:
    """The result has the donor's power in every ring; an image is its own best donor."""
    image = (128 + (textured().astype(float) - 100) / 4).astype(np.uint8)  # nothing will clip
    rng = np.random.default_rng(3)
    donor = rng.normal(128, 15, (SIZE_PX, SIZE_PX)).clip(0, 255).astype(np.uint8)

    matched = match_spectrum(image, donor)

    rows, columns = (np.fft.fftfreq(SIZE_PX) * SIZE_PX for _ in range(2))
    rings = np.hypot(rows[:, None], columns[None]).round().astype(int)

    def power(levels: np.ndarray) -> np.ndarray:
        spectrum = np.fft.fft2(levels.astype(float) - levels.mean())
        return np.bincount(rings.ravel(), (np.abs(spectrum) ** 2).ravel())[1:]

    np.testing.assert_allclose(power(matched), power(donor), rtol=0.05)  # rounded to levels
    assert matched.mean() == pytest.approx(image.mean(), abs=0.1)
    assert np.array_equal(match_spectrum(image, image), image)


def test_a_spectrum_without_some_frequencies_stays_finite() -> None:
    """Doubled pixels have no power in the corner, constant images none at all: none is made up."""
    doubled = np.kron(textured(size=32), np.ones((2, 2), dtype=np.uint8))
    constant = np.full((64, 64), 80, dtype=np.uint8)

    assert match_spectrum(doubled, textured(1)).std() > 5
    assert (match_spectrum(constant, textured(1)) == 80).all()


def test_honest_processing_is_marked() -> None:
    """No laundering and no added noise count as benign; document chain and tone do."""
    benign = Counter(p.axis for p in GRID if p.benign)

    assert "laundering" not in benign
    assert "noise" not in benign
    assert benign["document"] == 4
    assert {"jpeg", "resize", "filter", "tone", "geometry"} <= benign.keys()


def test_cells_are_found_by_axis_and_level() -> None:
    """In the order asked for; an unknown name lists those there are."""
    names = ["noise normal 10", "jpeg quality 75"]

    assert [f"{cell.axis} {cell.level}" for cell in find(names)] == names
    with pytest.raises(ValueError, match=r"no perturbation blur; there are: jpeg quality 95, "):
        find(["blur", "jpeg quality 75"])


def test_a_cell_changes_every_image_by_its_own_file() -> None:
    """Noise depends on the name, not on the place in the row."""
    images = np.stack([textured(seed) for seed in range(3)])
    (noise,) = find(["noise normal 10"])

    changed = apply_to_all(noise, images, ["a", "b", "c"], 0)
    turned = apply_to_all(noise, images[::-1], ["c", "b", "a"], 0)

    np.testing.assert_array_equal(changed, turned[::-1])
    assert (changed != images).any(axis=(1, 2)).all()
