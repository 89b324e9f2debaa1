"""The course of a GAN's training."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from semforensics.report.style import FAKE, NEUTRAL, REAL, styled

_PANELS = {
    "Discriminator, hinge loss": {"loss_d_real": ("reals", REAL), "loss_d_fake": ("fakes", FAKE)},
    "Discriminator, mean logit": {"logit_real": ("reals", REAL), "logit_fake": ("fakes", FAKE)},
    "Reconstruction of reals: sum of three LPIPS": {"loss_reconstruction": ("", REAL)},
    "Generator, loss": {"loss_g": ("", FAKE)},
    "Diversity of fakes: mean LPIPS between two, over that of reals": {"diversity": ("", FAKE)},
}
COLUMNS = ("iteration", *(column for lines in _PANELS.values() for column in lines))


@styled
def loss_curves(losses: pd.DataFrame, *, source: str) -> Figure:
    """Draw the losses, logits and diversity of a training over its iterations.

    Args:
        losses: The columns `COLUMNS`; empty values are not drawn.
        source: Line that says what the figure shows.
    """
    figure = Figure(figsize=(8, 9), layout="constrained")
    panels = figure.subplots(len(_PANELS), sharex=True)
    for axes, (title, lines) in zip(panels, _PANELS.items(), strict=True):
        axes.set_title(title, loc="left")
        for column, (label, colour) in lines.items():
            _draw(axes, losses["iteration"], losses[column], label, colour)
        if len(lines) > 1:
            axes.legend(loc="lower right", bbox_to_anchor=(1, 1), borderaxespad=0, ncols=2)
        if "LPIPS" in title:  # a distance: its 0 means something
            axes.set_ylim(0, 1.1 * axes.dataLim.ymax)
    panels[-1].set_xlabel("Iteration")
    figure.supxlabel(source, x=0.99, ha="right", size=8, color=NEUTRAL)
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
