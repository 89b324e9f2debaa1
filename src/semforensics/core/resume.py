"""State of an unfinished training in a scratch folder, so that a killed one goes on.

The state is stamped with a fingerprint of all that its course depends on except its length: a
training with other parameters or data starts anew instead of going on from the wrong place.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from semforensics.core.files import atomic_file


def fingerprint(settings: Mapping[str, Any], *tensors: Tensor) -> str:
    """Return a SHA-256 of settings, anything JSON can hold, and of CPU tensors."""
    digest = hashlib.sha256(json.dumps(dict(settings), sort_keys=True).encode())
    for tensor in tensors:
        digest.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def save_state(path: Path, stamp: str, state: Mapping[str, Any]) -> None:
    """Write a training's state, whole or not at all."""
    with atomic_file(path) as temporary:
        torch.save({"stamp": stamp, "state": dict(state)}, temporary)


def load_state(path: Path, stamp: str) -> dict[str, Any] | None:
    """Read a training's state; None where there is none, or it belongs to another training."""
    if not path.is_file():
        return None
    saved = torch.load(path, map_location="cpu", weights_only=True)
    state: dict[str, Any] | None = saved["state"] if saved["stamp"] == stamp else None
    return state
