"""One picture's result as plain JSON values: what report.json lists, and the figures beside it."""

from dataclasses import asdict
from typing import Any

import numpy as np
from pydantic_core import to_jsonable_python

from semforensics.screening.records import Evidence, PanelResult, PictureResult, Refusal
from semforensics.screening.write import figures

_LARGEST_MAP = 4096
"""Values of a tile map that report.json still lists; a larger one is only drawn."""


def picture_fragment(result: PictureResult) -> dict[str, Any]:
    """Return one entry of report.json's `images`, and its figures.

    Returns:
        Values that JSON can hold; what is not a finite number is None. The key "figures" is not
        part of report.json: "thumbnail" and "icon" are data URIs, "panels" a list, one for each
        panel, of data URIs by name ("tile_map", "grad_cam", "residual", "spectrum"), empty without
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
        "notes": list(result.panel.notes),
        "evidence": _plain(_numbers(result.evidence)),
    }


def _numbers(evidence: Evidence) -> dict[str, Any]:
    """Return the numbers of the evidence; maps of many values are left to the figures."""
    after, tiles = evidence.reencoded, evidence.tile_logits
    return {
        "reencoded": None
        if after is None
        else {name: {"logit": logit, "verdict": word} for name, (logit, word) in after.items()},
        "tile_logits": None if tiles is None or np.size(tiles.values) > _LARGEST_MAP else tiles,
        "spectrum": evidence.spectrum,
        "nearest_real": evidence.nearest_real,
    }


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
    if evidence.tile_logits is not None:
        drawn["tile_map"] = figures.tile_map(grey, evidence.tile_logits)
    if evidence.grad_cam is not None:
        drawn["grad_cam"] = figures.heat_map(grey, evidence.grad_cam)
    if evidence.residual is not None:
        drawn["residual"] = figures.residual_picture(evidence.residual)
    if evidence.spectrum is not None:
        drawn["spectrum"] = figures.spectrum_plot(evidence.spectrum)
    return drawn
