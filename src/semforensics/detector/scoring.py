"""Load a classifier and score images with it."""

from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from semforensics.core.checkpoints import load_checkpoint
from semforensics.core.errors import InputError
from semforensics.core.images import to_unit_range
from semforensics.detector.networks import NetworkName, NPRNetwork, build_network, to_device
from semforensics.detector.npr import PHASES, phase_crop

MODEL_FILE = "model.safetensors"
_SEED_FILE = "seed_{}.safetensors"  # of the trainings after the first
_BATCH_PX = 2**20  # pixels scored at a time: 16 images of 256 px, 256 of 64 px


def load_classifier(
    folder: Path, device: torch.device, name: str = MODEL_FILE
) -> tuple[NPRNetwork, dict[str, Any]]:
    """Rebuild a trained classifier from its folder.

    Args:
        folder: As training writes it.
        device: Where the network is wanted.
        name: Which training's model: the first seed's, or one of `model_files`.

    Returns:
        The network in eval mode, and what training wrote beside its weights.

    Raises:
        InputError: The file is no classifier of this project.
        FileNotFoundError: The folder holds no model.
    """
    path = folder / name
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such model")
    state, meta = load_checkpoint(path)
    if meta.get("network") not in get_args(NetworkName):
        raise InputError(f"{path}: not a classifier of this project")
    network = build_network(meta["network"], meta["channels"])
    try:
        network.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise InputError(f"{path}: not weights of {meta['network']}: {error}") from error
    return to_device(network, device).eval(), meta


def seed_file(index: int) -> str:
    """Name the model of a training, counted from 0: the first is the classifier itself."""
    return _SEED_FILE.format(index) if index else MODEL_FILE


def model_files(folder: Path) -> list[str]:
    """Name the models of all trainings of a classifier, the first seed's first."""
    count = len(list(folder.glob(_SEED_FILE.format("*"))))
    return [seed_file(index) for index in range(count + 1)]


@torch.inference_mode()
def score_images(
    network: nn.Module,
    images: UInt8[Tensor, "n 1 height width"],
    *,
    phases: int,
    device: torch.device,
    batch_size: int | None = None,
) -> Float[np.ndarray, " n"]:
    """Score images in float32, whatever precision the network was trained in.

    Args:
        network: One of the project's in eval mode, as it is or folded, on `device`.
        images: Grey levels 0 … 255, of even size.
        phases: 1: the image as it is. 4: the mean logit over the four phases of the 2x2 grid.
        device: Where the network is.
        batch_size: Images scored at a time. Bounds memory; never changes a score beyond rounding.

    Returns:
        Logits, positive means fake.
    """
    height, width = images.shape[-2:]
    batch_size = batch_size or max(1, _BATCH_PX // (height * width))
    views = [images] if phases == 1 else [phase_crop(images, *phase) for phase in PHASES]
    logits = torch.zeros(len(images), dtype=torch.float64)
    for view in views:
        for start in range(0, len(view), batch_size):
            batch = to_unit_range(view[start : start + batch_size].to(device))
            batch = batch.contiguous(memory_format=torch.channels_last)
            logits[start : start + batch_size] += network(batch).double().cpu()
    return (logits / len(views)).float().numpy()
