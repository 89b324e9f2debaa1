import numpy as np
import pandas as pd
import pytest

from semforensics.figures.histograms import memorisation_histograms, nearest_histograms


def test_every_image_is_counted_once_in_common_bins():
    """Both histograms count all of their images, in the same bins from 0 on."""
    rng = np.random.default_rng(0)
    per_real, per_fake = rng.gamma(2, 80, 30), rng.gamma(2, 120, 200)

    figure = nearest_histograms(per_real, per_fake, name="mse", source="fastgan")

    bars = [[(b.get_x(), b.get_width()) for b in axes.patches] for axes in figure.axes]
    counts = [sum(b.get_height() for b in axes.patches) for axes in figure.axes]
    assert counts == [30, 200]
    assert bars[0] == bars[1]
    assert bars[0][0][0] == pytest.approx(0, abs=1e-9)
    assert "grey levels squared" in figure.axes[1].get_xlabel()


def test_medians_are_marked():
    """The dashed line stands at the median, and the heading names it and the smallest."""
    per_real, per_fake = np.array([1.0, 2.0, 30.0]), np.array([5.0, 6.0])

    figure = nearest_histograms(per_real, per_fake, name="mse", source="fastgan")

    marks = [axes.lines[0].get_xdata()[0] for axes in figure.axes]
    assert marks == [2, 5.5]
    assert figure.axes[0].get_title("right") == "n = 3   smallest 1.0   median 2.0"


def test_copies_alone_can_be_drawn():
    """A GAN that copies all its reals has a histogram at 0."""
    figure = nearest_histograms(np.zeros(4), np.zeros(3), name="mse", source="fastgan")

    assert figure.axes[0].patches[0].get_height() == 4
    assert figure.axes[0].get_xlim()[1] == pytest.approx(1, abs=0.1)


def test_lpips_has_its_own_unit_and_digits():
    """LPIPS is labelled as such, with as many digits as it needs."""
    figure = nearest_histograms(
        np.array([0.01, 0.2]), np.array([0.0123, 0.4]), name="lpips", source="fastgan"
    )

    assert figure.axes[0].get_title("right") == "n = 2   smallest 0.0100   median 0.1050"
    assert figure.axes[1].get_xlabel().startswith("Smallest LPIPS (no unit)")


def test_memorisation_compares_shares():
    """Fakes and other reals are drawn as shares of their own number, in the same bins."""
    rng = np.random.default_rng(0)
    twins = pd.DataFrame({"kind": ["fake"] * 300 + ["real"] * 100})
    twins["mse"], twins["lpips"] = rng.gamma(2, 80, 400), rng.gamma(2, 0.1, 400)

    figure = memorisation_histograms(twins, source="fastgan")

    for axes, name in zip(figure.axes, ("mse", "lpips"), strict=True):
        bars = np.array([b.get_height() for b in axes.patches]).reshape(2, -1)
        assert bars.sum(axis=1) == pytest.approx([100, 100])
        limit = np.quantile(twins[name][300:], 0.01)
        assert axes.lines[0].get_xdata()[0] == pytest.approx(limit)
        assert [t.get_text() for t in axes.get_legend().get_texts()][:2] == [
            "other reals, n = 100",
            "fakes, n = 300",
        ]
    assert "grey levels squared" in figure.axes[0].get_xlabel()
    assert "LPIPS" in figure.axes[1].get_xlabel()
