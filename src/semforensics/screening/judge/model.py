"""The model that `screen` loads: one file with network, calibration, training domain, references.

It says of itself what it was trained on, how it was calibrated and what it cannot judge, so that a
report can, wherever the file travels. It holds weights and statistics, no pixels.
"""

import hashlib
import math
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch

from semforensics.core.checkpoints import load_checkpoint
from semforensics.core.errors import INSTALL_PIPELINE, InputError
from semforensics.core.files import sha256_of
from semforensics.detector.conformal import calibration_sizes
from semforensics.detector.detector import Detector
from semforensics.detector.domain import DOMAIN_ARRAYS, Domain, feature_names
from semforensics.detector.networks import NetworkName, build_network, to_device
from semforensics.detector.scoring import MODEL_FILE
from semforensics.screening.judge.references import References

ENVIRONMENT = "SEMFORENSICS_MODEL"
RELEASED = Path("data/released/screening_model")
PACKED = "models"
"""Folder of the released model in an installed package; setup.py puts it there."""
KIND = "semforensics screening model"
_NEW_AREAS = {"panels": 9, "areas": 7, "instruments": 1, "suspected": 0}
_NEW_INSTRUMENT = {"panels": 27, "areas": None, "instruments": 1, "suspected": 2}
FALSE_ALARMS: dict[str, list[dict[str, str | int | None]]] = {
    "32b031a2753d0d6a0b58471bfb652c2524e34c93afcc16b316937071c9cf078f": [
        {"of": "the instrument of the calibration", **_NEW_AREAS},
        {"of": "another instrument and material", **_NEW_INSTRUMENT},
    ],
}
"""By SHA-256 of a model: real panels that it was not trained or calibrated on, and how many of them
it suspects at alpha 0.05, tiles pooled by their mean (docs/results/screening.md: raw micrographs of
the test split, and those of Bai et al. 2022, whose areas are not recorded)."""


@dataclass(frozen=True)
class ScreeningModel:
    """What a model file holds."""

    detector: Detector
    references: References
    about: dict[str, Any]
    """`name`, `data`, `training_domain`, `limits`, and `size_px`, the side of a tile."""
    sha256: str
    """Of the file."""

    @classmethod
    def load(cls, path: Path, device: torch.device) -> "ScreeningModel":
        """Rebuild a model from its file alone.

        Raises:
            FileNotFoundError: There is no such file.
            InputError: It is no screening model of this version.
        """
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such model; `package-model` makes one")
        state, meta = load_checkpoint(path)
        if meta.get("kind") != KIND or meta.get("network") not in get_args(NetworkName):
            raise InputError(f"{path}: not a screening model; `package-model` makes one")
        parts: dict[str, dict[str, torch.Tensor]] = {"network": {}, "domain": {}, "references": {}}
        for name, tensor in state.items():
            part, _, rest = name.partition(".")
            parts.get(part, {})[rest] = tensor
        try:
            if meta["domain"]["features"] != feature_names():
                raise InputError("a training domain of other statistics; package it again")
            network = build_network(meta["network"], meta["channels"])
            network.load_state_dict(parts["network"], strict=True)
            arrays = {n: parts["domain"][n].double().numpy() for n in DOMAIN_ARRAYS}
            low, high = meta["domain"]["limits"]
            domain = Domain(**arrays, limits=(float(low), float(high)))
            references = References.restore(parts["references"], meta["references"])
            detector = Detector(
                to_device(network, device).eval(), meta, domain, int(meta["phases"]), device
            )
            about = {k: meta[k] for k in ("name", "data", "training_domain", "limits")}
            about["size_px"] = references.size_px
            model = cls(detector, references, about, sha256_of(path))
            model.describe()
            detector.p_values(np.zeros(1, dtype=np.float32))
            if not 0 < detector.temperature < math.inf:
                raise InputError(f"temperature {detector.temperature}, expected a positive number")
        except KeyError as error:
            raise InputError(f"{path}: not the model it says it is: no {error} in it") from error
        except (AttributeError, RuntimeError, TypeError, ValueError) as error:
            raise InputError(f"{path}: not the model it says it is: {error}") from error
        return model

    def describe(self) -> dict[str, Any]:
        """Say what a report says of the model."""
        meta = self.detector.meta
        n_real, n_fake = calibration_sizes(self.detector.calibration)
        return {
            **{k: self.about[k] for k in ("name", "data", "training_domain", "limits")},
            "sha256": self.sha256,
            "false_alarms": FALSE_ALARMS.get(self.sha256, []),
            "calibration": {
                "reals": n_real,
                "generated": n_fake,
                "groups": meta["n_validation_groups"],
                "benign processing": list(meta["params"]["calibrate_on"]),
                "least alpha": round(max(1 / (n_real + 1), 1 / (n_fake + 1)), 4),
            },
        }


def find_model(name: str | Path | None) -> Path:
    """Find a model file.

    Args:
        name: A path; or `REPOSITORY#ARTIFACT`, whose latest version (a tag such as
            `screening-model@v1.0.0`) `dvc artifacts get` fetches from a folder or a Git address;
            None: what the environment variable SEMFORENSICS_MODEL names, else the released one, of
            this checkout or, where there is none, of the installed package.

    Raises:
        FileNotFoundError: It is nowhere; the message says how to get it.
        InputError: DVC cannot give the artifact.
    """
    name = name or os.environ.get(ENVIRONMENT)
    if name is None:
        folder, packed = Path(__file__).parents[4] / RELEASED, Path(__file__).parents[2] / PACKED
        for released in (folder, packed):
            if (released / MODEL_FILE).is_file():
                return released / MODEL_FILE
        if folder.with_suffix(".dvc").is_file():
            raise FileNotFoundError(f"{folder}: not pulled yet; run `dvc pull {RELEASED}.dvc`")
        raise FileNotFoundError(
            f"no released model beside this installation; give --model, or set {ENVIRONMENT}"
        )
    path = Path(name)
    if path.is_dir():
        return path / MODEL_FILE
    if not path.exists() and "#" in str(name):
        return _fetch_artifact(*str(name).rsplit("#", 1))
    return path


def _fetch_artifact(repository: str, artifact: str) -> Path:
    """Fetch an artifact through DVC into this user's cache; an older copy is replaced."""
    if not repository or not artifact or repository.startswith("-") or artifact.startswith("-"):
        raise InputError(f"{repository}#{artifact}: expected REPOSITORY#ARTIFACT")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    key = hashlib.sha256(f"{repository}#{artifact}".encode()).hexdigest()[:16]
    folder = cache / "semforensics" / key
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        target = Path(scratch) / "artifact"
        # The DVC beside this Python, which need not be on the path.
        command = [sys.executable, "-m", "dvc", "artifacts", "get", repository, artifact]
        done = subprocess.run(
            [*command, "-o", str(target)], capture_output=True, text=True, check=False
        )
        found = target / MODEL_FILE if target.is_dir() else target
        if done.returncode or not found.is_file():
            if "No module named dvc" in done.stderr:
                raise InputError(f"{repository}#{artifact}: needs DVC: {INSTALL_PIPELINE}")
            lines = done.stderr.strip().splitlines()
            reason = lines[-1] if lines else f"no {MODEL_FILE} in it"
            raise InputError(f"{repository}#{artifact}: dvc artifacts get: {reason}")
        return found.replace(folder / MODEL_FILE)
