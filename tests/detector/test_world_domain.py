"""Micrographs of collections that were not seen are inside; noise, drawings and blanks are not."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from semforensics.core.checkpoints import load_checkpoint, save_checkpoint
from semforensics.core.errors import InputError
from semforensics.core.images import read_grey
from semforensics.detector.domain import phase_randomised, shuffled
from semforensics.detector.world_domain import BRIGHT_FIELD_LIMIT, WorldDomain, bright_field

SIZE_PX = 64


def panel(rng: np.random.Generator, *, blur: float, gain: float, ground: float) -> torch.Tensor:
    """Four tiles with bright particles on a darker ground, by one instrument."""
    y, x = np.mgrid[: 2 * SIZE_PX, : 2 * SIZE_PX]
    scene = np.full(x.shape, ground)
    for _ in range(40):
        radius = rng.uniform(3, 9)
        distance = np.hypot(x - rng.uniform(0, len(x)), y - rng.uniform(0, len(y)))
        inside = distance < radius
        scene[inside] = ground + 40 + 70 * (distance[inside] / radius) ** 2
    counts = rng.poisson(gaussian_filter(scene, blur) / gain) * gain + rng.normal(0, 1, x.shape)
    grey = torch.from_numpy(counts.clip(0, 255).astype(np.uint8))
    return grey.unfold(0, SIZE_PX, SIZE_PX).unfold(1, SIZE_PX, SIZE_PX).reshape(-1, 1, 64, 64)


def collection(seed: int, panels: int = 4) -> list[torch.Tensor]:
    """Panels of one instrument, each instrument with its own sharpness, noise and ground."""
    rng = np.random.default_rng(seed)
    own = {"blur": rng.uniform(0.5, 1.2), "gain": rng.uniform(1, 4), "ground": rng.uniform(40, 90)}
    return [panel(rng, **own) for _ in range(panels)]


@pytest.fixture(scope="module")
def domain() -> WorldDomain:
    """Of eight instruments."""
    return WorldDomain.fit({str(s): collection(s) for s in range(8)}, np.random.default_rng(0))


def test_new_instruments_are_inside(domain: WorldDomain) -> None:
    """Most panels of instruments that were not seen have most of their tiles inside."""
    inside = [domain.is_inside(x).mean() > 0.5 for s in range(20, 28) for x in collection(s, 2)]

    assert np.mean(inside) > 0.8


@pytest.mark.parametrize("kind", ["phases", "pixels", "constant", "drawing"])
def test_foreign_tiles_are_outside(domain: WorldDomain, kind: str) -> None:
    """Surrogates without an object, blanks and line drawings."""
    rng = np.random.default_rng(1)
    tiles = torch.cat(collection(30))
    drawing = torch.full((4, 1, SIZE_PX, SIZE_PX), 255, dtype=torch.uint8)
    drawing[..., 10:12, :], drawing[..., 30], drawing[..., 40:60:4, 5:50] = 0, 0, 0
    foreign = {
        "phases": phase_randomised(tiles, rng),
        "pixels": shuffled(tiles, rng),
        "constant": torch.full_like(tiles, 120),
        "drawing": drawing,
    }[kind]

    assert domain.is_inside(foreign).mean() < 0.2


def test_companions_do_not_matter(domain: WorldDomain) -> None:
    """A tile is inside or not by itself; no tiles have no answer."""
    tiles = torch.cat(collection(31))

    together = domain.is_inside(tiles)

    assert together.tolist() == [bool(domain.is_inside(tile[None])[0]) for tile in tiles]
    assert domain.is_inside(tiles[:0]).shape == (0,)


def test_a_stored_domain_says_the_same(domain: WorldDomain, tmp_path: Path) -> None:
    """Through a file, which is small."""
    save_checkpoint(tmp_path / "domain.safetensors", domain.tensors(), domain.numbers())

    loaded = WorldDomain.restore(*load_checkpoint(tmp_path / "domain.safetensors"))

    tiles = torch.cat([*collection(32), *collection(33)])
    np.testing.assert_array_equal(loaded.is_inside(tiles), domain.is_inside(tiles))
    assert loaded.limits == domain.limits
    assert (tmp_path / "domain.safetensors").stat().st_size < 300_000


def test_what_is_no_domain_is_refused(domain: WorldDomain) -> None:
    """Parts that are missing, of other statistics or of other lengths."""
    tensors, numbers = domain.tensors(), domain.numbers()

    with pytest.raises(InputError, match="not a domain of these statistics"):
        WorldDomain.restore(tensors, numbers | {"features": ["mean"]})
    with pytest.raises(InputError, match="not a whole domain"):
        WorldDomain.restore({"mean": tensors["mean"]}, numbers)
    with pytest.raises(InputError, match="not a whole domain"):
        WorldDomain.restore(tensors | {"mean": torch.zeros(3)}, numbers)
    with pytest.raises(InputError, match="a domain of 1 collections"):
        WorldDomain.fit({"one": collection(0, 1)}, np.random.default_rng(0))


def test_bright_field_is_told_by_its_ground() -> None:
    """An even bright ground with dark objects is; the same as bright objects is not."""
    rng = np.random.default_rng(0)
    tiles = panel(rng, blur=1.0, gain=1.0, ground=60.0)[:, 0].numpy()
    scanning = np.vstack([np.hstack(tiles[:2]), np.hstack(tiles[2:])])

    assert bright_field(scanning) < BRIGHT_FIELD_LIMIT < bright_field(255 - scanning)
    assert bright_field(np.full((100, 100), 80, np.uint8)) == 0
    assert bright_field(scanning[:6]) == 0


def test_what_is_drawn_is_no_ground() -> None:
    """A white legend is even and bright: where it is masked, it does not count."""
    rng = np.random.default_rng(0)
    legend = torch.cat(collection(3, 1))[:2, 0].numpy().reshape(-1, SIZE_PX)
    legend[: SIZE_PX // 2] = 255
    drawn = np.zeros(legend.shape, dtype=bool)
    drawn[: SIZE_PX // 2] = True

    assert bright_field(legend) > BRIGHT_FIELD_LIMIT > bright_field(legend, drawn)
    assert bright_field(rng.integers(0, 255, (64, 64), np.uint8), np.ones((64, 64), bool)) == 0


def test_transmission_micrographs_are_mostly_told(shared: Path) -> None:
    """More than half of them; hardly any published scanning micrograph is taken for one."""
    found = {}
    for name in ("not_sem_tem", "emps_papers"):
        files = sorted((shared / "sem" / name).rglob("*.png"))[:40]
        assert files
        found[name] = np.mean(
            [bright_field(read_grey(path)) > BRIGHT_FIELD_LIMIT for path in files]
        )

    assert found["not_sem_tem"] > 0.5
    assert found["emps_papers"] < 0.05
