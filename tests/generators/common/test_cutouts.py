"""Cut-outs are native pixels of their images."""

import torch

from semforensics.generators.common.cutouts import cut_out


def test_a_cut_out_is_a_part_of_its_image() -> None:
    """Rows and columns stay neighbours; places differ between images and fill the whole range."""
    image = torch.arange(64.0).view(1, 1, 8, 8)

    cuts = cut_out(image.expand(500, -1, -1, -1), 6, torch.Generator().manual_seed(0))

    tops, lefts = cuts[:, 0, 0, 0] // 8, cuts[:, 0, 0, 0] % 8
    for cut, top, left in zip(cuts, tops.int().tolist(), lefts.int().tolist(), strict=True):
        assert torch.equal(cut[0], image[0, 0, top : top + 6, left : left + 6])
    assert set(zip(tops.tolist(), lefts.tolist(), strict=True)) == {
        (y, x) for y in (0, 1, 2) for x in (0, 1, 2)
    }


def test_a_cut_out_of_full_size_is_the_image() -> None:
    """There is one place for it only."""
    image = torch.rand(2, 1, 8, 8)

    assert torch.equal(cut_out(image, 8, torch.Generator()), image)
