import numpy as np
import pandas as pd
import pytest

from semforensics.report.losses import COLUMNS, loss_curves


def make_losses(n: int) -> pd.DataFrame:
    """A training of n rows; the diversity is known at every fifth, from the first on."""
    rng = np.random.default_rng(0)
    table = pd.DataFrame({column: rng.random(n) for column in COLUMNS})
    table["iteration"] = 20 * np.arange(1, n + 1)
    table.loc[np.arange(n) % 5 != 0, "diversity"] = np.nan
    return table


@pytest.mark.parametrize("n", [1, 7, 300])
def test_every_column_is_drawn(n):
    """Every column's known values are drawn at their iterations."""
    losses = make_losses(n)

    figure = loss_curves(losses, source="fastgan")

    lines = [line for axes in figure.axes for line in axes.lines]
    for column in COLUMNS[1:]:
        known = losses[losses[column].notna()]
        points = list(zip(known["iteration"], known[column], strict=True))
        assert any(list(map(tuple, line.get_xydata())) == points for line in lines), column
    assert figure.axes[-1].get_xlabel() == "Iteration"


def test_few_values_are_seen_as_points():
    """A diversity known at a few iterations, even at one, is visible."""
    figure = loss_curves(make_losses(300).head(1), source="fastgan")

    assert all(axes.lines[0].get_marker() == "o" for axes in figure.axes)


def test_collapse_shows_at_the_foot():
    """The axis of the diversity begins at 0 and holds all of it."""
    losses = make_losses(50)

    axes = loss_curves(losses, source="fastgan").axes[-1]

    low, high = axes.get_ylim()
    assert low == 0
    assert high > losses["diversity"].max()
