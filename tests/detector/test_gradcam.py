"""Maps point at the evidence and carry its sign."""

import torch

from semforensics.detector.gradcam import grad_cam, upsample
from semforensics.detector.networks import NPRNetwork, build_network
from semforensics.detector.npr import network_input


def network(seed: int = 0) -> NPRNetwork:
    """Fresh weights."""
    torch.manual_seed(seed)
    return build_network("npr_tiny", 1).eval()


def residuals(count: int = 3) -> torch.Tensor:
    """What the network sees of uniform noise."""
    rng = torch.Generator().manual_seed(0)
    return network_input(torch.rand((count, 1, 32, 32), generator=rng) * 2 - 1, 1)


def test_a_map_is_the_relu_of_the_gradient_weighted_sum() -> None:
    """At the last block the gradient of the logit is known, and so is the map."""
    net, images = network(), residuals()

    maps = grad_cam(net, net.last_block, images, 1)

    features = net.layer2(net.layer1(net.stem(images)))  # [3, 16, 4, 4]
    weights = net.fc1.weight.view(1, 16, 1, 1) / 16  # the mean over 4 x 4 positions
    expected = torch.relu((weights * features).sum(dim=1))
    torch.testing.assert_close(maps, expected)
    assert maps.shape == (3, 4, 4)


def test_the_signs_explain_opposite_classes() -> None:
    """Where there is evidence for a fake there is none for a real."""
    net, images = network(), residuals()

    for layer in (net.last_block, net.last_conv):
        fake, real = (grad_cam(net, layer, images, sign) for sign in (1, -1))

        assert not ((fake > 0) & (real > 0)).any()
        assert fake.any() or real.any()


def test_companions_do_not_change_a_map() -> None:
    """A map is the same for an image alone and in a batch."""
    net, images = network(), residuals()

    together = grad_cam(net, net.last_conv, images, 1)

    alone = torch.cat([grad_cam(net, net.last_conv, image[None], 1) for image in images])
    torch.testing.assert_close(together, alone, atol=1e-6, rtol=1e-5)


def test_other_weights_give_another_map() -> None:
    """Randomising the weights changes the map (Adebayo et al. 2018)."""
    images = residuals()

    maps = [
        torch.stack([grad_cam(net, net.last_conv, images, sign) for sign in (1, -1)])
        for net in (network(0), network(1))
    ]

    correlation = torch.corrcoef(torch.stack([m.flatten() for m in maps]))[0, 1]
    assert abs(correlation) < 0.9


def test_the_network_is_left_as_it_was() -> None:
    """Explaining leaves no hook and no gradient behind."""
    net = network()

    grad_cam(net, net.last_conv, residuals(), 1)

    assert not net.last_conv._forward_hooks
    assert all(p.grad is None for p in net.parameters())


def test_upsampling_keeps_the_mean_of_a_constant_and_the_place_of_a_peak() -> None:
    """Half-pixel centres: a peak at cell 1 of 4 lies around pixel 12 of 32."""
    maps = torch.zeros(2, 4, 4)
    maps[0] = 3
    maps[1, 1, 1] = 1

    larger = upsample(maps, 32, 32)

    assert (larger[0] == 3).all()
    rows, columns = (larger[1] > 0.9 * larger[1].max()).nonzero().float().mean(dim=0)
    assert rows == columns == 11.5
