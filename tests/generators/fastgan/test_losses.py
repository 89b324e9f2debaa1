"""FastGAN's losses are what their formulas say."""

from pathlib import Path

import pytest
import torch
from torch import nn

from semforensics.generators.fastgan import losses
from semforensics.generators.fastgan.networks import (
    Discriminator,
    Pair,
    Reconstructions,
    initialise,
)
from semforensics.perceptual.lpips import LPIPS
from tests.generators.conftest import write_random_trunk


@pytest.fixture
def lpips(tmp_path: Path) -> LPIPS:
    """LPIPS with a random trunk."""
    write_random_trunk(tmp_path)
    return LPIPS.load(tmp_path / "alex.safetensors")


def random_images(count: int, side_px: int = 32, seed: int = 0) -> torch.Tensor:
    """Images in -1 … 1."""
    rng = torch.Generator().manual_seed(seed)
    return torch.rand(count, 1, side_px, side_px, generator=rng) * 2 - 1


def test_hinge_losses_by_hand() -> None:
    """A real counts as far as it stays below its margin; a fake mirrors it."""
    logits, margins = torch.tensor([2.0, 0.5, -1.0]), torch.tensor([0.8, 0.9, 1.0])

    assert float(losses.hinge_real(logits, margins)) == pytest.approx((0 + 0.4 + 2.0) / 3)
    assert float(losses.hinge_fake(logits, margins)) == pytest.approx((2.8 + 1.4 + 0) / 3)
    assert float(losses.generator_loss(logits)) == pytest.approx(-0.5)


def test_margins_are_uniform_between_08_and_1() -> None:
    """Margins cover 0.8 … 1 evenly, and come from the generator that is passed in."""
    margins = losses.draw_margins(10_000, torch.Generator().manual_seed(0))

    assert 0.8 <= float(margins.min()) < 0.801
    assert 0.999 < float(margins.max()) <= 1
    assert float(margins.mean()) == pytest.approx(0.9, abs=0.002)
    again = losses.draw_margins(10_000, torch.Generator().manual_seed(0))
    assert torch.equal(margins, again)


def test_reconstruction_loss_is_the_sum_of_three_mean_distances(lpips: LPIPS) -> None:
    """Batching the perceptual passes changes nothing; targets get no gradient."""
    images = [random_images(3, seed=i).requires_grad_() for i in range(5)]
    *parts, whole, part = images

    loss = losses.reconstruction_loss(lpips, Reconstructions(*parts), whole, part)
    loss.backward()

    expected = sum(lpips(a, b).mean() for a, b in zip(parts, (whole, whole, part), strict=True))
    torch.testing.assert_close(loss, expected)
    assert all(image.grad is not None for image in parts)
    assert whole.grad is None
    assert part.grad is None


def test_perfect_reconstructions_cost_nothing(lpips: LPIPS) -> None:
    """Reconstructions equal to their targets give 0."""
    x, part = random_images(2), random_images(2, seed=1)

    loss = losses.reconstruction_loss(lpips, Reconstructions(x, x, part), x, part)

    assert float(loss) == pytest.approx(0, abs=1e-6)


class Linear(nn.Module):
    """A discriminator whose gradient is known: weights on both scales."""

    def forward(self, big: torch.Tensor, small: torch.Tensor) -> torch.Tensor:
        """Return two logits per image, the sum of all pixels and thrice that of the small one."""
        return torch.cat([big.sum(dim=(1, 2, 3)), 3 * small.sum(dim=(1, 2, 3))])


def test_r1_penalty_of_a_linear_discriminator() -> None:
    """Half the squared gradient of the mean logit: here known by hand."""
    pair = Pair(random_images(2, 8).requires_grad_(), random_images(2, 4).requires_grad_())

    penalty = losses.r1_penalty(Linear()(*pair), pair)

    # Gradients of the mean of two logits: 1/2 at 64 pixels, 3/2 at 16.
    assert float(penalty) == pytest.approx((64 * 0.25 + 16 * 2.25) / 2)


def test_r1_penalty_reaches_the_discriminator() -> None:
    """The penalty on the real network has finite second derivatives."""
    torch.manual_seed(0)
    discriminator = Discriminator(size_px=64, channels=1, ndf=4)
    initialise(discriminator, power_steps=15)
    pair = Pair(random_images(4, 64).requires_grad_(), random_images(4, 32).requires_grad_())

    losses.r1_penalty(discriminator(*pair), pair).backward()

    gradients = [p.grad for p in discriminator.parameters() if p.grad is not None]
    assert all(bool(g.isfinite().all()) for g in gradients)
    assert max(float(g.abs().max()) for g in gradients) > 0
