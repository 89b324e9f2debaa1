from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from semforensics.core.images import to_unit_range
from semforensics.core.types import FLIPS
from semforensics.distances.pairwise import pairwise_lpips, trunk_passes
from semforensics.perceptual.lpips import LPIPS, Embedding

CPU = torch.device("cpu")
SIDE = 33


@cache
def lpips(seed: int = 0) -> LPIPS:
    """LPIPS-Alex with random weights; a few channels of the heads are off."""
    rng = torch.Generator().manual_seed(seed)
    made = LPIPS("alex")
    for name, tensor in made.state_dict().items():
        if name.startswith("lin."):
            weight = torch.rand(tensor.shape, generator=rng)
            tensor.copy_(weight * (weight > 0.2))
        elif tensor.ndim == 4:
            scale = (2 / tensor[0].numel()) ** 0.5
            tensor.copy_(torch.randn(tensor.shape, generator=rng) * scale)
    return made


@cache
def embedding() -> Embedding:
    """The embedding of that distance."""
    return Embedding(lpips(), precision="float32", device=CPU)


def images(n: int, seed: int = 0, channels: int = 1) -> torch.Tensor:
    """Noise of several strengths on several greys, so that some images are near to each other."""
    rng = torch.Generator().manual_seed(seed)
    grey = torch.randint(40, 216, (n, 1, 1, 1), generator=rng)
    strength = torch.rand(n, 1, 1, 1, generator=rng) * 40
    levels = grey + strength * torch.randn(n, channels, SIDE, SIDE, generator=rng)
    return levels.round().clamp(0, 255).to(torch.uint8)


def measure(a: torch.Tensor, b: torch.Tensor, **more: object) -> torch.Tensor:
    """All pairs, with little memory unless said otherwise."""
    given = {"embedding": embedding(), "block_size": 3, "memory_gb": 5e-5} | more
    return pairwise_lpips(a, b, **given)


@pytest.mark.parametrize("channels", [1, 3])
def test_distances_are_those_of_the_definition(channels):
    """Distances between codes are LPIPS, pair by pair, to a ten-thousandth."""
    a, b = images(6, 1, channels), images(7, 2, channels)

    found = measure(a, b)[0]

    x, y = to_unit_range(a), to_unit_range(b)
    expected = torch.stack([lpips()(one.expand_as(y), y) for one in x])
    torch.testing.assert_close(found.float(), expected, rtol=1e-4, atol=0)


def test_near_pairs_keep_their_digits():
    """A grey level in one pixel, or in a few, is measured to a thousandth, copies are at 0."""
    a = images(4)
    b = a.clone()
    for index in range(1, 4):
        b[index, 0, 5 : 5 + index, 7] ^= 1

    found = measure(a, b)[0]

    x, y = to_unit_range(a[1:]), to_unit_range(b[1:])
    near = lpips()(x, y).tolist()
    assert found[0, 0] == 0
    assert 0 < min(near) < max(near) < 1e-3
    assert found.diagonal()[1:].tolist() == pytest.approx(near, rel=1e-3)


@settings(max_examples=12)
@given(
    n=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    blocks=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    memories=st.tuples(st.floats(1e-9, 3e-4), st.floats(1e-9, 3e-4)),
    seed=st.integers(0, 99),
)
def test_block_size_and_memory_change_no_bit(n, blocks, memories, seed):
    """How much is kept and compared at a time is invisible in the result."""
    a, b = images(n[0], seed), images(n[1], seed + 1)

    one, other = (
        measure(a, b, block_size=block, memory_gb=memory)
        for block, memory in zip(blocks, memories, strict=True)
    )

    assert torch.equal(one, other)


@settings(max_examples=12)
@given(st.randoms(use_true_random=False), st.integers(0, 99))
def test_order_and_duplicates_change_no_bit(random, seed):
    """A pair has one distance, wherever and however often its images stand, on either side."""
    a, b = images(3, seed), torch.cat([images(2, seed + 1), images(3, seed)[:1]])
    order = [random.randrange(len(b)) for _ in range(len(b) + 2)]

    distances = measure(a, b)[0]

    assert torch.equal(distances[:, order], measure(a, b[order])[0])
    assert torch.equal(distances.T, measure(b, a)[0])
    assert distances[0, 2] == 0


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("side_px", [33, 64, 96])
def test_company_in_the_trunk_changes_no_bit(precision, side_px):
    """An image has one code, alone or in a batch, at each place, whatever passes beside it."""
    coder = Embedding(lpips(), precision=precision, device=CPU)
    rng = torch.Generator().manual_seed(0)
    batch = torch.randint(0, 256, (coder.batch, 1, side_px, side_px), generator=rng).byte()
    assert coder.batch > 1

    codes = coder.codes(batch)

    for first in range(coder.batch):
        turned = coder.codes(batch.roll(-first, dims=0))
        alone = coder.codes(batch[first : first + 1])
        for layer, other, single in zip(codes, turned, alone, strict=True):
            assert torch.equal(other.int(), layer.int().roll(-first, dims=0))
            assert torch.equal(single[0], layer[first])


@settings(max_examples=8)
@given(st.integers(0, 99))
def test_more_reals_never_raise_a_minimum(seed):
    """With more reals to choose from, no fake is farther from its nearest one."""
    reals, fakes = images(6, seed), images(3, seed + 1)

    few, many = measure(reals[:4], fakes)[0], measure(reals, fakes)[0]

    assert (many.amin(dim=0) <= few.amin(dim=0)).all()
    assert torch.equal(many[:4], few)


def test_flips_turn_the_second_set():
    """Each flip is as if the images of the second set had been stored that way."""
    a, b = images(2, 1), images(3, 2)

    found = measure(a, b, flips=list(FLIPS))

    for distances, axes in zip(found, FLIPS.values(), strict=True):
        assert torch.equal(distances, measure(a, b.flip(axes))[0])
    assert torch.equal(found[1], measure(a, b.flip(-1))[0])


def test_progress_counts_every_pass():
    """The passes told add up to what was announced, also where not all of a set can be kept."""
    a, b = images(5, 1), images(4, 2)
    for memory_gb in (5e-5, 1.0):
        done: list[int] = []
        plan = {"embedding": embedding(), "memory_gb": memory_gb}

        measure(a, b, flips=("none", "both"), advance=done.append, **plan)

        assert sum(done) == trunk_passes(5, 4, a[0], num_flips=2, **plan)
    assert sum(done) == 5 + 2 * 4


def test_nothing_gives_nothing():
    """Without images there are no distances."""
    assert measure(images(2), images(1)[:0]).shape == (1, 2, 0)


def test_sixteen_bits_change_little():
    """With a bfloat16 trunk a distance changes by a hundredth of itself; copies stay at 0."""
    a, b = images(6, 1), images(7, 2)
    b[0] = a[3]
    half = Embedding(lpips(), precision="bfloat16", device=CPU)

    exact, found = measure(a, b)[0], measure(a, b, embedding=half)[0]

    assert found[3, 0] == 0
    assert not torch.equal(exact, found)
    large = exact > 0.01
    assert large.sum() > 20
    torch.testing.assert_close(found[large], exact[large], rtol=0.02, atol=0)


@pytest.mark.gpu
def test_gpu_agrees():
    """On a GPU distances are the same to float32 rounding: no TensorFloat-32."""
    a, b = images(6, 1), images(7, 2)
    on_gpu = Embedding(lpips(), precision="float32", device=torch.device("cuda"))

    torch.testing.assert_close(measure(a, b, embedding=on_gpu), measure(a, b), rtol=1e-4, atol=1e-7)
