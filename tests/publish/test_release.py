"""A model is released only with a whole, green audit of itself."""

import json
from pathlib import Path

import pytest
import torch

from semforensics.core.checkpoints import load_checkpoint, save_checkpoint
from semforensics.core.files import sha256_of
from semforensics.detector.domain import DOMAIN_FILE
from semforensics.detector.scoring import MODEL_FILE
from semforensics.publish.release import GATES, check_release


def write_model(folder: Path, *, calibration: int = 30, seed: int = 0) -> Path:
    """A file of some weights with a calibration of as many images per class."""
    folder.mkdir(exist_ok=True)
    logits = {"real": [-1.0] * calibration, "generators": {"fastgan": [1.0] * calibration}}
    meta = {"network": "npr_tiny", "calibration": {"4": logits}}
    save_checkpoint(folder / MODEL_FILE, {"weight": torch.full((2,), float(seed))}, meta)
    (folder / DOMAIN_FILE).write_bytes(b"limits")
    return folder


def write_audit(path: Path, classifier: Path, **gates: object) -> Path:
    """An audit of this model, green but for the gates given; None leaves one out."""
    green = {"passed": True, "value": 0.5, "low": 0.4, "high": 0.6, "bound": 0.5}
    listed = {name: gates.get(name, green) for name in GATES}
    audit = {
        "passed": True,
        "model_sha256": sha256_of(classifier / MODEL_FILE),
        "domain_sha256": sha256_of(classifier / DOMAIN_FILE),
        "phases": 4,
        "alpha": 0.05,
        "gates": {name: gate for name, gate in listed.items() if gate},
    }
    path.write_text(json.dumps(audit))
    return path


def test_a_calibration_by_areas_is_counted_in_areas(tmp_path: Path) -> None:
    """Of 100 reals of 22 areas, areas are what resolves an alpha of 5 %."""
    model = write_model(tmp_path / "model", calibration=100)
    state, meta = load_checkpoint(model / MODEL_FILE)
    meta["calibration"]["4"]["groups"] = [number % 22 for number in range(100)]
    save_checkpoint(model / MODEL_FILE, state, meta)

    green, _ = check_release(write_audit(tmp_path / "audit.json", model), model)

    assert green[-1] == "calibration: 22 areas and 100 fakes resolve alpha 0.05"


def test_a_green_audit_of_this_model_lets_it_go(tmp_path: Path) -> None:
    """All gates, the file and its calibration are named; nothing is red."""
    model = write_model(tmp_path / "model")

    green, red = check_release(write_audit(tmp_path / "audit.json", model), model)

    assert red == []
    assert [line.split(":")[0] for line in green] == [*GATES, "model", "domain", "calibration"]


@pytest.mark.parametrize("name", GATES)
@pytest.mark.parametrize(
    "gate",
    [
        {"passed": False, "value": 0.9, "low": 0.8, "high": 1.0, "bound": 0.5},
        {"passed": False, "value": None, "low": None, "high": None, "bound": 0.5},
        None,
    ],
    ids=["failed", "not tested", "left out"],
)
def test_every_gate_can_hold_a_model_back(name: str, gate: dict | None, tmp_path: Path) -> None:
    """A gate that failed, was not tested or is missing is red, whatever the total says."""
    model = write_model(tmp_path / "model")

    green, red = check_release(write_audit(tmp_path / "audit.json", model, **{name: gate}), model)

    assert len(red) == 1
    assert red[0].startswith(f"{name}:")
    assert len(green) == len(GATES) + 2


def test_reals_that_were_resampled_hold_a_model_back(tmp_path: Path) -> None:
    """Fakes are not resampled, so the resampling would tell the classes apart."""
    model = write_model(tmp_path / "model")
    audit = write_audit(tmp_path / "audit.json", model)
    audit.write_text(json.dumps(json.loads(audit.read_text()) | {"geometry": "squash"}))

    _, red = check_release(audit, model)

    assert red == ["geometry: squash resamples the reals, and nothing resamples the fakes"]


def test_the_audit_of_another_model_is_red(tmp_path: Path) -> None:
    """Trained anew, a model has to be audited anew."""
    model = write_model(tmp_path / "model")
    audit = write_audit(tmp_path / "audit.json", model)
    write_model(tmp_path / "model", seed=1)

    _, red = check_release(audit, model)

    assert len(red) == 1
    assert red[0].startswith("model: ")


def test_a_calibration_that_cannot_resolve_alpha_is_red(tmp_path: Path) -> None:
    """An alpha of 0.05 needs 19 images of each class."""
    short, enough = (write_model(tmp_path / str(n), calibration=n) for n in (18, 19))

    _, red = check_release(write_audit(tmp_path / "short.json", short), short)
    _, none = check_release(write_audit(tmp_path / "enough.json", enough), enough)

    assert red == ["calibration: alpha 0.05 needs 19 calibration reals, found 18"]
    assert none == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[]", "not a JSON object"),
        ('{"gates": {}}', "no model_sha256"),
        (
            '{"gates": {"file_features": {}}, "model_sha256": "a", "domain_sha256": "b", '
            '"phases": 4, "alpha": 0.1}',
            "gate file_features without bound, passed, value",
        ),
    ],
)
def test_what_is_no_audit_is_refused(text: str, message: str, tmp_path: Path) -> None:
    """Bad input is an error of its own, not a red gate."""
    model = write_model(tmp_path / "model")
    (tmp_path / "audit.json").write_text(text)

    with pytest.raises(ValueError, match=message):
        check_release(tmp_path / "audit.json", model)


def test_missing_files_are_named(tmp_path: Path) -> None:
    """Neither an audit nor a model comes from nothing."""
    model = write_model(tmp_path / "model")
    audit = write_audit(tmp_path / "audit.json", model)

    with pytest.raises(FileNotFoundError, match=r"none\.json"):
        check_release(tmp_path / "none.json", model)
    with pytest.raises(FileNotFoundError, match="no such model"):
        check_release(audit, tmp_path)


@pytest.mark.parametrize("change", ["another", "none"])
def test_another_training_domain_is_red(change: str, tmp_path: Path) -> None:
    """Verdicts rest on the domain's limits: they are audited with the model."""
    model = write_model(tmp_path / "model")
    audit = write_audit(tmp_path / "audit.json", model)
    if change == "another":
        (model / DOMAIN_FILE).write_bytes(b"wider limits")
    else:
        (model / DOMAIN_FILE).unlink()

    _, red = check_release(audit, model)

    assert [line.split(":")[0] for line in red] == ["domain"]
