"""Encoder-decoders keep the size, differ in their up-samplers, come back from their files."""

from pathlib import Path
from typing import get_args

import pytest
import torch

from semforensics.core.checkpoints import load_checkpoint, save_checkpoint
from semforensics.generators.autoencoders.networks import (
    RECIPES,
    Autoencoder,
    Upsampler,
    build_autoencoder,
    draw_recipes,
    load_autoencoder,
)


@pytest.mark.parametrize("name", RECIPES)
def test_a_reconstruction_has_the_size_of_its_image(name: str) -> None:
    """Whatever the depth; and every weight has a part in it."""
    network = build_autoencoder(RECIPES[name], 4)

    y = network(torch.rand(2, 1, 32, 48) * 2 - 1)
    y.square().sum().backward()

    assert y.shape == (2, 1, 32, 48)
    assert all(bool(p.grad.abs().sum() > 0) for p in network.parameters())


@pytest.mark.parametrize("name", RECIPES)
def test_less_passes_the_bottleneck_than_the_image_holds(name: str) -> None:
    """An encoder-decoder that could copy would leave no trace."""
    network = build_autoencoder(RECIPES[name], 4)

    code = network.encoder(torch.zeros(1, 1, 32, 32))

    assert code.shape[-1] == 32 // 2 ** RECIPES[name].levels
    assert code.numel() < 32 * 32


def test_pseudo_and_autoencoder_share_nothing() -> None:
    """What is learnt from is of another depth, bottleneck and up-sampler than what tests it."""
    ours, other = RECIPES["pseudo"], RECIPES["autoencoder"]

    assert ours.levels != other.levels
    assert ours.bottleneck != other.bottleneck
    assert ours.upsampler != other.upsampler


@pytest.mark.parametrize(("upsampler", "alike"), [("nearest", True), ("transposed", False)])
def test_the_upsampler_is_what_the_recipe_says(upsampler: str, alike: bool) -> None:
    """Nearest-neighbour doubling repeats each value; a transposed convolution does not."""
    torch.manual_seed(0)
    network = Autoencoder(width=4, levels=1, bottleneck=3, upsampler=upsampler)

    doubled = network.decoder[2](torch.randn(1, 8, 5, 5))

    assert doubled.shape[-2:] == (10, 10)
    assert torch.equal(doubled[..., ::2, ::2], doubled[..., 1::2, 1::2]) == alike


def test_sides_that_cannot_be_halved_are_refused() -> None:
    """Three levels take multiples of 8 only."""
    with pytest.raises(ValueError, match="36x32 px, expected multiples of 8"):
        build_autoencoder(RECIPES["autoencoder"], 4)(torch.zeros(1, 1, 32, 36))


def test_a_network_comes_back_from_its_file(tmp_path: Path) -> None:
    """The file alone rebuilds it; another file is refused with its name."""
    network = build_autoencoder(RECIPES["bilinear"], 4)
    path = tmp_path / "bilinear.safetensors"
    meta = {"architecture": "autoencoder", "arguments": network.arguments}
    save_checkpoint(path, network.state_dict(), meta)
    x = torch.rand(1, 1, 16, 16)

    loaded, described = load_autoencoder(path)

    assert torch.equal(loaded(x), network(x))
    assert described["arguments"]["upsampler"] == "bilinear"
    state, _ = load_checkpoint(path)
    save_checkpoint(path, state, meta | {"arguments": network.arguments | {"upsampler": "cubic"}})
    with pytest.raises(ValueError, match=r"(?s)bilinear\.safetensors: not the weights.*'cubic'"):
        load_autoencoder(path)
    save_checkpoint(path, state, {"architecture": "fastgan"})
    with pytest.raises(ValueError, match="'fastgan', expected 'autoencoder'"):
        load_autoencoder(path)
    with pytest.raises(FileNotFoundError, match="train-autoencoders"):
        load_autoencoder(tmp_path / "none.safetensors")


def test_drawn_recipes_differ_and_stay() -> None:
    """All up-samplers and depths are drawn; none holds all of an image; more leaves the first.

    No up-sampler of those of one level is among those that are measured.
    """
    recipes = draw_recipes(40, seed=0)

    assert {recipe.upsampler for recipe in recipes.values()} == set(get_args(Upsampler))
    assert {recipe.levels for recipe in recipes.values()} == {1, 2}
    faithful = {recipe.upsampler for recipe in recipes.values() if recipe.levels == 1}
    assert faithful == {"bilinear", "shuffle"}
    assert all(1 <= recipe.bottleneck < 4**recipe.levels for recipe in recipes.values())
    assert dict(list(recipes.items())[:3]) == draw_recipes(3, seed=0)
    assert draw_recipes(3, seed=1) != draw_recipes(3, seed=0)
