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
from semforensics.detector.conformal import calibration_groups, calibration_sizes
from semforensics.detector.detector import Detector
from semforensics.detector.domain import DOMAIN_ARRAYS, Domain, feature_names
from semforensics.detector.networks import NetworkName, build_network, to_device
from semforensics.detector.scoring import MODEL_FILE
from semforensics.screening.judge.parts import IN_PART, PartRule
from semforensics.screening.judge.references import References

ENVIRONMENT = "SEMFORENSICS_MODEL"
RELEASED = Path("data/released/screening_model")
PACKED = "models"
"""Folder of the released model in an installed package; setup.py puts it there."""
KIND = "semforensics screening model"


@dataclass(frozen=True)
class ScreeningModel:
    """What a model file holds."""

    detector: Detector
    references: References
    parts: PartRule | None
    """How generated parts are searched for; None: the file is older than that search."""
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
            part_rule = PartRule.restore(meta["parts"]) if "parts" in meta else None
            detector = Detector(
                to_device(network, device).eval(), meta, domain, int(meta["phases"]), device
            )
            about = {k: meta[k] for k in ("name", "data", "training_domain", "limits")}
            about["size_px"] = references.size_px
            about["false_alarms"] = list(meta.get("false_alarms", []))
            model = cls(detector, references, part_rule, about, sha256_of(path))
            model.describe()
            _check_numbers(detector)
        except KeyError as error:
            raise InputError(f"{path}: not the model it says it is: no {error} in it") from error
        except (AttributeError, IndexError, RuntimeError, TypeError, ValueError) as error:
            raise InputError(f"{path}: not the model it says it is: {error}") from error
        return model

    @property
    def share_for_whole(self) -> float:
        """Share of alpha for the suspicion of a whole panel; the rest is for that of a part."""
        return 1.0 if self.parts is None else 1 - IN_PART

    def describe(self) -> dict[str, Any]:
        """Say what a report says of the model."""
        meta = self.detector.meta
        n_real, n_fake = calibration_sizes(self.detector.calibration)
        groups, least = calibration_groups(self.detector.calibration), 1 / (n_real + 1)
        return {
            **{k: self.about[k] for k in ("name", "data", "training_domain", "limits")},
            "sha256": self.sha256,
            "false_alarms": self.about["false_alarms"],
            "calibration": {
                "reals": len(self.detector.calibration["real"]),
                "generated": n_fake,
                "counted by": "crops" if groups is None else "areas",
                "share for the whole": self.share_for_whole,
                "groups": meta["n_validation_groups"],
                "benign processing": list(meta["params"]["calibrate_on"]),
                "least alpha": round(max(least / self.share_for_whole, 1 / (n_fake + 1)), 4),
            },
        }


def _check_numbers(detector: Detector) -> None:
    """Refuse a header whose numbers would fail, or turn a probability round, on every panel.

    Raises:
        InputError: A number is not what it should be.
    """
    if not 0 < detector.temperature < math.inf:
        raise InputError(f"temperature {detector.temperature}, expected a positive number")
    if detector.phases not in (1, 4):
        raise InputError(f"phases {detector.phases}, expected 1 or 4")
    groups = detector.meta["n_validation_groups"]
    if type(groups) is not int or groups < 1:
        raise InputError(f"n_validation_groups {groups!r}, expected a number of areas")
    logits = detector.calibration
    every = [logits["real"], *logits["processed"].values(), *logits["generators"].values()]
    if not all(len(kind) and np.isfinite(np.array(kind, float)).all() for kind in every):
        raise InputError("calibration with logits that are missing or not finite")
    counts = {len(kind) for kind in every[: 1 + len(logits["processed"])]}
    if "groups" in logits and counts != {len(logits["groups"])}:
        raise InputError("calibration with areas that are not one for each real")
    detector.p_values(np.zeros(1, dtype=np.float32))


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
