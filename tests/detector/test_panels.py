"""Panel scores and their conditional calibration."""

from dataclasses import replace

import numpy as np
import pytest

from semforensics.core.errors import InputError
from semforensics.detector.conformal import LEAST_GROUPS
from semforensics.detector.panels import GRID, LEAST_FAKES, Cell, Panel, panel_score


def panels(
    mean: float, family: str, *, units: int = 20, tiles: int = 16, seed: int = 0
) -> list[Panel]:
    """Panels whose tiles scatter around a mean by 1."""
    rng = np.random.default_rng(seed)
    return [Panel(f"unit {i}", family, mean + rng.normal(size=tiles)) for i in range(units)]


@pytest.fixture(scope="module")
def cells() -> dict[str, Cell]:
    """Two histories: in one the classes are two apart, in the other they are the same."""
    apart = [*panels(-1, ""), *panels(1, "a", seed=1), *panels(1.2, "b", seed=2)]
    alike = [*panels(0, ""), *panels(0, "a", seed=1), *panels(0, "b", seed=2)]
    return {"native": Cell(tuple(apart)), "JPEG 65": Cell(tuple(alike))}


def test_extreme_tiles_do_not_move_a_panel() -> None:
    """A fifth of the tiles at each end is left out."""
    logits = np.array([0.0, 1.0, 2.0, 3.0, 4.0])

    assert panel_score(logits) == 2
    assert panel_score(np.array([0.0, 1.0, 2.0, 3.0, 400.0])) == 2
    assert panel_score(logits[:1]) == 0
    with pytest.raises(InputError, match="no tiles"):
        panel_score(logits[:0])


def test_the_null_is_wide_for_few_tiles(cells: dict[str, Cell]) -> None:
    """The same score is less unusual for a panel of one tile than for one of sixteen."""
    score = np.array([0.2])

    few, many = (cells["native"].p_values(score, count)[0][0] for count in (1, 16))

    assert many == pytest.approx(1 / 21)
    assert few > many


def test_a_unit_has_one_vote() -> None:
    """Many panels of one collection count as much as one of another."""
    many = [Panel("large", "", np.array([5.0])) for _ in range(50)]
    few = [Panel(f"small {i}", "", np.array([0.0])) for i in range(3)]
    fakes = [Panel("large", "a", np.array([9.0])) for _ in range(LEAST_FAKES)]

    p_real, _ = Cell((*many, *few, *fakes)).p_values(np.array([1.0]), 1)

    assert p_real[0] == pytest.approx((1 + 1) / (4 + 1))


def test_p_real_holds_for_each_resampling() -> None:
    """Where shrunk reals score higher, they decide; where they are too few, all together do."""
    as_they_are = panels(0, "", units=LEAST_GROUPS)
    shrunk = [replace(panel, shrunk=0.5) for panel in panels(4, "", units=LEAST_GROUPS, seed=3)]
    fakes = panels(6, "a", seed=1)
    score = np.array([3.9])

    with_all, with_few, without = (
        Cell((*as_they_are, *more, *fakes)).p_values(score, 16)[0][0]
        for more in (shrunk, shrunk[:-1], [])
    )

    assert without == pytest.approx(1 / (LEAST_GROUPS + 1))
    assert with_few == pytest.approx((1 + LEAST_GROUPS * 0.25) / (LEAST_GROUPS + 1), abs=0.1)
    assert with_all == pytest.approx((1 + LEAST_GROUPS * 0.5) / (LEAST_GROUPS + 1), abs=0.2)
    assert without < with_few < with_all


def test_a_rare_family_does_not_count() -> None:
    """Of too few panels no p-value of one in twenty can be had."""
    few = panels(1, "b", units=LEAST_FAKES - 1)

    cell = Cell((*panels(0, ""), *panels(1, "a"), *few))

    assert cell.families == ("a",)
    assert cell.num_units == 20
    with pytest.raises(InputError, match="0 reals"):
        Cell(tuple(few)).p_values(np.zeros(1), 1)


def test_p_fake_holds_for_every_family(cells: dict[str, Cell]) -> None:
    """The family that is most like the panel decides."""
    both, one = cells["native"], Cell(tuple(p for p in cells["native"].panels if p.family != "a"))
    score = np.array([0.6])

    assert both.p_values(score, 16)[1][0] >= one.p_values(score, 16)[1][0]


def test_power_is_high_where_classes_part_and_nothing_where_they_do_not(
    cells: dict[str, Cell],
) -> None:
    """And it rises with the number of tiles."""
    assert cells["native"].power(16, 0.05) > 0.8
    assert cells["native"].power(1, 0.05) < cells["native"].power(16, 0.05)
    assert cells["JPEG 65"].power(16, 0.05) < 0.2


def test_odds_follow_the_scores(cells: dict[str, Cell]) -> None:
    """Even between the classes, many to one at their means, and even everywhere if they overlap."""
    null = cells["native"].null(16)
    middle = (null.reals.mean() + np.concatenate(list(null.fakes.values())).mean()) / 2

    low, even, high = (null.log_odds(float(middle) + by) for by in (-1.0, 0.0, 1.0))

    assert low < -1.5 < abs(even) < 1.5 < high
    assert abs(cells["JPEG 65"].null(16).log_odds(0.5)) < 1.5


def test_the_grid_names_what_it_does() -> None:
    """Thirteen histories, of which only the first does nothing."""
    assert len(GRID) == 13
    assert [name for name, history in GRID.items() if history.does_nothing()] == ["native"]
    assert GRID["x0.75, JPEG 85"].factor == 0.75
    assert GRID["x0.75, JPEG 85"].qualities == (85,)
