"""Fast scoring gives the scores of the network as it was trained."""

import numpy as np
import pytest
import torch
from torch import nn

from semforensics.detector.inference import FoldedNetwork
from semforensics.detector.networks import NetworkName, NPRNetwork, build_network, to_device
from semforensics.detector.scoring import score_images

CPU = torch.device("cpu")


def trained(name: NetworkName, channels: int) -> NPRNetwork:
    """A network whose normalisations have seen something, as after a training."""
    torch.manual_seed(0)
    network = to_device(build_network(name, channels), CPU)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.1)
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    return network.eval()


def noise(count: int, height: int, width: int) -> torch.Tensor:
    """Images of random grey levels."""
    rng = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, 1, height, width), dtype=torch.uint8, generator=rng)


@pytest.mark.parametrize(
    ("name", "channels"), [("npr_tiny", 1), ("npr_tiny", 3), ("npr_resnet50", 3)]
)
def test_a_folded_network_scores_as_the_one_it_was_made_of(
    name: NetworkName, channels: int
) -> None:
    """Folding changes logits by rounding only."""
    network = trained(name, channels)
    images = noise(3, 48, 64)

    folded = FoldedNetwork(network)

    expected = score_images(network, images, phases=4, device=CPU)
    scale = max(1.0, float(np.abs(expected).max()))
    scores = score_images(folded, images, phases=4, device=CPU)
    assert np.abs(scores - expected).max() < 1e-5 * scale
    assert not any(isinstance(m, nn.BatchNorm2d) for m in folded.modules())


def test_folding_leaves_the_network_alone() -> None:
    """The trained network keeps its normalisations and its scores."""
    network = trained("npr_tiny", 1)
    images = noise(2, 32, 32)
    before = score_images(network, images, phases=1, device=CPU)

    FoldedNetwork(network)

    np.testing.assert_array_equal(score_images(network, images, phases=1, device=CPU), before)
