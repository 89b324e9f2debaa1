"""One picture's result as plain JSON values: what report.json lists, and the figures beside it."""

import math
from typing import Any

import numpy as np

from semforensics.core.errors import InputError
from semforensics.screening.records import (
    Box,
    Evidence,
    Map,
    PanelResult,
    PictureResult,
    Provenance,
    Refusal,
)
from semforensics.screening.write.figures import (
    heat_map,
    residual_picture,
    spectrum_plot,
    thumbnail,
    tile_map,
)

_LARGEST_MAP = 4096
"""Values of a tile map that report.json still lists; a larger one is only drawn."""


def picture_fragment(result: PictureResult) -> dict[str, Any]:
    """Return one entry of report.json's `images`, and its figures.

    Returns:
        Values that JSON can hold; what is not a finite number is None. The key "figures" is not
        part of report.json: "thumbnail" is a data URI, "panels" a list, one for each panel, of
        data URIs by name ("tile_map", "grad_cam", "residual", "spectrum"), empty without evidence.
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
        "provenance": _provenance(picture.provenance),
        "panels": [_panel(panel) for panel in result.panels],
        "refusals": [refusal_entry(refusal) for refusal in result.refusals],
        "figures": {
            "thumbnail": thumbnail(picture.grey),
            "panels": [_figures(panel) for panel in result.panels],
        },
    }


def refusal_entry(refusal: Refusal) -> dict[str, Any]:
    """Return what is not judged, and why, as report.json lists it."""
    return {
        "path": refusal.path,
        "location": refusal.location,
        "sha256": refusal.sha256,
        "verdict": "refused",
        "reason": refusal.reason,
    }


def _panel(result: PanelResult) -> dict[str, Any]:
    finding = result.finding
    return {
        "name": result.panel.name,
        "box": box_entry(result.panel.box),
        "verdict": finding.verdict,
        "reason": finding.reason,
        "n_tiles": finding.n_tiles,
        "logit": _number(finding.logit),
        "probability": _number(finding.probability),
        "predictive_value": _number(finding.predictive_value),
        "p_real": _number(finding.p_real),
        "p_fake": _number(finding.p_fake),
        "share_inside": _number(finding.share_inside),
        "notes": list(result.panel.notes),
        "evidence": _evidence(result.evidence),
    }


def _evidence(evidence: Evidence) -> dict[str, Any]:
    """Return the numbers of the evidence; maps of many values are left to the figures."""
    reencoded = None
    if evidence.reencoded is not None:
        reencoded = {
            name: {"logit": _number(logit), "verdict": verdict}
            for name, (logit, verdict) in evidence.reencoded.items()
        }
    return {
        "reencoded": reencoded,
        "tile_logits": None if evidence.tile_logits is None else _map(evidence.tile_logits),
        "spectrum": None if evidence.spectrum is None else _plain(evidence.spectrum),
        "nearest_real": None if evidence.nearest_real is None else _plain(evidence.nearest_real),
    }


def _map(values: Map) -> dict[str, Any] | None:
    array = np.asarray(values.values, dtype=float)
    if array.size > _LARGEST_MAP:
        return None
    return {"values": _plain(array), "box": box_entry(values.box), "unit": values.unit}


def _figures(result: PanelResult) -> dict[str, str]:
    grey, evidence = result.panel.grey, result.evidence
    drawn = {}
    if evidence.tile_logits is not None:
        drawn["tile_map"] = tile_map(grey, evidence.tile_logits)
    if evidence.grad_cam is not None:
        drawn["grad_cam"] = heat_map(grey, evidence.grad_cam)
    if evidence.residual is not None:
        drawn["residual"] = residual_picture(evidence.residual)
    if evidence.spectrum is not None:
        drawn["spectrum"] = spectrum_plot(evidence.spectrum)
    return drawn


def _provenance(provenance: Provenance) -> dict[str, Any]:
    return {
        "file_format": provenance.file_format,
        "instrument": dict(provenance.instrument),
        "instrument_source": provenance.instrument_source,
        "software": dict(provenance.software),
        "c2pa": provenance.c2pa,
        "notes": list(provenance.notes),
    }


def box_entry(box: Box) -> dict[str, int]:
    """Return a rectangle as report.json writes it."""
    return {"top": box.top, "left": box.left, "bottom": box.bottom, "right": box.right}


def _number(value: float | None) -> float | None:
    """Return a finite number; JSON has no other."""
    return None if value is None or not math.isfinite(value) else float(value)


def _plain(value: Any) -> Any:
    """Turn arrays, records and NumPy's numbers into what JSON can hold."""
    if isinstance(value, Box):
        return box_entry(value)
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float):
        return _number(value)
    if value is None or isinstance(value, str | int):
        return value
    raise InputError(f"a {type(value).__name__} cannot stand in report.json: {value!r}")
