"""Wavelets split and resample without loss; parity of their taps is in tests/parity."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from semforensics.generators.stylegan2_ada.wavelets import (
    band_filters,
    band_matrices,
    downsampling,
    map_axes,
    resampling_filter,
    upsampling,
)

F64 = torch.zeros((), dtype=torch.float64)


def test_the_resampling_filter_is_orthogonal() -> None:
    """Times sqrt(2), it is of unit length and at right angles to its shifts by two."""
    taps = resampling_filter() * 2**0.5

    overlaps = [float(taps[: 12 - shift] @ taps[shift:]) for shift in range(0, 12, 2)]

    torch.testing.assert_close(overlaps, [1.0, 0.0, 0.0, 0.0, 0.0, 0.0], rtol=0, atol=1e-10)


@given(side=st.integers(7, 40))
def test_halving_undoes_doubling(side: int) -> None:
    """An axis that is doubled with a margin of 6 and halved is the same."""
    up = upsampling(side, 6, 6, F64)

    back = downsampling(side, 3, F64) @ up[6:-6]  # halving takes a margin of 3

    torch.testing.assert_close(back, torch.eye(side, dtype=torch.float64), rtol=0, atol=1e-9)


@given(side=st.integers(8, 30), before=st.integers(0, 7), after=st.integers(0, 7))
def test_doubling_reflects_the_ends(side: int, before: int, after: int) -> None:
    """The matrix gives what padding, zero-stuffing and filtering give one after the other."""
    x = torch.randn(side, dtype=torch.float64, generator=torch.Generator().manual_seed(side))
    padded = torch.cat([x[1 : before + 1].flip(0), x, x[side - 1 - after : side - 1].flip(0)])
    stuffed = torch.stack([padded, torch.zeros_like(padded)], dim=1).flatten()
    kernel = 2 * resampling_filter().flip(0)  # a true convolution
    expected = torch.nn.functional.pad(stuffed, (6, 5)).unfold(0, 12, 1) @ kernel

    doubled = upsampling(side, before, after, F64) @ x

    torch.testing.assert_close(doubled, expected)


def test_bands_are_symmetric_and_add_up() -> None:
    """The sum of the four bands is the signal; none but the lowest has a mean."""
    filters = band_filters()

    middle = torch.zeros(43, dtype=torch.float64)
    middle[21] = 1
    torch.testing.assert_close(filters.sum(0), middle, rtol=0, atol=1e-12)
    torch.testing.assert_close(filters, filters.flip(1), rtol=0, atol=1e-12)
    torch.testing.assert_close(filters.sum(1), torch.eye(4, dtype=torch.float64)[0])


@given(side=st.integers(1, 60))
def test_bands_of_an_axis_add_up(side: int) -> None:
    """However short the axis, its bands' sum is what it was, and a constant stays one."""
    matrices = band_matrices(side, torch.float64, torch.device("cpu"))

    torch.testing.assert_close(matrices.sum(0), torch.eye(side, dtype=torch.float64))
    torch.testing.assert_close(matrices[0].sum(1), torch.ones(side, dtype=torch.float64))


def test_derivatives_of_a_map_are_right() -> None:
    """First and second derivatives agree with finite differences, whichever axis goes first."""
    rng = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=rng, dtype=torch.float64)

    x = normal(2, 2, 3, 4).requires_grad_()
    for rows, columns in ((normal(7, 3), normal(2, 4)), (normal(2, 1, 2, 3), normal(2, 1, 5, 4))):

        def squared(x: Tensor, rows: Tensor = rows, columns: Tensor = columns) -> Tensor:
            return map_axes(x, rows, columns).square()

        torch.testing.assert_close(map_axes(x, rows, columns), rows @ x @ columns.mT)
        assert torch.autograd.gradcheck(squared, x)
        assert torch.autograd.gradgradcheck(squared, x)
