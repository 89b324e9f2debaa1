"""What score a real panel is expected to have, by what its pixels tell."""

import numpy as np
import pytest

from semforensics.core.errors import InputError
from semforensics.detector.expected import Expectation, expect_unseen
from semforensics.detector.traces import Traces


def traces(fineness_db: float) -> Traces:
    """Traces of a panel that differ in fineness alone."""
    return Traces(3.0, 100.0, 10.0, 5.0, fineness_db, 3.0, 1.0)


FINE = np.linspace(-12.0, 0.0, 40)
PANELS = [traces(f) for f in FINE]
UNITS = [f"unit {index % 8}" for index in range(len(FINE))]


def test_what_pixels_explain_is_expected() -> None:
    """Little remains of scores that follow the fineness; numbers rebuild the whole."""
    scores = 2 - 0.5 * FINE

    found = Expectation.fit(PANELS, scores, UNITS)

    rest = scores - np.array([found.of(one) for one in PANELS])
    assert rest.std() < 0.3 * scores.std()
    assert abs(rest.mean()) < 0.05
    again = Expectation.restore(found.numbers())
    assert again.of(PANELS[3]) == found.of(PANELS[3])


def test_units_weigh_the_same() -> None:
    """However many panels they have."""
    panels = [traces(-5.0)] * 10
    scores = np.array([1.0] * 9 + [3.0])

    found = Expectation.fit(panels, scores, ["large"] * 9 + ["small"])

    assert found.of(panels[0]) == pytest.approx(2.0)


def test_nothing_is_extrapolated_far() -> None:
    """A panel beyond all that is known is expected what the farthest are."""
    found = Expectation.fit(PANELS, 2 - 0.5 * FINE, UNITS)

    assert found.of(traces(-60.0)) == pytest.approx(found.of(traces(-90.0)))
    with pytest.raises(InputError, match="no real panels"):
        Expectation.fit([], np.zeros(0), [])


def test_a_unit_has_no_say_in_what_is_expected_of_it() -> None:
    """Nor have fakes in what is expected of anything."""
    scores = 2 - 0.5 * FINE
    is_real = [unit != "unit 7" for unit in UNITS]
    odd = scores + np.where(np.array(UNITS) == "unit 3", 100.0, 0.0)
    odd[[not real for real in is_real]] = 1e6

    plain, found = (expect_unseen(PANELS, s, UNITS, is_real) for s in (scores, odd))

    own = np.array(UNITS) == "unit 3"
    np.testing.assert_allclose(found[own], plain[own])
    assert (np.abs(found[~own] - plain[~own]) > 1).all()
