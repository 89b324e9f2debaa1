"""The evidence that a report shows with a verdict. None of it changes the verdict."""

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from semforensics.core.processing import jpeg
from semforensics.detector.gradcam import SIGNS, explain_images
from semforensics.detector.npr import npr
from semforensics.detector.perturbations import crop_to_even, resize
from semforensics.screening.judge.model import ScreeningModel
from semforensics.screening.records import Box, Evidence, Finding, Grey, Map

RESIDUAL_GAIN = 2
"""Grey levels of the drawn residual per grey level of difference; 128 is no difference."""


def processed_copies(panel: Grey, is_lossy: bool) -> Iterator[tuple[str, Grey, bool, bool]]:
    """Process a panel as it may have been on the way: JPEG, and resampling (bicubic).

    Args:
        panel: At least as large as a tile; its copies may be smaller.
        is_lossy: It came through a lossy codec; holds for its resized copies, too.

    Yields:
        The name of the processing, the copy, and what is known of it: whether it is lossy, and
        whether resampled.
    """
    for quality in (95, 75):
        yield f"JPEG {quality}", jpeg(panel, quality), True, False
    for factor in (0.75, 1.25):
        copy = resize(crop_to_even(panel), factor, "bicubic")
        yield f"resized x{factor:g}", copy, is_lossy, True


def collect_evidence(
    model: ScreeningModel,
    panel: Grey,
    tiles: UInt8[Tensor, "tiles 1 size size"],
    logits: Float[np.ndarray, " tiles"],
    copies: Mapping[str, Finding],
) -> Evidence:
    """Gather all evidence about a panel.

    Args:
        model: That scored it.
        panel: At least as large as a tile.
        tiles: Of the panel.
        logits: Of its tiles.
        copies: What was found of each of `processed_copies`. One that was refused is left out.
    """
    size = tiles.shape[-1]
    rows, columns = panel.shape[0] // size, panel.shape[1] // size
    covered = Box(0, 0, rows * size, columns * size)
    detector, references = model.detector, model.references
    cams = explain_images(detector.network, tiles, SIGNS["fake"], detector.device)
    side = cams.shape[-1]
    cam = cams.reshape(rows, columns, -1, side).transpose(1, 2).reshape(-1, columns * side)
    return Evidence(
        reencoded={
            name: (found.logit, found.verdict)
            for name, found in copies.items()
            if found.logit is not None
        },
        tile_logits=Map(logits.reshape(rows, columns), covered, "logit"),
        grad_cam=Map(cam.numpy(), covered, "logit, towards generated"),
        residual=residual(tiles[int(logits.argmax()), 0].numpy()),
        spectrum={
            "frequency": references.frequencies.tolist(),
            "panel": references.spectrum_of(panel).tolist(),
            **dict(zip(("p05", "p50", "p95"), references.spectra_db.tolist(), strict=True)),
        },
        nearest_real=references.find(panel),
    )


def residual(tile: Grey) -> Grey:
    """Draw the NPR residual of a tile: grey where neighbours are alike."""
    differences = npr(torch.from_numpy(tile)[None, None].float())[0, 0].numpy()
    levels = 128 + RESIDUAL_GAIN * differences
    return np.asarray(levels.clip(0, 255), dtype=np.uint8)
