"""Every detector on every generator, as figures and as a Markdown table."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from semforensics.figures.style import FAKE, NEUTRAL, REAL, styled

NAMES = {
    "npr": "NPR",
    "spectrum": "radial spectrum",
    "dct": "log-DCT ridge",
    "srm": "SRM residuals",
    "noise": "noise physics",
    "stack": "stack of all five",
    "fastgan": "FastGAN",
    "stylegan2_ada": "StyleGAN2-ADA",
    "both": "both",
    "both_pseudo": "both + pseudo",
    "mean": "mean",
}
_GOOD = LinearSegmentedColormap.from_list("auroc", ["#FFFFFF", REAL])
_BAD = LinearSegmentedColormap.from_list("false alarms", ["#FFFFFF", FAKE])


def name_of(key: str) -> str:
    """Return what readers call a method, a row or a column."""
    return NAMES.get(key, key)


@styled
def detector_matrix(cells: pd.DataFrame, *, source: str) -> Figure:
    """Draw one block per method: AUROC on fakes, and the share of controls called fake.

    Args:
        cells: `method`, `row`, `column`, `note`, `auroc`, `called_fake`, in the order to draw. What
            `note` calls "seen" stands in brackets, what it calls "left out" in a frame, and
            "under-trained" columns have a dagger.
        source: Line that says what the figure shows.
    """
    methods = list(cells["method"].unique())
    rows = list(cells["row"].unique())
    controls = list(cells.loc[cells["note"] == "control", "column"].unique())
    fakes = [name for name in cells["column"].unique() if name not in controls]
    weak = set(cells.loc[cells["note"] == "under-trained", "column"])
    lines = len(methods) * len(rows)
    figure = Figure(
        figsize=(
            3.2 + 0.85 * (len(fakes) + len(controls)),
            2.6 + 0.3 * lines + 0.12 * len(methods),
        ),
        layout="constrained",
    )
    panels = figure.subplots(
        len(methods),
        2 if controls else 1,
        squeeze=False,
        gridspec_kw={"width_ratios": [len(fakes), len(controls)] if controls else [1]},
    )
    images = []
    for line, method in zip(panels, methods, strict=True):
        mine = cells[cells["method"] == method].set_index(["row", "column"])
        images = [_draw_block(line[0], mine, rows, fakes, "auroc", _GOOD, (0.5, 1))]
        if controls:
            images.append(_draw_block(line[1], mine, rows, controls, "called_fake", _BAD, (0, 1)))
            line[1].set_yticks([])
        line[0].set_yticks(range(len(rows)), [name_of(row) for row in rows], size=8)
        line[0].set_title(name_of(method), loc="left", size=10)
    for axes, columns in zip(panels[-1], (fakes, controls), strict=False):
        labels = [name_of(name) + (" †" if name in weak else "") for name in columns]
        axes.set_xticks(range(len(columns)), labels, rotation=35, ha="right", size=8)
    for axes in panels[:-1].ravel():
        axes.set_xticks([])
    titles = ("AUROC on fakes, 0.5 and below white", "Share of controls called fake")
    for number, (image, title) in enumerate(zip(images, titles, strict=False)):
        bar = figure.colorbar(
            image, ax=panels[:, number], location="top", shrink=0.8, aspect=30, pad=0.01
        )
        bar.set_label(title, size=8)
        bar.ax.tick_params(labelsize=7)
    figure.supylabel("Learned from", size=9)
    marks = "Framed: the other GAN, left out of the training; in brackets: seen in training"
    figure.supxlabel(
        marks + ("; †: under-trained" if weak else "") + f"\n{source}",
        x=0.99, ha="right", size=8, color=NEUTRAL,
    )  # fmt: skip
    return figure


def _draw_block(
    axes: Axes,
    cells: pd.DataFrame,
    rows: Sequence[str],
    columns: Sequence[str],
    value: str,
    colours: LinearSegmentedColormap,
    limits: tuple[float, float],
) -> Any:
    """Draw the cells of one method as coloured squares with their numbers."""
    values = np.array([[cells.loc[(row, column), value] for column in columns] for row in rows])
    image = axes.imshow(values, cmap=colours, vmin=limits[0], vmax=limits[1], aspect="auto")
    for (line, place), number in np.ndenumerate(values):
        kind = cells.loc[(rows[line], columns[place]), "note"]
        strong = (number - limits[0]) / (limits[1] - limits[0]) > 0.6
        text = f"{number:.3f}" if value == "auroc" else f"{100 * number:.0f} %"
        text = f"({text})" if kind == "seen" else text
        colour = "white" if strong else "black"
        axes.text(place, line, text, ha="center", va="center", size=8, color=colour)
        if kind == "left out":
            axes.add_patch(
                Rectangle(
                    (place - 0.46, line - 0.44), 0.92, 0.88, fill=False, edgecolor="black", lw=1.8
                )
            )
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    return image


@styled
def leave_one_out_figure(headline: pd.DataFrame, *, source: str) -> Figure:
    """Draw the AUROC of every method on the generator that it did not learn from.

    Args:
        headline: `method`, `row`, `column`, `auroc`, `auroc_low`, `auroc_high`; the mean over the
            pairs has "mean" as row and column.
        source: Line that says what the figure shows.
    """
    methods = list(headline["method"].unique())
    pairs = list(dict.fromkeys(zip(headline["row"], headline["column"], strict=True)))
    figure = Figure(figsize=(7, 1.6 + 0.45 * len(methods)), layout="constrained")
    axes = figure.subplots()
    shades = (FAKE, REAL, NEUTRAL)
    for index, (row, column) in enumerate(reversed(pairs)):
        part = headline[(headline["row"] == row) & (headline["column"] == column)]
        part = part.set_index("method").loc[methods]
        mean = row == "mean"
        height = np.arange(len(methods)) + 0.22 * ((len(pairs) - 1) / 2 - index)
        label = "mean" if mean else f"{name_of(row)} to {name_of(column)}"
        colour = "black" if mean else shades[index % len(shades)]
        axes.hlines(height, part["auroc_low"], part["auroc_high"], color=colour, linewidth=1.2)
        axes.plot(part["auroc"], height, "D" if mean else "o", color=colour, label=label, ms=5)
    axes.set_yticks(range(len(methods)), [name_of(method) for method in methods])
    axes.invert_yaxis()
    axes.set(
        title="One generator left out of the training, tested on it",
        xlabel="AUROC, 95 % interval by groups",
    )
    axes.set_xlim(right=1.005)
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize=8)
    figure.supxlabel(source, x=0.99, ha="right", size=8, color=NEUTRAL)
    return figure


def comparison_table(
    cells: pd.DataFrame,
    headline: pd.DataFrame,
    differences: pd.DataFrame,
    summary: Mapping[str, Any],
) -> str:
    """Write headline, matrix and controls as Markdown.

    Args:
        cells: As `cells.csv`.
        headline: AUROC with one generator left out.
        differences: As `differences.csv`.
        summary: As the metrics.
    """
    seeds = summary["n_seeds"]
    text = (
        f"AUROC with 95 % interval (bootstrap by groups, {summary['bootstrap_resamples']} "
        f"resamples). Data: {summary['data']}, protocol {summary['protocol']}; in a column at most "
        f"{summary['n_real']} test reals of {summary['n_groups']} groups, and as many others. "
        f"NPR is {summary['network']}, mean over {seeds} training{'s' * (seeds > 1)}.\n"
    )
    methods = list(cells["method"].unique())
    if not headline.empty:
        text += "\n## One generator left out\n\n"
        pairs = list(dict.fromkeys(zip(headline["row"], headline["column"], strict=True)))
        pairs = [pairs[-1], *pairs[:-1]]
        names = [
            "mean" if row == "mean" else f"{name_of(row)} → {name_of(column)}"
            for row, column in pairs
        ]
        lines = []
        for method in methods:
            part = headline[headline["method"] == method].set_index(["row", "column"])
            values = [_interval(part.loc[pair], "auroc") for pair in pairs]
            mean = part.loc[pairs[0]]
            above = "" if method == "npr" else _interval(mean, "difference", "", signed=True)
            lines.append([name_of(method), *values, above])
        text += _markdown(["detector", *names, "NPR less it, mean"], lines)

    wins = differences[differences["better"] == differences["method"]]
    text += (
        f"\nA single baseline beats NPR in {summary['baseline_wins']} of {summary['compared']} "
        f"comparisons, NPR a baseline in {summary['npr_wins']} (the interval of the paired "
        "difference leaves out 0; under-trained columns are not counted).\n"
    )
    text += "\n## Every row on every column\n\n**Bold**: beats NPR. ‡: seen in training.\n"
    beaten = set(zip(wins["method"], wins["row"], wins["column"], strict=True))
    fakes = cells[cells["note"] != "control"]
    for row in cells["row"].unique():
        part = fakes[fakes["row"] == row]
        lines = []
        for column in part["column"].unique():
            here = part[part["column"] == column].set_index("method")
            kind = here["note"].iloc[0]
            marks = {"seen": " ‡", "under-trained": " (under-trained)"}.get(kind, "")
            values = []
            for method in methods:
                value = _interval(here.loc[method], "auroc")
                values.append(f"**{value}**" if (method, row, column) in beaten else value)
            lines.append([name_of(column) + marks, *values])
        text += f"\nLearned from {name_of(row)}:\n\n"
        text += _markdown(["tested on", *(name_of(method) for method in methods)], lines)

    controls = cells[cells["note"] == "control"]
    if not controls.empty:
        text += (
            "\n## Negative controls\n\nShare called fake (Wilson's interval), in per cent; first "
            "the untouched reals.\n\n"
        )
        lines = []
        for row in controls["row"].unique():
            for method in methods:
                part = controls[(controls["row"] == row) & (controls["method"] == method)]
                reals = _share(part.iloc[0], "reals_called_fake")
                shares = [_share(cell, "called_fake") for _, cell in part.iterrows()]
                lines.append([name_of(row), name_of(method), reals, *shares])
        names = [name_of(column) for column in controls["column"].unique()]
        text += _markdown(["learned from", "detector", "reals", *names], lines)
    return text


def _interval(
    cell: pd.Series, name: str, prefix: str | None = None, *, signed: bool = False
) -> str:
    prefix = f"{name}_" if prefix is None else prefix
    sign = "+" if signed else ""
    value, low, high = (cell[key] for key in (name, f"{prefix}low", f"{prefix}high"))
    if signed:
        return f"{value:{sign}.3f} ({low:{sign}.3f} to {high:{sign}.3f})"
    return f"{value:.3f} ({low:.3f}-{high:.3f})"


def _share(cell: pd.Series, name: str) -> str:
    value, low, high = (100 * cell[key] for key in (name, f"{name}_low", f"{name}_high"))
    return f"{value:.1f} ({low:.1f}-{high:.1f})"


def _markdown(names: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rows = [names, ["---"] * len(names), *lines]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)
