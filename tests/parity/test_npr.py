"""NPR, its network and Grad-CAM against the public programs.

The stored tensors were computed by chuangchuangtan/NPR-DeepfakeDetection at commit 73cde1c and
grad-cam 1.5.7, on a CPU in float32, with seeded random weights. Two independent float32 versions
agree to about 1e-5 of the output's scale; 1e-4 is allowed.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from semforensics.detector.gradcam import grad_cam, upsample
from semforensics.detector.networks import NPRResNet50
from semforensics.detector.npr import GAIN, npr

TOLERANCE = 1e-4


@pytest.fixture
def reference(shared: Path) -> dict[str, Any]:
    """The stored tensors."""
    return torch.load(shared / "parity/npr_resnet50.pt", weights_only=True)


@pytest.fixture
def network(reference: dict[str, Any]) -> NPRResNet50:
    """Our network with the reference's weights."""
    return NPRResNet50.from_reference_state_dict(reference["state_dict"]).eval()


def assert_same(ours: Tensor, theirs: Tensor) -> None:
    """Compare within 1e-4 of the largest value of the reference."""
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() <= TOLERANCE * theirs.abs().max()


@pytest.mark.parametrize("size", [64, 224])
def test_npr(reference: dict[str, Any], size: int) -> None:
    """The transform is the reference's to the bit."""
    assert torch.equal(npr(reference[f"x{size}"]), reference[f"npr{size}"])


def test_activations(reference: dict[str, Any], network: NPRResNet50) -> None:
    """The stem and both stages give the reference's maps."""
    stem = network.stem(npr(reference["x64"]) * GAIN)
    layer1 = network.layer1(stem)
    layer2 = network.layer2(layer1)

    assert_same(stem, reference["acts64"]["maxpool"])
    assert_same(layer1, reference["acts64"]["layer1"])
    assert_same(layer2, reference["acts64"]["layer2"])


@pytest.mark.parametrize("size", [64, 224])
def test_logits(reference: dict[str, Any], network: NPRResNet50, size: int) -> None:
    """The logits are the reference's."""
    logits = network.score_residuals(npr(reference[f"x{size}"]) * GAIN)

    assert_same(logits[:, None], reference[f"logit{size}"])


def test_training_step(reference: dict[str, Any], network: NPRResNet50) -> None:
    """In training mode logits, loss and the gradients of all parameters are the reference's."""
    # float64: one input of a ReLU in layer1 is so near 0 that float32 convolutions of different
    # libraries give it different signs, and stem gradients that differ by a hundredth.
    network.double().train()

    logits = network.score_residuals(npr(reference["x64"].double()) * GAIN)
    loss = F.binary_cross_entropy_with_logits(logits, reference["train_targets"].double())
    loss.backward()

    assert_same(logits[:, None], reference["train_logit64"])
    assert_same(loss, reference["train_bce"])
    gradients = {name: p.grad for name, p in network.named_parameters()}
    assert gradients.keys() == reference["train_grads"].keys()
    for name, gradient in gradients.items():
        assert_same(gradient, reference["train_grads"][name])


@pytest.mark.parametrize("image_class", ["fake", "real"])
@pytest.mark.parametrize("layer", ["layer2_out", "last_conv"])
def test_grad_cam(
    reference: dict[str, Any], network: NPRResNet50, layer: str, image_class: str
) -> None:
    """Maps of both layers and both signs are the reference's after its normalisation."""
    module = {"layer2_out": network.last_block, "last_conv": network.last_conv}[layer]
    residuals = npr(reference["x224"]) * GAIN

    maps = grad_cam(network, module, residuals, {"fake": 1, "real": -1}[image_class])

    # The package scales every map to 0 … 1, before and after it resizes it.
    drawn = scale_each(upsample(scale_each(maps), 224, 224))
    expected = reference[f"gradcam224_{layer}_{image_class}"]
    assert (drawn - expected).abs().max() <= TOLERANCE
    # With these weights everything speaks for "fake": the maps for "real" are zero.
    assert bool(expected.any()) == (image_class == "fake")


def scale_each(maps: Tensor) -> Tensor:
    """Scale every map to 0 … 1 as grad-cam does."""
    maps = maps - maps.amin(dim=(1, 2), keepdim=True)
    return maps / (maps.amax(dim=(1, 2), keepdim=True) + 1e-7)
