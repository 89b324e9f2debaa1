"""The headline holds the numbers of other files, no others."""

import json
from pathlib import Path

import pytest

from semforensics.trials.headline import headline, headline_trials


@pytest.fixture
def metrics(tmp_path: Path) -> Path:
    """A folder of small metrics."""
    tested = {
        "auroc": 0.9,
        "accuracy": 0.8,
        "decided_real": 0.7,
        "decided_fake": 0.6,
        "n_groups": 3,
    }
    alarms = {"n_kinds": 2, "false_alarms_worst": 0.1}
    files = {
        "classifier/both.json": {
            "data": "folder", "protocol": "clean", "fastgan": tested,
            "stylegan2_ada": tested | {"auroc": 0.8, "decided_fake": 0.5},
        },
        "distances/fastgan.json": {"lpips_min": 0.04, "kid_alex_conv5_mean": 0.2},
        "detectors.json": {
            "data": "folder", "best_baseline": "srm",
            "leave_one_out": {"npr": {"auroc": 0.95}, "srm": {"auroc": 0.96}},
        },
        "robustness.json": {"n_fragile": 7},
        "false_alarms.json": {
            "original": {"false_alarms": 0.0}, "processed_calibrated": alarms,
            "processed_others": alarms | {"false_alarms_worst": 0.2},
        },
        "audit.json": {"gates": {str(p): {"passed": p} for p in (True, False, None)}},
    }  # fmt: skip
    for name, content in files.items():
        path = tmp_path / "metrics" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
    return tmp_path / "metrics"


def test_the_headline_is_of_the_classifier_and_the_generators(metrics: Path) -> None:
    """One number per generator; of the decided fakes, the fewest."""
    count = headline(metrics, metrics / "headline.json")

    found = json.loads((metrics / "headline.json").read_text())
    assert count == len(found)
    assert found == {
        "data": "folder", "protocol": "clean", "n_groups": 3,
        "auroc_fastgan": 0.9, "auroc_stylegan2_ada": 0.8,
        "accuracy_fastgan": 0.8, "accuracy_stylegan2_ada": 0.8,
        "decided_real": 0.7, "decided_fake": 0.5,
        "lpips_min_fastgan": 0.04, "kid_fastgan": 0.2,
    }  # fmt: skip


def test_the_trials_count_what_went_wrong(metrics: Path) -> None:
    """The worst kind of processing, and every gate that is not green."""
    headline_trials(metrics, metrics / "trials.json")

    assert json.loads((metrics / "trials.json").read_text()) == {
        "data": "folder", "auroc_leave_one_out": 0.95, "auroc_leave_one_out_best_baseline": 0.96,
        "false_alarms": 0.0, "false_alarms_processed_worst": 0.2, "n_fragile": 7, "red_gates": 2,
    }  # fmt: skip


def test_metrics_of_another_version_are_named(metrics: Path) -> None:
    """A missing number or file ends in an error, and nothing is written."""
    (metrics / "detectors.json").write_text("{}")

    with pytest.raises(ValueError, match="leave_one_out"):
        headline_trials(metrics, metrics / "trials.json")
    (metrics / "audit.json").unlink()
    (metrics / "classifier/both.json").write_text("[")
    with pytest.raises(ValueError, match=r"both\.json: not JSON"):
        headline(metrics, metrics / "headline.json")
    assert not (metrics / "trials.json").exists()
    assert not (metrics / "headline.json").exists()
