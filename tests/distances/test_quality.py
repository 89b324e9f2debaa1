import numpy as np
import pytest

from semforensics.distances.quality import Images, fidelity_and_diversity, kid, quality


def cloud(n: int, seed: int, mean: float = 0.0, scale: float = 1.0) -> np.ndarray:
    """Normal features."""
    return np.random.default_rng(seed).normal(mean, scale, (n, 8))


def rng() -> np.random.Generator:
    """The draw of KID's subsets."""
    return np.random.default_rng(0)


def test_kid_is_unbiased():
    """Between sets of one distribution KID is 0 but for chance, and on both sides of it."""
    values = [kid(cloud(60, 2 * i), cloud(60, 2 * i + 1), rng())[0] for i in range(40)]

    assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(len(values))
    assert min(values) < 0 < max(values)


def test_kid_is_the_definition():
    """On whole sets, KID is the unbiased sum over pairs, written out."""
    a, b = cloud(7, 0), cloud(7, 1, mean=1)

    mean, deviation = kid(a, b, rng())

    def kernel(x, y):
        return (sum(x * y) / 8 + 1) ** 3

    within = sum(
        kernel(z[i], z[j]) / (7 * 6) for z in (a, b) for i in range(7) for j in range(7) if i != j
    )
    across = np.mean([[kernel(x, y) for y in b] for x in a])
    # Every subset is the whole set, in another order.
    assert mean == pytest.approx(within - 2 * across)
    assert deviation < 1e-9


def test_kid_grows_with_the_gap():
    """The farther the fakes, the larger KID; the deviation tells that the gap is no chance."""
    near, far = (kid(cloud(150, 0), cloud(150, 1, mean=m), rng()) for m in (0.5, 1.0))

    assert 3 * near[1] < near[0] < far[0]


def test_copies_of_one_real_have_fidelity_without_diversity():
    """A generator that gives one image again and again is precise, but recalls nothing."""
    reals = cloud(100, 0)
    fakes = np.repeat(reals[:1], 40, axis=0)

    found = fidelity_and_diversity(reals, fakes)

    assert found["precision"] == 1
    assert found["recall"] == 0.01  # that real itself
    assert found["coverage"] <= 0.2


def test_foreign_fakes_have_no_fidelity():
    """Fakes far from all reals are neither precise nor dense, and cover nothing."""
    found = fidelity_and_diversity(cloud(50, 0), cloud(50, 1, mean=50))

    assert found == {"precision": 0, "recall": 0, "density": 0, "coverage": 0}


def test_an_honest_set_is_alike():
    """Two sets of one distribution have all four near to 1, as the papers say."""
    found = fidelity_and_diversity(cloud(400, 0), cloud(400, 1))

    assert found["precision"] > 0.8
    assert found["recall"] > 0.8
    assert found["density"] == pytest.approx(1, abs=0.1)
    # Naeem et al., lemma 2: 1 - product of (n - i)/(2n - i), about 1 - 2^-k.
    assert found["coverage"] == pytest.approx(1 - 2**-5, abs=0.03)


def test_reach_is_that_of_the_fifth_neighbour():
    """On a line of points one apart, a real reaches five points to the end of it."""
    reals = np.arange(6.0)[:, None]
    reach = np.array([5, 4, 3, 3, 4, 5])
    fakes = np.array([[-4.5], [8.5], [20], [30], [40], [50]])

    found = fidelity_and_diversity(reals, fakes)

    reached = np.abs(reals - fakes.T) <= reach[:, None]
    assert found["precision"] == 2 / 6
    assert found["density"] == pytest.approx(reached.sum() / 5 / 6)
    assert found["coverage"] == pytest.approx(reached.any(axis=1).mean())


def test_few_images_are_refused():
    """Five neighbours need six images."""
    with pytest.raises(ValueError, match="6 and 5 images: need 6"):
        fidelity_and_diversity(cloud(6, 0), cloud(5, 1))


def test_of_few_images_only_neighbourhoods_are_left_out():
    """With five reals there are all other numbers, and none that needs six images."""
    levels = np.random.default_rng(0).integers(0, 256, (9, 16, 16), dtype=np.uint8)
    all_of, five = (Images(levels[:n], cloud(n, 0)) for n in (9, 5))

    many = quality(all_of, all_of, all_of, space="x", rng=rng())
    for reals, others, fakes in ((five, all_of, all_of), (all_of, five, all_of)):
        few = quality(reals, others, fakes, space="x", rng=rng())
        left_out = {key.partition("_")[0] for key in many.keys() - few.keys()}
        assert left_out == {"precision", "recall", "density", "coverage"}
        assert few.keys() < many.keys()


def test_fakes_like_the_reals_are_at_the_floor():
    """Fakes that are as other reals are have the floor's numbers; noise has not."""

    def images(seed, mean=0.0):
        levels = np.random.default_rng(seed).integers(0, 256, (60, 16, 16), dtype=np.uint8)
        return Images(levels, cloud(60, seed, mean))

    alike = quality(images(0), images(1), images(1), space="x", rng=rng())
    other = quality(images(0), images(1), images(2, mean=2), space="x", rng=rng())

    assert {key for key in alike if key.startswith("kid")} == {
        "kid_x", "kid_x_floor", "kid_x_sd", "kid_x_sd_floor",
    }  # fmt: skip
    for key in ("precision_x", "recall_x", "density_x", "coverage_x", "spectrum_distance_db"):
        assert alike[key] == alike[f"{key}_floor"]
    assert alike["kid_x"] == pytest.approx(alike["kid_x_floor"], abs=1e-9)
    assert other["kid_x"] > other["kid_x_floor"] + 1
    assert other["precision_x"] < other["precision_x_floor"]
