"""Statistics of training reals: nothing to draw them by, enough to know them again."""

from collections.abc import Callable

import numpy as np
import pytest
from tests.screening.small_model import SIZE_PX, TEST, crops, doubled, original

from semforensics.core.processing import jpeg
from semforensics.detector.tiling import cut_tiles
from semforensics.screening.judge.npr_model import NprModel
from semforensics.screening.judge.references import References, fineness
from semforensics.screening.records import Grey

TURNS: dict[str, Callable[[Grey], Grey]] = {
    "as it is": lambda g: g,
    "mirrored left to right": lambda g: g[:, ::-1],
    "mirrored top to bottom": lambda g: g[::-1],
    "turned by 180 degrees": lambda g: g[::-1, ::-1],
    "mirrored along the diagonal": lambda g: g.T,
    "turned by 90 degrees clockwise": lambda g: np.rot90(g, -1),
    "turned by 90 degrees counter-clockwise": np.rot90,
    "mirrored along the other diagonal": lambda g: np.rot90(g, 2).T,
}


@pytest.fixture(scope="module")
def references(model: NprModel) -> References:
    """Of the small model."""
    return model.references


@pytest.mark.parametrize("transform", TURNS)
def test_a_training_real_is_found_wherever_and_however_it_lies(
    references: References, transform: str
) -> None:
    """Turned, compressed and at an odd place of a larger panel, it is found to the pixel."""
    top, left, crop = crops(original(1))[9]
    panel = original(TEST[0]).copy()
    panel[101 : 101 + SIZE_PX, 53 : 53 + SIZE_PX] = TURNS[transform](crop)

    found = references.find(jpeg(panel, 90))

    assert found is not None
    assert found["crop"] == f"1_y{top:04}_x{left:04}.png"
    assert found["transform"] == transform
    assert (found["box"].top, found["box"].left) == (101, 53)
    assert found["box"].size_px == (SIZE_PX, SIZE_PX)
    assert found["distance"] < found["threshold"] / 2


@pytest.mark.parametrize("area", TEST)
def test_other_areas_are_not_suspicious(references: References, area: int) -> None:
    """Neither a micrograph of another area nor what is made of it resembles a training real."""
    assert references.find(original(area)) is None
    assert references.find(doubled(original(area))) is None


def test_a_panel_smaller_than_a_crop_has_no_nearest_real(references: References) -> None:
    """There is nothing to compare."""
    assert references.find(original(1)[:60, :60]) is None


def test_references_survive_a_file(references: References) -> None:
    """What goes into a file comes back, bit for bit."""
    again = References.restore(references.tensors(), references.numbers())

    for name in ("frequencies", "spectra_db", "fingerprints"):
        np.testing.assert_array_equal(getattr(again, name), getattr(references, name))
    assert again.numbers() == references.numbers()


def test_a_mark_is_32_bytes(references: References) -> None:
    """255 bits stand for 4096 pixels; the rest is about all reals together."""
    tensors = references.tensors()

    assert tensors["marks"].shape == (len(references.names), 32)
    assert tensors["spectra_db"].shape == (3, len(references.frequencies))


def test_marks_and_names_that_do_not_belong_together_are_refused(references: References) -> None:
    """A mark for each name."""
    numbers = references.numbers() | {"names": ["one.png"]}

    with pytest.raises(ValueError, match="expected 32 bytes for each of 1 crops"):
        References.restore(references.tensors(), numbers)


def test_nothing_to_measure_is_refused() -> None:
    """References need training reals, others, and crops that a mark can be taken of."""
    reals = np.stack([crop for *_, crop in crops(original(0))])

    with pytest.raises(ValueError, match="35 training reals and 0 others"):
        References.measure(reals, ["x.png"] * len(reals), [])
    with pytest.raises(ValueError, match="crops of 16 px, need at least 32"):
        References.measure(reals[:, :16, :16], ["x.png"] * len(reals), [original(5)])
    with pytest.raises(ValueError, match="all smaller than a crop of 64 px"):
        References.measure(reals, ["x.png"] * len(reals), [original(5)[:40]])


def test_the_band_holds_the_training_reals(references: References) -> None:
    """Percentiles rise, and a training micrograph's spectrum lies between the outer two."""
    p05, p50, p95 = references.spectra_db
    panel = references.spectrum_of(cut_tiles(original(0), references.size_px))

    assert (p05 <= p50).all()
    assert (p50 <= p95).all()
    assert ((panel > p05 - 1) & (panel < p95 + 1)).mean() > 0.95


def test_white_noise_is_as_strong_in_the_corners() -> None:
    """Fineness compares corners and middle of the spectrum; a flat one gives 0 dB."""
    frequencies = np.linspace(0.01, 0.7, 70)

    assert fineness(frequencies, np.full(70, 12.0)) == pytest.approx(0)
    assert fineness(frequencies, -20 * frequencies) < -4


def test_references_of_spectra_alone_recognise_nothing() -> None:
    """They are stored and rebuilt as others are."""
    reals = np.stack([original(0)[:64, :64], original(1)[:64, :64]])
    spectra = References.of_spectra(reals)

    again = References.restore(spectra.tensors(), spectra.numbers())

    np.testing.assert_array_equal(again.spectra_db, spectra.spectra_db)
    assert again.find(original(0)) is None
    assert again.size_px == 64
