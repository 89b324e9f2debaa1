"""Heat maps show every number in its place, the worse the more coloured."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from semforensics.figures.heatmaps import (
    false_alarm_heatmap,
    one_sided_heatmap,
    two_sided_heatmap,
)
from semforensics.figures.style import FAKE

LEVELS = [("none", "original"), ("jpeg", "quality 90"), ("resize", "x0.5 area")]


def grid() -> pd.DataFrame:
    """A cell of two axes, all three cases, and the original."""
    rows = []
    for number, (axis, level) in enumerate(LEVELS):
        for case in ("both", "fakes", "reals") if number else ("both",):
            rows.append(
                {"axis": axis, "level": level, "processed": case,
                 "false_positive_rate": 0.11 * number + 0.001 * (case == "reals"),
                 "true_positive_rate": 1 - 0.3 * number - 0.2 * (case == "fakes"),
                 "auroc": 1 - 0.25 * number, "auroc_change": -0.125 * number,
                 "decided": 0.9, "false_alarms_of_decided": np.nan if number == 2 else 0.05}
            )  # fmt: skip
    return pd.DataFrame(rows)


def texts(figure: Figure) -> list[list[list[str]]]:
    """The numbers of each panel, line by line."""
    panels = []
    for axes in figure.axes:
        lines: dict[float, list[str]] = {}
        for text in axes.texts[:-1]:  # the last one is the panel's name
            lines.setdefault(text.get_position()[1], []).append(text.get_text())
        panels.append(list(lines.values()))
    return panels


def test_the_two_sided_map_shows_rates_and_dashes() -> None:
    """Per cent and AUROC as they are; a dash where nothing was decided."""
    figure = two_sided_heatmap(grid(), source="s")

    assert texts(figure) == [
        [["0", "100", "1.000", "90", "5"]],
        [["11", "70", "0.750", "90", "5"]],
        [["22", "40", "0.500", "90", "-"]],
    ]
    names = [axes.get_yticklabels()[0].get_text() for axes in figure.axes]
    assert names == ["original", "quality 90", "x0.5 area"]


def test_the_one_sided_map_takes_each_class_from_its_own_case() -> None:
    """False positives of processed reals, true positives of processed fakes, signed changes."""
    figure = one_sided_heatmap(grid(), source="s")

    assert texts(figure)[0] == [["0", "0", "100", "0"]]
    assert texts(figure)[2] == [["22", "-0.250", "20", "-0.250"]]


def test_the_worst_is_fully_coloured() -> None:
    """An AUROC of one half has the full colour, one of 1 is white; no number has none."""
    figure = two_sided_heatmap(grid(), source="s")

    first, last = (figure.axes[panel].images[0] for panel in (0, 2))
    colours = last.cmap(last.norm(last.get_array()))[0]
    assert colours[2][:3] == pytest.approx(to_rgb(FAKE), abs=0.01)
    assert first.cmap(first.norm(first.get_array()))[0][2][:3] == pytest.approx((1, 1, 1))
    assert last.get_array().mask[0].tolist() == [False, False, False, False, True]


def test_false_alarms_stand_by_tile_and_by_pooling() -> None:
    """One line per set: tiles first, then images by each rule."""
    rows = [
        {"kind": "processed", "set": "tone: gamma 1.4", "level": "tile", "pooling": "",
         "n_images": 7, "flagged": 0.4, "decided": 0.5, "false_alarms": 0.1},
        {"kind": "foreign", "set": "denoised", "level": "tile", "pooling": "",
         "n_images": 7, "flagged": 1.0, "decided": 0.0, "false_alarms": 0.0},
    ]  # fmt: skip
    for number, pooling in enumerate(("mean", "median", "max")):
        for row in rows[:2]:
            shift = 0.01 * (number + 1)
            rows.append(
                row | {"level": "image", "pooling": pooling, "flagged": 0.2 + shift,
                       "false_alarms": 0.3 + shift}
            )  # fmt: skip

    figure = false_alarm_heatmap(pd.DataFrame(rows), source="s")

    assert texts(figure) == [
        [["40", "50", "10", "21", "31", "22", "32", "23", "33"]],
        [["100", "0", "0", "21", "31", "22", "32", "23", "33"]],
    ]
    assert figure.axes[1].get_yticklabels()[0].get_text() == "denoised (7)"


def test_nothing_to_show_is_an_empty_map() -> None:
    """Where the classifier knows every group, no line is left."""
    columns = ["kind", "set", "level", "pooling", "n_images", "flagged", "decided", "false_alarms"]

    figure = false_alarm_heatmap(pd.DataFrame(columns=columns, dtype=str), source="s")

    assert figure.axes == []
