"""Small images of two classes on disk and in memory."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from semforensics.detector.corpus import Corpus, LabelledImages
from semforensics.detector.training import train_classifier
from semforensics.params import SplitParams, TrainClassifierParams
from semforensics.trials.under_test import DetectorUnderTest

CPU = torch.device("cpu")
SIZE_PX = 32
SHARES = SplitParams(by="group", train=0.6, test=0.3, validation=0.1)


def recipe(**changes: object) -> TrainClassifierParams:
    """A short training of the small network."""
    values = {
        "network": "npr_tiny", "channels": 1, "epochs": 8, "batch": 16, "lr": 0.005,
        "lr_decay": 1.0, "lr_decay_every": 10, "flip": True, "random_phase": True,
        "precision": "float32", "max_false_positive_rate": 0.05, "num_seeds": 1,
        "turn": False, "tone_chance": 0.0, "gamma_max": 1.6, "median_chance": 0.0,
        "noise_chance": 0.0, "noise_sigma_max": 12.0, "blur_chance": 0.0, "blur_sigma_max": 3.0,
        "jpeg_chance": 0.0, "jpeg_quality_min": 30,
        "calibrate_on": (), "domain_quantile": 0.99,
    }  # fmt: skip
    return TrainClassifierParams(**(values | changes))


def original(rng: np.random.Generator, size: int = SIZE_PX) -> np.ndarray:
    """Grey noise around a mean of its own."""
    return (rng.integers(60, 180) + rng.normal(0, 12, (size, size))).clip(0, 255).astype(np.uint8)


def upsampled(rng: np.random.Generator, size: int = SIZE_PX) -> np.ndarray:
    """Such an image of half the size, doubled by nearest neighbours."""
    return np.kron(original(rng, size // 2), np.ones((2, 2), dtype=np.uint8))


@dataclass(frozen=True)
class Folders:
    """Where the images of a test lie."""

    cropped: Path
    splits: Path
    fakes: Path

    def corpus(self, **changes: object) -> Corpus:
        """These images under the clean protocol, drawn with seed 0."""
        corpus = Corpus(self.cropped, self.splits, self.fakes, "clean", SHARES, 0)
        return replace(corpus, **changes)

    @property
    def model(self) -> Path:
        """Where tests put a classifier of these images."""
        return self.cropped.parent / "model"

    def train(
        self, name: str = "fastgan", classifier: Path | None = None, **changes: object
    ) -> str:
        """Train a classifier of simulated reals by a short recipe."""
        return train_classifier(
            name, self.corpus(), classifier or self.model, params=recipe(**changes),
            data="simulated", scratch=self.cropped.parent / "scratch", device=CPU,
        )  # fmt: skip

    def under_test(
        self,
        classifier: Path | None = None,
        *,
        phases: int = 4,
        alpha: float = 0.2,
        **changes: object,
    ) -> DetectorUnderTest:
        """The trained classifier; the validation split has 6 images of each class."""
        return DetectorUnderTest.load(
            classifier or self.model, self.corpus(**changes), phases=phases, alpha=alpha, device=CPU
        )


def write_data(root: Path, *, groups: int = 10, per_group: int = 6, fakes: int = 60) -> Folders:
    """Write originals as reals, up-sampled images as fakes of "fastgan", and a table of splits."""
    rng = np.random.default_rng(0)
    folders = Folders(root / "cropped", root / "splits.csv", root / "fakes")
    folders.cropped.mkdir(parents=True)
    (folders.fakes / "fastgan").mkdir(parents=True)
    rows = []
    for group in range(groups):
        split = "train" if group < 6 else "test" if group < 9 else "validation"
        for index in range(per_group):
            name = f"S1-A{group}_{index}.png"
            Image.fromarray(original(rng)).save(folders.cropped / name)
            rows.append(
                {"file": name, "micrograph": f"S1-A{group}.tif", "group": f"S1-A{group}",
                 "label": "ordered", "magnification_k": 100, "kv": "", "top_px": 0,
                 "left_px": 32 * index, "split": split}
            )  # fmt: skip
    pd.DataFrame(rows).to_csv(folders.splits, index=False)
    for seed in range(fakes):
        Image.fromarray(upsampled(rng)).save(folders.fakes / f"fastgan/{seed:06d}.png")
    return folders


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    """60 reals of 10 groups and 60 fakes."""
    return write_data(tmp_path)


def labelled(count: int, seed: int, *, groups: int = 4) -> LabelledImages:
    """`count` originals and as many up-sampled images in memory."""
    rng = np.random.default_rng(seed)
    images = [original(rng) for _ in range(count)] + [upsampled(rng) for _ in range(count)]
    table = pd.DataFrame(
        {
            "file": [f"{seed}_{i}.png" for i in range(2 * count)],
            "class": ["real"] * count + ["fake"] * count,
            "generator": [""] * count + ["fastgan"] * count,
            "split": "train",
            "group": [f"g{i % groups}" for i in range(count)] + [f"f{i}" for i in range(count)],
            "path": "",
        }
    )
    return LabelledImages(table, torch.from_numpy(np.stack(images)[:, None]))


def made_up(seed: int = 0, reals: int = 60, fakes: int = 50) -> pd.DataFrame:
    """Scores of overlapping classes, reals in six groups, every third image undecided."""
    rng = np.random.default_rng(seed)
    logits = np.concatenate([rng.normal(-1, 1.5, reals), rng.normal(1, 1.5, fakes)])
    undecided = np.arange(reals + fakes) % 3 == 0
    called = np.where(logits > 0, "ai-suspected", "consistent")
    return pd.DataFrame(
        {
            "class": ["real"] * reals + ["fake"] * fakes,
            "generator": [""] * reals + ["fastgan"] * fakes,
            "group": [f"g{i % 6}" for i in range(reals)] + [f"f{i}" for i in range(fakes)],
            "logit": logits.astype(np.float32),
            "verdict": np.where(undecided, "inconclusive", called),
            "inside": np.arange(reals + fakes) % 6 != 0,
        }
    )
