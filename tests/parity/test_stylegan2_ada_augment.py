"""The augmentations against the public StyleGAN2-ADA (shared/parity/SOURCE.md).

The stored tensors were computed by NVlabs/stylegan2-ada-pytorch d72cc7d on a CPU in float32. Images
and results are of order 1; 1e-4 leaves room for another order of summation and for float32
matrices, where ours are float64.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from semforensics.generators.stylegan2_ada.augment import Draws, _draw, augment
from semforensics.generators.stylegan2_ada.wavelets import band_filters, resampling_filter

TOLERANCE = 1e-4
NUM_PERCENTILE_CASES = 56
NUM_RANDOM_CASES = 2


class Recorded:
    """Random numbers that were recorded in the order of their calls."""

    def __init__(self, draws: list[tuple[str, Tensor]]) -> None:
        self.draws = list(draws)

    def uniform(self, *shape: int) -> Tensor:
        """Return the next number, which must be uniform."""
        return self._next("rand", shape)

    def normal(self, *shape: int) -> Tensor:
        """Return the next number, which must be normal."""
        return self._next("randn", shape)

    def _next(self, function: str, shape: tuple[int, ...]) -> Tensor:
        called, values = self.draws.pop(0)
        assert called == function
        return values.reshape(shape)  # theirs have axes of length 1


class Percentile:
    """All random numbers at one percentile of their distributions."""

    def __init__(self, percentile: float) -> None:
        self.percentile = percentile

    def uniform(self, *shape: int) -> Tensor:
        """Return uniform numbers."""
        return torch.full(shape, self.percentile)

    def normal(self, *shape: int) -> Tensor:
        """Return normal numbers, smaller by sqrt(2), as the public program has them."""
        return torch.full(shape, 2 * self.percentile - 1).erfinv()


def draw_at_percentile(case: dict[str, Any]) -> Draws:
    """Draw as the public program does when it tests: the second rotation is 0."""
    draws = _draw(Percentile(case["percentile"]), case["pipe"], 1.0, tuple(case["x"].shape), "free")
    return replace(draws, rotation_after=torch.zeros(len(case["x"])))


@pytest.fixture
def theirs(shared: Path) -> dict[str, Any]:
    """The reference's record."""
    return torch.load(shared / "parity/sg2_augment.pt", weights_only=True)


@pytest.mark.parametrize("index", range(NUM_PERCENTILE_CASES))
def test_operations_are_the_references(theirs: dict[str, Any], index: int) -> None:
    """With all random numbers at a percentile every group gives the reference's images."""
    case = [case for case in theirs["cases"] if "percentile" in case][index]
    draws = draw_at_percentile(case)

    ours = augment(case["x"], draws)

    assert float((ours - case["y"]).abs().max()) < TOLERANCE


@pytest.mark.parametrize("index", range(NUM_RANDOM_CASES))
def test_random_runs_are_the_references(theirs: dict[str, Any], index: int) -> None:
    """With the reference's random numbers, in its order, come the reference's images."""
    case = [case for case in theirs["cases"] if "percentile" not in case][index]
    recorded = Recorded(case["draws"])

    draws = _draw(recorded, case["pipe"], case["p"], tuple(case["x"].shape), "free")
    ours = augment(case["x"], draws)

    assert not recorded.draws
    assert float((ours - case["y"]).abs().max()) < TOLERANCE


def test_filters_are_the_references(theirs: dict[str, Any]) -> None:
    """The wavelet and the four bands are the reference's, to the digits of float32."""
    torch.testing.assert_close(resampling_filter().float(), theirs["Hz_geom"])
    torch.testing.assert_close(band_filters().float(), theirs["Hz_fbank"], rtol=1e-5, atol=1e-7)


def test_every_case_is_tested(theirs: dict[str, Any]) -> None:
    """The record holds no case that is left out."""
    assert len(theirs["cases"]) == NUM_PERCENTILE_CASES + NUM_RANDOM_CASES
