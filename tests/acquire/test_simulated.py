"""The simulated set: its noise, its places, its files, and how near it is to real micrographs."""

import hashlib
import re
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from pydantic import ValidationError
from scipy import ndimage
from scipy.spatial import cKDTree

from semforensics.acquire.names import parse_name
from semforensics.acquire.simulated import Area, draw_area, simulate_set, simulate_view
from semforensics.acquire.simulated_info_bar import bar_rows, draw_info_bar
from semforensics.acquire.simulated_instrument import (
    Tone,
    View,
    backscatter_coefficient,
    charge,
    distort_by_scan,
    pixel_size_nm,
    sphere_signal,
    take_frame,
)
from semforensics.acquire.simulated_scene import NoiseTile, Particles, Scene, draw_scene
from semforensics.micrographs.info_bar import find_info_bar
from semforensics.params import SimulatedParams

SIZE = {"width_px": 480, "height_px": 384}
BAR = 50
"""Rows of the info bar at that size."""


def make_params(**changes: object) -> SimulatedParams:
    """Return the parameters of a small set, with changes."""
    values = {
        "num_areas": 3,
        "magnifications_k": (100, 200),
        **SIZE,
        "ordered_share": 0.67,
        "compression": "deflate",
    }
    return SimulatedParams.model_validate(values | changes)


def make_area(index: int = 0, *, seed: int = 0, **changes: object) -> Area:
    """Draw one area of the small set."""
    return draw_area(make_params(**changes), index, seed=seed)


def flat_scene() -> Scene:
    """Make level, bare carbon."""
    level = NoiseTile(np.zeros((8, 8), np.float32), 100.0)
    nothing = np.zeros((0, 2))
    return Scene(
        relief=level,
        swell=level,
        warp=(level, level),
        warp_nm=0.0,
        relief_nm=1.0,
        tilt=(0.0, 0.0),
        layers=(),
        particles=Particles(nothing, np.zeros(0), np.zeros(0), nothing, nothing),
    )


def flat_frame(background: float, *, seed: int = 0) -> np.ndarray:
    """Image level, bare carbon with a linear tone curve."""
    view = View(256, 256, 1.0, (0.0, 0.0), 20.0, background)
    tone = Tone(brightness=0.05, contrast=0.9, gamma=1.0)
    return take_frame(flat_scene(), view, tone, np.random.default_rng(seed)).astype(float)


def correlation(residue: np.ndarray, axis: int) -> float:
    """Correlate neighbours along an axis."""
    first, second = np.split(np.take(residue, [range(255), range(1, 256)], axis=axis), 2, axis=axis)
    return float(np.corrcoef(first.ravel(), second.ravel())[0, 1])


@pytest.mark.parametrize("seed", [0, 1])
def test_noise_variance_grows_linearly_with_the_mean(seed: int) -> None:
    """On level ground, variance is a line over the mean, with a positive slope."""
    frames = [flat_frame(b, seed=seed) for b in np.linspace(0.1, 0.9, 9)]

    means = np.array([frame.mean() for frame in frames])
    # Differences of neighbouring rows: free of the slow gradient of charging.
    variances = np.array([np.diff(frame, axis=0).var() / 2 for frame in frames])

    slope, intercept = np.polyfit(means, variances, 1)
    assert slope > 0
    assert intercept > 0
    np.testing.assert_allclose(variances, intercept + slope * means, rtol=0.05)
    assert variances[-1] > 1.5 * variances[0]


def test_noise_is_more_correlated_along_rows_than_along_columns() -> None:
    """The amplifier's low pass acts along the fast axis alone."""
    frame = flat_frame(0.5)

    residue = frame - ndimage.gaussian_filter(frame, 12)
    residue -= residue.mean(axis=1, keepdims=True)  # offsets of whole rows

    assert 0.15 < correlation(residue, axis=1) < 0.5
    assert abs(correlation(residue, axis=0)) < 0.05


def phase_correlate(first: np.ndarray, second: np.ndarray) -> tuple[float, np.ndarray]:
    """Return height of the highest peak in standard deviations, and its shift in pixels."""
    window = np.outer(np.hanning(len(first)), np.hanning(first.shape[1]))

    def spectrum(image: np.ndarray) -> np.ndarray:
        smooth = ndimage.gaussian_filter(image, 2) - ndimage.gaussian_filter(image, 20)
        return np.fft.fft2(smooth * window)

    product = spectrum(first) * spectrum(second).conj()
    surface = np.fft.ifft2(product / (np.abs(product) + 1e-9 * np.abs(product).max())).real
    surface = ndimage.gaussian_filter(surface, 1.5, mode="wrap")
    peak = np.unravel_index(surface.argmax(), surface.shape)
    shift = [int(p if p < n / 2 else p - n) for p, n in zip(peak, surface.shape, strict=True)]
    return float((surface.max() - surface.mean()) / surface.std()), np.array(shift)


def image_of(area: Area, magnification_k: int) -> np.ndarray:
    """Take a view, and cut its bar off."""
    return simulate_view(area, magnification_k, **SIZE)[:-BAR].astype(float)


@pytest.mark.parametrize("index", [0, 2])
def test_views_of_one_area_register_and_views_of_two_do_not(index: int) -> None:
    """The view at 200k lies in the middle of that at 100k; another area's lies nowhere."""
    coarse = ndimage.zoom(image_of(make_area(index), 100), 2, order=1)
    rows, columns = coarse.shape
    coarse = coarse[rows // 4 : rows // 4 + rows // 2, columns // 4 : columns // 4 + columns // 2]

    same, shift = phase_correlate(coarse, image_of(make_area(index), 200))
    other, _ = phase_correlate(coarse, image_of(make_area(1), 200))

    assert same > 1.8 * other
    assert np.abs(shift).max() < 0.1 * SIZE["width_px"]


def test_two_frames_of_one_place_differ_in_noise_and_still_register() -> None:
    """Noise is fresh in every frame; the place is the same."""
    area = make_area()

    first, second = (take_frame(area.scene, view_of(area), area.tone, rng(k)) for k in (1, 2))

    assert (first != second).mean() > 0.5
    peak, shift = phase_correlate(first.astype(float), second.astype(float))
    assert peak > 10
    assert np.abs(shift).max() <= 6  # drift and line jitter


def view_of(area: Area) -> View:
    """Return a small view of the middle."""
    return View(256, 256, pixel_size_nm(100), (0.0, 0.0), area.kv, area.background)


def rng(seed: int) -> np.random.Generator:
    """Seed a generator."""
    return np.random.default_rng(seed)


def digests(folder: Path) -> dict[str, str]:
    """Hash all files."""
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir())}


def test_same_seed_gives_same_bytes_whatever_the_threads(tmp_path: Path) -> None:
    """Files depend on seed and parameters alone."""
    params = make_params(width_px=256, height_px=192)
    for name, seed, threads in (("one", 5, 1), ("two", 5, 3), ("other", 6, 2)):
        (tmp_path / name).mkdir()
        simulate_set(params, tmp_path / name, seed=seed, threads=threads)

    assert digests(tmp_path / "one") == digests(tmp_path / "two")
    assert not set(digests(tmp_path / "one").values()) & set(digests(tmp_path / "other").values())


def test_area_does_not_depend_on_how_many_others_there_are() -> None:
    """A longer set begins with the shorter one."""
    few, many = make_area(0), make_area(0, num_areas=30)

    frames = [simulate_view(area, 200, **SIZE) for area in (few, many)]

    np.testing.assert_array_equal(*frames)


def test_files_and_rows_are_as_in_the_real_set(tmp_path: Path) -> None:
    """Names tell sample, area, magnification and label; rows agree; frames are 8-bit grey."""
    params = make_params(num_areas=6, ordered_share=0.5, width_px=256, height_px=192)

    rows = simulate_set(params, tmp_path, seed=0)

    assert [row["file"] for row in rows[:3]] == [
        "1-S1-A1-100k-ordered.tif",
        "2-S1-A1-200k-ordered.tif",
        "3-S1-A2-100k-ordered.tif",
    ]
    assert sorted(row["file"] for row in rows) == sorted(p.name for p in tmp_path.iterdir())
    for row in rows:
        name = parse_name(row["file"])
        assert name is not None
        assert name.row().items() <= row.items()
        assert row["kv"] in (10.0, 20.0, 30.0)
        assert 8 < row["wd_mm"] < 12
        frame = tifffile.imread(tmp_path / row["file"])
        assert (frame.shape, frame.dtype) == ((192, 256), np.uint8)
    assert len({row["group"] for row in rows}) == 6
    assert [row["label"] for row in rows].count("ordered") == 6
    # No sample is ordered in one area and disordered in another.
    assert len({(row["sample"], row["label"]) for row in rows}) == len({r["sample"] for r in rows})


def test_uncompressed_and_deflated_files_hold_the_same_pixels(tmp_path: Path) -> None:
    """Compression is lossless, and changes the size."""
    frames, sizes = [], []
    for compression in ("none", "deflate"):
        folder = tmp_path / compression
        folder.mkdir()
        params = make_params(magnifications_k=(100,), compression=compression)
        file = folder / simulate_set(params, folder, seed=0)[0]["file"]
        frames.append(tifffile.imread(file))
        sizes.append(file.stat().st_size)

    np.testing.assert_array_equal(*frames)
    assert sizes[0] > 480 * 384 > sizes[1]


@pytest.mark.parametrize(("width_px", "height_px"), [(1280, 1024), (480, 384), (640, 512)])
def test_info_bar_begins_exactly_where_it_should(width_px: int, height_px: int) -> None:
    """The bar takes 134 of 1024 rows, is black where the real one is, and the detector finds it."""
    first = height_px - round(height_px * 134 / 1024)

    frame = simulate_view(make_area(), 100, width_px, height_px)

    assert frame.shape == (height_px, width_px)
    assert find_info_bar(frame) == first
    assert (frame[first] <= 2).mean() > 0.95
    assert frame[first - 1].mean() > 10
    assert frame[first:].max() == 255


@pytest.mark.parametrize(
    ("magnification_k", "width_px", "height_px", "length_nm"),
    [(50, 1280, 1024, 1000), (100, 1280, 1024, 500), (200, 1280, 1024, 200), (100, 480, 384, 200)],
)
def test_scale_bar_is_as_long_as_it_says(
    magnification_k: int, width_px: int, height_px: int, length_nm: int
) -> None:
    """Eleven ticks span the length that the instrument chooses at that magnification."""
    pixel_nm = pixel_size_nm(magnification_k)

    bar = draw_info_bar(width_px, height_px, lines=("", ""), note="", pixel_nm=pixel_nm)

    assert len(bar) == bar_rows(height_px)
    _, ticks = ndimage.label(bar[round(10 * height_px / 1024)] > 128)
    columns = np.flatnonzero(bar[0] > 128)
    ends = columns[0], columns[-1] - round(4 * height_px / 1024) + 1
    assert ticks == 11
    assert (ends[1] - ends[0]) * pixel_nm == pytest.approx(length_nm, abs=1.5 * pixel_nm)


def test_pixel_sizes_are_those_of_the_instrument() -> None:
    """1.98, 0.99 and 0.50 nm at 50k, 100k and 200k."""
    assert [round(pixel_size_nm(m), 2) for m in (50, 100, 200)] == [1.98, 0.99, 0.5]


def test_backscatter_coefficients_are_those_of_palladium_and_carbon() -> None:
    """Pd 0.398, C 0.064."""
    assert backscatter_coefficient(46) == pytest.approx(0.398, abs=5e-4)
    assert backscatter_coefficient(6) == pytest.approx(0.064, abs=5e-4)


def test_thicker_particles_are_brighter_and_end_at_their_radius() -> None:
    """Signal at the centre grows with the diameter; outside there is none."""
    centre = [
        float(sphere_signal(np.zeros(1, np.float32), np.float32([r]), np.float32(1))[0])
        for r in (1.5, 3, 6)
    ]
    outside = sphere_signal(np.float32([4.0]), np.float32([3.0]), np.float32(1))

    assert centre == sorted(centre)
    assert 0.15 < centre[0] < centre[2] < 0.7
    assert outside == 0


def share_at_edges(scene: Scene) -> tuple[float, float]:
    """Return the shares of particles, and of the ground, within 8 nm of an edge of a layer."""
    ground = rng(0).uniform(-1, 1, (4000, 2)) * [1270, 890]
    shares = []
    for points in (scene.particles.centres, ground):
        places = points + scene.warp_nm * np.stack([tile.at(points) for tile in scene.warp], axis=1)
        nearest = np.full(len(places), np.inf)
        for start, end in np.concatenate([layer.edges for layer in scene.layers]):
            along = (places - start) @ (end - start) / ((end - start) ** 2).sum()
            foot = start + np.clip(along, 0, 1)[:, None] * (end - start)
            nearest = np.minimum(nearest, np.linalg.norm(places - foot, axis=1))
        shares.append(float((nearest < 8).mean()))
    return shares[0], shares[1]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_ordered_particles_gather_at_edges_and_disordered_ones_do_not(seed: int) -> None:
    """Edges hold more than their share of ordered particles, and their share of disordered ones."""
    ordered, ordered_ground = share_at_edges(draw_scene(rng(seed), ordered=True))
    disordered, disordered_ground = share_at_edges(draw_scene(rng(seed), ordered=False))

    assert ordered > 1.5 * ordered_ground
    assert disordered == pytest.approx(disordered_ground, rel=0.25)


@pytest.mark.parametrize("ordered", [True, False])
def test_particles_are_as_large_as_specified(ordered: bool) -> None:
    """Diameters have a median of 3-8 nm, and particles do not lie inside one another."""
    particles = draw_scene(rng(3), ordered=ordered).particles

    distances, _ = cKDTree(particles.centres).query(particles.centres, k=2)

    assert 3 < np.median(particles.diameters_nm) < 8
    assert 2000 < len(particles.centres) < 40000
    assert (distances[:, 1] > 0.3 * particles.diameters_nm.min()).all()


def test_scan_moves_pixels_by_a_few_at_most() -> None:
    """Vibration, jitter and drift displace a vertical edge by less than 4 px, row by row."""
    edge = np.zeros((300, 200), np.float32)
    edge[:, 100:] = 1

    moved = distort_by_scan(edge, rng(0))

    position = 200 - moved.sum(axis=1)
    assert np.abs(position - 100).max() < 4
    assert 0.03 < np.diff(position).std() < 0.6


def test_charging_trails_along_the_fast_axis() -> None:
    """Right of a bright feature the signal differs from that left of it; above it nothing does."""
    signal = np.full((64, 256), 0.25, np.float32)
    signal[30:34, 100:110] = 1.5

    differences = []
    for seed in range(8):
        charged, level = (charge(s, rng(seed)) for s in (signal, np.full_like(signal, 0.25)))
        change = np.abs(charged - level)
        differences.append(change[31, 110])
        np.testing.assert_allclose(change[:30], 0, atol=1e-6)
        np.testing.assert_allclose(change[31, :100], 0, atol=1e-6)
        assert np.abs(level / 0.25 - 1).max() < 0.101

    assert max(differences) > 0.005


def test_most_small_crops_of_the_demo_show_particles() -> None:
    """At least three quarters of all 64 px crops hold something bright on a background."""
    shown = []
    for index in range(3):
        area = make_area(index)
        for magnification_k in (100, 200):
            image = ndimage.gaussian_filter(image_of(area, magnification_k), 1.5)
            crops = image[:320, :448].reshape(5, 64, 7, 64).swapaxes(1, 2).reshape(35, -1)
            low, high = np.percentile(crops, [20, 99.5], axis=1)
            shown.append((high - low) > 20)

    assert np.mean(shown) > 0.75


def radial_power(image: np.ndarray, size: int = 256) -> np.ndarray:
    """Average the power spectra of tiles over directions."""
    window = np.outer(np.hanning(size), np.hanning(size))
    rows, columns = (n // size * size for n in image.shape)
    tiles = image[:rows, :columns].reshape(rows // size, size, columns // size, size)
    tiles = tiles.swapaxes(1, 2).reshape(-1, size, size).astype(float)
    tiles = (tiles - tiles.mean(axis=(1, 2), keepdims=True)) * window
    power = (np.abs(np.fft.fft2(tiles)) ** 2).mean(axis=0) / (window**2).sum()
    frequency = np.fft.fftfreq(size)
    radius = np.rint(size * np.hypot(frequency[:, None], frequency)).astype(int).ravel()
    return (np.bincount(radius, power.ravel()) / np.bincount(radius))[: size // 2]


@pytest.mark.parametrize(
    ("magnification_k", "label"), [(50, "ordered"), (100, "ordered"), (100, "disordered")]
)
def test_power_spectrum_is_near_that_of_real_micrographs(
    shared: Path, magnification_k: int, label: str
) -> None:
    """At mid and high frequencies, mean power lies within a factor of 2 of the real one."""
    folder = shared / "sem" / "boiko-pdc-partial"
    pattern = re.compile(rf"\d+-\w+-\w+-{magnification_k}k-{label}\.tif")
    found = [p for p in sorted(folder.rglob("*.tif")) if pattern.fullmatch(p.name)]
    real = np.mean([radial_power(np.asarray(Image.open(p))[:890]) for p in found], axis=0)
    params = make_params(num_areas=18, ordered_share=float(label == "ordered"))

    # Areas of four samples.
    areas = [draw_area(params, index, seed=0) for index in (0, 4, 5, 8, 9, 12)]
    frames = [simulate_view(area, magnification_k, 1280, 1024)[:890] for area in areas]
    simulated = np.mean([radial_power(frame) for frame in frames], axis=0)

    # 16 of 128: wavelengths of 16 px and less, from about two particles down to the pixel.
    ratio = simulated[16:] / real[16:]
    assert ratio.max() < 2
    assert ratio.min() > 0.5


@pytest.mark.parametrize(
    "changes",
    [
        {"num_areas": 0},
        {"magnifications_k": ()},
        {"magnifications_k": (75,)},
        {"magnifications_k": (100, 100)},
        {"width_px": 64},
        {"ordered_share": 1.2},
        {"compression": "jpeg"},
        {"seed": 3},
    ],
)
def test_wrong_parameters_are_refused(changes: dict[str, object]) -> None:
    """Values out of bounds, repeated magnifications and unknown keys do not validate."""
    with pytest.raises(ValidationError):
        make_params(**changes)


def test_missing_folder_is_named(tmp_path: Path) -> None:
    """Nothing is drawn for a folder that does not exist."""
    with pytest.raises(FileNotFoundError, match="nowhere"):
        simulate_set(make_params(), tmp_path / "nowhere", seed=0)
