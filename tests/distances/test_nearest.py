import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from semforensics.distances.nearest import nearest, summarise

MATRICES = npst.arrays(
    np.float64,
    npst.array_shapes(min_dims=2, max_dims=2, max_side=8),
    elements=st.integers(0, 5).map(float),
)


@given(MATRICES)
def test_nearest_is_the_first_smallest(distances):
    """Every row's index points to its smallest distance, the lowest index at a tie."""
    found = nearest(distances)

    for row, distance, index, mean in zip(
        distances, found.distance, found.index, found.mean, strict=True
    ):
        assert distance == min(row)
        assert index == list(row).index(min(row))
        assert mean == pytest.approx(sum(row) / len(row))


@given(MATRICES, st.data())
def test_more_fakes_never_raise_a_minimum(mse, data):
    """With more fakes to choose from, no real has a farther nearest one."""
    more = data.draw(npst.arrays(np.float64, (len(mse), 3), elements=st.floats(0, 9)))

    alone, together = nearest(mse), nearest(np.hstack([mse, more]))

    assert (together.distance <= alone.distance).all()


@given(MATRICES)
def test_summary_is_in_order(mse):
    """Minimum, quartiles and mean of all pairs stand in their order, and minima are per real."""
    summary = summarise(mse, "mse")

    keys = ("", "_lower_quartile_of_minima", "_median_of_minima", "_upper_quartile_of_minima")
    values = [summary["mse" + (key or "_min")] for key in keys]
    assert values == sorted(values)
    assert summary["mse_mean_of_minima"] == pytest.approx(np.mean([min(row) for row in mse]))
    assert summary["mse_mean_of_minima_per_fake"] == pytest.approx(
        np.mean([min(column) for column in mse.T])
    )
    assert summary["mse_mean_of_minima"] <= summary["mse_mean_all_pairs"] + 1e-12


def test_nothing_to_compare_is_refused():
    """A matrix without rows or columns has no nearest."""
    with pytest.raises(ValueError, match=r"\(3, 0\): nothing to compare"):
        nearest(np.zeros((3, 0)))
