"""The generator and discriminator against the public FastGAN (shared/parity/SOURCE.md).

The stored tensors were computed by the author's commit 04524ef on a CPU in float32. An independent
float32 version differs by less than 1e-5 of the output's scale; 1e-4 leaves room for another order
of summation.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from semforensics.generators.fastgan.networks import Discriminator, Generator, _rename

TOLERANCE = 1e-4


def relative_error(ours: Tensor, theirs: Tensor) -> float:
    """Largest difference, in units of the largest value of the reference."""
    assert ours.shape == theirs.shape
    scale = theirs.abs().max().clamp(min=1e-12)
    return float((ours - theirs).detach().abs().max() / scale)


def our_names(network: nn.Module, theirs: dict[str, Tensor]) -> dict[str, Tensor]:
    """The reference's tensors under our names."""
    patterns = (
        (r"^init\.init\.", "init."),
        (r"^to_128\.", "to_small."),
        (r"^se_\d+_(\d+)\.", r"se.\1."),
        (r"^(feat|se|down)_(\d+)\.", r"\1.\2."),
    )
    renamed = _rename(theirs, *patterns)
    assert set(renamed) <= set(network.state_dict())
    return renamed


def check_gradients(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    """Every gradient is the reference's, each in units of its own largest value."""
    assert set(ours) == set(theirs)
    # A noise strength's gradient is one sum over all pixels, and nearly cancels for some: it is
    # measured by the largest of its kind.
    strengths = max([float(g.abs()) for g in theirs.values() if g.numel() == 1], default=0.0)
    for name, gradient in theirs.items():
        scale = strengths if gradient.numel() == 1 else float(gradient.abs().max())
        error = float((ours[name] - gradient).abs().max())
        assert error < TOLERANCE * scale, f"{name}: {error / scale}"


@pytest.fixture
def theirs_g(shared: Path) -> dict[str, Any]:
    """The reference generator's record."""
    return torch.load(shared / "parity/fastgan_G256_ngf8_gray.pt", weights_only=True)


@pytest.fixture
def theirs_d(shared: Path) -> dict[str, Any]:
    """The reference discriminator's record."""
    return torch.load(shared / "parity/fastgan_D256_ndf8_gray.pt", weights_only=True)


def test_generator_gives_the_references_images_in_eval_mode(theirs_g: dict[str, Any]) -> None:
    """With the public weights, latents and noise the images are the reference's."""
    generator = Generator.from_reference_state_dict(theirs_g["state_dict"]).eval()

    big, small = generator(theirs_g["z"], theirs_g["noise"])

    assert relative_error(big, theirs_g["eval_big"]) < TOLERANCE
    assert relative_error(small, theirs_g["eval_small"]) < TOLERANCE


def test_generator_trains_as_the_reference(theirs_g: dict[str, Any]) -> None:
    """One pass in train mode gives the reference's images, gradients and buffers."""
    generator = Generator.from_reference_state_dict(theirs_g["state_dict"]).train()

    big, small = generator(theirs_g["z"], theirs_g["noise"])
    torch.autograd.backward([big, small], [theirs_g["cotangent_big"], theirs_g["cotangent_small"]])

    assert relative_error(big, theirs_g["train_big"]) < TOLERANCE
    assert relative_error(small, theirs_g["train_small"]) < TOLERANCE
    gradients = {n: p.grad for n, p in generator.named_parameters()}
    expected = our_names(generator, theirs_g["grads"])
    check_gradients(gradients, expected)
    state = generator.state_dict()
    for name, buffer in our_names(generator, theirs_g["buffers_after"]).items():
        assert relative_error(state[name].float(), buffer.float()) < TOLERANCE, name


def test_discriminator_gives_the_references_logits(theirs_d: dict[str, Any]) -> None:
    """Logits of a pair, and of an image with its decimation, are the reference's."""
    discriminator = Discriminator.from_reference_state_dict(theirs_d["state_dict"]).eval()
    decimated = nn.functional.interpolate(theirs_d["big"], size=128)

    pair = discriminator(theirs_d["big"], theirs_d["small"])
    single = discriminator(theirs_d["big"], decimated)

    assert relative_error(pair, theirs_d["eval_logits_pair"]) < TOLERANCE
    assert relative_error(single, theirs_d["eval_logits_single"]) < TOLERANCE


@pytest.mark.parametrize("quadrant", range(4))
def test_discriminator_reconstructs_as_the_reference(
    theirs_d: dict[str, Any], quadrant: int
) -> None:
    """The three reconstructions are the reference's, for every quadrant."""
    discriminator = Discriminator.from_reference_state_dict(theirs_d["state_dict"]).eval()
    decimated = nn.functional.interpolate(theirs_d["big"], size=128)

    ours = discriminator.reconstructions(discriminator.maps(theirs_d["big"], decimated), quadrant)

    assert relative_error(ours.big, theirs_d["eval_rec_big"]) < TOLERANCE
    assert relative_error(ours.small, theirs_d["eval_rec_small"]) < TOLERANCE
    assert relative_error(ours.part, theirs_d[f"eval_rec_part{quadrant}"]) < TOLERANCE


def test_discriminator_trains_as_the_reference(theirs_d: dict[str, Any]) -> None:
    """Loss, gradients, image gradient and buffers of a pass in train mode are the reference's."""
    discriminator = Discriminator.from_reference_state_dict(theirs_d["state_dict"]).train()
    big = theirs_d["big"].clone().requires_grad_()

    maps = discriminator.maps(big, nn.functional.interpolate(big, size=128))
    logits = discriminator.logits(maps)
    reconstructions = discriminator.reconstructions(maps, 2)
    margin = 0.8 + 0.2 * theirs_d["train_margin_uniform"]
    loss = (margin - logits).relu().mean() + sum(r.square().mean() for r in reconstructions)
    loss.backward()

    assert relative_error(logits, theirs_d["train_logits"]) < TOLERANCE
    for ours, theirs in zip(reconstructions, theirs_d["train_rec"], strict=True):
        assert relative_error(ours, theirs) < TOLERANCE
    assert float(loss.detach()) == pytest.approx(float(theirs_d["train_loss"]), rel=TOLERANCE)
    assert relative_error(big.grad, theirs_d["grad_big"]) < TOLERANCE
    gradients = {n: p.grad for n, p in discriminator.named_parameters()}
    expected = our_names(discriminator, theirs_d["grads"])
    check_gradients(gradients, expected)
    state = discriminator.state_dict()
    for name, buffer in our_names(discriminator, theirs_d["buffers_after"]).items():
        assert relative_error(state[name].float(), buffer.float()) < TOLERANCE, name
