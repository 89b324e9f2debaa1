"""Results of all detectors before and after a change."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from semforensics.figures.style import FAKE, NEUTRAL, REAL, add_source, styled

_BETTER = "#009E73"  # bluish green of the same palette
_MARKS = {"worse": (FAKE, "X"), "better": (_BETTER, "o"), "": (REAL, "o")}
_SHIFT = 0.17  # of the two values from the middle of their line


@styled
def changes_figure(changes: pd.DataFrame, *, before: str, after: str) -> Figure:
    """Draw shares with their intervals, a line per detector and generator, a panel per result.

    The columns are `line` and `panel`, what they are called, in the order to draw; `old`,
    `old_low`, `old_high` and the same of `new`, 0 to 1, not a number where there is none;
    `verdict`, "worse", "better" or "".
    """
    lines, panels = list(changes["line"].unique()), list(changes["panel"].unique())
    figure = Figure(figsize=(10, 1.1 + 0.26 * len(lines)), layout="constrained")
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for panel, one in zip(panels, axes, strict=True):
        for row in changes[changes["panel"] == panel].to_dict("records"):
            colour, mark = _MARKS[row["verdict"]]
            height = lines.index(row["line"])
            _draw(one, row, "old", height - _SHIFT, NEUTRAL, "o")
            _draw(one, row, "new", height + _SHIFT, colour, mark)
        one.set_title(panel, size=10)
        one.set_xlim(-0.05, 1.05)
        one.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
    axes[0].set_yticks(range(len(lines)), [_plain(line) for line in lines], size=9)
    axes[0].set_ylim(len(lines) - 0.5, -0.5)
    words = "vermilion cross: worse by more than the intervals, green: better, blue: within them"
    add_source(figure, _plain(f"grey: {before} · coloured: {after} ({words})"))
    return figure


def _draw(
    axes: Axes, row: dict[str, float], end: str, height: float, colour: str, mark: str
) -> None:
    axes.hlines(height, row[f"{end}_low"], row[f"{end}_high"], color=colour, linewidth=4, alpha=0.4)
    axes.plot(row[end], height, mark, color=colour, markersize=5)


def _plain(text: str) -> str:
    """Keep a dollar sign from beginning a formula."""
    return text.replace("$", r"\$")
