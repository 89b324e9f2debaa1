"""One look for all figures; the same figure is the same bytes."""

from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure

# Blue and vermilion of Okabe and Ito's palette, which the colour-blind tell apart.
REAL = "#0072B2"
FAKE = "#D55E00"
NEUTRAL = "#555555"
DPI = 120

# Decorates a function that gives a figure.
styled = rc_context(
    {
        "font.size": 10,
        "axes.titlesize": 11,
        "axes.titleweight": "bold",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.color": "#E5E5E5",
        "grid.linewidth": 0.6,
        "axes.axisbelow": True,
        "lines.linewidth": 1.6,
        "legend.frameon": False,
        "figure.constrained_layout.h_pad": 0.08,
        "figure.constrained_layout.w_pad": 0.08,
        "figure.dpi": DPI,
        "savefig.dpi": DPI,
    }
)

_SOURCES = {"simulated": "Simulated micrographs", "boiko": "Boiko et al. 2020"}


def source_line(gan: str, data: str) -> str:
    """Say what a figure shows: which generator, and whether its micrographs are simulated."""
    return f"{gan} · {_SOURCES.get(data, 'User micrographs')}"


def save_figure(figure: Figure, path: Path) -> None:
    """Write a PNG without version or date, so that the same figure is the same file."""
    figure.savefig(path, metadata={"Software": None})
