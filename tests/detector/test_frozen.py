"""The frozen trunk: published names and shapes in, statistics out."""

import pytest
import torch
from torch import Tensor

from semforensics.core.errors import InputError
from semforensics.detector.frozen import STAGES, FrozenTrunk

NORM = ("weight", "bias", "running_mean", "running_var")


def published() -> dict[str, Tensor]:
    """Random weights under the published names, with more blocks than are kept."""
    rng = torch.Generator().manual_seed(0)
    state = {}

    def add(convolution: str, norm: str, outputs: int, inputs: int, kernel: int) -> None:
        fan_in = inputs * kernel**2
        weight = torch.randn(outputs, inputs, kernel, kernel, generator=rng) * (2 / fan_in) ** 0.5
        state[f"{convolution}.weight"] = weight
        state.update({f"{norm}.{kind}": torch.rand(outputs, generator=rng) for kind in NORM})
        state[f"{norm}.num_batches_tracked"] = torch.tensor(0)

    add("_conv_stem", "_bn0", 32, 3, 3)
    inputs, index = 32, 0
    for expansion, outputs, repeats, _, kernel in (*STAGES, (6, 192, 1, 2, 5)):
        for _ in range(repeats):
            name, width = f"_blocks.{index}", inputs * expansion
            if expansion != 1:
                add(f"{name}._expand_conv", f"{name}._bn0", width, inputs, 1)
            add(f"{name}._depthwise_conv", f"{name}._bn1", width, 1, kernel)
            add(f"{name}._project_conv", f"{name}._bn2", outputs, width, 1)
            inputs, index = outputs, index + 1
    return state


def test_published_weights_fit() -> None:
    """Eleven blocks are kept; each channel yields three finite statistics."""
    trunk = FrozenTrunk.from_published(published())
    images = torch.rand(2, 1, 64, 48, generator=torch.Generator().manual_seed(0)) * 2 - 1

    found = trunk(images)

    assert len(trunk.blocks) == 11
    assert found.shape == (2, trunk.num_statistics) == (2, 2160)
    assert bool(found.isfinite().all())
    torch.testing.assert_close(trunk(images[:1]), found[:1], rtol=1e-4, atol=1e-4)


def test_sides_are_halved_as_tensorflow_does() -> None:
    """An odd side is rounded up at each halving."""
    stem = FrozenTrunk().stem

    assert stem(torch.zeros(1, 1, 33, 48)).shape[-2:] == (17, 24)


def test_other_weights_are_refused() -> None:
    """A missing tensor and one of another shape."""
    state = published()
    del state["_blocks.10._bn2.weight"]
    with pytest.raises(InputError, match="not weights of EfficientNet-Lite0"):
        FrozenTrunk.from_published(state)
    with pytest.raises(InputError, match="not weights of EfficientNet-Lite0"):
        FrozenTrunk.from_published(published() | {"_conv_stem.weight": torch.zeros(32, 3, 5, 5)})
