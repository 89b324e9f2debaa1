from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from semforensics.perceptual.lpips import LPIPS


def make_state(net: str, seed: int = 0) -> dict[str, torch.Tensor]:
    """Random weights under the names of a weights file; a few channels of the heads are off."""
    rng = torch.Generator().manual_seed(seed)
    state = {}
    for name, tensor in LPIPS(net).state_dict().items():
        if name.startswith("lin."):
            weight = torch.rand(tensor.shape, generator=rng)
            state[name] = weight * (weight > 0.2)
        else:
            fan_in = tensor[0].numel() if tensor.ndim > 1 else 1
            value = torch.randn(tensor.shape, generator=rng) * (2 / fan_in) ** 0.5
            state[name.replace("trunk.", "features.")] = value if tensor.ndim > 1 else 0.1 * value
    return state


def make_lpips(folder: Path, net: str) -> LPIPS:
    """LPIPS with random weights, by way of a weights file."""
    save_file(make_state(net), folder / "weights.safetensors")
    return LPIPS.load(folder / "weights.safetensors")


@pytest.fixture(scope="module", params=["alex", "vgg"])
def lpips(request, tmp_path_factory) -> LPIPS:
    """One of the two nets with random weights."""
    return make_lpips(tmp_path_factory.mktemp("weights"), request.param)


def images(*shape: int, seed: int = 0) -> torch.Tensor:
    """Uniform noise in -1 … 1."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_identical_images_are_at_zero(lpips):
    """An image is at distance exactly 0 from itself, also as one of a batch."""
    a = images(3, 1, 37, 40)

    distance = lpips(a, a.clone())

    assert distance.tolist() == [0, 0, 0]


def test_distance_is_symmetric_and_positive(lpips):
    """Swapping the images changes nothing; different images are apart."""
    a, b = images(2, 3, 32, 32, seed=1), images(2, 3, 32, 32, seed=2)

    forth, back = lpips(a, b), lpips(b, a)

    assert torch.equal(forth, back)
    assert bool((forth > 0.01).all())


def test_grey_equals_three_equal_channels(lpips):
    """A grey image is its three-channel copy."""
    a, b = images(2, 1, 32, 32, seed=1), images(2, 1, 32, 32, seed=2)

    grey = lpips(a, b)

    assert torch.equal(grey, lpips(a.repeat(1, 3, 1, 1), b.repeat(1, 3, 1, 1)))


def test_one_pixel_is_convolved_as_part_of_a_map():
    """AlexNet's last layers, which see one pixel of a small image, still convolve it."""
    torch.manual_seed(0)
    pixel = torch.randn(2, 192, 1, 1)
    for layer in LPIPS("alex").trunk[6::2]:
        found = layer(pixel)

        expected = torch.conv2d(pixel, layer.weight, layer.bias, padding=1)
        torch.testing.assert_close(found, expected)
        pixel = expected


def test_batch_mates_do_not_matter(lpips):
    """Pairs measured together have the distances they have alone, to float32 rounding."""
    a, b = images(3, 1, 32, 32, seed=1), images(3, 1, 32, 32, seed=2)

    together = lpips(a, b)

    alone = torch.cat([lpips(a[i : i + 1], b[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=0)


def test_gradient_reaches_images_and_no_weight(lpips):
    """The input takes a finite gradient, the weights and a target under no_grad take none."""
    a, b = images(2, 1, 32, 32, seed=1).requires_grad_(), images(2, 1, 32, 32, seed=2)
    with torch.no_grad():
        target = lpips.features(b)

    lpips.distance(lpips.features(a), target).sum().backward()

    assert bool(a.grad.isfinite().all())
    assert float(a.grad.abs().max()) > 0
    assert all(f.grad_fn is None for f in target)
    assert all(p.grad is None for p in lpips.parameters())


def test_autocast_keeps_features_in_float32(lpips):
    """Under bfloat16 autocast the features are float32 of length 1, distances nearly the same."""
    a, b = images(2, 1, 64, 64, seed=1), images(2, 1, 64, 64, seed=2)
    exact = lpips(a, b)

    with torch.autocast("cpu", torch.bfloat16):
        features = lpips.features(a)
        distance = lpips(a, b)

    assert {f.dtype for f in features} == {torch.float32}
    lengths = torch.cat([f.square().sum(dim=1).flatten() for f in features])
    # Length 1 wherever a channel is active, to float32 rounding, not to bfloat16's.
    assert bool(((lengths - 1).abs() < 1e-5).logical_or(lengths == 0).all())
    assert distance.dtype == torch.float32
    torch.testing.assert_close(distance, exact, rtol=0.05, atol=0)


@settings(max_examples=8)
@given(height=st.integers(31, 48), width=st.integers(31, 48), seed=st.integers(0, 99))
def test_distance_agrees_with_float64(height, width, seed):
    """The distance is that of the definition, written out in float64, whatever the image's size."""
    lpips = LPIPS("alex")
    state = {n.replace("features.", "trunk."): t for n, t in make_state("alex").items()}
    lpips.load_state_dict(state)
    a, b = images(1, 3, height, width, seed=seed), images(1, 3, height, width, seed=seed + 100)

    distance = lpips(a, b)

    # eq. 1 of the paper, layer by layer
    shift = torch.tensor([-0.030, -0.088, -0.188]).double().view(1, 3, 1, 1)
    scale = torch.tensor([0.458, 0.448, 0.450]).double().view(1, 3, 1, 1)
    trunk = lpips.trunk.double()
    x, y = (a.double() - shift) / scale, (b.double() - shift) / scale
    expected, tap = 0.0, 0
    for layer in trunk:
        x, y = layer(x), layer(y)
        if isinstance(layer, torch.nn.ReLU):
            fx = x / (x.pow(2).sum(1, keepdim=True).sqrt() + 1e-10)
            fy = y / (y.pow(2).sum(1, keepdim=True).sqrt() + 1e-10)
            weight = state[f"lin.{tap}"].double()
            expected += float(((fx - fy).pow(2)[0] * weight[:, None, None]).sum(0).mean())
            tap += 1
    assert tap == 5
    assert float(distance) == pytest.approx(expected, rel=1e-4)


def test_small_and_oddly_coloured_images_are_refused(lpips):
    """Images without a single position in the last layer, or of 2 channels, are refused by size."""
    smallest = {"alex": 31, "vgg": 16}[lpips.net]

    lpips(images(1, 1, smallest, smallest), images(1, 1, smallest, smallest))

    with pytest.raises(ValueError, match=f"{smallest - 1}x40 px, need at least {smallest}"):
        lpips.features(images(1, 1, smallest - 1, 40))
    with pytest.raises(ValueError, match="2 channels, expected 1 or 3"):
        lpips.features(images(1, 2, 64, 64))


def test_load_recognises_the_trunk(tmp_path):
    """The trunk is told by its layers, not by the file's name; every weight is frozen."""
    for net in ("alex", "vgg"):
        save_file(make_state(net), tmp_path / "weights.safetensors")

        loaded = LPIPS.load(tmp_path / "weights.safetensors")

        assert loaded.net == net
        assert not loaded.training
        assert not any(p.requires_grad for p in loaded.parameters())
        assert torch.equal(loaded.trunk[0].weight, make_state(net)["features.0.weight"])
        assert torch.equal(loaded.lin[4], make_state(net)["lin.4"])


def test_load_refuses_what_is_not_lpips(tmp_path):
    """A missing, foreign, incomplete or impossible file is refused by name."""
    path = tmp_path / "weights.safetensors"
    with pytest.raises(FileNotFoundError, match=r"weights\.safetensors"):
        LPIPS.load(path)

    path.write_bytes(b"not a tensor file")
    with pytest.raises(ValueError, match="not a safetensors file"):
        LPIPS.load(path)

    state = make_state("alex")
    save_file({n: t for n, t in state.items() if n != "lin.3"}, path)
    with pytest.raises(ValueError, match=r"weights\.safetensors(.|\n)*lin\.3"):
        LPIPS.load(path)

    save_file(state | {"lin.3": -state["lin.3"]}, path)
    with pytest.raises(ValueError, match="negative weight"):
        LPIPS.load(path)
