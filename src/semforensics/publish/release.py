"""May a model be released? Its shortcut audit, and whether the audit is of this very model."""

from pathlib import Path
from typing import Any

from semforensics.core.checkpoints import load_checkpoint
from semforensics.core.errors import InputError
from semforensics.core.files import read_json, sha256_of
from semforensics.detector.conformal import (
    calibration_groups,
    calibration_sizes,
    check_alpha,
)
from semforensics.detector.domain import DOMAIN_FILE
from semforensics.detector.scoring import MODEL_FILE

GATES = ("one_sided_processing", "controls_inconclusive", "permuted_labels")
"""What an audit must hold, each with its answer."""
_AUDIT = {"gates": dict, "model_sha256": str, "domain_sha256": str, "phases": int, "alpha": float}


def check_release(metrics: Path, classifier: Path) -> tuple[list[str], list[str]]:
    """List what is green and what is red for the release of a model, one line each.

    It may be released if nothing is red. `metrics` is what `audit-shortcuts` wrote.

    Raises:
        FileNotFoundError: There is no audit or no model.
        InputError: The file is no audit, or the model no model.
    """
    audit, model = _read_audit(metrics), classifier / MODEL_FILE
    if not model.is_file():
        raise FileNotFoundError(f"{model}: no such model")
    green: list[str] = []
    red: list[str] = []
    for name in GATES:
        gate = audit["gates"].get(name)
        if gate is None:
            red.append(f"{name}: not in the audit")
        else:
            value = "not tested" if gate["value"] is None else f"{gate['value']:.4g}"
            line = f"{name}: {value}, bound {gate['bound']:g}"
            (green if gate["passed"] is True else red).append(line)

    geometry = audit.get("geometry", "tiles")
    if geometry != "tiles":
        red.append(f"geometry: {geometry} resamples the reals, and nothing resamples the fakes")
    for name, path in (("model", model), ("domain", classifier / DOMAIN_FILE)):
        audited = audit[f"{name}_sha256"]
        found = sha256_of(path) if path.is_file() else "missing"
        if found == audited:
            green.append(f"{name}: the audited one, SHA-256 {found[:12]}")
        else:
            red.append(f"{name}: {found[:12]}, but {audited[:12]} was audited")

    _, meta = load_checkpoint(model)
    calibration = meta.get("calibration", {}).get(str(audit["phases"]))
    counts = calibration_sizes(calibration) if calibration else (0, 0)
    unit = "areas" if calibration and calibration_groups(calibration) is not None else "reals"
    try:
        check_alpha(audit["alpha"], *counts, unit)
    except InputError as error:
        red.append(f"calibration: {error}")
    else:
        green.append(
            f"calibration: {counts[0]} {unit} and {counts[1]} fakes resolve alpha "
            f"{audit['alpha']:g}"
        )
    return green, red


def _read_audit(path: Path) -> dict[str, Any]:
    audit = read_json(path)
    for key, kind in _AUDIT.items():
        if not isinstance(audit.get(key), kind):
            raise InputError(f"{path}: not an audit: no {key}")
    for name, gate in audit["gates"].items():
        if missing := sorted({"passed", "value", "bound"} - set(gate)):
            raise InputError(f"{path}: gate {name} without {', '.join(missing)}")
    return audit
