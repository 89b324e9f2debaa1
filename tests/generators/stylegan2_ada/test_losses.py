"""StyleGAN2's losses are what their formulas say, second derivatives included."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from semforensics.generators.stylegan2_ada import losses
from semforensics.generators.stylegan2_ada.networks import Discriminator, Generator


def test_logistic_losses_by_hand() -> None:
    """A logit of 0 costs log 2; the losses of reals and fakes mirror each other."""
    logits = torch.tensor([0.0, 2.0])

    high = (math.log(2) + math.log1p(math.exp(-2))) / 2
    low = (math.log(2) + math.log1p(math.exp(2))) / 2
    assert float(losses.generator_loss(logits)) == pytest.approx(high)
    assert float(losses.discriminator_loss_real(logits)) == pytest.approx(high)
    assert float(losses.discriminator_loss_fake(logits)) == pytest.approx(low)


def test_r1_penalty_of_a_linear_discriminator() -> None:
    """The squared gradient of a weighted sum of pixels is the sum of the squared weights."""
    weights = torch.tensor([[[[1.0, -2.0], [0.5, 3.0]]]])
    reals = torch.rand(5, 1, 2, 2, generator=torch.Generator().manual_seed(0)).requires_grad_()

    penalty = losses.r1_penalty((reals * weights).sum(dim=(1, 2, 3)), reals)

    assert float(penalty.detach()) == pytest.approx(1 + 4 + 0.25 + 9)


def test_path_lengths_of_a_linear_generator() -> None:
    """Two layers of which one scales the image by 3 and one does nothing: known by hand."""
    ws = torch.zeros(2, 2, 4, requires_grad=True)
    y = torch.randn(2, 1, 2, 2, generator=torch.Generator().manual_seed(0))

    images = 3 * ws[:, 0].view(2, 1, 2, 2)
    lengths = losses.path_lengths(images, ws, y)

    expected = 3 * y.flatten(1).norm(dim=1) / math.sqrt(2)
    torch.testing.assert_close(lengths, expected)


def test_path_directions_have_unit_length_on_average() -> None:
    """The squared norm over pixels is about 1 per channel; the draws are the generator's."""
    directions = losses.draw_path_direction((64, 3, 32, 32), torch.Generator().manual_seed(0))

    norms = directions.square().sum(dim=(2, 3))
    assert float(norms.mean()) == pytest.approx(1, abs=0.01)
    again = losses.draw_path_direction((64, 3, 32, 32), torch.Generator().manual_seed(0))
    assert torch.equal(directions, again)


def test_path_mean_follows_slowly_and_the_penalty_measures_from_it() -> None:
    """The mean moves by a hundredth; the penalty is the mean squared distance from it."""
    lengths = torch.tensor([1.0, 3.0])

    mean = losses.updated_path_mean(torch.tensor(0.0), lengths)
    penalty = losses.path_length_penalty(lengths, mean)

    assert float(mean) == pytest.approx(0.02)
    assert float(penalty) == pytest.approx((0.98**2 + 2.98**2) / 2)


def tiny_generator() -> Generator:
    """A generator of few weights in float64, none of them at its special starting value."""
    torch.manual_seed(0)
    generator = Generator(
        size_px=32,
        channels=1,
        z_dim=4,
        w_dim=4,
        mapping_layers=1,
        channel_base=64,
        channel_max=4,
    )
    return shaken(generator)


def tiny_discriminator() -> Discriminator:
    """Likewise."""
    torch.manual_seed(1)
    discriminator = Discriminator(
        size_px=32, channels=1, channel_base=64, channel_max=4, mbstd_group=2
    )
    return shaken(discriminator)


def shaken(network: Any) -> Any:
    """Move biases and noise strengths off zero, in float64."""
    for parameter in network.parameters():
        parameter.data.add_(0.2 * torch.randn_like(parameter))
    return network.double()


def r1_of(discriminator: nn.Module) -> Callable[[], Tensor]:
    """Return the penalty on fixed images."""
    rng = torch.Generator().manual_seed(2)
    images = torch.rand(4, 1, 32, 32, generator=rng, dtype=torch.float64) * 2 - 1

    def penalty() -> Tensor:
        reals = images.clone().requires_grad_()
        return losses.r1_penalty(discriminator(reals), reals)

    return penalty


def path_penalty_of(generator: Generator) -> Callable[[], Tensor]:
    """Return the penalty on fixed styles."""
    rng = torch.Generator().manual_seed(2)
    ws = torch.randn(2, generator.num_ws, 4, generator=rng, dtype=torch.float64)
    y = losses.draw_path_direction((2, 1, 32, 32), rng).double()

    def penalty() -> Tensor:
        at = ws.clone().requires_grad_()
        lengths = losses.path_lengths(generator.synthesis(at), at, y)
        mean = losses.updated_path_mean(torch.tensor(0.3, dtype=torch.float64), lengths)
        return losses.path_length_penalty(lengths, mean)

    return penalty


@pytest.mark.parametrize("which", ["r1", "path length"])
def test_gradients_of_the_penalties_are_finite_differences(which: str) -> None:
    """Along random directions in the weights each penalty changes as its gradient says."""
    network: nn.Module
    if which == "r1":
        network = tiny_discriminator()
        penalty = r1_of(network)
    else:
        network = tiny_generator()
        penalty = path_penalty_of(network)
    parameters = list(network.parameters())
    gradients = torch.autograd.grad(penalty(), parameters, allow_unused=True)
    rng = torch.Generator().manual_seed(3)

    for _ in range(4):
        direction = [torch.randn(p.shape, generator=rng, dtype=p.dtype) for p in parameters]
        slope = sum(
            float((g * d).sum()) for g, d in zip(gradients, direction, strict=True) if g is not None
        )
        step = 1e-6
        values = []
        for sign in (1, -1):
            for parameter, d in zip(parameters, direction, strict=True):
                parameter.data.add_(d, alpha=sign * step)
            values.append(float(penalty().detach()))
            for parameter, d in zip(parameters, direction, strict=True):
                parameter.data.add_(d, alpha=-sign * step)

        assert abs(slope) > 1e-6
        assert (values[0] - values[1]) / (2 * step) == pytest.approx(slope, rel=1e-5)


@pytest.mark.parametrize("channels", [2, 8])
def test_convolutions_that_go_wrong_in_bf16_are_noticed(
    monkeypatch: pytest.MonkeyPatch, channels: int
) -> None:
    """At any of the batches that are tried; other devices are not tried."""

    def convolve(x: Tensor, weight: Tensor, padding: int) -> Tensor:
        y = convolved(x, weight, padding=padding)
        wrong = x.dtype == torch.bfloat16 and x.shape[1] == channels
        return y + 1 if wrong else y

    convolved = torch.nn.functional.conv2d
    losses.penalties_bear_bf16.cache_clear()
    monkeypatch.setattr(losses.F, "conv2d", convolve)
    try:
        assert not losses.penalties_bear_bf16("cpu")
        assert losses.penalties_bear_bf16("cuda")
    finally:
        losses.penalties_bear_bf16.cache_clear()
