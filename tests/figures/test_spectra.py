import numpy as np
from matplotlib.text import Text

from semforensics.figures.spectra import power_spectra


def test_smoother_fakes_lie_lower():
    """The figure draws both medians with their numbers of images, on logarithmic axes."""
    frequency = np.array([0.1, 0.2, 0.4])
    reals, fakes = np.array([[9.0, 4, 2]] * 3), np.array([[9.0, 2, 1]] * 5)

    figure = power_spectra(frequency, reals, fakes, source="fastgan, simulated")

    (axes,) = figure.axes
    drawn = {line.get_label(): list(line.get_ydata()) for line in axes.lines}
    assert drawn["reals, n = 3"] == [9, 4, 2]
    assert drawn["fakes, n = 5"] == [9, 2, 1]
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert "cycles/px" in axes.get_xlabel()
    assert "fastgan, simulated" in [text.get_text() for text in figure.findobj(Text)]
