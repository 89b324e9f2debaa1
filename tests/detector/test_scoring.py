"""Scores depend on the image and the weights alone."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from semforensics.core.checkpoints import save_checkpoint
from semforensics.detector.networks import NPRNetwork, build_network, to_device
from semforensics.detector.scoring import (
    load_classifier,
    model_files,
    score_images,
    seed_file,
)

CPU = torch.device("cpu")


def random_network(name: str = "npr_tiny") -> NPRNetwork:
    """A network with fresh weights whose logits differ between images."""
    torch.manual_seed(0)
    return to_device(build_network(name, 1), CPU).eval()


def random_images(count: int, size: int = 24) -> torch.Tensor:
    """Uniform noise of contrasts that differ between images."""
    rng = torch.Generator().manual_seed(1)
    noise = torch.rand((count, 1, size, size), generator=rng) * 2 - 1
    contrast = torch.linspace(10, 120, count).view(-1, 1, 1, 1)
    return (128 + contrast * noise).to(torch.uint8)


@pytest.mark.parametrize("name", ["npr_tiny", "npr_resnet50"])
def test_batch_size_never_changes_a_score(name: str) -> None:
    """One image at a time or all at once: the scores agree within 1e-5."""
    network, images = random_network(name), random_images(7)

    together = score_images(network, images, phases=4, device=CPU, batch_size=7)

    for batch_size in (1, 3):
        scores = score_images(network, images, phases=4, device=CPU, batch_size=batch_size)
        np.testing.assert_allclose(scores, together, atol=1e-5)
    assert together.std() > 1e-3


@settings(max_examples=10)
@given(st.permutations(range(6)))
def test_order_never_changes_a_score(order: list[int]) -> None:
    """An image scores the same wherever it stands."""
    network, images = random_network(), random_images(6)

    scores = score_images(network, images[order], phases=1, device=CPU)

    expected = score_images(network, images, phases=1, device=CPU)[order]
    np.testing.assert_allclose(scores, expected, atol=1e-6)


def test_four_phases_are_the_mean_of_the_four_crops() -> None:
    """With four phases the logit is the mean over the crops of two rows and columns less."""
    network, images = random_network(), random_images(3)

    averaged = score_images(network, images, phases=4, device=CPU)

    crops = [images[..., r : r + 22, c : c + 22] for r in (0, 1) for c in (0, 1)]
    alone = [score_images(network, crop.contiguous(), phases=1, device=CPU) for crop in crops]
    np.testing.assert_allclose(averaged, np.mean(alone, axis=0), atol=1e-6)
    assert np.std(alone, axis=0).min() > 0


def test_a_stored_classifier_scores_as_before(tmp_path: Path) -> None:
    """The file alone rebuilds the network."""
    network, images = random_network(), random_images(3)
    meta = {"network": "npr_tiny", "channels": 1}
    save_checkpoint(tmp_path / "model.safetensors", network.state_dict(), meta)

    loaded, found = load_classifier(tmp_path, CPU)

    before = score_images(network, images, phases=1, device=CPU)
    np.testing.assert_array_equal(score_images(loaded, images, phases=1, device=CPU), before)
    assert found == meta
    assert not loaded.training


def test_every_training_has_a_file(tmp_path: Path) -> None:
    """The first training is the classifier, the others follow in the order of their seeds."""
    for index in range(12):
        state = {name: w + index for name, w in random_network().state_dict().items()}
        meta = {"network": "npr_tiny", "channels": 1, "training_seed": index}
        save_checkpoint(tmp_path / seed_file(index), state, meta)

    names = model_files(tmp_path)

    assert names[:2] == ["model.safetensors", "seed_1.safetensors"]
    found = [load_classifier(tmp_path, CPU, name)[1]["training_seed"] for name in names]
    assert found == list(range(12))


def test_foreign_models_are_refused(tmp_path: Path) -> None:
    """A missing file, something else and weights of another network are refused by name."""
    path = tmp_path / "model.safetensors"
    with pytest.raises(FileNotFoundError, match=r"model.safetensors: no such model"):
        load_classifier(tmp_path, CPU)

    save_checkpoint(path, {"weight": torch.zeros(1)}, {"architecture": "fastgan"})
    with pytest.raises(ValueError, match=r"model.safetensors: not a classifier"):
        load_classifier(tmp_path, CPU)

    state = random_network().state_dict()
    save_checkpoint(path, state, {"network": "npr_resnet50", "channels": 1})
    with pytest.raises(ValueError, match="not weights of npr_resnet50"):
        load_classifier(tmp_path, CPU)
