"""The model that `screen` loads: one file with network, calibration, training domain, references.

It says of itself what it was trained on, how it was calibrated and what it cannot judge, so that a
report can, wherever the file travels. It holds weights and statistics, no pixels. Kinds of models
differ in how a panel's score is read; what they share is `ScreeningModel`.
"""

import hashlib
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from semforensics.core.checkpoints import load_checkpoint
from semforensics.core.errors import INSTALL_PIPELINE, InputError
from semforensics.core.files import sha256_of
from semforensics.detector.scoring import MODEL_FILE
from semforensics.detector.tiling import Tiles
from semforensics.screening.judge import npr_model, world_model
from semforensics.screening.judge.npr_model import NprModel
from semforensics.screening.judge.parts import Cells, PartRule, Windows
from semforensics.screening.judge.references import References
from semforensics.screening.judge.world_model import WorldModel
from semforensics.screening.records import Grey, MapName, Panel

ENVIRONMENT = "SEMFORENSICS_MODEL"
RELEASED = Path("data/released/screening_model")
SECOND = Path("data/released/world_model")
"""Released, too: asked where the other knows nothing (`judge.second`)."""
PACKED = "models"
"""Folder of the released models in an installed package; setup.py puts them there."""

Images = UInt8[Tensor, "n 1 height width"]
Logits = Float[np.ndarray, " n"]


@runtime_checkable
class Reading(Protocol):
    """What a model's calibration says of the scores of one panel."""

    @property
    def history(self) -> str | None:
        """What its pixels tell of their processing; None where panels are not told apart by it."""
        ...

    @property
    def outside(self) -> str | None:
        """Why the whole panel is outside the training domain, as a sentence begins; else None."""
        ...

    @property
    def power(self) -> float | None:
        """Share of generated panels like it that would be suspected; None: not measured."""
        ...

    @property
    def comparison(self) -> str:
        """A sentence on what it was compared with; empty where all panels are compared alike."""
        ...

    def p_values(self, logit: float) -> tuple[float, float]:
        """Return p_real and p_fake of the panel's pooled logit."""
        ...

    def p_values_of_tile(self, logit: float) -> tuple[float, float]:
        """Return them for the logit of one of its tiles."""
        ...

    def log_odds(self, logit: float) -> float:
        """Return the logarithm of the odds of being generated, at a prevalence of one half."""
        ...

    def doubt(self) -> str | None:
        """Say in a clause why the score of a real says nothing here; None where it does."""
        ...


@runtime_checkable
class ScreeningModel(Protocol):
    """What the rule of verdicts, the search for parts and the report need of a model."""

    @property
    def references(self) -> References:
        """Statistics of the training reals."""
        ...

    @property
    def parts(self) -> PartRule | None:
        """How generated parts are searched for; None: they are not."""
        ...

    @property
    def size_px(self) -> int:
        """Side of a tile."""
        ...

    @property
    def share_for_whole(self) -> float:
        """Share of alpha for the suspicion of a whole panel; the rest is for that of a part."""
        ...

    @property
    def poolings(self) -> tuple[str, ...]:
        """Rules of pooling that the calibration is for."""
        ...

    def check_alpha(self, alpha: float) -> None:
        """Raise an InputError where the calibration cannot resolve an alpha of whole panels."""
        ...

    def score(self, tiles: Images) -> tuple[Logits, Cells | None]:
        """Score tiles: one logit each, positive for generated, and what windows are made of."""
        ...

    def window_logits(self, panel: Grey, tiles: Tiles, cells: Cells | None, /) -> Windows:
        """Score windows of a tile's size that overlap by three quarters.

        Args:
            panel: At least as large as a tile.
            tiles: Of the panel.
            cells: As `score` returns them for these tiles.
        """
        ...

    def is_inside(self, tiles: Images) -> Bool[np.ndarray, " n"]:
        """Say which tiles are inside the training domain."""
        ...

    def pool(self, logits: Logits, areas: Logits, pooling: str, /) -> float:
        """Make one logit of those of a panel's tiles."""
        ...

    def read(self, panel: Panel, tiles: Tiles, known: str | None, alpha: float, /) -> Reading:
        """Return how the scores of a panel are read.

        Args:
            panel: Without info bar.
            tiles: Of the panel, at least one.
            known: What is known of processing on the way here, in a clause; None: nothing.
            alpha: For the suspicion of a whole panel.
        """
        ...

    def tile_maps(self, tiles: Images) -> tuple[MapName, Float[np.ndarray, "n side side"]]:
        """Say where in tiles the network found what speaks for generated.

        Returns:
            The name of the map among the evidence, and one map for each tile.
        """
        ...

    def describe(self) -> dict[str, Any]:
        """Say what a report says of the model."""
        ...


_KINDS: Mapping[str, type[NprModel] | type[WorldModel]] = {
    npr_model.KIND: NprModel,
    world_model.KIND: WorldModel,
}


def load_model(path: Path, device: torch.device) -> ScreeningModel:
    """Rebuild a model from its file alone.

    Raises:
        FileNotFoundError: There is no such file.
        InputError: It is no screening model of this version.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such model; `package-model` makes one")
    state, meta = load_checkpoint(path)
    kind = _KINDS.get(str(meta.get("kind")))
    if kind is None:
        raise InputError(f"{path}: not a screening model; `package-model` makes one")
    tensors: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for name, tensor in state.items():
        part, _, rest = name.partition(".")
        tensors[part][rest] = tensor
    try:
        return kind.restore(tensors, meta, sha256_of(path), device)
    except KeyError as error:
        raise InputError(f"{path}: not the model it says it is: no {error} in it") from error
    except (AttributeError, IndexError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(f"{path}: not the model it says it is: {error}") from error


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
        return find_released(RELEASED)
    path = Path(name)
    if path.is_dir():
        return path / MODEL_FILE
    if not path.exists() and "#" in str(name):
        return _fetch_artifact(*str(name).rsplit("#", 1))
    return path


def find_released(model: Path) -> Path:
    """Find the file of a released model: of this checkout, else of the installed package.

    Raises:
        FileNotFoundError: It is nowhere; the message says how to get it.
    """
    folder = Path(__file__).parents[4] / model
    for released in (folder, Path(__file__).parents[2] / PACKED / model.name):
        if (released / MODEL_FILE).is_file():
            return released / MODEL_FILE
    if folder.with_suffix(".dvc").is_file():
        raise FileNotFoundError(f"{folder}: not pulled yet; run `dvc pull {model}.dvc`")
    raise FileNotFoundError(
        f"no released model beside this installation; give --model, or set {ENVIRONMENT}"
    )


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
