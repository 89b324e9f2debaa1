"""Every detector on every generator, as figures."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from semforensics.figures.style import FAKE, NEUTRAL, REAL, add_source, styled

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
    """Return what readers call a method, a detector or a column."""
    return NAMES.get(key, key)


@styled
def detector_matrix(cells: pd.DataFrame, *, source: str) -> Figure:
    """Draw one block per method: AUROC on fakes, and the share of controls called fake.

    The columns are `method`, `detector`, `column`, `note`, `auroc`, `called_fake`, in the order to
    draw. What is "seen" by its note is in brackets, what is "left out" is framed, and columns that
    are "under-trained" have a dagger.
    """
    methods = list(cells["method"].unique())
    detectors = list(cells["detector"].unique())
    controls = list(cells.loc[cells["note"] == "control", "column"].unique())
    fakes = [name for name in cells["column"].unique() if name not in controls]
    weak = set(cells.loc[cells["note"] == "under-trained", "column"])
    lines = len(methods) * len(detectors)
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
        mine = cells[cells["method"] == method].set_index(["detector", "column"])
        images = [_draw_block(line[0], mine, detectors, fakes, "auroc", _GOOD, (0.5, 1))]
        if controls:
            images.append(
                _draw_block(line[1], mine, detectors, controls, "called_fake", _BAD, (0, 1))
            )
            line[1].set_yticks([])
        line[0].set_yticks(range(len(detectors)), [name_of(one) for one in detectors], size=8)
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
    legend = "Framed: the other GAN, left out of the training; in brackets: seen in training"
    add_source(figure, legend + ("; †: under-trained" if weak else "") + f"\n{source}")
    return figure


def _draw_block(
    axes: Axes,
    cells: pd.DataFrame,
    detectors: list[str],
    columns: list[str],
    value: str,
    colours: LinearSegmentedColormap,
    limits: tuple[float, float],
) -> Any:
    """Draw the cells of one method as coloured squares with their numbers."""
    values, notes = (
        cells[name].unstack().loc[detectors, columns].to_numpy() for name in (value, "note")
    )
    image = axes.imshow(values, cmap=colours, vmin=limits[0], vmax=limits[1], aspect="auto")
    for (line, position), number in np.ndenumerate(values):
        strong = (number - limits[0]) / (limits[1] - limits[0]) > 0.6
        text = f"{number:.3f}" if value == "auroc" else f"{100 * number:.0f} %"
        text = f"({text})" if notes[line, position] == "seen" else text
        colour = "white" if strong else "black"
        axes.text(position, line, text, ha="center", va="center", size=8, color=colour)
        if notes[line, position] == "left out":
            corner = (position - 0.46, line - 0.44)
            axes.add_patch(Rectangle(corner, 0.92, 0.88, fill=False, edgecolor="black", lw=1.8))
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    return image


@styled
def leave_one_out_figure(headline: pd.DataFrame, *, source: str) -> Figure:
    """Draw the AUROC of every method on the generator that it did not learn from.

    The columns are `method`, `detector`, `column`, `auroc`, `auroc_low`, `auroc_high`; the mean
    over the pairs has "mean" as detector and column.
    """
    methods = list(headline["method"].unique())
    pairs = list(dict.fromkeys(zip(headline["detector"], headline["column"], strict=True)))
    figure = Figure(figsize=(7, 1.6 + 0.45 * len(methods)), layout="constrained")
    axes = figure.subplots()
    shades = (FAKE, REAL, NEUTRAL)
    for index, (detector, column) in enumerate(reversed(pairs)):
        part = headline[(headline["detector"] == detector) & (headline["column"] == column)]
        part = part.set_index("method").loc[methods]
        mean = detector == "mean"
        height = np.arange(len(methods)) + 0.22 * ((len(pairs) - 1) / 2 - index)
        label = "mean" if mean else f"{name_of(detector)} to {name_of(column)}"
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
    add_source(figure, source)
    return figure
