"""A failed gate is red in colour and in words."""

import re

import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from semforensics.figures.audit import audit_markdown, gates_figure

GATES = [
    {"name": "permuted_labels", "passed": True, "value": 0.0, "low": -0.001, "high": 0.002,
     "bound": 0.01, "rule": "smaller", "remark": "no pixel changed"},
    {"name": "one_sided_processing", "passed": False, "value": 0.3, "low": 0.2, "high": 0.4,
     "bound": 0.05, "rule": "at most", "remark": "blur"},
    {"name": "controls_inconclusive", "passed": False, "value": None, "low": None, "high": None,
     "bound": 1.0, "rule": "all", "remark": "not tested: " + "too few images, " * 20},
]  # fmt: skip


def drawn() -> Figure:
    """The figure of the gates above."""
    return gates_figure(GATES, source="npr_tiny, both")


def test_passed_and_failed_differ_in_word_colour_and_mark() -> None:
    """Colour alone would say nothing to some readers."""
    first, second, third = drawn().axes

    titles = [axes.get_title(loc="left") for axes in (first, second, third)]
    assert titles == [
        "PASSED  Permuted labels", "RED  One-sided processing", "RED  Controls inconclusive"
    ]  # fmt: skip
    marks = [
        (line.get_marker(), to_hex(line.get_color()))
        for axes in (first, second)
        for line in axes.lines
        if line.get_marker() != "None"
    ]
    assert marks == [("o", "#009e73"), ("X", "#d55e00")]


def test_values_stand_at_their_place_beside_the_bound() -> None:
    """Interval, value and bound share an axis."""
    axes = drawn().axes[1]

    (segment,) = axes.collections[0].get_segments()
    assert segment[:, 0].tolist() == [0.2, 0.4]
    assert axes.lines[0].get_xdata() == [0.05, 0.05]
    assert axes.lines[1].get_xdata() == pytest.approx([0.3])


def test_a_gate_without_a_test_shows_no_value_and_a_short_remark() -> None:
    """There is nothing to draw, and a long reason is cut."""
    axes = drawn().axes[2]

    assert axes.get_title(loc="right") == "not tested"
    assert not axes.collections
    assert len(axes.get_xlabel().split("\n")[1]) <= 105


def test_the_table_names_every_gate_and_trace() -> None:
    """Red gates stand out, and traces in the pixels are listed without a verdict."""
    pixels = pd.DataFrame(
        {"feature": ["all", "comb"], "auroc": [0.9, 0.5], "auroc_low": [0.8, 0.4],
         "auroc_high": [0.95, 0.6], "real": ["", "0.1"], "fake": ["", "0.2"]}
    )  # fmt: skip

    text = re.sub(" +", " ", audit_markdown(GATES, pixels, source="npr_tiny, both"))

    assert text.count("**RED**") == 2
    assert "| Permuted labels | passed | 0.0000 (-0.0010 to 0.0020) | 0.01 | smaller |" in text
    assert "| comb | 0.500 (0.400-0.600) | 0.1 | 0.2 |" in text
