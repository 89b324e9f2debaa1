"""StyleGAN2's networks: shapes, styles, noise, precision, and their parts by hand."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semforensics.generators.stylegan2_ada import losses
from semforensics.generators.stylegan2_ada.networks import (
    SIZES_PX,
    Discriminator,
    Generator,
    StyledConv,
    ToImage,
    append_deviation,
    mix_styles,
)
from semforensics.generators.stylegan2_ada.resampling import conv_up


def generator_of(size_px: int = 32, channels: int = 1, **more: Any) -> Generator:
    """A narrow generator with noise strengths and biases that are not zero."""
    torch.manual_seed(0)
    sizes = {"z_dim": 8, "w_dim": 6, "mapping_layers": 2, "channel_base": 1024, "channel_max": 8}
    return shaken(Generator(size_px=size_px, channels=channels, **(sizes | more)))


def discriminator_of(size_px: int = 32, channels: int = 1, **more: Any) -> Discriminator:
    """A narrow discriminator with biases that are not zero."""
    torch.manual_seed(1)
    sizes = {"channel_base": 1024, "channel_max": 8, "mbstd_group": 2}
    return shaken(Discriminator(size_px=size_px, channels=channels, **(sizes | more)))


def shaken(network: Any) -> Any:
    """Move what starts at 0 off it."""
    for parameter in network.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    return network


def draw(generator: Generator, batch: int, seed: int = 0) -> tuple[Tensor, list[Tensor]]:
    """Latents and noise."""
    rng = torch.Generator().manual_seed(seed)
    z = torch.randn(batch, generator.nz, generator=rng)
    return z, [torch.randn(batch, 1, side, side, generator=rng) for side in generator.noise_sides]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size_px", SIZES_PX)
def test_images_and_logits_have_their_shapes(size_px: int, channels: int) -> None:
    """Every size gives images of its side and takes them back, one logit each."""
    generator = generator_of(size_px, channels)
    discriminator = discriminator_of(size_px, channels)

    with torch.no_grad():
        images = generator(*draw(generator, 2))
        logits = discriminator(images)

    assert images.shape == (2, channels, size_px, size_px)
    assert logits.shape == (2,)
    assert images.dtype == logits.dtype == torch.float32
    assert bool(images.isfinite().all() & logits.isfinite().all())


def test_noise_maps_and_styles_are_counted_right() -> None:
    """One noise map at 4 px, two at each level above; a style for each and one for the image."""
    generator = generator_of(64)

    assert generator.noise_sides == [4, 8, 8, 16, 16, 32, 32, 64, 64]
    assert generator.num_ws == 10
    assert generator.styles(torch.zeros(3, 8)).shape == (3, 10, 6)


def test_every_parameter_gets_a_gradient() -> None:
    """Nothing that is trained is left out of the image or the logit."""
    generator, discriminator = generator_of(), discriminator_of()

    losses.generator_loss(discriminator(generator(*draw(generator, 4)))).backward()

    for network in (generator, discriminator):
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None, name
            assert float(parameter.grad.abs().max()) > 0, name


def test_batch_companions_do_not_change_a_fake() -> None:
    """An image depends on its own latent and noise alone."""
    generator = generator_of()
    z, noises = draw(generator, 4)

    with torch.no_grad():
        together = generator(z, noises)
        alone = generator(z[2:3], [noise[2:3] for noise in noises])

    torch.testing.assert_close(together[2:3], alone, rtol=1e-4, atol=1e-5)


def test_noise_is_given_stored_or_absent() -> None:
    """None is the stored noise, the same at every call; an empty list is noise of zeros."""
    generator = generator_of()
    z, noises = draw(generator, 2)
    stored = [
        layer.noise_const.expand(2, 1, -1, -1) for layer in generator.synthesis.convolutions()
    ]
    zeros = [torch.zeros_like(noise) for noise in noises]

    with torch.no_grad():
        torch.testing.assert_close(generator(z), generator(z, stored))
        torch.testing.assert_close(generator(z, []), generator(z, zeros))
        assert float((generator(z) - generator(z, noises)).abs().max()) > 1e-3


def test_a_wrong_number_of_noise_maps_is_refused() -> None:
    """One map too few is an error, not a reason to leave noise out."""
    generator = generator_of()
    z, noises = draw(generator, 2)

    with pytest.raises(ValueError, match="6 noise maps, expected none or 7"):
        generator(z, noises[:-1])


def test_truncation_draws_towards_the_mean_style() -> None:
    """At 0 all latents give the mean style; between, styles lie between."""
    generator = generator_of()
    z, _ = draw(generator, 3)
    generator.mapping.w_avg.copy_(torch.arange(6.0))

    full = generator.styles(z)
    truncated = generator.styles(z, truncation_psi=0.0)

    assert torch.equal(truncated, torch.arange(6.0).expand_as(full))
    half = generator.styles(z, truncation_psi=0.5)
    torch.testing.assert_close(half, (full + torch.arange(6.0)) / 2)


def test_mixed_styles_come_from_both() -> None:
    """Layers below the cutoff keep their style, those from it on take the other."""
    ws, other = torch.zeros(2, 8, 6), torch.ones(2, 8, 6)

    mixed = mix_styles(ws, other, 3)

    assert bool((mixed[:, :3] == 0).all())
    assert bool((mixed[:, 3:] == 1).all())


def test_mean_style_follows_the_batches_mean() -> None:
    """The buffer moves by one part in 200 of the way, and takes no gradient."""
    generator = generator_of()
    w = torch.full((4, 6), 2.0, requires_grad=True)

    generator.mapping.track_w_average(w)

    torch.testing.assert_close(generator.mapping.w_avg, torch.full((6,), 0.01))
    assert not generator.mapping.w_avg.requires_grad


def test_styles_have_unit_scale() -> None:
    """A fresh mapping gives w of variance about 1, whatever the scale of z."""
    torch.manual_seed(0)
    generator = Generator(
        size_px=32,
        channels=1,
        z_dim=64,
        w_dim=64,
        mapping_layers=8,
        channel_base=64,
        channel_max=2,
    )

    w = generator.mapping(100 * torch.randn(64, 64))

    assert 0.5 < float(w.detach().square().mean()) < 1.5


@pytest.mark.parametrize("up", [False, True])
def test_scaling_maps_is_scaling_each_samples_weights(up: bool) -> None:
    """A styled convolution is one with each sample's own modulated and demodulated weights."""
    torch.manual_seed(0)
    layer = shaken(StyledConv(5, 4, 6, 8, up=up, clamp=None))
    x, w = torch.randn(3, 5, 4 if up else 8, 4 if up else 8), torch.randn(3, 6)
    noise = torch.randn(3, 1, 8, 8)

    ours = layer(x, w, noise)

    for n in range(3):
        style = w[n] @ layer.affine.weight.t() / 6**0.5 + layer.affine.bias
        weight = layer.weight * style[:, None, None]
        weight = weight / (weight.square().sum(dim=(1, 2, 3), keepdim=True) + 1e-8).sqrt()
        y = conv_up(x[n : n + 1], weight) if up else F.conv2d(x[n : n + 1], weight, padding=1)
        y = y + layer.noise_strength * noise[n] + layer.bias.view(-1, 1, 1)
        torch.testing.assert_close(
            ours[n : n + 1], 2**0.5 * F.leaky_relu(y, 0.2), rtol=1e-4, atol=1e-5
        )


def test_image_layer_is_a_convolution_of_the_scaled_map() -> None:
    """The matrix product gives what a 1x1 convolution gives, not demodulated."""
    torch.manual_seed(0)
    layer = shaken(ToImage(5, 3, 6, clamp=None))
    x, w = torch.randn(2, 5, 4, 6), torch.randn(2, 6)

    style = (w @ layer.affine.weight.t() / 6**0.5 + layer.affine.bias) / 5**0.5
    expected = F.conv2d(x * style[..., None, None], layer.weight, layer.bias)
    torch.testing.assert_close(layer(x, w), expected, rtol=1e-4, atol=1e-5)


def test_minibatch_deviation_by_hand() -> None:
    """Samples 0 and 2, 1 and 3 are groups; the channel is the mean deviation within each."""
    x = torch.zeros(4, 2, 3, 3)
    x[2] = 4.0  # deviates from sample 0 by 2 on either side of their mean
    x[3, 0] = 1.0  # from sample 1 by 1/2, in one of two channels

    y = append_deviation(x, 2)

    assert torch.equal(y[:, :2], x)
    expected = torch.tensor([2.0, 0.25, 2.0, 0.25]).view(4, 1, 1, 1).expand(4, 1, 3, 3)
    torch.testing.assert_close(y[:, 2:], expected, rtol=0, atol=1e-4)


def test_small_batches_are_one_group_and_odd_ones_are_refused() -> None:
    """Three images are a group of four's batch; six are not."""
    assert append_deviation(torch.rand(3, 2, 4, 4), 4).shape == (3, 3, 4, 4)
    with pytest.raises(ValueError, match="batch of 6, expected a multiple of the group of 4"):
        append_deviation(torch.rand(6, 2, 4, 4), 4)


def test_activations_stay_within_their_bound() -> None:
    """A clamp changes the image, and leaves none of the layers' outputs above it."""
    clamped, free = generator_of(clamp=0.5), generator_of()
    z, noises = draw(free, 2)
    largest = []
    for layer in clamped.synthesis.convolutions():
        layer.register_forward_hook(lambda _m, _i, y: largest.append(float(y.abs().max())))

    with torch.no_grad():
        difference = clamped(z, noises) - free(z, noises)

    assert max(largest) == pytest.approx(0.5)
    assert float(difference.abs().max()) > 0.1


def gradients(network: nn.Module, loss: Tensor) -> Tensor:
    """All gradients in one vector."""
    parameters = list(network.parameters())
    found = torch.autograd.grad(loss, parameters, allow_unused=True)
    return torch.cat([g.flatten() for g in found if g is not None])


def cosine(a: Tensor, b: Tensor) -> float:
    """The cosine of the angle between two vectors."""
    return float(F.cosine_similarity(a.flatten(), b.flatten(), dim=0).detach())


def test_bf16_autocast_gives_nearly_the_same_images_and_gradients() -> None:
    """Images, logits and main gradients under autocast are float32 and near full precision's."""
    generator, discriminator = generator_of(channel_max=32), discriminator_of(channel_max=32)
    inputs = draw(generator, 4)
    found = []
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            images = generator(*inputs)
            logits = discriminator(images)
        assert images.dtype == logits.dtype == torch.float32
        found.append((images, gradients(generator, losses.generator_loss(logits))))

    (images, exact), (rounded, rough) = found
    assert float((images - rounded).detach().norm() / images.detach().norm()) < 0.02
    assert cosine(exact, rough) > 0.99


def test_bf16_autocast_gives_nearly_the_same_penalties() -> None:
    """R1 and path length go backward twice under autocast."""
    if not losses.penalties_bear_bf16("cpu"):
        pytest.skip("on this processor bfloat16 gives penalties wrong gradients: see training")
    generator, discriminator = generator_of(channel_max=32), discriminator_of(channel_max=32)
    z, noises = draw(generator, 4)
    y = losses.draw_path_direction((4, 1, 32, 32), torch.Generator().manual_seed(0))
    found = []
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            ws = generator.styles(z)
            images = generator.synthesis(ws, noises)
            reals = images.detach().requires_grad_()
            logits = discriminator(reals)
        r1 = losses.r1_penalty(logits, reals)
        lengths = losses.path_lengths(images, ws, y)
        penalty = losses.path_length_penalty(lengths, torch.zeros(()))
        found.append((r1, penalty, gradients(discriminator, r1), gradients(generator, penalty)))

    (r1, penalty, *exact), (rough_r1, rough_penalty, *rough) = found
    assert float(rough_r1.detach()) == pytest.approx(float(r1.detach()), rel=0.05)
    assert float(rough_penalty.detach()) == pytest.approx(float(penalty.detach()), rel=0.05)
    assert all(cosine(a, b) > 0.98 for a, b in zip(exact, rough, strict=True))


@pytest.mark.parametrize("architecture", ["resnet", "orig"])
def test_networks_are_rebuilt_from_their_arguments(architecture: str) -> None:
    """Arguments and state are all there is to a network."""
    generator, discriminator = generator_of(), discriminator_of(architecture=architecture)
    z, noises = draw(generator, 2)

    second_g = Generator(**generator.arguments)
    second_g.load_state_dict(generator.state_dict())
    second_d = Discriminator(**discriminator.arguments)
    second_d.load_state_dict(discriminator.state_dict())

    images = generator(z, noises)
    assert torch.equal(second_g(z, noises), images)
    assert torch.equal(second_d(images), discriminator(images))


@pytest.mark.parametrize("architecture", ["resnet", "orig"])
def test_public_checkpoints_load(architecture: str) -> None:
    """The names are the public ones; the filters that public files hold are not needed."""
    generator = generator_of(64, 3, channel_base=256)
    discriminator = discriminator_of(64, 3, channel_base=256, architecture=architecture)
    filters = {"b64.conv1.resample_filter": torch.zeros(4, 4)}

    g = Generator.from_reference_state_dict(generator.state_dict() | filters)
    d = Discriminator.from_reference_state_dict(discriminator.state_dict() | filters, mbstd_group=2)

    # Other bases and maxima may give the same widths.
    for ours, loaded in ((generator, g), (discriminator, d)):
        assert {n: t.shape for n, t in ours.state_dict().items()} == {
            n: t.shape for n, t in loaded.state_dict().items()
        }
    assert d.arguments["architecture"] == architecture


def test_foreign_weights_are_refused() -> None:
    """Weights of something else end in a clear error."""
    state = {"layer.weight": torch.zeros(3)}
    with pytest.raises(ValueError, match="not the weights of a public StyleGAN2-ADA generator"):
        Generator.from_reference_state_dict(state)
    with pytest.raises(ValueError, match="not the weights of a public StyleGAN2-ADA discrim"):
        Discriminator.from_reference_state_dict(state, mbstd_group=4)


@pytest.mark.parametrize("size_px", [16, 100, 2048])
def test_other_sizes_are_refused(size_px: int) -> None:
    """Sizes without networks are refused by name."""
    with pytest.raises(ValueError, match=f"{size_px} px, expected one of"):
        generator_of(size_px)


def test_widths_without_channels_are_refused() -> None:
    """A base smaller than the image leaves its level without a channel."""
    with pytest.raises(ValueError, match="channel_base 32 and channel_max 8 leave no channel"):
        discriminator_of(64, channel_base=32)
