"""Fast scoring gives the scores of the network as it was trained."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from semforensics.detector.inference import (
    MARGIN,
    CarefulNetwork,
    FoldedNetwork,
    score_files,
)
from semforensics.detector.networks import NetworkName, NPRNetwork, build_network, place
from semforensics.detector.scoring import score_images
from semforensics.params import Precision

CPU = torch.device("cpu")


def trained(name: NetworkName, channels: int) -> NPRNetwork:
    """A network whose normalisations have seen something, as after a training."""
    torch.manual_seed(0)
    network = place(build_network(name, channels), CPU)
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
@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-5), ("bfloat16", 0.05)])
def test_a_folded_network_scores_as_the_one_it_was_made_of(
    name: NetworkName, channels: int, precision: Precision, tolerance: float
) -> None:
    """Folding changes logits by rounding only."""
    network = trained(name, channels)
    images = noise(3, 48, 64)

    folded = FoldedNetwork(network, precision)

    expected = score_images(network, images, phases=4, device=CPU)
    scale = max(1.0, float(np.abs(expected).max()))
    scores = score_images(folded, images, phases=4, device=CPU)
    assert np.abs(scores - expected).max() < tolerance * scale
    assert not any(isinstance(m, nn.BatchNorm2d) for m in folded.modules())


def test_folding_leaves_the_network_alone() -> None:
    """The trained network keeps its normalisations and its scores."""
    network = trained("npr_tiny", 1)
    images = noise(2, 32, 32)
    before = score_images(network, images, phases=1, device=CPU)

    FoldedNetwork(network, "bfloat16")

    np.testing.assert_array_equal(score_images(network, images, phases=1, device=CPU), before)


def test_a_careful_network_says_what_float32_says(tmp_path: Path) -> None:
    """Scores near a border are float32's, the others bfloat16's; no call differs."""
    network = trained("npr_tiny", 1)
    with torch.no_grad():
        network.fc1.weight *= 30  # scores that are spread as those of a trained network
    fast, exact = FoldedNetwork(network, "bfloat16"), FoldedNetwork(network, "float32")
    images = noise(64, 32, 32)
    images //= torch.arange(1, 65, dtype=torch.uint8).view(-1, 1, 1, 1) % 8 + 1
    wanted = score_images(exact, images, phases=1, device=CPU)
    rough = score_images(fast, images, phases=1, device=CPU)
    middle = len(wanted) // 2
    border = float(np.sort(wanted)[middle - 1 : middle + 1].mean())
    careful = CarefulNetwork(fast, exact, (border, float("inf")))
    paths = [tmp_path / f"{index:02d}.png" for index in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image[0].numpy()).save(path)

    scores = careful.score(images, phases=1, device=CPU)
    files = [score for _, score in score_files(careful, paths, phases=1, device=CPU)]

    near = np.abs(rough - border) < MARGIN
    assert 0 < near.sum() < len(images)
    np.testing.assert_allclose(scores[near], wanted[near], atol=1e-6)
    np.testing.assert_array_equal(scores[~near], rough[~near])
    np.testing.assert_array_equal(scores > border, wanted > border)
    np.testing.assert_allclose(files, scores, atol=1e-2)


def test_files_are_scored_in_order_whatever_their_sizes_and_the_threads(tmp_path: Path) -> None:
    """Scores of files are those of their pixels, at any number of threads."""
    folded = FoldedNetwork(trained("npr_tiny", 1), "float32")
    paths, expected = [], []
    for index in range(23):
        image = noise(index + 1, 32, 32 + 2 * (index % 5 // 3))[index]
        paths.append(tmp_path / f"{index:02d}.png")
        Image.fromarray(image[0].numpy()).save(paths[-1])
        expected.append(score_images(folded, image[None], phases=1, device=CPU)[0])

    threads = torch.get_num_threads()
    runs = []
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            runs.append(list(score_files(folded, iter(paths), phases=1, device=CPU)))
    finally:
        torch.set_num_threads(threads)

    assert runs[0] == runs[1]
    assert [path for path, _ in runs[0]] == paths
    np.testing.assert_allclose([score for _, score in runs[0]], expected, atol=1e-6)


def test_a_file_that_is_no_crop_is_named(tmp_path: Path) -> None:
    """A colour file among the crops ends the scoring with its name."""
    folded = FoldedNetwork(trained("npr_tiny", 1), "float32")
    path = tmp_path / "colour.png"
    Image.new("RGB", (32, 32)).save(path)

    with pytest.raises(ValueError, match=r"colour\.png"):
        list(score_files(folded, [path], phases=1, device=CPU))
