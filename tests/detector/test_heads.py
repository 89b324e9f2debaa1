"""A head on frozen statistics."""

import numpy as np
import pytest
import torch

from semforensics.core.errors import InputError
from semforensics.detector.frozen import FrozenTrunk
from semforensics.detector.heads import Head, fit_on_pairs, statistics_of
from semforensics.detector.pairs import PairSampler, Source


def test_a_head_finds_what_tells_the_classes_apart() -> None:
    """One statistic of ten differs; unseen images are scored right."""
    rng = np.random.default_rng(0)
    draws = rng.normal(size=(4, 200, 10)) * np.arange(1, 11)
    draws[[1, 3], :, 4] += 15

    head = Head.fit(draws[0], draws[1], 0.1)

    assert (head.logits(draws[2]) < 0).mean() > 0.9
    assert (head.logits(draws[3]) > 0).mean() > 0.9
    assert np.argmax(np.abs(head.weight)) == 4
    with pytest.raises(InputError, match="0 fakes"):
        Head.fit(draws[0][:0], draws[1][:0], 0.1)


def test_statistics_do_not_depend_on_batch_mates() -> None:
    """Signed roots of the trunk's statistics, image by image."""
    torch.manual_seed(0)
    trunk = FrozenTrunk().eval()
    rng = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (3, 1, 64, 64), dtype=torch.uint8, generator=rng)

    found = statistics_of(trunk, images, torch.device("cpu"))

    alone = statistics_of(trunk, images[1:2], torch.device("cpu"))
    np.testing.assert_allclose(alone[0], found[1], rtol=1e-3, atol=1e-3)


def test_a_head_learns_from_pairs() -> None:
    """Blocks of two equal pixels are told from the pixels that they were made of."""
    torch.manual_seed(0)
    trunk = FrozenTrunk().eval()
    rng = np.random.default_rng(0)
    reals = [rng.integers(0, 256, (80, 80), dtype=np.uint8) for _ in range(4)]
    sources = [Source("a", r, (r[::2, ::2].repeat(2, 0).repeat(2, 1),)) for r in reals]

    head = fit_on_pairs(trunk, PairSampler(sources, 64, 0), 40, 0.1, torch.device("cpu"))

    new = rng.integers(0, 256, (6, 1, 64, 64), dtype=np.uint8)
    doubled = new[..., ::2, ::2].repeat(2, 2).repeat(2, 3)
    scores = [
        head.logits(statistics_of(trunk, torch.from_numpy(x), torch.device("cpu")))
        for x in (new, doubled)
    ]
    assert scores[0].max() < scores[1].min()
