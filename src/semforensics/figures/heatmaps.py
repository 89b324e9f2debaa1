"""Numbers of many processings as heat maps: one line each, in coloured squares."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from semforensics.figures.style import FAKE, NEUTRAL, styled

_COLOURS = LinearSegmentedColormap.from_list("worse", ["#FFFFFF", FAKE])
_PANELS = (
    ("none", "jpeg", "filter", "noise", "tone", "laundering"),
    ("resize", "geometry", "document"),
)
"""Axes of the left and of the right half, about as many lines in each."""
_TITLES = {
    "none": "As it is",
    "jpeg": "JPEG",
    "document": "Document chain",
    "foreign": "From outside",
}
_LINE_INCH, _SQUARE_INCH, _NAME_INCH, _HEAD_INCH = 0.225, 0.86, 1.75, 0.42


@dataclass(frozen=True)
class _Column:
    """A number of every cell, and which of its values are white and which fully coloured."""

    name: str
    head: str
    best: float = 0
    worst: float = 1
    style: Literal["percent", "share", "signed"] = "percent"
    """How it is written: a share with three digits; a signed number is coloured by its size."""

    def badness(self, values: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """Map values to 0 … 1, the worst."""
        sizes = np.abs(values) if self.style == "signed" else values
        return np.asarray(((sizes - self.best) / (self.worst - self.best)).clip(0, 1))

    def write(self, value: float) -> str:
        """Return a value as text; a dash where there is none."""
        if np.isnan(value):
            return "-"
        match self.style:
            case "percent":
                return f"{100 * value:.0f}"
            case "signed":
                return "0" if abs(value) < 0.0005 else f"{value:+.3f}"
            case "share":
                return f"{value:.3f}"


_TWO_SIDED = (
    _Column("false_positive_rate", "false\npositives"),
    _Column("true_positive_rate", "true\npositives", best=1, worst=0),
    _Column("auroc", "\nAUROC", best=1, worst=0.5, style="share"),
    _Column("decided", "\ndecided", best=1, worst=0),
    _Column("false_alarms_of_decided", "false alarms\nof decided"),
)
_ONE_SIDED = (
    _Column("reals_false_positive_rate", "reals: false\npositives"),
    _Column("reals_auroc_change", "reals: change\nof AUROC", worst=0.5, style="signed"),
    _Column("fakes_true_positive_rate", "fakes: true\npositives", best=1, worst=0),
    _Column("fakes_auroc_change", "fakes: change\nof AUROC", worst=0.5, style="signed"),
)
_POOLINGS = ("mean", "median", "max")
_ALARMS = (
    _Column("flagged", "tiles above\nthreshold"),
    _Column("decided", "tiles\ndecided", best=1, worst=0),
    _Column("false_alarms", "tiles\nsuspected"),
    *(
        _Column(f"{name}_{pooling}", f"{pooling}{head}")
        for pooling in _POOLINGS
        for name, head in (("flagged", " above\nthreshold"), ("false_alarms", "\nsuspected"))
    ),
)


@styled
def two_sided_heatmap(grid: pd.DataFrame, *, source: str) -> Figure:
    """Draw the detector's rates when both classes are processed, from `measure_robustness`."""
    cells = grid[grid["processed"] == "both"]
    return _draw(_halves(cells), _TWO_SIDED, "Both classes processed alike", source)


@styled
def one_sided_heatmap(grid: pd.DataFrame, *, source: str) -> Figure:
    """Draw the detector's rates when one class is processed, from `measure_robustness`."""
    cells = grid.loc[grid["processed"] == "both", ["axis", "level"]].copy()
    for case in ("reals", "fakes"):
        part = grid[(grid["processed"] == case) | (grid["axis"] == "none")]
        numbers = part.set_index(["axis", "level"])[
            ["false_positive_rate", "true_positive_rate", "auroc_change"]
        ].add_prefix(f"{case}_")
        cells = cells.join(numbers, on=["axis", "level"])
    return _draw(_halves(cells), _ONE_SIDED, "One class processed, the other as it is", source)


@styled
def false_alarm_heatmap(counted: pd.DataFrame, *, source: str) -> Figure:
    """Draw how often real micrographs are called fake, as tiles and as whole images.

    The table is that of `count_false_alarms`.
    """
    keys = ["kind", "set"]
    tiles = counted[counted["level"] == "tile"].set_index(keys)
    table = tiles[["n_images", "flagged", "decided", "false_alarms"]].copy()
    for pooling in _POOLINGS:
        part = counted[counted["pooling"] == pooling].set_index(keys)
        table[f"flagged_{pooling}"] = part["flagged"]
        table[f"false_alarms_{pooling}"] = part["false_alarms"]
    table = table.reset_index()
    table["axis"] = np.where(
        table["kind"] == "foreign", "foreign", table["set"].str.split(": ").str[0]
    )
    sizes = " (" + table["n_images"].astype(str) + ")"
    table["level"] = table["set"].str.split(": ").str[-1] + np.where(
        table["kind"] == "foreign", sizes, ""
    )
    panels = [(str(axis), part) for axis, part in table.groupby("axis", sort=False)]
    note = "Per cent; from outside: number of micrographs. Suspected: by the verdict."
    return _draw([panels], _ALARMS, "Real micrographs called fake", source, note)


def _halves(cells: pd.DataFrame) -> list[list[tuple[str, pd.DataFrame]]]:
    """Divide the grid into the panels of two columns, by axis; those that are there."""
    return [
        [(axis, cells[cells["axis"] == axis]) for axis in half if (cells["axis"] == axis).any()]
        for half in _PANELS
    ]


def _draw(
    halves: list[list[tuple[str, pd.DataFrame]]],
    columns: tuple[_Column, ...],
    title: str,
    source: str,
    note: str = "Per cent, but for AUROC. White: as good as can be; full colour: of no use.",
) -> Figure:
    """Draw columns of panels side by side, each panel a part of a table under its name."""
    lines = max(sum(len(part) for _, part in half) for half in halves)
    panels = max(len(half) for half in halves)
    width = len(halves) * (_NAME_INCH + len(columns) * _SQUARE_INCH)
    height = lines * _LINE_INCH + panels * _HEAD_INCH + 1.3
    figure = Figure(figsize=(width, height))
    for index, half in enumerate(halves):
        top = height - 0.85
        for number, (axis, part) in enumerate(half):
            tall = len(part) * _LINE_INCH
            left = index * width / len(halves) + _NAME_INCH
            bounds = (
                left / width,
                (top - tall) / height,
                (len(columns) * _SQUARE_INCH - 0.12) / width,
                tall / height,
            )
            _panel(figure.add_axes(bounds), axis, part, columns, with_heads=number == 0)
            top -= tall + _HEAD_INCH
    figure.text(0.12 / width, 1 - 0.25 / height, title, size=12, weight="bold", va="center")
    figure.text(0.12 / width, 0.16 / height, note, size=8, color=NEUTRAL)
    figure.text(1 - 0.12 / width, 0.16 / height, source, size=8, color=NEUTRAL, ha="right")
    return figure


def _panel(
    axes: Axes, axis: str, part: pd.DataFrame, columns: tuple[_Column, ...], *, with_heads: bool
) -> None:
    values = np.stack([part[column.name].to_numpy(dtype=float) for column in columns], axis=1)
    badness = np.stack(
        [column.badness(values[:, index]) for index, column in enumerate(columns)], axis=1
    )
    shown = np.ma.masked_invalid(badness)
    axes.imshow(shown, cmap=_COLOURS, vmin=0, vmax=1, aspect="auto")
    for line, column in np.ndindex(*values.shape):
        text = columns[column].write(float(values[line, column]))
        axes.text(column, line, text, ha="center", va="center", size=8)
    axes.set_yticks(range(len(part)), part["level"], size=8)
    heads = [column.head for column in columns] if with_heads else []
    axes.set_xticks(range(len(heads)), heads, size=8)
    axes.tick_params(length=0, labeltop=True, labelbottom=False)
    axes.set_xticks(np.arange(0.5, len(columns) - 1), minor=True)
    axes.set_yticks(np.arange(0.5, len(part) - 1), minor=True)
    axes.grid(visible=False)
    axes.grid(which="minor", color="#E5E5E5")
    axes.tick_params(which="minor", length=0)
    axes.text(
        -0.02, 1 + 0.05 / (len(part) * _LINE_INCH), _TITLES.get(axis, axis.capitalize()),
        transform=axes.transAxes, ha="right", va="bottom", size=9, weight="bold",
    )  # fmt: skip
