"""Cells of tiles: the same logits as the network's, and windows over them."""

import numpy as np
import pytest
import torch
from torch import nn

from semforensics.detector.cells import cell_logits, fold, panel_windows, window_means
from semforensics.detector.scoring import score_images
from semforensics.detector.world_network import WorldNetwork

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def network() -> WorldNetwork:
    """A network whose normalisations have seen something, as after a training."""
    torch.manual_seed(0)
    network = WorldNetwork()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.1)
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    nn.init.normal_(network.head.weight)
    return network.eval()


def noise(*shape: int) -> torch.Tensor:
    """Images of random grey levels."""
    rng = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=rng)


def test_folding_changes_cells_by_rounding_only(network: WorldNetwork) -> None:
    """Normalisations and padding go into the convolutions, for any sides that it takes."""
    images = noise(3, 1, 64, 128)

    found = cell_logits(fold(network), images, CPU)

    expected = score_images(network, images, phases=1, device=CPU)
    assert found.shape == (3, 4, 8)
    scale = max(1.0, float(np.abs(expected).max()))
    assert np.abs(found.mean(axis=(1, 2)) - expected).max() < 1e-4 * scale
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fold(network).modules())


def test_folding_leaves_the_network_alone(network: WorldNetwork) -> None:
    """The trained network keeps its normalisations and its scores."""
    images = noise(2, 1, 32, 32)
    before = score_images(network, images, phases=1, device=CPU)

    fold(network)

    np.testing.assert_array_equal(score_images(network, images, phases=1, device=CPU), before)


def test_companions_do_not_change_a_cell(network: WorldNetwork) -> None:
    """Tiles are scored a few at a time."""
    images, folded = noise(9, 1, 64, 64), fold(network)

    together = cell_logits(folded, images, CPU)

    alone = np.concatenate([cell_logits(folded, image[None], CPU) for image in images])
    np.testing.assert_allclose(together, alone, atol=1e-3 * float(np.abs(alone).max()))


def test_windows_at_a_tiles_place_have_its_logit(network: WorldNetwork) -> None:
    """Windows between tiles have the mean of what they cover of each."""
    panel, folded = noise(1, 1, 128, 192)[0, 0].numpy(), fold(network)

    found = panel_windows(folded, panel, tile_px=64, step=1)

    parts = [panel[y : y + 64, x : x + 64] for y in (0, 64) for x in (0, 64, 128)]
    tiles = torch.from_numpy(np.stack(parts))[:, None]
    logits = score_images(network, tiles, phases=1, device=CPU)
    assert found.shape == (5, 9)
    scale = float(np.abs(logits).max())
    np.testing.assert_allclose(found[::4, ::4].ravel(), logits, atol=1e-4 * scale)
    cells = cell_logits(folded, tiles[:2], CPU)
    between = np.concatenate([cells[0][:, 2:], cells[1][:, :2]], axis=1).mean()
    assert found[0, 2] == pytest.approx(between, abs=1e-3 * scale)


def test_a_window_over_what_no_tile_holds_is_not_judged() -> None:
    """A tile off the lattice counts at the nearest cell, where no other tile is."""
    cells = np.stack([np.full((4, 4), value) for value in (1.0, 2.0)])

    found = window_means(cells, np.array([[0, 0], [0, 70]]), (64, 134), 64, 1)

    np.testing.assert_allclose(found[0], [1, 1.25, 1.5, 1.75, 2])
    apart = window_means(cells, np.array([[0, 0], [0, 96]]), (64, 160), 64, 1)
    np.testing.assert_allclose(apart[0], [1, *[np.nan] * 5, 2])
