"""The evidence that a report shows with a verdict. None of it changes the verdict."""

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float

from semforensics.core.processing import jpeg
from semforensics.detector.npr import npr
from semforensics.detector.perturbations import crop_to_even, resize
from semforensics.detector.tiling import Tiles
from semforensics.screening.judge.model import ScreeningModel
from semforensics.screening.records import Box, Evidence, Finding, Grey, Map, Panel, TileScores

RESIDUAL_GAIN = 2
"""Grey levels of the drawn residual per grey level of difference; 128 is no difference."""


def processed_copies(panel: Panel, is_lossy: bool) -> Iterator[tuple[str, Panel, bool, bool]]:
    """Process a panel as it may have been on the way: JPEG, and resampling (bicubic).

    Args:
        panel: At least as large as a tile; its copies may be smaller.
        is_lossy: It came through a lossy codec; holds for its resized copies, too.

    Yields:
        The name of the processing, the copy, and what is known of it: whether it is lossy, and
        whether resampled.
    """
    for quality in (95, 75):
        yield f"JPEG {quality}", replace(panel, grey=jpeg(panel.grey, quality)), True, False
    for factor in (0.75, 1.25):
        copy = Panel.of(resize(crop_to_even(panel.grey), factor, "bicubic"))
        drawn = tuple(box.scaled(factor) for box in panel.drawn)
        yield f"resized x{factor:g}", replace(copy, drawn=drawn), is_lossy, True


def collect_evidence(
    model: ScreeningModel,
    panel: Grey,
    tiles: Tiles,
    logits: Float[np.ndarray, " tiles"],
    copies: Mapping[str, Finding],
) -> Evidence:
    """Gather all evidence about a panel.

    Args:
        model: That scored it.
        panel: At least as large as a tile.
        tiles: Of the panel, at least one.
        logits: Of its tiles.
        copies: What was found of each of `processed_copies`. One that was refused is left out.
    """
    references = model.references
    kind, maps = model.tile_maps(tiles.pixels)
    drawn = _laid_out(maps, tiles, panel.shape)
    return Evidence(
        reencoded={
            name: (found.logit, found.verdict)
            for name, found in copies.items()
            if found.logit is not None
        },
        tiles=TileScores(tiles.corners, tiles.pixels.shape[-1], logits),
        grad_cam=drawn if kind == "grad_cam" else None,
        logit_map=drawn if kind == "logit_map" else None,
        residual=residual(tiles.pixels[int(logits.argmax()), 0].numpy()),
        spectrum={
            "frequency": references.frequencies.tolist(),
            "panel": references.spectrum_of(tiles).tolist(),
            **dict(zip(("p05", "p50", "p95"), references.spectra_db.tolist(), strict=True)),
        },
        nearest_real=references.find(panel),
    )


def _laid_out(maps: Float[np.ndarray, "n side side"], tiles: Tiles, size: tuple[int, int]) -> Map:
    """Lay the maps of tiles where the tiles lie; of those that overlap the first one shows.

    Values are logits, positive towards generated.
    """
    side, tile_px = maps.shape[-1], tiles.pixels.shape[-1]
    values = np.full([-(-length * side // tile_px) for length in size], np.nan, np.float32)
    for (top, left), one in zip(tiles.corners[::-1] * side // tile_px, maps[::-1], strict=True):
        part = values[top : top + side, left : left + side]
        part[:] = one[: part.shape[0], : part.shape[1]]
    bottom, right = (length * tile_px // side for length in values.shape)
    return Map(values, Box(0, 0, bottom, right), "logit, towards generated")


def residual(tile: Grey) -> Grey:
    """Draw the NPR residual of a tile: grey where neighbours are alike."""
    differences = npr(torch.from_numpy(tile)[None, None].float())[0, 0].numpy()
    levels = 128 + RESIDUAL_GAIN * differences
    return np.asarray(levels.clip(0, 255), dtype=np.uint8)
