"""Small training sets, weights and parameters for generators."""

import csv
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from semforensics.core.images import write_grey_png
from semforensics.core.training import Setup, Training, TrainingState
from semforensics.generators.common.gan import Material
from semforensics.generators.common.reals import RealCrops, load_reals
from semforensics.generators.train_gan import train_gan
from semforensics.params import FastGANParams, StyleGAN2Params
from semforensics.perceptual.lpips import LPIPS

CPU = torch.device("cpu")

TINY = FastGANParams(
    reference=False,
    channels=1,
    ngf=4,
    ndf=4,
    nz=8,
    iterations=4,
    batch=4,
    flip=True,
    lr=0.0002,
    adam_beta1=0.5,
    adam_beta2=0.999,
    ema_decay=0.999,
    perceptual_net="alex",
    reconstruction_weight=8,
    r1_gamma=0,
    r1_every=2,
    tanh=True,
    precise_bn_images=64,
    precision="float32",
    compile=False,
    log_every=2,
    snapshot_every=2,
    keep_snapshots=1,
    keep_best=True,
)


def tiny(**changes: Any) -> FastGANParams:
    """The parameters of the smallest training, with changes."""
    return FastGANParams.model_validate(TINY.model_dump() | changes)


TINY_STYLE = StyleGAN2Params(
    configuration="auto",
    channels=1,
    z_dim=8,
    w_dim=8,
    mapping_layers=None,
    channel_base=256,
    channel_max=8,
    kimg=0.016,
    batch=4,
    mbstd_group=None,
    mirror=True,
    lr=None,
    r1_gamma=None,
    r1_every=4,
    path_length_every=2,
    ema_kimg=None,
    ema_rampup=None,
    augment="bgc",
    orientation="free",
    ada_target=0.6,
    ada_kimg=1,
    ada_every=2,
    ada_p_max=0.8,
    perceptual_net="alex",
    precision="float32",
    log_every=2,
    snapshot_every=2,
    keep_snapshots=1,
    keep_best=True,
)


def tiny_style(**changes: Any) -> StyleGAN2Params:
    """The parameters of the smallest StyleGAN2-ADA training, with changes."""
    return StyleGAN2Params.model_validate(TINY_STYLE.model_dump() | changes)


def rows_of(path: Path) -> list[dict[str, float]]:
    """A CSV of numbers; what is empty is not a number."""
    with path.open() as file:
        return [{n: float(v or "nan") for n, v in r.items()} for r in csv.DictReader(file)]


def flatten(value: Any, name: str = "") -> dict[str, Any]:
    """Leaves of nested dictionaries and lists by their paths."""
    if isinstance(value, dict | list):
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        return {k: v for n, part in pairs for k, v in flatten(part, f"{name}.{n}").items()}
    return {name: value}


def write_blobs(cropped: Path, splits: Path, count: int, size_px: int = 64) -> None:
    """Write crops of one bright disc each; three of four on the train side."""
    rng = torch.Generator().manual_seed(1)
    rows, columns = torch.meshgrid(torch.arange(size_px), torch.arange(size_px), indexing="ij")
    table = []
    for index in range(count):
        y, x, radius = (torch.rand(3, generator=rng) * size_px * torch.tensor([1, 1, 0.3])).tolist()
        image = 60 + 120 * ((rows - y) ** 2 + (columns - x) ** 2 < radius**2)
        image = image + 8 * torch.randn(size_px, size_px, generator=rng)
        cropped.mkdir(parents=True, exist_ok=True)
        write_grey_png(cropped / f"{index:03d}.png", image.clamp(0, 255).to(torch.uint8).numpy())
        side = ("train", "train", "train", "test" if index % 8 < 4 else "validation")[index % 4]
        table.append(
            {
                **{"file": f"{index:03d}.png", "micrograph": f"m{index}.tif", "group": f"g{index}"},
                **{"label": "", "magnification_k": 100, "kv": 30, "top_px": 0, "left_px": 0},
                "split": side,
            }
        )
    pd.DataFrame(table).to_csv(splits, index=False)


def write_random_trunk(folder: Path) -> None:
    """Write an AlexNet of seeded random weights where the pretrained one would be."""
    torch.manual_seed(0)
    state = LPIPS("alex").state_dict()
    folder.mkdir(exist_ok=True)
    save_file(
        {name.replace("trunk.", "features."): t for name, t in state.items()},
        folder / "alex.safetensors",
    )


def setup_in(scratch: Path, **more: Any) -> Setup:
    """Train on the CPU, from seed 0 unless said."""
    return Setup(**({"seed": 0, "scratch": scratch, "device": CPU} | more))


def quiet_training(scratch: Path) -> Training:
    """The frame of a training that saves at its end only and belongs to nothing."""
    training = Training("", setup_in(scratch, seconds_between_saves=1e9), {})
    training.console.quiet = True
    return training


@contextmanager
def interrupted_after_saves(count: int) -> Iterator[None]:
    """End the training in the block right after it has saved its state so many times."""
    save, saved = Training.save, []

    def save_or_end(training: Training, state: TrainingState) -> None:
        save(training, state)
        saved.append(state)
        if len(saved) == count:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Training, "save", save_or_end)
        yield


@dataclass(frozen=True)
class Place:
    """Inputs of a training, and where its outputs go."""

    root: Path

    @property
    def crops(self) -> RealCrops:
        """The reals of the train split."""
        return RealCrops(self.root / "cropped", self.root / "splits.csv", "clean")

    @property
    def material(self) -> Material:
        """All reals, and the perceptual distance."""
        reals = load_reals(sorted((self.root / "cropped").glob("*.png")))
        return Material(reals, LPIPS.load(self.root / "pretrained/alex.safetensors"))

    def train(self, params: FastGANParams | StyleGAN2Params, **more: Any) -> str:
        """Train to the end."""
        return train_gan(
            self.crops,
            self.root / "pretrained",
            self.root / "checkpoints",
            self.root / "plots",
            params=params,
            setup=setup_in(**({"scratch": self.root / "scratch"} | more)),
        )

    def outputs(self) -> dict[str, bytes]:
        """All files that a finished training left, by name."""
        folders = (self.root / "checkpoints", self.root / "plots")
        return {
            str(path.relative_to(self.root)): path.read_bytes()
            for folder in folders
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }


def place_in(root: Path) -> Place:
    """Make a place to train in, with 24 crops of 64 px and a trunk of random weights."""
    write_blobs(root / "cropped", root / "splits.csv", 24)
    write_random_trunk(root / "pretrained")
    return Place(root)


@pytest.fixture
def make_place(tmp_path: Path) -> Callable[[str], Place]:
    """Make places to train in, each with the same inputs."""
    return lambda name: place_in(tmp_path / name)
