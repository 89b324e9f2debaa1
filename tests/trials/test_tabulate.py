"""The table shows what the metrics say, and nothing that is not comparable."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from semforensics.core.errors import InputError
from semforensics.trials.tabulate import tabulate

COLUMNS = ("accuracy", "accuracy_at_half", "average_precision", "accuracy_real", "accuracy_fake")


def numbers(value: float) -> dict[str, float]:
    """The metrics of one test, all of one value, its interval two per cent wide."""
    ends = (("", value), ("_low", value - 0.01), ("_high", value + 0.01))
    found: dict[str, float] = {f"{c}{end}": v for c in COLUMNS for end, v in ends}
    return found | {"n_real": 120, "n_groups": 3}


def write(folder: Path, detector: str, tests: dict[str, float], **more: Any) -> None:
    """Write the metrics of one detector."""
    about = {"detector": detector, "network": "npr_tiny", "protocol": "clean", "data": "simulated"}
    about |= more
    folder.mkdir(exist_ok=True)
    content = about | {name: numbers(value) for name, value in tests.items()}
    (folder / f"{detector}.json").write_text(json.dumps(content))


def test_detectors_of_one_generator_are_listed_beside_both_and_its_mean(tmp_path: Path) -> None:
    """Four lines of measurements, the mean of detector `both`, and the thesis's own three."""
    write(tmp_path / "m", "fastgan", {"fastgan": 0.95})
    write(tmp_path / "m", "stylegan2_ada", {"stylegan2_ada": 0.9})
    write(tmp_path / "m", "both", {"fastgan": 0.8, "stylegan2_ada": 0.7})

    count = tabulate(tmp_path / "m", tmp_path / "table.md")

    text = re.sub(" +", " ", (tmp_path / "table.md").read_text())
    assert count == 5
    assert "Data: simulated, protocol clean, npr_tiny; 120 test reals of 3 groups" in text
    assert "| FastGAN | FastGAN | 95.0 (94.0-96.0) |" in text
    assert "| both | StyleGAN2-ADA | 70.0 (69.0-71.0) |" in text
    assert "| both | mean | 75.0 | 75.0 | 75.0 | 75.0 | 75.0 |" in text
    assert "| thesis, unclear | FastGAN | | 96.4 | 99.8 | 93.8 | 99.1 |" in text
    cells = {line.count("|") for line in text.splitlines() if line.startswith("|")}
    assert cells == {8}


def test_what_is_not_comparable_is_refused(tmp_path: Path) -> None:
    """No metrics, other data, and a missing number are named; no table is left."""
    with pytest.raises(ValueError, match="no metrics of classifiers"):
        tabulate(tmp_path, tmp_path / "table.md")
    write(tmp_path / "m", "fastgan", {"fastgan": 0.95})
    write(tmp_path / "m", "both", {"fastgan": 0.8}, data="boiko")
    with pytest.raises(ValueError, match=r"different data: both\.json: boiko, fastgan\.json: simu"):
        tabulate(tmp_path / "m", tmp_path / "table.md")
    content = json.loads((tmp_path / "m/fastgan.json").read_text())
    del content["fastgan"]["accuracy_real_low"]
    (tmp_path / "m/fastgan.json").write_text(json.dumps(content))
    (tmp_path / "m/both.json").unlink()
    with pytest.raises(ValueError, match="no number 'accuracy_real_low'"):
        tabulate(tmp_path / "m", tmp_path / "table.md")

    assert not (tmp_path / "table.md").exists()


def test_a_file_that_is_not_json_is_named(tmp_path: Path) -> None:
    """The message names the file."""
    (tmp_path / "both.json").write_text("{")

    with pytest.raises(InputError, match=r"both\.json: not JSON"):
        tabulate(tmp_path, tmp_path / "table.md")
