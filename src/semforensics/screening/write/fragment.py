"""One picture's result as plain JSON values: what report.json lists, and the figures beside it."""

from dataclasses import asdict
from typing import Any

import numpy as np
from pydantic_core import to_jsonable_python

from semforensics.screening.records import (
    Box,
    Evidence,
    Map,
    PanelResult,
    PictureResult,
    Refusal,
    TileScores,
)
from semforensics.screening.write import figures

_MOST_TILES = 4096
"""Tiles of a panel that report.json still lists; more are only drawn."""


def picture_fragment(result: PictureResult) -> dict[str, Any]:
    """Return one entry of report.json's `images`, and its figures.

    Returns:
        Values that JSON can hold; what is not a finite number is None. The key "figures" is not
        part of report.json: "thumbnail" and "icon" are data URIs, "panels" a list, one for each
        panel, of data URIs by name ("tile_map", "grad_cam" or "logit_map", "residual", "spectrum"),
        empty without
        evidence.
    """
    picture = result.picture
    height, width = picture.grey.shape
    return {
        "path": picture.path,
        "location": picture.location,
        "sha256": picture.sha256,
        "width_px": width,
        "height_px": height,
        "is_lossy": picture.is_lossy,
        "is_resampled": picture.is_resampled,
        "notes": list(picture.notes),
        "provenance": asdict(picture.provenance) | {"notes": list(picture.provenance.notes)},
        "panels": [_panel(panel) for panel in result.panels],
        "refusals": [refusal_entry(refusal) for refusal in result.refusals],
        "figures": {
            "thumbnail": figures.thumbnail(picture.grey),
            "icon": figures.icon(picture.grey),
            "panels": [_figures(panel) for panel in result.panels],
        },
    }


def refusal_entry(refusal: Refusal) -> dict[str, Any]:
    """Return a refusal as report.json lists it."""
    return {
        "path": refusal.path,
        "location": refusal.location,
        "sha256": refusal.sha256,
        "verdict": "refused",
        "reason": refusal.reason,
    }


def _panel(result: PanelResult) -> dict[str, Any]:
    return {
        "name": result.panel.name,
        "box": asdict(result.panel.box),
        **_plain(result.finding),
        "in_part": result.finding.is_in_part,
        "may_be_composite": result.panel.may_be_composite,
        "drawn": [box._asdict() for box in result.panel.drawn],
        "notes": list(result.panel.notes),
        "evidence": _plain(_numbers(result.evidence, result.panel.grey.shape)),
    }


def _numbers(evidence: Evidence, size: tuple[int, int]) -> dict[str, Any]:
    """Return the numbers of the evidence; maps of many values are left to the figures."""
    after, tiles = evidence.reencoded, evidence.tiles
    if tiles is not None and len(tiles.logits) > _MOST_TILES:
        tiles = None
    return {
        "reencoded": None
        if after is None
        else {name: {"logit": logit, "verdict": word} for name, (logit, word) in after.items()},
        "tile_logits": None if tiles is None else _grid(tiles, size),
        "tiles": None
        if tiles is None
        else [
            {"top": top, "left": left, "size_px": tiles.size_px, "logit": logit}
            for (top, left), logit in zip(tiles.corners, tiles.logits, strict=True)
        ],
        "spectrum": evidence.spectrum,
        "nearest_real": evidence.nearest_real,
    }


def _grid(tiles: TileScores, size: tuple[int, int]) -> Map:
    """Return the logits of the tiles that lie side by side; NaN where there is none."""
    rows, columns = (side // tiles.size_px for side in size)
    values = np.full((rows, columns), np.nan)
    for corner, logit in zip(tiles.corners, tiles.logits, strict=True):
        if not (corner % tiles.size_px).any():
            values[tuple(corner // tiles.size_px)] = logit
    return Map(values, Box(0, 0, rows * tiles.size_px, columns * tiles.size_px), "logit")


def _plain(value: Any) -> Any:
    """Turn records, arrays and NumPy's numbers into what JSON can hold.

    Raises:
        ValueError: A value is of another kind.
    """
    return to_jsonable_python(value, inf_nan_mode="null", fallback=_plain_array)


def _plain_array(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    raise ValueError(f"report.json cannot hold {type(value).__name__}: {value!r}")


def _figures(result: PanelResult) -> dict[str, str]:
    grey, evidence = result.panel.grey, result.evidence
    drawn = {}
    if evidence.tiles is not None:
        drawn["tile_map"] = figures.tile_map(grey, evidence.tiles)
    if evidence.grad_cam is not None:
        drawn["grad_cam"] = figures.heat_map(grey, evidence.grad_cam)
    if evidence.logit_map is not None:
        drawn["logit_map"] = figures.logit_map(grey, evidence.logit_map)
    if evidence.residual is not None:
        drawn["residual"] = figures.residual_picture(evidence.residual)
    if evidence.spectrum is not None:
        drawn["spectrum"] = figures.spectrum_plot(evidence.spectrum)
    return drawn
