"""FastGAN's networks have the published sizes and keep their promises at every size."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from semforensics.generators.common import ema
from semforensics.generators.common.sampling import draw_inputs
from semforensics.generators.fastgan.networks import (
    SIZES_PX,
    Conv,
    Discriminator,
    FromLatent,
    GatedNorm,
    Generator,
    UpConv,
    _channels_last,
    initialise,
    small_side,
    take_quadrant,
    upsampling_kernel,
)


def generator_of(size_px: int, ngf: int = 8, channels: int = 1, tanh: bool = False) -> Generator:
    """A freshly initialised small generator."""
    torch.manual_seed(0)
    generator = Generator(size_px=size_px, channels=channels, ngf=ngf, nz=8, tanh=tanh)
    initialise(generator, power_steps=15)
    return generator


def discriminator_of(size_px: int, ndf: int = 8, channels: int = 1) -> Discriminator:
    """A freshly initialised small discriminator."""
    torch.manual_seed(0)
    discriminator = Discriminator(size_px=size_px, channels=channels, ndf=ndf)
    initialise(discriminator, power_steps=15)
    return discriminator


def count(network: nn.Module) -> int:
    """Number of parameters."""
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(
    ("size_px", "expected"), [(256, 29_127_846), (512, 29_174_392), (1024, 29_176_512)]
)
def test_generator_has_the_originals_parameters(size_px: int, expected: int) -> None:
    """At the original's widths the generator has as many parameters as the original."""
    with torch.device("meta"):
        generator = Generator(size_px=size_px, channels=3, ngf=64, nz=256, tanh=False)

    assert count(generator) == expected


@pytest.mark.parametrize(("size_px", "expected"), [(256, 11_526_160), (512, 11_526_496)])
def test_discriminator_has_the_originals_parameters(size_px: int, expected: int) -> None:
    """At the original's widths the discriminator has as many parameters as the original."""
    with torch.device("meta"):
        discriminator = Discriminator(size_px=size_px, channels=3, ndf=64)

    assert count(discriminator) == expected
    decoders = sum(count(m) for n, m in discriminator.named_children() if "decoder" in n)
    assert size_px != 512 or expected - decoders == 8_387_008


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size_px", SIZES_PX)
def test_networks_work_at_every_size(size_px: int, channels: int) -> None:
    """From 64 to 1024 px images, logits and reconstructions have their shapes, and are finite."""
    generator = generator_of(size_px, channels=channels)
    discriminator = discriminator_of(size_px, channels=channels)
    side = small_side(size_px)

    with torch.no_grad():
        images = generator(*draw_inputs(generator, 2, torch.Generator().manual_seed(0)))
        maps = discriminator.maps(*images)
        logits = discriminator.logits(maps)
        reconstructions = discriminator.reconstructions(maps, 3)

    assert images.big.shape == (2, channels, size_px, size_px)
    assert images.small.shape == (2, channels, side, side)
    assert logits.shape == (2 * 2 * 25,)
    for image in reconstructions:
        assert image.shape == (2, channels, side, side)
        assert image.abs().max() <= 1
    assert all(bool(t.isfinite().all()) for t in (*images, logits))


@pytest.mark.parametrize("size_px", [64, 128])
def test_every_parameter_gets_a_gradient(size_px: int) -> None:
    """No parameter of either network is idle."""
    generator, discriminator = generator_of(size_px), discriminator_of(size_px)

    images = generator(*draw_inputs(generator, 2, torch.Generator().manual_seed(0)))
    maps = discriminator.maps(*images)
    outputs = (discriminator.logits(maps), *discriminator.reconstructions(maps, 1))
    # Squares: behind a normalisation over the batch a plain sum has no gradient.
    torch.autograd.backward(sum(output.square().sum() for output in outputs))

    for network in (generator, discriminator):
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None, name
            assert bool(parameter.grad.abs().max() > 0), name


def test_tanh_bounds_the_images() -> None:
    """With `tanh` both scales stay inside -1 … 1, and are the squashed images without it."""
    plain, squashed = generator_of(64), generator_of(64, tanh=True)
    inputs = draw_inputs(plain, 2, torch.Generator().manual_seed(0))

    for image, bounded in zip(plain(*inputs), squashed(*inputs), strict=True):
        torch.testing.assert_close(image.tanh(), bounded)


def test_composed_upsampling_is_upsampling_and_convolution() -> None:
    """One transposed convolution gives what nearest upsampling and a 3x3 convolution give."""
    rng = torch.Generator().manual_seed(0)
    x, weight = torch.randn(2, 5, 6, 7, generator=rng), torch.randn(4, 5, 3, 3, generator=rng)

    composed = F.conv_transpose2d(x, upsampling_kernel(weight), stride=2, padding=1)

    expected = F.conv2d(F.interpolate(x, scale_factor=2), weight, padding=1)
    torch.testing.assert_close(composed, expected, rtol=1e-5, atol=1e-5)


def test_wide_and_narrow_upsampling_agree() -> None:
    """A block wide enough for the plain way computes the same as the composed one would."""
    torch.manual_seed(0)
    wide = UpConv(512, 4).eval()
    x = torch.randn(1, 512, 4, 4)

    composed = F.conv_transpose2d(x, upsampling_kernel(wide.normalised_weight()), None, 2, 1)

    torch.testing.assert_close(wide(x), composed, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("momentum", [0.1, None])
def test_gated_norm_is_normalisation_and_glu(momentum: float | None) -> None:
    """It gives what torch's two layers give one after the other, statistics included."""
    rng = torch.Generator().manual_seed(0)
    ours, theirs = GatedNorm(6, momentum=momentum), nn.BatchNorm2d(6, momentum=momentum)
    for norm in (ours, theirs):
        torch.nn.init.normal_(norm.weight, 1, 0.3, generator=torch.Generator().manual_seed(1))

    for training in (True, True, False):
        x = torch.randn(2, 6, 3, 5, generator=rng)
        found = ours.train(training)(x)
        torch.testing.assert_close(found, F.glu(theirs.train(training)(x), dim=1))

    for name, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value)


def test_spectral_norm_of_a_fresh_network_is_right() -> None:
    """After the power steps at the start every weight has a largest singular value of about 1."""
    generator = generator_of(64)

    for module in generator.eval().modules():
        if isinstance(module, Conv):
            norm = torch.linalg.matrix_norm(module.normalised_weight().flatten(1), 2)
            assert 0.98 < float(norm.detach()) < 1.15


def written_out(weight: torch.Tensor, u: torch.Tensor, rows_dim: int) -> tuple[torch.Tensor, ...]:
    """A weight over its spectral norm after a power step, by the formulas; and both vectors."""
    matrix = weight.movedim(rows_dim, 0).flatten(1)
    with torch.no_grad():
        v = F.normalize(matrix.t() @ u, dim=0)
        u = F.normalize(matrix @ v, dim=0)
    return weight / (u @ matrix @ v), u, v


@pytest.mark.parametrize("layer", [Conv(3, 5, 3), FromLatent(4, 6)])
def test_spectral_norm_is_what_its_formulas_say(layer: Conv | FromLatent) -> None:
    """Weights, singular vectors and gradients over two uses are those of the formulas."""
    cotangents = torch.randn(2, *layer.weight.shape, generator=torch.Generator().manual_seed(0))
    weight, u = layer.weight.detach().clone().requires_grad_(), layer.weight_u.clone()

    for cotangent in cotangents:
        expected, u, v = written_out(weight, u, layer.rows_dim)
        expected.backward(cotangent)
        found = layer.normalised_weight()
        found.backward(cotangent)

        torch.testing.assert_close(found, expected)
    torch.testing.assert_close(layer.weight.grad, weight.grad)
    torch.testing.assert_close((layer.weight_u, layer.weight_v), (u, v))
    torch.testing.assert_close(layer.eval().normalised_weight(), expected)


def test_maps_are_channels_last() -> None:
    """From one channel on, all maps have the layout in which convolutions are fast."""
    discriminator = discriminator_of(64)
    image = torch.rand(2, 1, 64, 64)

    maps = discriminator.maps(image, F.avg_pool2d(image, 2))

    assert all(m.is_contiguous(memory_format=torch.channels_last) for m in maps)
    entered = discriminator.down_from_big(_channels_last(image))
    assert entered.is_contiguous(memory_format=torch.channels_last)


def test_fresh_networks_do_not_explode_in_eval_mode() -> None:
    """With norms and statistics measured, a fresh generator in eval mode gives images of size 1."""
    generator = generator_of(256)
    rng = torch.Generator().manual_seed(0)

    ema.measure_statistics(generator, [draw_inputs(generator, 8, rng) for _ in range(4)])

    with torch.no_grad():
        images = generator(*draw_inputs(generator, 4, rng))
    assert all(float(image.abs().max()) < 20 for image in images)


@pytest.mark.parametrize("quadrant", range(4))
def test_quadrants_are_where_they_are_said_to_be(quadrant: int) -> None:
    """0 is top left, 1 top right, 2 bottom left, 3 bottom right."""
    x = torch.tensor([[0.0, 1.0], [2.0, 3.0]]).repeat_interleave(4, 0).repeat_interleave(4, 1)

    assert bool((take_quadrant(x[None, None], quadrant) == quadrant).all())


@pytest.mark.parametrize("style", ["hook", "parametrisation", "parallel"])
def test_public_checkpoints_load_in_every_style(style: str) -> None:
    """Spectral normalisation's names of old and new torch and a parallel prefix are taken."""
    generator = generator_of(256, ngf=8)

    renamed = Generator.from_reference_state_dict(
        {public_name(name, style): t for name, t in generator.state_dict().items()}
    )

    assert renamed.arguments == generator.arguments
    for name, tensor in generator.state_dict().items():
        assert torch.equal(renamed.state_dict()[name], tensor), name


def public_name(name: str, style: str) -> str:
    """Name a tensor of our generator as the public program does."""
    spectral = name.endswith(("weight_u", "weight_v"))
    module, _, last = name.rpartition(".")
    convolution = module.endswith((".1", ".5", ".3", "to_small", "to_big", "init.0"))
    is_norm_weight = module.endswith(".3") and not module.startswith("se")
    name = name.replace("init.", "init.init.", 1).replace("feat.", "feat_").replace("se.", "se_")
    name = name.replace("to_small", "to_128")
    if style == "parametrisation":
        if spectral:
            return name.replace("weight_", "parametrizations.weight.0._")
        if last == "weight" and convolution and not is_norm_weight and "init.1" not in name:
            return name.replace(".weight", ".parametrizations.weight.original")
    elif last == "weight" and convolution and not is_norm_weight and "init.1" not in name:
        name = name.replace(".weight", ".weight_orig")
    return f"module.{name}" if style == "parallel" else name


def test_foreign_weights_are_refused() -> None:
    """Weights of something else end in a clear error."""
    for network in (Generator, Discriminator):
        with pytest.raises(ValueError, match="not the weights of a public FastGAN"):
            network.from_reference_state_dict({"layer.weight": torch.zeros(3)})


@pytest.mark.parametrize("size_px", [32, 100, 2048])
def test_other_sizes_are_refused(size_px: int) -> None:
    """Sizes without a level are refused by name."""
    with pytest.raises(ValueError, match=f"{size_px} px, expected one of"):
        Generator(size_px=size_px, channels=1, ngf=8, nz=8, tanh=False)


def test_widths_without_channels_are_refused() -> None:
    """A width of which an eighth is less than one channel is refused at 1024 px."""
    with pytest.raises(ValueError, match="leaves no channel at 1024 px"):
        Generator(size_px=1024, channels=1, ngf=4, nz=8, tanh=False)
