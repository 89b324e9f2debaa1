"""The networks and penalties against the public StyleGAN2-ADA (shared/parity/SOURCE.md).

The stored tensors were computed by NVlabs/stylegan2-ada-pytorch d72cc7d on a CPU in float32. An
independent version differs by less than 1e-5 of the output's scale; 1e-4 leaves room for another
order of summation. Gradients are compared in float64: where rounding carries an activation across
the leaky ReLU's kink, a single one of a million, a gradient in float32 moves by more than 1e-4.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.generators.stylegan2_ada.test_resampling import upfirdn
from torch import Tensor, nn

from semforensics.generators.stylegan2_ada import losses
from semforensics.generators.stylegan2_ada.networks import (
    Discriminator,
    Generator,
    activate,
    append_deviation,
    mix_styles,
)
from semforensics.generators.stylegan2_ada.resampling import (
    conv_down,
    conv_up,
    downsample,
    upsample,
)

TOLERANCE = 1e-4


def relative_error(ours: Tensor, theirs: Tensor) -> float:
    """Largest difference, in units of the largest value of the reference."""
    assert ours.shape == theirs.shape
    scale = theirs.abs().max().clamp(min=1e-12)
    return float((ours - theirs).detach().abs().max() / scale)


def in_double(value: Any) -> Any:
    """Turn all tensors of a record to float64."""
    if isinstance(value, dict):
        return {name: in_double(entry) for name, entry in value.items()}
    return value.double() if isinstance(value, Tensor) else value


def gradients_of(network: nn.Module, loss: Tensor) -> dict[str, Tensor]:
    """The gradients by name, of those parameters that have one."""
    network.zero_grad()
    loss.backward()
    return {n: p.grad for n, p in network.named_parameters() if p.grad is not None}


def check_gradients(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    """Every gradient is the reference's, each in units of its own largest value."""
    assert set(ours) == set(theirs)
    for name, gradient in theirs.items():
        assert relative_error(ours[name], gradient) < TOLERANCE, name


@pytest.fixture
def theirs(shared: Path) -> dict[str, Any]:
    """The reference networks' record."""
    return torch.load(shared / "parity/sg2_64_rgb_map2.pt", weights_only=True)


@pytest.fixture
def theirs_ops(shared: Path) -> list[dict[str, Any]]:
    """The records of single operations."""
    return torch.load(shared / "parity/sg2_ops.pt", weights_only=True)


def generator_of(theirs: dict[str, Any], clamp: float | None = None) -> Generator:
    """The generator with the stored weights."""
    return Generator.from_reference_state_dict(theirs["G"], clamp=clamp)


def discriminator_of(theirs: dict[str, Any], clamp: float | None = None) -> Discriminator:
    """The discriminator with the stored weights."""
    return Discriminator.from_reference_state_dict(
        theirs["D"], mbstd_group=theirs["mbstd"], clamp=clamp
    )


def test_sizes_are_read_from_the_weights(theirs: dict[str, Any]) -> None:
    """The state dictionaries alone tell how large the networks are."""
    generator, discriminator = generator_of(theirs), discriminator_of(theirs)

    assert generator.num_ws == theirs["num_ws"]
    for name in ("channel_base", "channel_max"):
        assert generator.arguments[name] == discriminator.arguments[name] == theirs[name]
    assert generator.arguments["mapping_layers"] == theirs["map_layers"]
    assert generator.arguments["size_px"] == discriminator.arguments["size_px"] == theirs["res"]


def test_generator_gives_the_references_styles(theirs: dict[str, Any]) -> None:
    """As mapped, truncated, and truncated in the first layers only."""
    generator, z = generator_of(theirs), theirs["z"]
    half = generator.styles(z, truncation_psi=0.5)

    for ours, name in (
        (generator.styles(z), "ws"),
        (generator.styles(z, truncation_psi=0.7), "ws_psi0.7"),
        (mix_styles(half, generator.styles(z), 3), "ws_psi0.5_cutoff3"),
    ):
        assert relative_error(ours, theirs[name]) < TOLERANCE, name


def test_generator_gives_the_references_images(theirs: dict[str, Any]) -> None:
    """With constant noise, without, truncated, and with clamped activations."""
    generator, z = generator_of(theirs), theirs["z"]

    for ours, name in (
        (generator(z), "img_const"),
        (generator(z, []), "img_none"),
        (generator(z, truncation_psi=0.7), "img_const_psi0.7"),
        (generator_of(theirs, clamp=1.0)(z), "img_const_clamp1"),
    ):
        assert relative_error(ours, theirs[name]) < TOLERANCE, name


def test_discriminator_gives_the_references_logits(theirs: dict[str, Any]) -> None:
    """Of a batch of one group and of two, and with clamped activations."""
    discriminator = discriminator_of(theirs)

    for ours, name in (
        (discriminator(theirs["img_const"]), "logits"),
        (discriminator(theirs["x8"]), "logits8"),
        (discriminator_of(theirs, clamp=1.0)(theirs["x8"]), "logits8_clamp1"),
    ):
        assert relative_error(ours, theirs[name][:, 0]) < TOLERANCE, name


def test_mean_style_moves_as_the_references(theirs: dict[str, Any]) -> None:
    """One training call brings the running mean to the reference's."""
    generator = generator_of(theirs)

    generator.mapping.track_w_average(generator.mapping(theirs["z"]))

    ours = generator.mapping.w_avg
    assert relative_error(ours, theirs["w_avg_after_one_train_call"]) < TOLERANCE
    moved = theirs["w_avg_after_one_train_call"] - theirs["G"]["mapping.w_avg"]
    assert float(moved.abs().max()) > 10 * TOLERANCE * float(ours.abs().max())


def test_main_loss_has_the_references_gradients(theirs: dict[str, Any]) -> None:
    """The generator's loss and its gradients in all of the synthesis."""
    theirs = in_double(theirs)
    generator, discriminator = generator_of(theirs).double(), discriminator_of(theirs).double()

    loss = losses.generator_loss(discriminator(generator(theirs["z"])))

    assert relative_error(loss, theirs["Gmain_loss"]) < TOLERANCE
    check_gradients(gradients_of(generator.synthesis, loss), theirs["Gmain_grads_synthesis"])


def test_r1_has_the_references_gradients(theirs: dict[str, Any]) -> None:
    """The penalty at four images with weight 10 / 2."""
    theirs = in_double(theirs)
    discriminator = discriminator_of(theirs).double()
    reals = theirs["x8"][:4].clone().requires_grad_()

    penalty = losses.r1_penalty(discriminator(reals), reals)

    assert relative_error(penalty, theirs["R1_penalty"].mean()) < TOLERANCE
    check_gradients(gradients_of(discriminator, 5 * penalty), theirs["R1_gamma10_grads"])


def test_path_length_has_the_references_gradients(theirs: dict[str, Any]) -> None:
    """Lengths, their running mean and the penalty, with weight 2 for the gradients."""
    theirs = in_double(theirs)
    generator = generator_of(theirs).double()
    ws = generator.styles(theirs["z"])

    lengths = losses.path_lengths(generator.synthesis(ws), ws, theirs["PL_y"])
    mean = losses.updated_path_mean(torch.zeros((), dtype=torch.float64), lengths)
    penalty = losses.path_length_penalty(lengths, mean)

    assert relative_error(lengths, theirs["PL_lengths"]) < TOLERANCE
    assert relative_error(mean, theirs["PL_mean_after"]) < TOLERANCE
    assert relative_error(penalty, theirs["PL_penalty"].mean()) < TOLERANCE
    check_gradients(gradients_of(generator.synthesis, 2 * penalty), theirs["PL_grads"])


def test_tests_definition_of_filtering_is_the_references(
    theirs_ops: list[dict[str, Any]],
) -> None:
    """The definition that the unit tests compare with is the reference's, in every case."""
    cases = [case for case in theirs_ops if case["op"] == "upfirdn2d"]

    for case in cases:
        kernel = case["f"] if case["f"].ndim == 2 else case["f"].outer(case["f"])
        up, down = (
            tuple(case[n]) if isinstance(case.get(n), list) else (case.get(n, 1),) * 2
            for n in ("up", "down")
        )
        ours = upfirdn(
            case["x"],
            kernel,
            up=up,
            down=down,
            padding=tuple(case["padding"]),
            gain=case.get("gain", 1),
            flip=case.get("flip_filter", False),
        )
        assert relative_error(ours, case["y"]) < TOLERANCE, case["case"]
    assert len(cases) == 7


def test_resampling_is_the_references(theirs_ops: list[dict[str, Any]]) -> None:
    """Images doubled and halved; convolutions with and without resampling."""
    filtered = {case["case"]: case for case in theirs_ops if case["op"] == "upfirdn2d"}
    convolved = {
        (case["k"], case["up"], case["down"]): case
        for case in theirs_ops
        if case["op"] == "conv_resample"
    }

    pairs = [
        (upsample(filtered["up2"]["x"]), filtered["up2"]["y"]),
        (downsample(filtered["down2"]["x"]), filtered["down2"]["y"]),
    ]
    for (kernel, up, down), case in convolved.items():
        x, weight = case["x"], case["w"]
        if up == 2:
            pairs.append((conv_up(x, weight), case["y"]))
        elif down == 2 and kernel == 3:
            pairs.append((conv_down(x, weight), case["y"]))
        elif down == 2:
            pairs.append((nn.functional.conv2d(downsample(x), weight), case["y"]))

    assert len(pairs) == 5
    for ours, theirs in pairs:
        assert relative_error(ours, theirs) < TOLERANCE


def test_activation_is_the_references(theirs_ops: list[dict[str, Any]]) -> None:
    """A gain ahead of the leaky ReLU is one behind it; the clamp comes last."""
    (case,) = [c for c in theirs_ops if c["op"] == "bias_act" and c["act"] == "lrelu"]
    biased = case["x"] + case["b"].view(-1, 1, 1)

    assert relative_error(activate(biased * 2**0.5, None), case["y_default"]) < TOLERANCE
    clamped = activate(biased * case["gain"], case["clamp"])
    assert relative_error(clamped, case["y_gain_clamp"]) < TOLERANCE


def test_minibatch_deviation_is_the_references(theirs_ops: list[dict[str, Any]]) -> None:
    """In groups of four and of eight."""
    (case,) = [case for case in theirs_ops if case["op"] == "minibatch_std"]

    for group in (4, 8):
        ours = append_deviation(case["x"], group)
        assert relative_error(ours, case[f"y_g{group}"]) < TOLERANCE


def count(network: nn.Module) -> int:
    """The number of parameters."""
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(
    ("size_px", "channels", "base", "layers", "of_g", "of_mapping", "of_d"),
    [
        (256, 3, 16384, 2, 23_191_522, 525_312, 24_001_089),
        (512, 3, 32768, 2, 28_700_647, 525_312, 28_982_849),
        (512, 1, 32768, 2, 28_694_615, 525_312, 28_982_721),
        (512, 3, 32768, 8, 30_276_583, 2_101_248, 28_982_849),
        (512, 1, 16384, 2, 23_279_927, 525_312, 24_030_689),
    ],
    ids=["auto 256", "auto 512", "auto 512 grey", "paper512", "512 half width grey"],
)
def test_published_sizes_have_the_published_parameter_counts(
    size_px: int,
    channels: int,
    base: int,
    layers: int,
    of_g: int,
    of_mapping: int,
    of_d: int,
) -> None:
    """Counted by the public program for its configurations."""
    sizes = {"size_px": size_px, "channels": channels, "channel_base": base, "channel_max": 512}

    with torch.device("meta"):
        generator = Generator(z_dim=512, w_dim=512, mapping_layers=layers, **sizes)
        discriminator = Discriminator(mbstd_group=4, **sizes)

    assert generator.num_ws == {256: 14, 512: 16}[size_px]
    assert count(generator) == of_g
    assert count(generator.mapping) == of_mapping
    assert count(discriminator) == of_d
