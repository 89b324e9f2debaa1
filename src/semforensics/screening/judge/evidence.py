"""What stands beside a verdict, for a reader to look at; none of it changes the verdict."""

from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from semforensics.core.processing import jpeg
from semforensics.detector.gradcam import SIGNS, explain_images
from semforensics.detector.npr import npr
from semforensics.detector.perturbations import crop_to_even, resize
from semforensics.detector.tiling import cut_tiles
from semforensics.screening.judge.model import ScreeningModel
from semforensics.screening.records import Box, Evidence, Finding, Grey, GreyOfAnySize, Map, Verdict

RESIDUAL_GAIN = 2
"""Grey levels of the drawn residual per grey level of difference; 128 is no difference."""


class Judge(Protocol):
    """What of a screener is needed here."""

    model: ScreeningModel
    size_px: int

    def judge(
        self, panels: list[GreyOfAnySize], *, is_lossy: bool = ..., is_resampled: bool = ...
    ) -> list[Finding]:
        """Judge panels."""
        ...

    def tile_logits(self, tiles: Tensor) -> Float[np.ndarray, " tiles"]:
        """Score tiles."""
        ...


def gather(screener: Judge, panel: Grey, *, is_lossy: bool) -> Evidence:
    """Gather all evidence about a panel.

    Args:
        screener: That judged it.
        panel: At least as large as a tile.
        is_lossy: It came through a lossy codec; holds for its resized copies, too.
    """
    size = screener.size_px
    tiles = cut_tiles(panel, size)
    rows, columns = panel.shape[0] // size, panel.shape[1] // size
    logits = screener.tile_logits(tiles)
    covered = Box(0, 0, rows * size, columns * size)
    detector, references = screener.model.detector, screener.model.references
    cams = explain_images(detector.network, tiles, SIGNS["fake"], detector.device)
    side = cams.shape[-1]
    cam = cams.reshape(rows, columns, -1, side).transpose(1, 2).reshape(-1, columns * side)
    return Evidence(
        reencoded=reencode(screener, panel, is_lossy=is_lossy),
        tile_logits=Map(logits.reshape(rows, columns), covered, "logit"),
        grad_cam=Map(cam.numpy(), covered, "logit, towards generated"),
        residual=residual(tiles[int(logits.argmax()), 0].numpy()),
        spectrum=_spectrum(
            references.frequencies, references.spectra_db, references.spectrum_of(panel)
        ),
        nearest_real=references.find(panel),
    )


def reencode(screener: Judge, panel: Grey, *, is_lossy: bool) -> dict[str, tuple[float, Verdict]]:
    """Score a panel anew after JPEG and after resampling (bicubic).

    Verdicts are those that the processed panel would get, its history known. A copy that is smaller
    than a tile is left out.
    """
    found: dict[str, tuple[float, Verdict]] = {}
    for quality in (95, 75):
        (finding,) = screener.judge([jpeg(panel, quality)], is_lossy=True)
        _keep(found, f"JPEG {quality}", finding)
    for factor in (0.75, 1.25):
        copy = resize(crop_to_even(panel), factor, "bicubic")
        (finding,) = screener.judge([copy], is_lossy=is_lossy, is_resampled=True)
        _keep(found, f"resized x{factor:g}", finding)
    return found


def _keep(found: dict[str, tuple[float, Verdict]], name: str, finding: Finding) -> None:
    if finding.logit is not None:
        found[name] = (finding.logit, finding.verdict)


def residual(tile: Grey) -> Grey:
    """Draw the NPR residual of a tile: grey where neighbours are alike."""
    differences = npr(torch.from_numpy(tile)[None, None].float())[0, 0].numpy()
    levels = 128 + RESIDUAL_GAIN * differences
    return np.asarray(levels.clip(0, 255), dtype=np.uint8)


def _spectrum(
    frequencies: Float[np.ndarray, " rings"],
    band: Float[np.ndarray, "percentiles rings"],
    own: Float[np.ndarray, " rings"],
) -> dict[str, list[float]]:
    lists: dict[str, Any] = {"frequency": frequencies, "panel": own}
    lists |= dict(zip(("p05", "p50", "p95"), band, strict=True))
    return {name: [float(value) for value in values] for name, values in lists.items()}
