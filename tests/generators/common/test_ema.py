"""The weight average and its statistics."""

import copy

import pytest
import torch
from torch import nn

from semforensics.generators.common import ema


def test_decay_rises_towards_one() -> None:
    """The first step takes nine tenths of the live weights, later ones less and less."""
    decays = [ema.ramped_decay(step) for step in range(20_000)]

    assert decays[0] == pytest.approx(0.1)
    assert decays == sorted(decays)
    assert 0.999 < decays[-1] < 1


def test_average_moves_towards_the_live_weights() -> None:
    """Parameters move the share 1 - decay; buffers stay."""
    live = nn.BatchNorm1d(3)
    average = copy.deepcopy(live)
    nn.init.constant_(live.weight, 5.0)
    live.running_mean.fill_(7.0)

    ema.update(average, live, 0.75)

    torch.testing.assert_close(average.weight.detach(), torch.full((3,), 2.0))
    assert bool((average.running_mean == 0).all())


class Net(nn.Module):
    """A normalisation of what it is given, scaled."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(2)

    def forward(self, x: torch.Tensor, others: list[torch.Tensor]) -> torch.Tensor:
        """Normalise."""
        return self.norm(x + len(others))


def test_statistics_are_those_of_the_inputs() -> None:
    """Running mean and variance become the means over the batches; eval mode and momentum stay."""
    rng = torch.Generator().manual_seed(0)
    batches = [torch.randn(16, 2, 4, 4, generator=rng) * 3 + 5 for _ in range(3)]
    network = Net()
    network.norm.running_mean.fill_(1e9)

    ema.measure_statistics(network, [(batch, []) for batch in batches])

    mean = torch.stack([b.mean(dim=(0, 2, 3)) for b in batches]).mean(dim=0)
    variance = torch.stack([b.var(dim=(0, 2, 3)) for b in batches]).mean(dim=0)
    torch.testing.assert_close(network.norm.running_mean, mean)
    torch.testing.assert_close(network.norm.running_var, variance)
    assert not network.training
    assert not network.norm.training
    assert network.norm.momentum == 0.1
