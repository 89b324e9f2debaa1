"""Crops of discs, and the smallest trainings on them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from semforensics.generators.autoencoders.resynthesise import Outputs, Simulator, resynthesise
from semforensics.generators.autoencoders.training import train_autoencoders
from semforensics.generators.common.reals import RealCrops
from semforensics.generators.diffusion.training import train_diffusion
from semforensics.params import (
    ResynthesiseParams,
    SimulatedParams,
    TrainAutoencodersParams,
    TrainDiffusionParams,
)
from tests.generators.conftest import setup_in, write_blobs

CPU = torch.device("cpu")
TINY = TrainAutoencodersParams(num_decoders=0, steps=3, batch=4, width=4, lr=0.002)
TINY_DIFFUSION = TrainDiffusionParams(
    steps=4,
    size_px=32,
    widths=(8, 16),
    batch=4,
    lr=0.001,
    ema_decay=0.9,
    timesteps=10,
    precision="float32",
)
SIMULATED = SimulatedParams(
    num_areas=3,
    magnifications_k=(100,),
    width_px=128,
    height_px=128,
    ordered_share=0.5,
    compression="none",
)


def tiny(**changes: Any) -> TrainAutoencodersParams:
    """The parameters of the smallest encoder-decoders, with changes."""
    return TrainAutoencodersParams.model_validate(TINY.model_dump() | changes)


def tiny_diffusion(**changes: Any) -> TrainDiffusionParams:
    """The parameters of the smallest diffusion model, with changes."""
    return TrainDiffusionParams.model_validate(TINY_DIFFUSION.model_dump() | changes)


def files_in(folder: Path) -> dict[str, bytes]:
    """All files below a folder, by name."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@dataclass(frozen=True)
class Place:
    """Inputs of the stages, and where their outputs go."""

    root: Path

    def crops(self, protocol: str = "clean") -> RealCrops:
        """The reals that a generator may learn from."""
        return RealCrops(self.root / "cropped", self.root / "splits.csv", protocol)

    def train(self, params: TrainAutoencodersParams = TINY, **more: Any) -> str:
        """Train all encoder-decoders."""
        return train_autoencoders(
            self.crops(more.pop("protocol", "clean")),
            self.root / "autoencoders",
            params=params,
            setup=setup_in(self.root / "s", **more),
        )

    def resynthesise(self, *, source: str = "folder", num_simulated: int = 4) -> str:
        """Make all images."""
        return resynthesise(
            self.root / "cropped",
            self.root / "splits.csv",
            self.root / "autoencoders",
            Outputs(
                self.root / "fakes/pseudo",
                self.root / "reconstructed/decoders",
                self.root / "unseen",
            ),
            params=ResynthesiseParams(
                num_simulated=num_simulated, denoise_strength=0.8, resize_factor=0.75
            ),
            simulator=Simulator(SIMULATED, source, 0),
            device=CPU,
        )

    def diffuse(self, params: TrainDiffusionParams = TINY_DIFFUSION, **more: Any) -> str:
        """Train a diffusion model."""
        return train_diffusion(
            self.crops(),
            self.root / "diffusion",
            params=params,
            setup=setup_in(self.root / "s", **more),
        )


def place_in(root: Path) -> Place:
    """Make a place to work in, with 16 crops of 32 px."""
    write_blobs(root / "cropped", root / "splits.csv", 16, size_px=32)
    return Place(root)


@pytest.fixture
def make_place(tmp_path: Path) -> Callable[[str], Place]:
    """Make places to work in, each with the same crops."""
    return lambda name: place_in(tmp_path / name)


@pytest.fixture
def place(make_place: Callable[[str], Place]) -> Place:
    """One place to work in."""
    return make_place("place")
