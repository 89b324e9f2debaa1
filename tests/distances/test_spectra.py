import numpy as np
import pytest

from semforensics.distances.spectra import radial_power_spectra, spectrum_distance_db


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


def test_distance_is_the_gain_in_decibels():
    """Twice the amplitude is 6 dB away, at every frequency; the same images are 0 away."""
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 10, (40, 32, 32))
    weak, strong = ((128 + gain * noise).round().clip(0, 255).astype(np.uint8) for gain in (1, 2))

    assert spectrum_distance_db(weak, strong) == pytest.approx(20 * np.log10(2), abs=0.05)
    assert spectrum_distance_db(strong, weak) == spectrum_distance_db(weak, strong)
    assert spectrum_distance_db(weak, weak) == 0


def test_distance_sees_lost_high_frequencies():
    """Smoothing is seen although it leaves mean and low frequencies as they were."""
    rng = np.random.default_rng(0)
    sharp = rng.normal(128, 20, (40, 32, 32)).round().clip(0, 255).astype(np.uint8)
    smooth = np.mean([np.roll(sharp, s, axis=2) for s in (0, 1)], axis=0).astype(np.uint8)

    assert spectrum_distance_db(sharp, smooth) > 5 * spectrum_distance_db(sharp[:20], sharp[20:])
