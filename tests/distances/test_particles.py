import numpy as np
import pytest

from semforensics.distances.particles import Particles, find_particles, size_distance_px


def discs(diameters: list[float], side: int = 96, noise: float = 3) -> np.ndarray:
    """A dark ground with bright discs in a lattice, blurred by a pixel of edge, with noise."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:side, :side]
    levels = rng.normal(60, noise, (side, side))
    places = [(y, x) for y in range(16, side, 32) for x in range(16, side, 32)]
    for (y, x), diameter in zip(places, diameters, strict=False):
        distance = np.hypot(rows - y, columns - x) - diameter / 2
        levels += 100 * np.clip(0.5 - distance, 0, 1)
    return levels.round().clip(0, 255).astype(np.uint8)


def test_discs_have_their_diameters():
    """Every disc is found once, with its diameter to half a pixel."""
    diameters = [6.0, 8.0, 10.0, 13.0, 16.0, 20.0]

    found = find_particles(discs(diameters)[None])

    assert sorted(found.diameters_px) == pytest.approx(diameters, abs=0.5)
    assert found.per_megapixel == pytest.approx(1e6 * 6 / 96**2)


def test_what_is_cut_or_tiny_does_not_count():
    """Particles at the edge have no size, and specks are noise."""
    image = discs([10.0])
    image[:8, 40:60] = 160
    image[70, 70] = 255

    found = find_particles(image[None])

    assert found.diameters_px == pytest.approx([10], abs=0.5)


def test_plain_ground_has_no_particles():
    """Noise, a slope or a uniform image are no particles."""
    rows, _ = np.mgrid[:96, :96]
    slope = (60 + rows / 2 + np.random.default_rng(1).normal(0, 3, (96, 96))).astype(np.uint8)

    found = find_particles(np.stack([discs([], noise=12), slope, np.full_like(slope, 90)]))

    assert len(found.diameters_px) == 0
    assert found.per_megapixel == 0


def test_distance_is_the_mean_change_of_size():
    """Particles 2 px larger each are 2 px away; none at all counts as size 0."""
    some = Particles(np.array([6.0, 9.0, 12.0]), 1.0)
    larger = Particles(np.array([14.0, 8.0, 11.0]), 1.0)
    none = Particles(np.empty(0), 0.0)

    assert size_distance_px(some, larger) == pytest.approx(2)
    assert size_distance_px(some, some) == 0
    assert size_distance_px(none, some) == pytest.approx(9)
    assert size_distance_px(none, none) == 0
