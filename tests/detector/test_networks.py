"""The two networks: sizes, gradients, what one channel means."""

import pytest
import torch

from semforensics.detector.networks import NPRResNet50, build_network, to_device


@pytest.mark.parametrize(
    ("name", "channels", "count"),
    [
        ("npr_tiny", 1, 4969),
        ("npr_tiny", 3, 5113),
        ("npr_resnet50", 1, 1437761 - 1152),
        ("npr_resnet50", 3, 1437761),
    ],
)
def test_parameter_counts(name: str, channels: int, count: int) -> None:
    """The networks have the numbers of parameters that they are named for."""
    network = build_network(name, channels)

    assert sum(p.numel() for p in network.parameters()) == count


@pytest.mark.parametrize("name", ["npr_tiny", "npr_resnet50"])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_parameter_learns(name: str, channels: int) -> None:
    """One logit per image depends on every parameter."""
    torch.manual_seed(0)
    network = build_network(name, channels)

    logits = network(torch.rand(3, 1, 32, 32) * 2 - 1)
    logits.sum().backward()

    assert logits.shape == (3,)
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


def test_one_channel_with_a_summed_stem_gives_the_logits_of_three() -> None:
    """Nothing is lost by one channel: for grey images the summed stem gives the same logits."""
    torch.manual_seed(0)
    state = NPRResNet50(3).state_dict()
    images = torch.rand(2, 1, 32, 32) * 2 - 1

    three = NPRResNet50.from_reference_state_dict(state).eval()(images)
    one = NPRResNet50.from_reference_state_dict(state, channels=1).eval()(images)

    torch.testing.assert_close(one, three, rtol=1e-4, atol=1e-5)


def test_foreign_weights_are_refused() -> None:
    """Weights under other names, or of other shapes, are not loaded."""
    state = NPRResNet50(3).state_dict()

    with pytest.raises(ValueError, match="not weights of the reference"):
        NPRResNet50.from_reference_state_dict({f"module.{k}": v for k, v in state.items()})
    with pytest.raises(ValueError, match="size mismatch"):
        NPRResNet50.from_reference_state_dict(state | {"fc1.weight": torch.zeros(2, 512)})


def test_gradients_of_an_odd_batch_on_two_threads_exist() -> None:
    """A step on an odd number of images ends, whatever the number of threads."""
    network = to_device(build_network("npr_tiny", 1), torch.device("cpu")).train()
    images = torch.rand(117, 1, 62, 62).contiguous(memory_format=torch.channels_last)
    threads = torch.get_num_threads()

    try:
        torch.set_num_threads(2)
        for _ in range(3):
            network(images).mean().backward()
    finally:
        torch.set_num_threads(threads)

    assert all(torch.isfinite(p.grad).all() for p in network.parameters())


def test_a_projection_is_a_strided_convolution() -> None:
    """Taking every second position first changes no value."""
    network = build_network("npr_tiny", 1)
    projection = network.layer2[0].downsample[0]
    x = torch.randn(2, 8, 9, 10)

    expected = torch.nn.functional.conv2d(x, projection.weight, stride=2)

    torch.testing.assert_close(projection(x), expected)
