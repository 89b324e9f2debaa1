import numpy as np
import pytest

from semforensics.report.histograms import nearest_histograms


def test_every_image_is_counted_once_in_common_bins():
    """Both histograms count all of their images, in the same bins from 0 on."""
    rng = np.random.default_rng(0)
    per_real, per_fake = rng.gamma(2, 80, 30), rng.gamma(2, 120, 200)

    figure = nearest_histograms(per_real, per_fake, source="fastgan")

    bars = [[(b.get_x(), b.get_width()) for b in axes.patches] for axes in figure.axes]
    counts = [sum(b.get_height() for b in axes.patches) for axes in figure.axes]
    assert counts == [30, 200]
    assert bars[0] == bars[1]
    assert bars[0][0][0] == pytest.approx(0, abs=1e-9)
    assert "grey levels squared" in figure.axes[1].get_xlabel()


def test_medians_are_marked():
    """The dashed line stands at the median, and the heading names it and the smallest."""
    per_real, per_fake = np.array([1.0, 2.0, 30.0]), np.array([5.0, 6.0])

    figure = nearest_histograms(per_real, per_fake, source="fastgan")

    marks = [axes.lines[0].get_xdata()[0] for axes in figure.axes]
    assert marks == [2, 5.5]
    assert figure.axes[0].get_title("right") == "n = 3   smallest 1.0   median 2.0"


def test_copies_alone_can_be_drawn():
    """A GAN that copies all its reals has a histogram at 0."""
    figure = nearest_histograms(np.zeros(4), np.zeros(3), source="fastgan")

    assert figure.axes[0].patches[0].get_height() == 4
    assert figure.axes[0].get_xlim()[1] == pytest.approx(1, abs=0.1)
