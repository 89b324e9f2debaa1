"""What the trainings of both GANs share: what they learn from, and all that changes meanwhile."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from jaxtyping import UInt8
from torch import Tensor, nn

from semforensics.core.errors import InputError
from semforensics.core.files import sha256_of
from semforensics.core.training import (
    EndlessPermutations,
    MeasuredState,
    Setup,
    Training,
    make_stamp,
)
from semforensics.generators.common.reals import RealCrops
from semforensics.params import FastGANParams, StyleGAN2Params
from semforensics.perceptual.lpips import LPIPS

G = TypeVar("G", bound=nn.Module)
D = TypeVar("D", bound=nn.Module)


@dataclass(frozen=True)
class Material:
    """What a GAN learns from."""

    reals: UInt8[Tensor, "n_real 1 side side"]
    lpips: LPIPS
    """The perceptual distance, on the device."""
    weights_sha256: str = ""
    """Of the file that `lpips` was read from."""


@dataclass(kw_only=True)
class GANState(MeasuredState, Generic[G, D]):
    """All that changes while a GAN is trained."""

    generator: G
    discriminator: D
    average: G
    """The generator with averaged weights."""
    optimizer_g: torch.optim.Adam
    optimizer_d: torch.optim.Adam
    rng: torch.Generator
    sampler: EndlessPermutations
    snapshots: list[dict[str, float]] = field(default_factory=list)


def load_material(crops: RealCrops, pretrained: Path, net: str, device: torch.device) -> Material:
    """Read the reals, and the perceptual distance of `net` from the folder of its weights.

    Raises:
        InputError: A file holds something else than its name says, or crops differ in size.
        FileNotFoundError: A file is missing.
    """
    weights = pretrained / f"{net}.safetensors"
    lpips = LPIPS.load(weights)
    if lpips.net != net:
        raise InputError(f"{weights.name}: holds the weights of {lpips.net}")
    return Material(crops.load(), lpips.to(device), sha256_of(weights))


def begin_gan(
    title: str,
    module: str,
    params: FastGANParams | StyleGAN2Params,
    material: Material,
    setup: Setup,
) -> Training:
    """Open the frame of a GAN's training; `module` is the name of the training's module."""
    length_and_kept = {"iterations", "kimg", "keep_snapshots", "keep_best"}
    settings: dict[str, Any] = params.model_dump(exclude=length_and_kept)
    settings |= {"seed": setup.seed, "weights": material.weights_sha256}
    return Training(title, setup, make_stamp(module, settings, material.reals, device=setup.device))
