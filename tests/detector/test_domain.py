"""Images like the training's are inside; noise, surrogates and blanks are not."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from semforensics.core.checkpoints import save_checkpoint
from semforensics.core.errors import InputError
from semforensics.core.images import read_grey
from semforensics.detector.domain import (
    Domain,
    domain_features,
    feature_names,
    phase_randomised,
    shuffled,
)

SIZE_PX = 64


def particles(count: int, seed: int) -> torch.Tensor:
    """Bright discs with shaded rims on a dark ground, counted electrons."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIZE_PX, :SIZE_PX]
    images = []
    for _ in range(count):
        scene = np.full((SIZE_PX, SIZE_PX), rng.uniform(40, 60))
        for _ in range(12):
            radius = rng.uniform(3, 7)
            distance = np.hypot(x - rng.uniform(0, SIZE_PX), y - rng.uniform(0, SIZE_PX))
            scene[distance < radius] = 90 + 70 * (distance[distance < radius] / radius) ** 2
        grey = rng.poisson(gaussian_filter(scene, 0.6) / 2) * 2
        images.append(grey.clip(0, 255).astype(np.uint8))
    return torch.from_numpy(np.stack(images)[:, None])


@pytest.fixture(scope="module")
def domain() -> Domain:
    """Of 150 drawn images, limits from 60 others."""
    return fitted(150, 0.95)


def fitted(count: int, quantile: float) -> Domain:
    """A domain of drawn images."""
    rng = np.random.default_rng(0)
    return Domain.fit(particles(count, 0), particles(60, 1), quantile, rng)


def test_images_like_the_trainings_are_inside(domain: Domain) -> None:
    """Of the validation at least the asked share is inside, of new images about as many."""
    assert domain.is_inside(particles(60, 1)).mean() >= 0.95
    assert domain.is_inside(particles(80, 2)).mean() >= 0.85


def test_a_lower_quantile_is_stricter() -> None:
    """Half of the validation side inside: the limits are lower."""
    strict, usual = fitted(60, 0.5), fitted(60, 0.95)

    assert strict.limits[0] < usual.limits[0]
    assert 0.5 <= strict.is_inside(particles(60, 1)).mean() < 0.8


@pytest.mark.parametrize("kind", ["phases", "pixels", "normal", "uniform", "constant", "flipped"])
def test_foreign_images_are_outside(domain: Domain, kind: str) -> None:
    """Random phases, shuffled pixels, noise, blanks and inverted greys are all outside."""
    rng = np.random.default_rng(3)
    images = particles(30, 2)
    shape = images.shape
    foreign = {
        "phases": lambda: phase_randomised(images, rng),
        "pixels": lambda: shuffled(images, rng),
        "normal": lambda: torch.from_numpy(rng.normal(80, 20, shape).clip(0, 255)).byte(),
        "uniform": lambda: torch.from_numpy(rng.integers(0, 256, shape)).byte(),
        "constant": lambda: torch.arange(30).view(30, 1, 1, 1).expand(shape).byte() * 8,
        "flipped": lambda: 255 - images,
    }[kind]()

    assert not domain.is_inside(foreign).any()
    assert domain.distances(foreign).min() > 1


def test_a_domain_with_empty_images_still_tells_noise() -> None:
    """Where some images show bare ground, noise stays outside; at most a tenth is lost by it."""
    bare = torch.from_numpy(np.random.default_rng(9).poisson(25, (28, 1, 64, 64)) * 2).byte()
    train = torch.cat([particles(150, 0), bare[:20]])
    validation = torch.cat([particles(70, 1), bare[20:25]])

    domain = Domain.fit(train, validation, 0.99, np.random.default_rng(0))

    assert domain.is_inside(validation).mean() >= 0.88
    rng = np.random.default_rng(4)
    for surrogate in (phase_randomised, shuffled):
        assert not domain.is_inside(surrogate(particles(40, 2), rng)).any()
    assert not domain.is_inside(shuffled(bare[25:], rng)).any()


def test_a_surrogate_keeps_what_it_should() -> None:
    """Random phases keep spectrum and mean grey, shuffling the histogram; both differ in pixels."""
    images = particles(4, 0)
    rng = np.random.default_rng(0)

    phases, pixels = phase_randomised(images, rng), shuffled(images, rng)

    def spectra(x: torch.Tensor) -> np.ndarray:
        return np.abs(np.fft.fft2(x[:, 0].numpy().astype(float)))

    # Rounding and clipping move single amplitudes, not their sum over a ring or the mean.
    before, after = (spectra(x)[:, 1:6, 1:6].sum(axis=(1, 2)) for x in (images, phases))
    np.testing.assert_allclose(after, before, rtol=0.05)
    means = [x.float().mean(dim=(1, 2, 3)) for x in (images, phases)]
    torch.testing.assert_close(means[1], means[0], atol=1.0, rtol=0)
    assert torch.equal(pixels.flatten(1).sort().values, images.flatten(1).sort().values)
    for surrogate in (phases, pixels):
        assert surrogate.dtype == torch.uint8
        assert (surrogate != images).float().mean() > 0.5


def test_companions_do_not_change_the_statistics() -> None:
    """An image has the same statistics by itself and among others."""
    images = particles(5, 4)

    together = domain_features(images)

    alone = np.concatenate([domain_features(image[None]) for image in images])
    np.testing.assert_allclose(together, alone, atol=1e-4)
    assert together.shape == (5, len(feature_names()))


@pytest.mark.parametrize("size", [16, 18, 22, 50, 64])
def test_any_even_size_has_finite_statistics(size: int) -> None:
    """From the smallest images on, blank ones too."""
    images = torch.cat([particles(2, 0), torch.zeros(1, 1, 64, 64).byte()])[..., :size, :size]

    features = domain_features(images)

    assert np.isfinite(features).all()


def test_the_whitening_is_a_triangle(domain: Domain) -> None:
    """Nothing beside it: roundings there would be others at every run, and so would the file."""
    assert np.array_equal(domain.whitening, np.triu(domain.whitening))


def test_a_stored_domain_is_the_same(domain: Domain, tmp_path: Path) -> None:
    """Distances of a domain from a file are the same to the last digit; the file is small."""
    domain.save(tmp_path / "domain.safetensors")

    loaded = Domain.load(tmp_path / "domain.safetensors")

    images = particles(10, 5)
    np.testing.assert_array_equal(loaded.distances(images), domain.distances(images))
    assert (tmp_path / "domain.safetensors").stat().st_size < 20_000


def test_foreign_files_are_refused(tmp_path: Path) -> None:
    """A missing file and one of other statistics are refused by name."""
    path = tmp_path / "domain.safetensors"
    with pytest.raises(FileNotFoundError, match=r"domain.safetensors: no such training domain"):
        Domain.load(path)

    save_checkpoint(path, {"mean": torch.zeros(3)}, {"features": ["mean"], "limits": [1, 1]})
    with pytest.raises(ValueError, match="not a training domain of these statistics"):
        Domain.load(path)

    save_checkpoint(path, {"mean": torch.zeros(42)}, {"features": feature_names()})
    with pytest.raises(InputError, match="not a whole training domain"):
        Domain.load(path)


def test_phase_randomised_micrographs_are_outside(shared: Path) -> None:
    """The same with real micrographs: most tiles of others are inside, all their surrogates out."""
    files = sorted((shared / "sem/boiko-pdc-partial/cropped_890").rglob("*.tif*"))
    assert files
    tiles = []
    for path in files:
        area = read_grey(path)
        grid = [(y, x) for y in range(0, 512, 128) for x in range(0, 768, 128)]
        tiles.append(np.stack([area[y : y + 128, x : x + 128] for y, x in grid]))
    images = [torch.from_numpy(t)[:, None] for t in tiles]
    rng = np.random.default_rng(0)

    domain = Domain.fit(torch.cat(images[0::3]), torch.cat(images[1::3]), 0.99, rng)

    others = torch.cat(images[2::3])
    assert domain.is_inside(others).mean() > 0.7
    assert not domain.is_inside(phase_randomised(others, rng)).any()
