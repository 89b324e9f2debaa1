"""Fast scoring gives the scores of the network as it was trained."""

import numpy as np
import pytest
import torch
from torch import nn

from semforensics.core.images import to_unit_range
from semforensics.detector.inference import FoldedNetwork, window_logits
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


def test_the_mean_of_a_logit_map_is_the_logit() -> None:
    """The last layer is linear, so it can be applied before the mean over positions."""
    folded, images = FoldedNetwork(trained("npr_tiny", 1)), to_unit_range(noise(3, 48, 64))

    cells = folded.logit_map(images)

    assert cells.shape == (3, 6, 8)
    torch.testing.assert_close(cells.mean(dim=(1, 2)), folded(images))


@pytest.mark.parametrize("phases", [1, 4])
def test_windows_are_scored_as_tiles_are(phases: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A window's logit is its tile's, but for the edges; bands of a large image do not show."""
    folded = FoldedNetwork(trained("npr_tiny", 1))
    image = noise(1, 203, 330)[0, 0].numpy()
    sizes = {"size_px": 128, "step_px": 32, "phases": phases, "device": CPU}

    found = window_logits(folded, image, **sizes)

    places = [(y, x) for y in (0, 32, 64) for x in (0, 32, 64, 96, 128, 160, 192)]
    tiles = np.stack([image[y : y + 128, x : x + 128] for y, x in places])[:, None]
    expected = score_images(folded, torch.from_numpy(tiles), phases=phases, device=CPU)
    assert found.shape == (3, 7)
    scale = np.abs(expected).max()
    assert np.abs(found.ravel() - expected).max() < 0.3 * scale
    monkeypatch.setattr("semforensics.detector.inference._BAND_PX", 64 * 328)
    np.testing.assert_allclose(window_logits(folded, image, **sizes), found, atol=1e-4 * scale)
    with pytest.raises(ValueError, match="not multiples of 8"):
        window_logits(folded, image, **sizes | {"step_px": 12})
