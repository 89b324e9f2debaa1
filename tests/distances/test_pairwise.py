import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from semforensics.distances.pairwise import pairwise_mse

CPU = torch.device("cpu")


def image_sets(max_count: int = 7) -> st.SearchStrategy[tuple[torch.Tensor, torch.Tensor]]:
    """Two sets of grey images of one small size."""

    def sets(size):
        one = npst.arrays(np.uint8, st.tuples(st.integers(1, max_count), *map(st.just, size)))
        return st.tuples(one, one).map(lambda pair: tuple(map(torch.from_numpy, pair)))

    return st.tuples(st.integers(1, 6), st.integers(1, 6)).flatmap(sets)


def brute_force(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """The definition, pair by pair, in float64."""
    return torch.stack(
        [torch.stack([(x.double() - y.double()).square().mean() for y in b]) for x in a]
    )


@given(image_sets())
def test_distances_agree_with_brute_force(sets):
    """Matrix products give the definition's numbers to the last digits of float64."""
    a, b = sets

    mse = pairwise_mse(a, b, block_size=3, device=CPU)

    torch.testing.assert_close(mse, brute_force(a, b), rtol=1e-14, atol=0)


@given(image_sets(), st.integers(1, 9), st.integers(1, 9))
def test_block_size_changes_no_bit(sets, block_size, other):
    """How many images are compared at a time is invisible in the result."""
    a, b = sets

    mse = pairwise_mse(a, b, block_size=block_size, device=CPU)

    assert torch.equal(mse, pairwise_mse(a, b, block_size=other, device=CPU))


@given(image_sets(), st.randoms(use_true_random=False))
def test_order_and_duplicates_change_no_bit(sets, random):
    """A pair has one distance, wherever and however often its images stand."""
    a, b = sets
    order = [random.randrange(len(b)) for _ in range(len(b) + 2)]

    mse = pairwise_mse(a, b, block_size=2, device=CPU)

    assert torch.equal(mse[:, order], pairwise_mse(a, b[order], block_size=2, device=CPU))
    assert torch.equal(mse.T, pairwise_mse(b, a, block_size=2, device=CPU))


@given(image_sets())
def test_only_identical_images_are_at_zero(sets):
    """The distance is 0 for copies and for nothing else."""
    a, b = sets

    mse = pairwise_mse(torch.cat([a, b]), b, block_size=4, device=CPU)

    same = torch.tensor([[bool(torch.equal(x, y)) for y in b] for x in torch.cat([a, b])])
    assert torch.equal(mse == 0, same)


@pytest.mark.parametrize("size", [(32, 32), (37, 83), (256, 256)])
def test_large_images_of_extreme_levels_lose_nothing(size):
    """Black, white and one pixel off white are exactly 65025 and 1/pixels apart, however large."""
    black, white = torch.zeros(size, dtype=torch.uint8), torch.full(size, 255, dtype=torch.uint8)
    nearly = white.clone()
    nearly[-1, -1] = 254
    n_pixels = white.numel()

    mse = pairwise_mse(
        torch.stack([black, white]), torch.stack([white, nearly]), block_size=1, device=CPU
    )

    expected = [[65025, 65025 - (255**2 - 254**2) / n_pixels], [0, 1 / n_pixels]]
    assert mse.tolist() == pytest.approx(np.array(expected), rel=1e-15, abs=0)
    assert float(mse[1, 0]) == 0
    assert float(mse[1, 1]) == 1 / n_pixels


def test_progress_counts_every_pair():
    """The blocks reported add up to all pairs."""
    a, b = torch.zeros(5, 2, 2, dtype=torch.uint8), torch.zeros(7, 2, 2, dtype=torch.uint8)
    done: list[int] = []

    pairwise_mse(a, b, block_size=3, device=CPU, advance=done.append)

    assert done == [9, 9, 3, 6, 6, 2]


@pytest.mark.gpu
def test_gpu_gives_the_same_bits():
    """Sums are exact, so another device gives the same bytes."""
    rng = torch.Generator().manual_seed(0)
    a, b = torch.randint(0, 256, (2, 20, 96, 96), generator=rng).to(torch.uint8)

    on_gpu = pairwise_mse(a, b, block_size=8, device=torch.device("cuda"))

    assert torch.equal(on_gpu, pairwise_mse(a, b, block_size=8, device=CPU))
