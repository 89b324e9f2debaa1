import numpy as np
import pandas as pd
import pytest

from semforensics.figures.losses import COLUMNS, loss_curves

OF_GAN = {
    "fastgan": ("loss_reconstruction", "diversity"),
    "stylegan2_ada": ("r1", "path_length", "p", "r_t", "diversity"),
}


def make_losses(n: int, gan: str = "fastgan") -> pd.DataFrame:
    """A training of n rows; the diversity is known at every fifth, from the first on."""
    rng = np.random.default_rng(0)
    table = pd.DataFrame({column: rng.random(n) for column in (*COLUMNS, *OF_GAN[gan])})
    table["iteration"] = 20 * np.arange(1, n + 1)
    table.loc[np.arange(n) % 5 != 0, "diversity"] = np.nan
    return table


@pytest.mark.parametrize("gan", OF_GAN)
@pytest.mark.parametrize("n", [1, 7, 300])
def test_every_column_is_drawn(n, gan):
    """Every column's known values are drawn at their iterations, and nothing that is not there."""
    losses = make_losses(n, gan)

    figure = loss_curves(losses, source=gan)

    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert ("Adaptive augmentation" in titles) == (gan == "stylegan2_ada")
    assert all(axes.lines for axes in figure.axes)

    lines = [line for axes in figure.axes for line in axes.lines]
    for column in losses.columns[1:]:
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
