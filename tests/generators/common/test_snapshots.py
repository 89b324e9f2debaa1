"""Snapshots are measured by what they show, and the best one is kept."""

import numpy as np
import pytest
import torch

from semforensics.generators.common import snapshots
from semforensics.generators.common.sampling import tile
from semforensics.generators.common.snapshots import best, frechet, measure_fakes
from semforensics.perceptual.lpips import LPIPS


@pytest.fixture(scope="module")
def lpips() -> LPIPS:
    """The distance with seeded random weights."""
    torch.manual_seed(0)
    return LPIPS("alex")


def random_images(count: int, side_px: int = 32, seed: int = 0) -> torch.Tensor:
    """Images in -1 … 1."""
    return torch.rand(count, 1, side_px, side_px, generator=rng_of(seed)) * 2 - 1


def rng_of(seed: int) -> torch.Generator:
    """A random generator."""
    return torch.Generator().manual_seed(seed)


def test_mean_pairwise_distance_is_the_mean_over_all_pairs(lpips: LPIPS) -> None:
    """The variance of the features gives what comparing all pairs one by one gives."""
    images = random_images(4)

    ours = snapshots.mean_pairwise_distance(lpips, images)

    pairs = [(i, j) for i in range(4) for j in range(i)]
    theirs = [float(lpips(images[i : i + 1], images[j : j + 1])) for i, j in pairs]
    assert ours == pytest.approx(sum(theirs) / len(theirs), rel=1e-4)


def test_one_picture_repeated_has_no_diversity(lpips: LPIPS) -> None:
    """Equal images are at distance 0 from each other."""
    images = random_images(1).expand(4, -1, -1, -1)

    assert snapshots.mean_pairwise_distance(lpips, images) == pytest.approx(0, abs=1e-6)


def test_frechet_distance_is_the_formula_of_diagonal_normals() -> None:
    """Equal sets are at 0; shifted by a deviation in every feature, or twice as wide, at 1."""
    reals = torch.randn(4000, 6, generator=rng_of(0), dtype=torch.float64)
    reals = (reals - reals.mean(dim=0)) / reals.std(dim=0) * torch.tensor([1, 2, 3, 4, 5, 6.0])

    assert frechet(reals, reals) == pytest.approx(0, abs=1e-12)
    assert frechet(reals + reals.std(dim=0), reals) == pytest.approx(1)
    assert frechet(2 * reals, reals) == pytest.approx(1)
    assert frechet(0 * reals, reals) == pytest.approx(1)


def test_nearer_fakes_are_measured_as_nearer(lpips: LPIPS) -> None:
    """Other reals of the same kind are nearer than the same ones made flat, or one repeated."""
    noise = torch.randint(0, 256, (128, 1, 64, 64), generator=rng_of(1), dtype=torch.uint8)
    reals, others = noise[:64], noise[64:, 0]
    flat = (others.float() * 0.2 + 100).to(torch.uint8)

    near, far = measure_fakes(lpips, others, reals), measure_fakes(lpips, flat, reals)
    alike = measure_fakes(lpips, others[:1].expand(64, -1, -1), reals)

    assert near["frechet"] < far["frechet"]
    assert near["frechet"] < alike["frechet"]
    assert (near["collapsed"], alike["collapsed"]) == (0, 1)
    assert near["diversity"] == pytest.approx(1, abs=0.1)
    assert alike["diversity"] == pytest.approx(0, abs=1e-3)


def test_best_snapshot_has_not_collapsed() -> None:
    """The smallest distance wins among those that vary; the first wins a tie."""
    rows = [
        {"iteration": 1.0, "frechet": 0.1, "collapsed": 1.0},
        {"iteration": 2.0, "frechet": 0.5, "collapsed": 0.0},
        {"iteration": 3.0, "frechet": 0.3, "collapsed": 0.0},
        {"iteration": 4.0, "frechet": 0.3, "collapsed": 0.0},
    ]

    assert best(rows)["iteration"] == 3
    assert best(rows[:1])["iteration"] == 1


def test_tiles_fill_a_square_row_by_row() -> None:
    """Images are put from left to right, then down."""
    images = np.arange(64, dtype=np.uint8)[:, None, None].repeat(64, 1).repeat(64, 2)

    grid = tile(images)

    assert grid.shape == (512, 512)
    np.testing.assert_array_equal(grid[::64, ::64].ravel(), np.arange(64))
