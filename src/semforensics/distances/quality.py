"""How good a set of fakes is as a set: alike, varied, and with the right particles.

Binkowski et al., "Demystifying MMD GANs", ICLR 2018, arXiv:1801.01401 (KID); Kynkaanniemi et al.,
"Improved Precision and Recall Metric for Assessing Generative Models", NeurIPS 2019,
arXiv:1904.06991; Naeem et al., "Reliable Fidelity and Diversity Metrics for Generative Models",
ICML 2020, arXiv:2002.09797 (density and coverage). Ours differs: the features are those of the
LPIPS trunk, not of Inception or VGG16's classifier, so the numbers compare with each other and not
with those of papers; every one has the same number of real against real beside it, its floor.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8

from semforensics.core.errors import InputError
from semforensics.distances.particles import Particles, find_particles, size_distance_px
from semforensics.distances.spectra import spectrum_distance_db

SUBSET_SIZE = 100  # of KID; fewer where there are fewer images
NUM_SUBSETS = 100
NEIGHBOURS = 5  # k of precision, recall, density and coverage
SMALLEST_SET = 2  # a kernel distance within a set needs a pair


@dataclass(frozen=True)
class Images:
    """A set of images and their features."""

    levels: UInt8[np.ndarray, "n side side"]
    features: Float[np.ndarray, "n features"]


def kid(
    a: Float[np.ndarray, "n_a features"],
    b: Float[np.ndarray, "n_b features"],
    rng: np.random.Generator,
) -> tuple[float, float]:
    """Return the kernel distance of two sets: mean and standard deviation over random subsets.

    The squared maximum mean discrepancy under the kernel (x.y / features + 1)^3, unbiased, so about
    0, and below as often as above, between sets of one distribution.
    """
    size = min(SUBSET_SIZE, len(a), len(b))
    values = [
        _mmd(rng.choice(a, size, replace=False), rng.choice(b, size, replace=False))
        for _ in range(NUM_SUBSETS)
    ]
    return float(np.mean(values)), float(np.std(values))


def _mmd(x: Float[np.ndarray, "n features"], y: Float[np.ndarray, "n features"]) -> float:
    n, features = x.shape
    within = 0.0
    for z in (x, y):
        kernel = (z @ z.T / features + 1) ** 3
        within += (kernel.sum() - np.trace(kernel)) / (n * (n - 1))
    across = (x @ y.T / features + 1) ** 3
    return float(within - 2 * across.mean())


def fidelity_and_diversity(
    reals: Float[np.ndarray, "n_real features"], fakes: Float[np.ndarray, "n_fake features"]
) -> dict[str, float]:
    """Return precision, recall, density and coverage, with neighbourhoods of 5.

    Precision is the share of fakes within reach of a real, recall that of reals within reach of a
    fake, where an image reaches to the fifth nearest of its own kind. Density counts the reals that
    reach a fake, per 5; coverage is the share of reals that reach a fake. All 0 … 1 but density,
    which may exceed 1; higher is better.

    Raises:
        InputError: There are fewer than 6 of either kind.
    """
    if min(len(reals), len(fakes)) <= NEIGHBOURS:
        raise InputError(
            f"{len(reals)} and {len(fakes)} images: need {NEIGHBOURS + 1} or more of each"
        )
    distance = _distances(reals, fakes)
    # Column 0 of a sorted row is the image itself.
    real_reach = np.sort(_distances(reals, reals), axis=1)[:, NEIGHBOURS]
    fake_reach = np.sort(_distances(fakes, fakes), axis=1)[:, NEIGHBOURS]
    reached = distance <= real_reach[:, None]
    return {
        "precision": float(reached.any(axis=0).mean()),
        "recall": float((distance <= fake_reach).any(axis=1).mean()),
        "density": float(reached.sum(axis=0).mean() / NEIGHBOURS),
        "coverage": float(reached.any(axis=1).mean()),
    }


def _distances(
    x: Float[np.ndarray, "n_x features"], y: Float[np.ndarray, "n_y features"]
) -> Float[np.ndarray, "n_x n_y"]:
    """Return Euclidean distances; exactly 0 between equal rows, so rows against themselves too."""
    return np.stack([np.sqrt(np.square(row - y).sum(axis=1)) for row in x])


def quality(
    reals: Images, others: Images, fakes: Images, *, space: str, rng: np.random.Generator
) -> dict[str, float]:
    """Compare fakes with reals, and other reals with the same reals as the floor.

    None of `others` is among the reals. Precision, recall, density and coverage depend on the
    number of images: where there are more fakes than others, the first ones count. With fewer than
    6 of any kind they are left out. `space`, what the features are, is part of the keys; numbers
    that end in `_floor` are of `others`.
    """
    count = min(len(others.features), len(fakes.features))
    has_neighbours = min(len(reals.features), count) > NEIGHBOURS
    particles = find_particles(reals.levels)
    numbers: dict[str, float] = {}
    for images, end in ((fakes, ""), (others, "_floor")):
        mean, deviation = kid(reals.features, images.features, rng)
        numbers |= {f"kid_{space}{end}": mean, f"kid_{space}_sd{end}": deviation}
        if has_neighbours:
            measured = fidelity_and_diversity(reals.features, images.features[:count])
            numbers |= {f"{name}_{space}{end}": value for name, value in measured.items()}
        numbers[f"spectrum_distance_db{end}"] = spectrum_distance_db(reals.levels, images.levels)
        theirs = find_particles(images.levels)
        numbers[f"particle_size_distance_px{end}"] = size_distance_px(particles, theirs)
        numbers |= _particle_numbers(theirs, "other_reals" if end else "fakes")
    return numbers | _particle_numbers(particles, "reals")


def _particle_numbers(particles: Particles, kind: str) -> dict[str, float]:
    sizes = particles.diameters_px
    median = {f"particle_median_diameter_px_{kind}": float(np.median(sizes))} if len(sizes) else {}
    return {f"particles_per_megapixel_{kind}": particles.per_megapixel} | median
