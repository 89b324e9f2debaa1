"""A screening model of small tiles, made in seconds: nothing is trained.

A doubled image (nearest neighbours) has hardly any neighbouring-pixel residue, so even a network
with fresh weights tells it from an original; its sign is turned so that doubled images score high.
"""

import csv
import json
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from semforensics.core.checkpoints import save_checkpoint
from semforensics.core.processing import gaussian_blur
from semforensics.detector.calibration import fit_temperature
from semforensics.detector.corpus import Corpus
from semforensics.detector.domain import DOMAIN_FILE, Domain
from semforensics.detector.networks import build_network
from semforensics.detector.scoring import MODEL_FILE, score_images
from semforensics.params import PackageModelParams, SplitParams
from semforensics.screening.records import Grey
from tests.screening.samples import micrograph

SIZE_PX = 64
TRAINING, VALIDATION, TEST = (0, 1, 2, 3), (4, 5), (6, 7)
"""Areas of simulated micrographs."""
PARAMS = PackageModelParams(
    name="small",
    material="simulated particles",
    instrument="none",
    source="made here",
    limits=("Fit for tests.",),
)


@cache
def original(area: int) -> Grey:
    """A simulated micrograph without info bar, 448x320 px."""
    grey = micrograph(area)[:320]
    grey.setflags(write=False)
    return grey


def doubled(grey: Grey) -> Grey:
    """Halve an image and double it by nearest neighbours: what counts as generated here."""
    rng = np.random.default_rng(int(grey.sum()))
    noise = rng.normal(0, 4, (grey.shape[0] // 2, grey.shape[1] // 2))
    half = gaussian_blur(grey, 0.5)[::2, ::2] + noise
    levels = np.kron(half, np.ones((2, 2))) + rng.normal(0, 1, grey.shape)
    return levels.round().clip(0, 255).astype(np.uint8)


def crops(grey: Grey) -> list[tuple[int, int, Grey]]:
    """Cut into tiles, with their places."""
    return [
        (top, left, grey[top : top + SIZE_PX, left : left + SIZE_PX])
        for top in range(0, grey.shape[0] - SIZE_PX + 1, SIZE_PX)
        for left in range(0, grey.shape[1] - SIZE_PX + 1, SIZE_PX)
    ]


def _stack(areas: tuple[int, ...], *, is_doubled: bool) -> torch.Tensor:
    greys = [doubled(original(a)) if is_doubled else original(a) for a in areas]
    return torch.from_numpy(np.stack([c for g in greys for *_, c in crops(g)]))[:, None]


def corpus_of(root: Path, splits: Path | None = None) -> Corpus:
    """Return the images that `write_classifier` wrote."""
    shares = SplitParams(train=0.25, test=0.25, validation=0.5, by="group")
    splits = splits or root / "splits.csv"
    return Corpus(root / "cropped", splits, root / "fakes", "clean", shares, 0)


def write_classifier(root: Path) -> None:
    """Write classifier, crops, fakes, splits and metrics of false alarms as the pipeline would."""
    torch.manual_seed(0)
    network = build_network("npr_tiny", 1).eval()
    cpu = torch.device("cpu")
    train, held_out = (
        [_stack(areas, is_doubled=d) for d in (False, True)] for areas in (TRAINING, VALIDATION)
    )
    real, fake = (score_images(network, x, phases=1, device=cpu) for x in held_out)
    sign = np.sign(fake.mean() - real.mean())
    middle, scale = (fake.mean() + real.mean()) / 2, sign * 12 / abs(fake.mean() - real.mean())
    with torch.no_grad():
        network.fc1.weight.mul_(float(scale))
        network.fc1.bias.copy_((network.fc1.bias - float(middle)) * float(scale))
    real, fake = (score_images(network, x, phases=1, device=cpu) for x in held_out)
    logits = np.concatenate([real, fake])
    sides = {"real": sorted(real.tolist()), "generators": {"doubler": sorted(fake.tolist())}}
    meta = {
        "network": "npr_tiny", "channels": 1, "data": "simulated", "size_px": [SIZE_PX, SIZE_PX],
        "detector": "both", "generators": ["doubler"], "params": {"calibrate_on": []},
        "n_train_groups": len(TRAINING), "n_validation_groups": len(VALIDATION),
        "thresholds": {"1": 0.0}, "calibration": {"1": sides | {"processed": {}}},
        "temperature": {"1": fit_temperature(logits, np.arange(len(logits)) >= len(real))},
    }  # fmt: skip
    (root / "classifier").mkdir(parents=True)
    save_checkpoint(root / "classifier" / MODEL_FILE, network.state_dict(), meta)
    rng = np.random.default_rng(0)
    Domain.fit(torch.cat(train), torch.cat(held_out), 0.99, rng).save(
        root / "classifier" / DOMAIN_FILE
    )
    fakes = root / "fakes/doubler"
    fakes.mkdir(parents=True)
    for number, fake in enumerate(_stack(VALIDATION, is_doubled=True)[:24, 0].numpy()):
        Image.fromarray(fake).save(fakes / f"{number:06}.png")
    counted = {"of": "the test split", "panels": 2, "areas": 2, "instruments": 1, "suspected": 0}
    metrics = {"detector": "both", "alpha": 0.1, "panels": [counted]}
    (root / "false_alarms.json").write_text(json.dumps(metrics))
    (root / "cropped").mkdir()
    with (root / "splits.csv").open("w", newline="") as file:
        file.write("file,micrograph,group,label,magnification_k,kv,top_px,left_px,split\n")
        table = csv.writer(file)
        for side, areas in (("train", TRAINING), ("validation", VALIDATION), ("test", TEST)):
            for area in areas:
                for top, left, crop in crops(original(area)):
                    name = f"{area}_y{top:04}_x{left:04}.png"
                    Image.fromarray(crop).save(root / "cropped" / name)
                    table.writerow([name, f"{area}.tif", f"A{area}", "", 100, "", top, left, side])
