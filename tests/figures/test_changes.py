"""What a change does to all detectors, in one picture."""

import math

import pandas as pd
import pytest
from matplotlib.colors import to_hex

from semforensics.figures.changes import changes_figure


def rows() -> pd.DataFrame:
    """Two lines of two panels; one value got worse, one is new."""
    values = {"old": 0.9, "old_low": 0.8, "old_high": 0.95}
    after = {"new": 0.5, "new_low": 0.4, "new_high": 0.6}
    missing = dict.fromkeys(values, math.nan)
    return pd.DataFrame(
        [
            {"line": "both on FastGAN", "panel": "Accuracy", "verdict": "worse"} | values | after,
            {"line": "both on FastGAN", "panel": "Decided", "verdict": ""} | values | after,
            {"line": "FastGAN on FastGAN", "panel": "Accuracy", "verdict": ""} | missing | after,
        ]
    )


def test_before_and_after_are_drawn_with_their_intervals() -> None:
    """Each panel has both values of each line, before above after."""
    accuracy, decided = changes_figure(rows(), before="main", after="change").axes

    assert [axes.get_title() for axes in (accuracy, decided)] == ["Accuracy", "Decided"]
    assert [label.get_text() for label in accuracy.get_yticklabels()] == [
        "both on FastGAN", "FastGAN on FastGAN"
    ]  # fmt: skip
    old, new = decided.lines
    assert (old.get_xdata()[0], new.get_xdata()[0]) == (0.9, 0.5)
    assert (
        decided.transData.transform((0, old.get_ydata()[0]))[1]
        > (decided.transData.transform((0, new.get_ydata()[0]))[1])
    )
    ends = [list(one.get_segments()[0][:, 0]) for one in decided.collections]
    assert ends == [[0.8, 0.95], [0.4, 0.6]]


def test_what_got_worse_differs_in_colour_and_mark() -> None:
    """Colour alone would say nothing to some readers."""
    accuracy, decided = changes_figure(rows(), before="main", after="change").axes

    worse, within = accuracy.lines[1], decided.lines[1]
    assert (worse.get_marker(), to_hex(worse.get_color())) == ("X", "#d55e00")
    assert (within.get_marker(), to_hex(within.get_color())) == ("o", "#0072b2")


def test_revisions_are_named() -> None:
    """The line below says which colour is which revision; no name becomes a formula."""
    figure = changes_figure(rows().replace("both", "$x^$"), before="main", after=r"$\no^$")

    figure.canvas.draw()
    assert "grey: main" in figure.get_supxlabel()
    assert "no^" in figure.get_supxlabel()


def test_an_unknown_verdict_is_a_mistake() -> None:
    """A verdict is worse, better or empty."""
    with pytest.raises(KeyError, match="odd"):
        changes_figure(rows().assign(verdict="odd"), before="main", after="change")
