import numpy as np
import pytest
from matplotlib.text import Text

from semforensics.report.spectra import power_spectra, radial_power_spectra


def test_white_noise_is_flat_at_its_variance():
    """The spectral density of white noise is its variance at every frequency."""
    rng = np.random.default_rng(0)
    noise = np.rint(rng.normal(128, 20, (60, 32, 32))).astype(np.uint8)

    _, spectra = radial_power_spectra(noise)

    # Some 60 x 6 independent values in the smallest ring: 5 %. Rounding adds 1/12.
    assert spectra.mean(axis=0) == pytest.approx(np.full(spectra.shape[1], 400 + 1 / 12), rel=0.2)
    assert spectra.mean() == pytest.approx(400 + 1 / 12, rel=0.03)


@pytest.mark.parametrize("side", [32, 33, 64])
@pytest.mark.parametrize("cycles", [3, 8, 13])
def test_stripes_stand_at_their_frequency(side, cycles):
    """Stripes have their power at their frequency, whatever their direction."""
    wave = 128 + 60 * np.sin(2 * np.pi * cycles * np.arange(side) / side)
    rows = np.rint(np.broadcast_to(wave, (side, side))).astype(np.uint8)

    frequency, spectra = radial_power_spectra(np.stack([rows, rows.T]))

    assert frequency[spectra.argmax(axis=1)] == pytest.approx([cycles / side] * 2)
    np.testing.assert_allclose(spectra[0], spectra[1], rtol=1e-9, atol=1e-9)


def test_uniform_images_have_no_power():
    """A uniform image has no power at any frequency, and its brightness does not show."""
    uniform = np.stack([np.full((16, 16), level, np.uint8) for level in (0, 77, 255)])

    frequency, spectra = radial_power_spectra(uniform)

    assert np.abs(spectra).max() < 1e-20
    assert (frequency[0], frequency[-1]) == (1 / 16, 11 / 16)


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
