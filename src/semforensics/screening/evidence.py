"""What stands beside a verdict and changes none: maps, spectra, the score after processing."""

from typing import TYPE_CHECKING

import numpy as np
import torch

from semforensics.classifier.gradcam import explain_images
from semforensics.classifier.npr import npr
from semforensics.classifier.tiling import cut_tiles
from semforensics.processing import jpeg, resize_and_back
from semforensics.screening.limits import panel_spectrum
from semforensics.screening.records import Box, Evidence, Grey, Map, Verdict

if TYPE_CHECKING:
    from semforensics.screening.screener import Screener

_JPEG_QUALITIES = (95, 75)
_FACTORS = (0.75, 1.25)
_MAX_TILES = 64  # of a panel that are scored after processing: its first ones
_RESIDUAL_GAIN = 4  # of the residual as it is drawn around mid grey


def gather(
    screener: "Screener",
    panel: Grey,
    tiles: torch.Tensor,
    logits: np.ndarray,
    limits: list[str],
) -> Evidence:
    """Gather the evidence on a panel.

    Args:
        screener: Judges what is processed again.
        panel: Grey levels without info bar.
        tiles: Its tiles, row by row, [n, 1, size, size].
        logits: Of the tiles.
        limits: On what the panel's pixels can say.
    """
    model = screener.model
    size_px = model.about["size_px"]
    rows, columns = panel.shape[0] // size_px, panel.shape[1] // size_px
    box = Box(0, 0, rows * size_px, columns * size_px)
    worst = int(np.argmax(logits))
    frequencies, power = panel_spectrum(panel, size_px)
    return Evidence(
        reencoded=_reencoded(screener, panel, limits),
        tile_logits=Map(logits.reshape(rows, columns), box, "logit"),
        grad_cam=_grad_cam(screener, tiles, rows, columns, box),
        residual=_residual(tiles[worst, 0].numpy()),
        spectrum={
            "frequency": [round(float(f), 4) for f in frequencies],
            "panel": [round(float(p), 2) for p in power],
            **{
                name: [round(float(p), 2) for p in band]
                for name, band in zip(
                    ("p05", "p50", "p95"), model.references.spectra_db, strict=True
                )
            },
        },
        nearest_real=model.references.find(panel),
    )


def _reencoded(
    screener: "Screener", panel: Grey, limits: list[str]
) -> dict[str, tuple[float, Verdict]]:
    """Score the panel again after it was compressed and scaled."""
    size_px = screener.model.about["size_px"]
    ways = {f"JPEG quality {q}": jpeg(panel, q) for q in _JPEG_QUALITIES}
    ways |= {f"scaled x{f:g} and back": resize_and_back(panel, f) for f in _FACTORS}
    found: dict[str, tuple[float, Verdict]] = {}
    for name, changed in ways.items():
        tiles = cut_tiles(changed, size_px)[:_MAX_TILES]
        logits = screener.score(tiles)
        finding = screener.judge(tiles, logits, [*limits, "it was processed for comparison"])
        found[name] = (screener.pooled(logits), finding.verdict)
    return found


def _grad_cam(screener: "Screener", tiles: torch.Tensor, rows: int, columns: int, box: Box) -> Map:
    """Put the tiles' maps of evidence for a generated image together; one scale for all."""
    detector = screener.model.detector
    maps = explain_images(detector.network, tiles, 1, detector.device).numpy()
    height, width = maps.shape[1:]
    whole = maps.reshape(rows, columns, height, width).swapaxes(1, 2)
    return Map(whole.reshape(rows * height, columns * width), box, "evidence, in logits")


def _residual(tile: Grey) -> Grey:
    """Draw the NPR residual of a tile around mid grey, four times as strong."""
    levels = npr(torch.from_numpy(tile.astype(np.float32))[None, None])[0, 0].numpy()
    return np.asarray((128 + _RESIDUAL_GAIN * levels).clip(0, 255), dtype=np.uint8)
