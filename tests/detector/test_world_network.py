"""The network for micrographs of any instrument."""

import numpy as np
import pytest
import torch

from semforensics.detector.trunk import LiteTrunk
from semforensics.detector.world_network import CELL_PX, CONTENT_SHARE, WorldEnsemble, WorldNetwork


@pytest.fixture(scope="module")
def network() -> WorldNetwork:
    """A network of random weights, whose logit depends on its input."""
    torch.manual_seed(0)
    network = WorldNetwork()
    network.head.weight.data.mul_(1e5)
    return network.eval()


def images(*size: int) -> torch.Tensor:
    """Noise in -1 ... 1."""
    rng = np.random.default_rng(0)
    return torch.from_numpy(rng.uniform(-1, 1, size).astype(np.float32))


def test_the_mean_of_the_logit_map_is_the_logit(network: WorldNetwork) -> None:
    """Cells are as wide as the stride of the last block."""
    x = images(2, 1, 64, 128)

    with torch.inference_mode():
        cells, logits = network.logit_map(x), network(x)

    assert cells.shape == (2, 64 // CELL_PX, 128 // CELL_PX)
    assert logits.std() > 0.01
    torch.testing.assert_close(cells.mean(dim=(1, 2)), logits, rtol=1e-4, atol=1e-4)


def test_the_shrunken_image_is_the_reference(network: WorldNetwork) -> None:
    """A share of what the same network says of it is subtracted."""
    x = images(2, 1, 64, 128)

    with torch.inference_mode():
        shrunken = x.reshape(2, 1, 16, 4, 32, 4).mean(dim=(3, 5))
        expected = network.evidence(x) - CONTENT_SHARE * network.evidence(shrunken)
        torch.testing.assert_close(network(x), expected, rtol=1e-4, atol=1e-4)


def test_companions_do_not_change_a_logit(network: WorldNetwork) -> None:
    """Batch norms use stored statistics."""
    x = images(3, 1, 64, 64)

    with torch.inference_mode():
        torch.testing.assert_close(network(x[:1]), network(x)[:1], rtol=1e-4, atol=1e-5)


def test_it_begins_with_published_weights() -> None:
    """The image's part of the stem and all blocks; residuals begin at random."""
    trunk = LiteTrunk()

    network = WorldNetwork.from_trunk(trunk)

    assert torch.equal(network.stem[0].weight[:, :1], trunk.stem[0].weight)
    assert torch.equal(network.blocks[3].project[0].weight, trunk.blocks[3].project[0].weight)
    assert bool((network.stem[0].weight[:, 1:] != 0).all())


def test_published_statistics_stay_in_training() -> None:
    """Every weight gets a gradient, and no statistic of the trunk moves."""
    network = WorldNetwork().train()
    before = {n: b.clone() for n, b in network.named_buffers() if n.startswith("blocks")}

    network.evidence(images(4, 1, 64, 64)).square().sum().backward()

    assert all(torch.equal(b, before[n]) for n, b in network.named_buffers() if n in before)
    missing = [name for name, weight in network.named_parameters() if weight.grad is None]
    assert not missing
    count = sum(len(group["params"]) for group in network.parameter_groups())
    assert count == len(list(network.parameters()))


def test_an_ensemble_is_the_mean_of_standardised_networks(network: WorldNetwork) -> None:
    """Its map as well; one that has another zero and scale weighs no more than the others."""
    torch.manual_seed(1)
    other = WorldNetwork()
    other.head.weight.data.mul_(1e5)
    other.eval()
    x = images(2, 1, 64, 64)

    both = WorldEnsemble.of([network, other], [(0.5, 2.0), (-30.0, 50.0)])
    with torch.inference_mode():
        expected = ((network(x) - 0.5) / 2 + (other(x) + 30) / 50) / 2
        found, cells = both(x), both.logit_map(x)

    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(cells.mean(dim=(1, 2)), expected, rtol=1e-4, atol=1e-4)
    restored = WorldEnsemble(2)
    restored.load_state_dict(both.state_dict())
    with torch.inference_mode():
        assert torch.equal(restored.eval()(x), found)
