"""What pixels show of their history."""

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
from tests.screening.small_model import original

from semforensics.core.processing import gamma, jpeg, median, resize_and_back
from semforensics.detector.perturbations import resize, shifted_jpeg
from semforensics.screening.judge.npr_model import NprModel
from semforensics.screening.judge.signs import why_not_native
from semforensics.screening.records import Grey

AREAS = range(8)


@pytest.mark.parametrize("area", AREAS)
def test_raw_pixels_show_nothing(model: NprModel, area: int) -> None:
    """Micrographs as they left the instrument are native."""
    assert why_not_native(original(area), model.references) is None


@pytest.mark.parametrize(
    ("change", "clause"),
    [
        (partial(jpeg, quality=95), "steps of JPEG"),
        (partial(jpeg, quality=60), "steps of JPEG"),
        (partial(shifted_jpeg, quality=90, shift_px=3), "steps of JPEG"),
        (partial(resize, factor=0.9, kernel="bicubic"), "pattern of interpolation"),
        (partial(resize, factor=1.1, kernel="bilinear"), "pattern of interpolation"),
        (partial(resize, factor=1.25, kernel="lanczos"), "pattern of interpolation"),
        (partial(resize, factor=1.5, kernel="bicubic"), "pattern of interpolation"),
        (partial(resize_and_back, factor=0.75), "regular pattern"),
        (partial(median, size_px=3), "repeat their neighbours"),
        (partial(median, size_px=5), "repeat their neighbours"),
    ],
    # Names without addresses, which differ between processes.
    ids=lambda v: v if isinstance(v, str) else f"{v.func.__name__} {v.keywords}",
)
@pytest.mark.parametrize("area", [0, 5, 6])
def test_processing_shows(
    model: NprModel, change: Callable[[Grey], Grey], clause: str, area: int
) -> None:
    """JPEG and interpolation are found in the pixels alone, each by its own sign."""
    found = why_not_native(change(original(area)), model.references)

    assert found is not None
    assert clause in found


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_lost_detail_shows_where_there_is_no_period(model: NprModel, factor: float) -> None:
    """Halving and doubling treat all pixels alike; what remains is a lack of fine detail."""
    found = why_not_native(resize(original(3), factor, "bicubic"), model.references)

    assert found is not None
    assert "less fine detail" in found
    assert found.endswith("as after resizing or smoothing")


@pytest.mark.parametrize("exponent", [0.7, 1.4])
def test_a_change_of_tone_is_no_loss(model: NprModel, exponent: float) -> None:
    """Gamma leaves holes in the histogram, and no sign of JPEG, resampling or denoising."""
    assert why_not_native(gamma(original(5), exponent), model.references) is None


def test_what_is_drawn_over_a_panel_is_no_sign(model: NprModel) -> None:
    """A ruler has a period and a legend repeats its grey level: where masked, nothing shows."""
    panel = original(0).copy()
    panel[10:40, 5:-5:8] = 255
    panel[60:200] = 90
    drawn = np.zeros(panel.shape, dtype=bool)
    drawn[:208] = True

    assert why_not_native(panel, model.references) is not None
    assert why_not_native(panel, model.references, drawn) is None
