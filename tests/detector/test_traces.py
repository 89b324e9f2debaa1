"""What pixels show of their history, and the cells that panels are calibrated in."""

from dataclasses import astuple
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from semforensics.core.images import read_grey
from semforensics.core.processing import jpeg, median, resize_and_back
from semforensics.detector.panels import GRID
from semforensics.detector.perturbations import resize
from semforensics.detector.traces import (
    CELLS,
    EQUAL_LIMIT,
    GRID_PEAK_LIMIT,
    JPEG_LIMIT,
    PEAK_LIMIT,
    Grey,
    Traces,
    cell_of,
    fineness_db,
    jpeg_steps,
    measure_traces,
    periodicity,
    ring_power,
)


def micrograph(seed: int, side: int = 320) -> Grey:
    """Grains with shaded rims, a point spread, and electrons that were counted."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side]
    scene = np.full((side, side), 60.0)
    for _ in range(side // 4):
        radius = rng.uniform(4, 30)
        distance = np.hypot(x - rng.uniform(0, side), y - rng.uniform(0, side))
        inside = distance < radius
        scene[inside] = rng.uniform(70, 130) + 60 * (distance[inside] / radius) ** 4
    counts = rng.poisson(gaussian_filter(scene, 0.8) / 2) * 2 + rng.normal(0, 1, scene.shape)
    return counts.round().clip(0, 255).astype(np.uint8)


def test_a_jpeg_that_was_scaled_is_no_longer_in_steps() -> None:
    """The steps belong to the last processing."""
    compressed = jpeg(micrograph(2), 85)

    assert jpeg_steps(micrograph(2)) < JPEG_LIMIT < jpeg_steps(compressed)
    assert jpeg_steps(resize(compressed, 0.75, "bicubic")) < JPEG_LIMIT


@pytest.mark.parametrize("quality", [60, 75, 85, 92])
@pytest.mark.parametrize("shift", [0, 3])
def test_the_quality_of_a_jpeg_is_estimated(quality: int, shift: int) -> None:
    """Wherever the grid begins, to five."""
    panel = jpeg(micrograph(quality), quality)[shift:, 2 * shift :]

    traces = measure_traces(panel)

    assert traces.jpeg > JPEG_LIMIT
    assert traces.quality == pytest.approx(quality, abs=5)


def test_without_steps_there_is_no_quality() -> None:
    """100 stands for pixels that no JPEG has changed."""
    assert measure_traces(micrograph(0)).quality == 100


def test_turning_a_panel_changes_no_period() -> None:
    """Rows and columns count alike."""
    panel = resize(micrograph(4), 1.25, "bicubic")

    peaks, turned = periodicity(panel), periodicity(np.ascontiguousarray(panel.T))

    assert peaks == pytest.approx(turned, rel=1e-5)
    assert peaks[0] > PEAK_LIMIT
    assert peaks[1] < GRID_PEAK_LIMIT


def test_white_noise_has_its_variance_in_every_ring() -> None:
    """Up to the chance of a finite picture; no frequency stands out."""
    noise = np.random.default_rng(0).normal(128, 12, (512, 512)).round().astype(np.uint8)

    power = ring_power(noise)

    np.testing.assert_allclose(power[4:], 144, rtol=0.1)
    assert abs(fineness_db(noise)) < 0.3


def test_interpolation_takes_fineness() -> None:
    """Enlarged pixels have less of it, and those that were shrunk and brought back."""
    panel = micrograph(1)

    fine = fineness_db(panel)

    assert fineness_db(resize(panel, 1.5, "bicubic")) < fine - 6
    assert fineness_db(resize_and_back(panel, 0.75)) < fine - 6


def test_flat_and_tiny_panels_have_numbers() -> None:
    """Nothing is found in them, and nothing fails."""
    for panel in (np.full((64, 64), 90, np.uint8), np.zeros((9, 700), np.uint8), micrograph(0)[:8]):
        traces = measure_traces(panel)

        assert np.isfinite(astuple(traces)).all()
        assert traces.jpeg < JPEG_LIMIT
        assert cell_of(traces) in CELLS
    assert max(periodicity(np.full((64, 64), 90, np.uint8))) < 1e-9


def test_a_median_repeats_neighbours() -> None:
    """Raw pixels do not."""
    assert measure_traces(micrograph(3)).equal < EQUAL_LIMIT
    assert measure_traces(median(micrograph(3), 5)).equal > measure_traces(micrograph(3)).equal


def test_what_is_drawn_is_left_out() -> None:
    """A ruler over a panel changes neither its period nor its detail, where it is masked."""
    plain = micrograph(5)
    panel = plain.copy()
    panel[100:130, 5:-5:8] = 255
    drawn = np.zeros(panel.shape, dtype=bool)
    drawn[96:134] = True

    masked, without = measure_traces(panel, drawn), measure_traces(plain)

    assert masked.fineness_db == pytest.approx(without.fineness_db, abs=0.5)
    assert masked.peak < PEAK_LIMIT
    assert cell_of(masked) == cell_of(without)


def test_only_the_middle_counts() -> None:
    """A large panel has the traces of its middle: the cost is bounded."""
    panel = np.pad(micrograph(6, 512), 100)

    assert measure_traces(panel) == measure_traces(micrograph(6, 512))


@pytest.mark.parametrize(
    ("history", "cell"),
    [
        ("native", "light"),
        ("JPEG 95", "light"),
        ("JPEG 85", "medium"),
        ("JPEG 75", "strong"),
        ("x1.25", "light"),
        ("x1.25, JPEG 85", "medium"),
    ],
)
def test_cells_tell_histories_apart(history: str, cell: str) -> None:
    """Compression is seen, before an enlargement and on small panels too."""
    panel = GRID[history].apply(micrograph(7), 0)

    assert cell_of(measure_traces(panel)) == cell
    assert cell_of(measure_traces(panel[100:230, 90:220])) == cell


def test_every_cell_can_be_reached() -> None:
    """Each has its words, and no panel has another."""
    found = {
        cell_of(Traces(20.0, quality, 10.0, 5.0, -3.0, 3.0, 1.0))
        for quality in (100.0, 90.0, 89.0, 80.0, 79.0, 30.0)
    }

    assert found == set(CELLS)


def test_cells_of_real_micrographs(shared: Path) -> None:
    """Of raw micrographs of one instrument, before and after what publishers do."""
    path = min((shared / "sem/boiko-pdc-partial/cropped_890").rglob("*.tif*"))
    panel = read_grey(path)[:512, :512]

    found = {name: cell_of(measure_traces(GRID[name].apply(panel, 0))) for name in GRID}

    assert found["native"] == found["JPEG 95"] == found["x1.25"] == "light"
    assert found["JPEG 85"] == "medium"
    assert found["JPEG 75"] == found["JPEG 65"] == "strong"
