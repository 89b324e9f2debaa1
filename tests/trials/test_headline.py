"""The headline holds the numbers of other files, no others."""

import json
from pathlib import Path

import pytest

from semforensics.trials.headline import (
    headline,
    headline_sources,
    headline_trials,
    trials_sources,
)


@pytest.fixture
def metrics(tmp_path: Path) -> Path:
    """A folder of small metrics."""
    tested = {
        "accuracy": 0.8,
        "average_precision": 0.9,
        "decided_real": 0.7,
        "decided_fake": 0.6,
        "false_alarms_of_decided": 0.01,
        "n_groups": 3,
    }
    alarms = {"n_kinds": 2, "false_alarms_worst": 0.1}
    files = {
        "classifier/both.json": {
            "data": "folder", "protocol": "clean", "fastgan": tested,
            "stylegan2_ada": tested | {"average_precision": 0.8, "decided_fake": 0.5},
        },
        "distances/fastgan.json": {"mse_min": 60.0, "lpips_min": 0.04},
        "distances/stylegan2_ada.json": {"mse_min": 50.0, "lpips_min": 0.05},
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
    """Of a number per generator, the lowest: the worst result, the nearest fake."""
    count = headline(metrics, metrics / "headline.json")

    found = json.loads((metrics / "headline.json").read_text())
    assert count == len(found)
    assert found == {
        "data": "folder", "protocol": "clean", "n_groups": 3,
        "accuracy": 0.8, "average_precision": 0.8, "decided_real": 0.7, "decided_fake": 0.5,
        "false_alarms_of_decided": 0.01, "mse_min": 50.0, "lpips_min": 0.04,
    }  # fmt: skip


def test_every_number_says_where_it_is_from(metrics: Path) -> None:
    """The named file holds the number under the named key; only red gates are counted."""
    read = {
        str(path.relative_to(metrics).with_suffix("")): json.loads(path.read_text())
        for path in metrics.rglob("*.json")
    }

    sources = headline_sources(read.__getitem__) + trials_sources(read.__getitem__)

    for source in sources:
        value = read[source.file]
        for key in source.key.split(".") if source.key else ():
            value = value[key]
        if source.key:
            assert value == source.value, source.name
    assert [source.name for source in sources if source.key is None] == ["red_gates"]
    nearest = {source.name: source.file for source in sources if source.file.startswith("dist")}
    assert nearest == {"mse_min": "distances/stylegan2_ada", "lpips_min": "distances/fastgan"}


def test_the_trials_count_what_went_wrong(metrics: Path) -> None:
    """The worst kind of processing, and every gate that is not green."""
    headline_trials(metrics, metrics / "trials.json")

    assert json.loads((metrics / "trials.json").read_text()) == {
        "data": "folder", "auroc_leave_one_out": 0.95, "auroc_leave_one_out_best_baseline": 0.96,
        "false_alarms_processed_worst": 0.2, "red_gates": 2,
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
