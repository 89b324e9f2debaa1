"""Pairs of training crops, and their loss."""

import numpy as np
import pytest
import torch

from semforensics.core.errors import InputError
from semforensics.core.processing import noise_sigma
from semforensics.detector import histories
from semforensics.detector.pairs import PairSampler, Source, pair_loss


def image(seed: int, side: int = 80) -> np.ndarray:
    """A random image."""
    return np.random.default_rng(seed).integers(0, 256, (side, side), dtype=np.uint8)


@pytest.fixture
def sources() -> list[Source]:
    """Two collections, four images and one."""
    made = [Source("large", image(i), (image(i) // 2,)) for i in range(4)]
    return [*made, Source("small", image(9), (image(9) // 2,))]


def test_both_of_a_pair_are_cut_turned_and_processed_alike(
    sources: list[Source], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without processing the fake of a pair is what was made of the very crop of the real."""
    monkeypatch.setattr(histories, "UNTOUCHED", 1.0)
    sampler = PairSampler(sources, 32, 0, smoothed=0.0, noisy=0.0, drawn=0.5)

    for index in range(12):
        real, fake = sampler.pair(index)
        np.testing.assert_array_equal(fake, real // 2)


def test_an_identical_fake_stays_identical() -> None:
    """No processing tells the two of a pair apart."""
    sampler = PairSampler(
        [Source("a", image(0), (image(0),))], 32, 0, smoothed=0.0, noisy=0.0, drawn=0.5
    )

    for index in range(40):
        real, fake = sampler.pair(index)
        assert real.shape == (32, 32)
        np.testing.assert_array_equal(fake, real)


def test_reals_are_smoothed_and_fakes_get_noise_alone(
    sources: list[Source], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other of the pair stays as it is, and noise never exceeds what the fake lost."""
    monkeypatch.setattr(histories, "UNTOUCHED", 1.0)
    plain = PairSampler(sources, 32, 0, smoothed=0.0, noisy=0.0, drawn=0.5)
    smoothed = PairSampler(sources, 32, 0, smoothed=1.0, noisy=0.0, drawn=0.5)
    noisy = PairSampler(sources, 32, 0, smoothed=0.0, noisy=1.0, drawn=0.5)

    for index in range(12):
        (real, fake), (soft, same) = plain.pair(index), smoothed.pair(index)
        np.testing.assert_array_equal(same, fake)
        assert soft.std() < real.std()
        same, loud = noisy.pair(index)
        np.testing.assert_array_equal(same, real)
        of_fake, of_loud, of_real = noise_sigma(np.stack([fake, loud, real]))
        assert of_fake < of_loud < 1.1 * of_real


def test_a_pair_depends_on_its_index_alone(sources: list[Source]) -> None:
    """A batch holds the reals of its pairs, then their fakes."""
    sampler = PairSampler(sources, 32, 7, smoothed=0.0, noisy=0.0, drawn=0.5)

    batch = sampler.batch(5, 3).numpy()[:, 0]

    for index in range(3):
        real, fake = sampler.pair(5 + index)
        np.testing.assert_array_equal(batch[index], real)
        np.testing.assert_array_equal(batch[3 + index], fake)


def test_collections_are_drawn_by_the_root_of_their_size(sources: list[Source]) -> None:
    """Four images count twice as much as one, not four times."""
    sampler = PairSampler(sources, 32, 0, smoothed=0.0, noisy=0.0, drawn=0.5)

    assert sampler.share("small") == pytest.approx(1 / 3)


def test_images_smaller_than_a_crop_are_refused() -> None:
    """The message names the collection and both sizes."""
    with pytest.raises(InputError, match="tiny: an image of 80x20 px, need at least 32 px"):
        PairSampler(
            [Source("tiny", image(0)[:20], (image(0)[:20],))],
            32,
            0,
            smoothed=0.0,
            noisy=0.0,
            drawn=0.5,
        )
    with pytest.raises(InputError, match="no images"):
        PairSampler([], 32, 0, smoothed=0.0, noisy=0.0, drawn=0.5)


def test_the_loss_asks_for_the_class_and_for_the_difference() -> None:
    """Right answers cost nothing; what a pair has in common costs only half of the loss."""
    right = torch.tensor([-20.0, -20.0, 20.0, 20.0])
    shifted = torch.tensor([20.0, 60.0])  # the fake is above the real, both look fake

    assert pair_loss(right) < 1e-6
    assert pair_loss(-right) > 20
    assert pair_loss(shifted) == pytest.approx(10.0, abs=1e-3)


@pytest.mark.parametrize("drawn", [0.0, 0.8])
def test_so_many_pairs_are_of_drawn_pictures(sources: list[Source], drawn: float) -> None:
    """Whatever their number and weights; among themselves, kinds count as collections do."""
    made = [Source("leaves", image(i), (image(i),), 3.0, drawn=True) for i in range(9)]
    made += [Source("cells", image(20), (image(20),), 3.0, drawn=True)]
    sampler = PairSampler([*sources, *made], 32, 0, smoothed=0.0, noisy=0.0, drawn=drawn)

    assert sampler.share("leaves") + sampler.share("cells") == pytest.approx(drawn)
    assert sampler.share("large") == pytest.approx(2 * sampler.share("small"))
    assert sampler.share("leaves") == pytest.approx(3 * sampler.share("cells"))


@pytest.mark.parametrize("only_drawn", [False, True])
def test_pictures_of_one_kind_alone_are_all_pairs(sources: list[Source], only_drawn: bool) -> None:
    """A share of what is not there is given to what is."""
    kept = [Source("cells", image(1), (image(1),), drawn=True)] if only_drawn else sources
    sampler = PairSampler(kept, 32, 0, smoothed=0.0, noisy=0.0, drawn=0.8)

    assert sum(map(sampler.share, {one.collection for one in kept})) == pytest.approx(1)
