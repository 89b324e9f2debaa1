"""Figures and table show every cell, and say what is not comparable."""

import re

import numpy as np
import pandas as pd
from matplotlib.patches import Rectangle
from matplotlib.text import Text

from semforensics.figures.comparison_table import comparison_table
from semforensics.figures.matrix import detector_matrix, leave_one_out_figure

NOTES = {
    ("fastgan", "fastgan"): "seen",
    ("fastgan", "stylegan2_ada"): "left out",
    ("fastgan", "diffusion"): "under-trained",
    ("fastgan", "resized"): "control",
}


def cells() -> pd.DataFrame:
    """Two methods, one row, four columns."""
    rows = []
    for method, auroc in (("npr", 0.9), ("srm", 0.95)):
        for index, ((row, column), note) in enumerate(NOTES.items()):
            numbers = {"auroc": auroc - 0.1 * index, "called_fake": 0.25, "reals_called_fake": 0.05}
            ends = {
                f"{name}{end}": value + step
                for name, value in numbers.items()
                for end, step in (("_low", -0.01), ("_high", 0.01))
            }
            about = {"method": method, "detector": row, "column": column, "note": note}
            rows.append(about | numbers | ends)
    return pd.DataFrame(rows)


def headline() -> pd.DataFrame:
    """One pair and its mean, of two methods."""
    rows = []
    for method, auroc in (("npr", 0.8), ("srm", 0.85)):
        for row, column in (("fastgan", "stylegan2_ada"), ("mean", "mean")):
            rows.append(
                {"method": method, "detector": row, "column": column, "auroc": auroc,
                 "auroc_low": auroc - 0.02, "auroc_high": auroc + 0.02,
                 "difference": -0.05, "low": -0.07, "high": -0.03}
            )  # fmt: skip
    return pd.DataFrame(rows)


def texts(figure) -> list[str]:
    """All that is written in a figure."""
    return [text.get_text() for text in figure.findobj(Text)]


def test_the_matrix_shows_every_cell_and_marks_them():
    """Numbers of both scales, what was left out framed, what was seen in brackets."""
    figure = detector_matrix(cells(), source="all detectors, simulated")

    written = texts(figure)
    for number in ("(0.900)", "0.800", "0.700", "(0.950)", "0.850", "0.750"):
        assert number in written
    assert written.count("25 %") == 2
    assert "diffusion †" in written
    assert "resized" in written
    assert any("all detectors, simulated" in text for text in written)
    frames = [p for p in figure.findobj(Rectangle) if p.get_linewidth() == 1.8]
    assert len(frames) == 2


def test_a_matrix_without_controls_has_one_panel():
    """Nothing is drawn for what is not there."""
    kept = cells()[lambda table: table["column"].isin(["fastgan", "stylegan2_ada"])]

    figure = detector_matrix(kept, source="")

    assert not any("controls" in text or "†" in text for text in texts(figure))


def test_the_headline_shows_intervals():
    """A point and a line per method and pair, the mean in black."""
    figure = leave_one_out_figure(headline(), source="all detectors, simulated")

    (axes,) = figure.axes
    drawn = {line.get_label(): line for line in axes.lines}
    assert set(drawn) == {"mean", "FastGAN to StyleGAN2-ADA"}
    np.testing.assert_allclose(drawn["mean"].get_xdata(), [0.8, 0.85])
    assert drawn["mean"].get_color() == "black"
    ends = np.array([path.vertices[:, 0] for path in axes.collections[0].get_paths()])
    np.testing.assert_allclose(ends, [[0.78, 0.82], [0.83, 0.87]])


def test_the_table_says_who_wins():
    """What beats NPR is bold, what was seen is marked, controls stand apart."""
    differences = pd.DataFrame(
        {"detector": "fastgan", "column": ["fastgan", "stylegan2_ada"], "method": "srm",
         "better": ["open", "srm"]}
    )  # fmt: skip
    summary = {
        "bootstrap_resamples": 500, "data": "simulated", "protocol": "clean", "n_real": 15,
        "n_groups": 3, "network": "npr_tiny", "n_seeds": 2, "baseline_wins": 1, "compared": 2,
        "npr_wins": 0,
    }  # fmt: skip

    text = re.sub(" +", " ", comparison_table(cells(), headline(), differences, summary))

    assert "npr_tiny, mean over 2 trainings" in text
    assert "| NPR | 0.800 (0.780-0.820) | 0.800 (0.780-0.820) | |" in text
    assert "| SRM residuals | 0.850 (0.830-0.870) | 0.850 (0.830-0.870) | -0.050 (-0.070 to" in text
    assert "beats NPR in 1 of 2 comparisons, NPR a baseline in 0" in text
    assert "| FastGAN ‡ | 0.900 (0.890-0.910) | 0.950 (0.940-0.960) |" in text
    assert "| StyleGAN2-ADA | 0.800 (0.790-0.810) | **0.850 (0.840-0.860)** |" in text
    assert "| diffusion (under-trained) |" in text
    assert "| FastGAN | SRM residuals | 5.0 (4.0-6.0) | 25.0 (24.0-26.0) |" in text
    widths = {line.count("|") for line in text.splitlines() if line.startswith("| FastGAN")}
    assert widths == {4, 5}
