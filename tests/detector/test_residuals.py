"""The residual network: what it sees, and what it does not."""

import torch

from semforensics.detector.pairs import pair_loss
from semforensics.detector.residuals import ResidualNetwork


def test_content_is_taken_away() -> None:
    """A constant has no residual; twice the contrast changes only the half that is not divided."""
    network = ResidualNetwork(8)
    noise = 0.1 * torch.randn(1, 1, 32, 32, generator=torch.Generator().manual_seed(0))

    assert network.residuals(torch.full((1, 1, 32, 32), 0.3)).abs().max() < 1e-4
    once, twice = network.residuals(0.02 * noise), network.residuals(0.04 * noise)
    torch.testing.assert_close(twice[:, :8], 2 * once[:, :8])
    assert (twice[:, 8:] / once[:, 8:].clamp_min(1e-9)).median() < 1.9


def test_it_learns_a_trace_from_few_pairs() -> None:
    """A few steps tell noise from the same noise doubled from half its size."""
    torch.manual_seed(0)
    network = ResidualNetwork(8)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    rng = torch.Generator().manual_seed(1)
    losses = []
    for _ in range(12):
        reals = 0.2 * torch.randn(8, 1, 32, 32, generator=rng)
        fakes = torch.nn.functional.interpolate(reals[..., ::2, ::2], scale_factor=2)
        loss = pair_loss(network(torch.cat([reals, fakes])))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())

    assert losses[-1] < losses[0] / 3
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


def test_batch_mates_do_not_matter() -> None:
    """In eval mode an image has the same logit alone and in a batch."""
    network = ResidualNetwork(8).eval()
    images = torch.rand(3, 1, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1

    together = network(images)

    torch.testing.assert_close(network(images[1:2]), together[1:2], rtol=1e-4, atol=1e-5)
