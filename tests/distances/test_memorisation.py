import numpy as np
import pytest

from semforensics.distances.memorisation import (
    NEIGHBOURS,
    copying_test,
    nearest_over_flips,
    relative_to_next,
    threshold,
    without_itself,
)


def test_nearest_over_flips_is_the_first_smallest():
    """Every image has the smallest of all distances, the first flip and then the first real."""
    rng = np.random.default_rng(0)
    distances = rng.integers(0, 4, (4, 5, 60)).astype(float)

    twins = nearest_over_flips(distances)

    for image in range(60):
        expected = min(
            (distances[flip, real, image], flip, real) for flip in range(4) for real in range(5)
        )
        assert (twins.distance[image], twins.flip[image], twins.real[image]) == expected


def test_a_real_is_never_its_own_twin():
    """Compared with their own set, reals find another one, and the distances given stay alone."""
    distances = np.full((2, 4, 4), 7.0)
    distances[:, np.arange(4), np.arange(4)] = 0

    twins = nearest_over_flips(without_itself(distances))

    assert (twins.distance == 7).all()
    assert (twins.real != np.arange(4)).all()
    assert distances[1, 2, 2] == 0


def test_copies_are_alone_with_their_real():
    """A copy is near to one real only; plain ground is as near to many."""
    copy, ground = np.full((1, 30), 200.0), np.full((1, 30), 9.0)
    copy[0, 4], ground[0, 4] = 9, 8.1
    distances = np.stack([copy, ground], axis=-1)

    assert relative_to_next(distances) == pytest.approx([9 / 200, 0.9])


def test_neighbours_count_once_however_turned():
    """The next reals are other reals, not other flips of the same one."""
    distances = np.full((4, NEIGHBOURS + 1, 1), 50.0)
    distances[:, 0] = 5

    assert relative_to_next(distances) == pytest.approx([0.1])
    assert relative_to_next(distances[:, :1]) == [1]


def test_a_hundredth_of_reals_lies_below_the_threshold():
    """The first percentile of 1000 distances parts the ten smallest from the others."""
    references = np.random.default_rng(0).permutation(1000).astype(float)

    limit = threshold(references)

    assert (references < limit).sum() == 10


def test_copying_test_tells_copies_from_honest_fakes():
    """Half of the fakes copied is found; fakes drawn as the reals are pass, 19 times of 20."""
    rng = np.random.default_rng(0)
    held_out = rng.gamma(3, 100, 200)
    copies = np.concatenate([rng.gamma(3, 100, 100), np.zeros(100)])

    nearer, p_value = copying_test(copies, held_out)
    honest = [copying_test(rng.gamma(3, 100, 200), held_out)[1] for _ in range(200)]

    # Half of the fakes are nearer than every real, the others than half of them.
    assert nearer == pytest.approx(0.75, abs=0.05)
    assert p_value < 1e-6
    assert np.mean([p < 0.05 for p in honest]) < 0.25
    assert copying_test(held_out, held_out) == pytest.approx((0.5, 0.5), abs=0.01)


def test_share_of_nearer_fakes_is_counted():
    """The probability is that of all pairs of a fake and a real, ties counting half."""
    nearer, _ = copying_test(np.array([1.0, 4.0]), np.array([2.0, 4.0, 5.0]))

    assert nearer == pytest.approx((3 + 1.5) / 6)
