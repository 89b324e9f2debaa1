"""A generator sees the images its protocol allows, all of them equally often."""

from pathlib import Path

import pytest
import torch
from tests.generators.conftest import write_blobs

from semforensics.core.images import read_crop, to_unit_range
from semforensics.core.training import EndlessPermutations
from semforensics.generators.common.reals import RealCrops, cut_out, load_reals, take


@pytest.fixture
def crops(tmp_path: Path) -> Path:
    """A folder with 24 crops and their splits."""
    write_blobs(tmp_path / "cropped", tmp_path / "splits.csv", 24)
    return tmp_path


def test_clean_shows_the_train_side_only(crops: Path) -> None:
    """Under `clean` test and validation reals stay unseen; under `thesis` all are shown."""
    clean = RealCrops(crops / "cropped", crops / "splits.csv", "clean").files()
    thesis = RealCrops(crops / "cropped", crops / "splits.csv", "thesis").files()

    assert [path.name for path in clean] == [f"{i:03d}.png" for i in range(24) if i % 4 != 3]
    assert [path.name for path in thesis] == [f"{i:03d}.png" for i in range(24)]


def test_reals_are_the_files(crops: Path) -> None:
    """Images come in the order of their files, pixel for pixel."""
    files = RealCrops(crops / "cropped", crops / "splits.csv", "thesis").files()

    reals = load_reals(files)

    assert reals.shape == (24, 1, 64, 64)
    assert torch.equal(reals[5, 0], torch.from_numpy(read_crop(files[5]).copy()))


def test_reals_of_different_sizes_are_refused(crops: Path) -> None:
    """The first file of another size is named."""
    write_blobs(crops / "other", crops / "other.csv", 1, size_px=32)
    files = [crops / "cropped/000.png", crops / "other/000.png"]

    with pytest.raises(ValueError, match=r"other/000.png: 32x32 px, expected 64x64 px"):
        load_reals(files)
    with pytest.raises(ValueError, match="no training images"):
        load_reals([])


def test_flips_happen_half_the_time() -> None:
    """Each image is mirrored with probability 1/2, or never; three channels repeat the grey one."""
    reals = torch.arange(4, dtype=torch.uint8).view(1, 1, 1, 4).expand(1, 1, 4, 4).contiguous()
    indices = torch.zeros(2000, dtype=torch.int64)

    x = take(reals, indices, 3, flip=True, rng=torch.Generator().manual_seed(0))
    straight = take(reals, indices, 1, flip=False, rng=torch.Generator().manual_seed(0))

    expected = to_unit_range(reals)
    mirrored = (x == expected.flip(3)).all(dim=(1, 2, 3))
    assert bool((mirrored | (x == expected).all(dim=(1, 2, 3))).all())
    assert 900 < int(mirrored.sum()) < 1100
    assert x.shape == (2000, 3, 4, 4)
    assert torch.equal(straight, expected.expand(2000, -1, -1, -1))


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_sampler_shows_every_image_once_per_permutation(batch: int) -> None:
    """Batches of any size walk through whole permutations, without leaving out a remainder."""
    sampler = EndlessPermutations(10, torch.Generator().manual_seed(0))

    taken = torch.cat([sampler.take(batch) for _ in range(40)])

    first, second = taken[:10], taken[10:20]
    assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(10))
    assert not torch.equal(first, second)


def test_a_cut_out_is_a_part_of_its_image() -> None:
    """Rows and columns stay neighbours; positions differ and fill the whole range."""
    image = torch.arange(64.0).view(1, 1, 8, 8)

    cuts = cut_out(image.expand(500, -1, -1, -1), 6, torch.Generator().manual_seed(0))

    tops, lefts = cuts[:, 0, 0, 0] // 8, cuts[:, 0, 0, 0] % 8
    for cut, top, left in zip(cuts, tops.int().tolist(), lefts.int().tolist(), strict=True):
        assert torch.equal(cut[0], image[0, 0, top : top + 6, left : left + 6])
    assert set(zip(tops.tolist(), lefts.tolist(), strict=True)) == {
        (y, x) for y in (0, 1, 2) for x in (0, 1, 2)
    }


def test_a_cut_out_of_full_size_is_the_image() -> None:
    """There is one position for it only."""
    image = torch.rand(2, 1, 8, 8)

    assert torch.equal(cut_out(image, 8, torch.Generator()), image)
