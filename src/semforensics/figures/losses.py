"""The course of a GAN's training."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from semforensics.figures.style import FAKE, NEUTRAL, REAL, add_source, styled

_PANELS = {
    "Discriminator, loss": {"loss_d_real": ("reals", REAL), "loss_d_fake": ("fakes", FAKE)},
    "Discriminator, mean logit": {"logit_real": ("reals", REAL), "logit_fake": ("fakes", FAKE)},
    "Reconstruction of reals: sum of three LPIPS": {"loss_reconstruction": ("", REAL)},
    "Generator, loss": {"loss_g": ("", FAKE)},
    "Gradient of the logit at the reals: mean squared norm (R1)": {"r1": ("", REAL)},
    "Path length from style to image": {"path_length": ("", FAKE)},
    "Adaptive augmentation": {
        "p": ("strength p", NEUTRAL),
        "r_t": ("mean sign of the reals' logits", REAL),
    },
    "Diversity of fakes: mean LPIPS between two, over that of reals": {"diversity": ("", FAKE)},
}
"""Title of each panel, and its columns; a training that lacks the columns has no such panel."""
COLUMNS = ("iteration", "loss_d_real", "loss_d_fake", "logit_real", "logit_fake", "loss_g")
"""What every training logs."""
_FROM_ZERO = ("LPIPS", "augmentation", "length", "norm")
"""Quantities whose 0 means something, by a word of the title."""


@styled
def loss_curves(losses: pd.DataFrame, *, source: str) -> Figure:
    """Draw what a training has logged over its iterations: losses, logits, diversity, ….

    The columns are `COLUMNS` and any others of `_PANELS`; empty values are not drawn.
    """
    panels = {
        title: lines
        for title, lines in _PANELS.items()
        if any(losses.get(column, pd.Series()).notna().any() for column in lines)
    }
    figure = Figure(figsize=(8, 1.8 * len(panels)), layout="constrained")
    axes_of = figure.subplots(len(panels), sharex=True)
    for axes, (title, lines) in zip(axes_of, panels.items(), strict=True):
        axes.set_title(title, loc="left")
        for column, (label, colour) in lines.items():
            _draw(axes, losses["iteration"], losses[column], label, colour)
        if len(lines) > 1:
            axes.legend(loc="lower right", bbox_to_anchor=(1, 1), borderaxespad=0, ncols=2)
        if any(word in title for word in _FROM_ZERO):
            axes.set_ylim(min(0, 1.1 * axes.dataLim.ymin), 1.1 * axes.dataLim.ymax or 1)
    axes_of[-1].set_xlabel("Iteration")
    add_source(figure, source)
    return figure


def _draw(axes: Axes, iteration: pd.Series, values: pd.Series, label: str, colour: str) -> None:
    """Draw every value faintly and a running mean over a twentieth of them on top."""
    known = values.notna()
    iteration, values = iteration[known], values[known]
    # A few values are seen as points, many as a line.
    marker = "o" if len(values) < 40 else "none"
    axes.plot(iteration, values, marker=marker, color=colour, alpha=0.3, linewidth=0.8)
    window = max(1, len(values) // 20)
    smooth = values.rolling(window, center=True, min_periods=1).mean()
    axes.plot(iteration, smooth, color=colour, label=label)
