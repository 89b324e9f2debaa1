"""A part that disagrees with the rest of a panel is found, and real panels seldom have one."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter, uniform_filter

from semforensics.screening.judge.parts import PartRule, typical_level

TILE_PX = 64
CELL_PX = 16
"""A window begins in every cell."""


def windows(
    rng: np.random.Generator, *, rows: int = 24, columns: int = 32, level: float = -5.0
) -> np.ndarray:
    """Logits of overlapping windows over noise, as a network gives them."""
    cells = rng.normal(level, 3, (rows + 3, columns + 3))
    return uniform_filter(cells, 4)[2 : rows + 2, 2 : columns + 2]


def with_part(windows: np.ndarray, top: int, left: int, side: int, height: float) -> np.ndarray:
    """Raise the windows over a square of cells by the share of each that lies in it."""
    cells = np.zeros((windows.shape[0] + 3, windows.shape[1] + 3))
    cells[top : top + side, left : left + side] = height
    return windows + uniform_filter(cells, 4)[2 : len(cells) - 1, 2 : cells.shape[1] - 1]


@pytest.fixture(scope="module")
def rule() -> PartRule:
    """Calibrated on 40 panels of noise, as they are and 2 higher, and on 40 with a part."""
    rng = np.random.default_rng(0)
    reals = {
        kind: [windows(rng, level=level) for _ in range(40)]
        for kind, level in (("as it is", -5.0), ("processed", -3.0))
    }
    composites = [with_part(windows(rng), 8, 9, 6, 10) for _ in range(40)]
    return PartRule.measure(reals, composites)


@pytest.mark.parametrize(("top", "left", "side"), [(0, 0, 5), (7, 13, 6), (9, 3, 10), (21, 26, 6)])
def test_a_part_is_found_and_boxed(rule: PartRule, top: int, left: int, side: int) -> None:
    """Its box is right to half a tile, and neither real panels nor chance reach its score."""
    panel = with_part(windows(np.random.default_rng(1)), top, left, side, 10)

    part = rule.find(panel, TILE_PX)

    assert part is not None
    right = min(left + side, 35), min(top + side, 27)
    expected = np.array([top, left, right[1], right[0]]) * CELL_PX
    box = [part.box.top, part.box.left, part.box.bottom, part.box.right]
    assert np.abs(expected - box).max() <= TILE_PX // 2
    assert part.p_real < 0.001
    assert part.p_composite > 0.05
    assert part.logit == panel.max()


def test_real_panels_seldom_have_a_part(rule: PartRule) -> None:
    """Of new real panels at most alpha have a part whose p-value is at most alpha."""
    rng = np.random.default_rng(2)

    found = [rule.find(windows(rng), TILE_PX) for _ in range(400)]

    p_real = np.array([part.p_real for part in found if part is not None])
    p_native = np.array([part.p_native for part in found if part is not None])
    assert len(p_real) == 400
    assert (p_native <= p_real).all()
    for alpha in (0.01, 0.05, 0.2):
        assert (p_native <= alpha).mean() <= alpha + 3 * np.sqrt(alpha / 400)


def test_what_moves_the_whole_panel_is_no_part(rule: PartRule) -> None:
    """A panel that is higher everywhere has the p-value that it had before."""
    panel = windows(np.random.default_rng(3))
    before, after = (rule.find(p, TILE_PX) for p in (panel, panel + 8))

    assert before is not None
    assert after is not None
    assert after.p_real >= before.p_real
    assert after.logit == pytest.approx(before.logit + 8)


@pytest.mark.parametrize("share", [0.2, 0.35, 0.5])
def test_generated_tiles_here_and_there_stand_out(rule: PartRule, share: float) -> None:
    """Up to half of the tiles may be generated, wherever they are."""
    rng = np.random.default_rng(4)
    panel = windows(rng)
    places = [(y, x) for y in range(0, 24, 4) for x in range(0, 32, 4)]
    for number in rng.permutation(len(places))[: int(share * len(places))]:
        panel = with_part(panel, *places[number], 4, 12)

    part = rule.find(panel, TILE_PX)

    assert part is not None
    assert part.p_real < 0.01


def test_windows_of_two_kinds_have_a_highest_part(rule: PartRule) -> None:
    """A quarter of them far below the rest puts the typical level above all; a part is found."""
    panel = np.full((12, 12), -4.0)
    panel[:3] = -40.0
    panel[8, 8] = -3.9

    part = rule.find(panel, TILE_PX)

    assert typical_level(panel) > panel.max()
    assert part is not None
    assert part.windows.sum() == 1


def test_windows_that_are_not_judged_are_left_out(rule: PartRule) -> None:
    """What lies over text has no say, and a panel of few windows is not searched."""
    panel = with_part(windows(np.random.default_rng(5)), 4, 4, 5, 10)
    seen = rule.find(panel, TILE_PX)
    panel[:12, :12] = np.nan

    part = rule.find(panel, TILE_PX)

    assert seen is not None
    assert part is not None
    assert part.p_real > seen.p_real
    assert part.p_real > 0.05
    assert rule.find(np.full((4, 4), -5.0), TILE_PX) is None
    assert rule.find(np.full((9, 9), np.nan), TILE_PX) is None


@given(st.integers(0, 49), st.floats(4, 20))
def test_the_typical_level_is_that_of_the_reals(percent: int, height: float) -> None:
    """However many windows up to a half are higher, and however much, it stays near."""
    values = gaussian_filter(np.random.default_rng(6).normal(0, 1, (40, 50)), 0.1)
    mixed = values.copy()
    mixed.ravel()[: mixed.size * percent // 100] += height

    assert abs(typical_level(mixed) - typical_level(values)) < 1.4


def test_a_stored_rule_is_the_same(rule: PartRule) -> None:
    """It is plain JSON, of five digits; another version, and numbers that are none, are refused."""
    numbers = json.loads(json.dumps(rule.numbers()))

    restored = PartRule.restore(numbers)
    assert restored.numbers() == numbers
    np.testing.assert_allclose(restored.composites, rule.composites, atol=1e-5)
    for change in (
        {"version": 2},
        {"usual": float("nan")},
        {"composites": []},
        {"tails": {}},
        {"tails": {"as it is": [0.0, float("inf")]}},
    ):
        with pytest.raises(ValueError, match="calibration of parts"):
            PartRule.restore(numbers | change)


def test_nothing_is_measured_on_nothing() -> None:
    """Both real panels and composites are needed."""
    panel = np.zeros((9, 9))
    for reals, composites in (({}, [panel]), ({"as it is": []}, [panel]), ({"a": [panel]}, [])):
        with pytest.raises(ValueError, match="no panels to calibrate"):
            PartRule.measure(reals, composites)
