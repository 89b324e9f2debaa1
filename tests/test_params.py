"""params.yaml as one typed object."""

from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from semforensics.core.errors import InputError
from semforensics.params import read_params


@pytest.fixture
def values(root: Path) -> dict:
    """The demo's parameters as plain values."""
    return yaml.safe_load((root / "presets/demo.yaml").read_text())


def write(folder: Path, values: object) -> Path:
    """Write values to a parameter file."""
    path = folder / "params.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def test_parameters_are_frozen(root: Path) -> None:
    """No stage can change a parameter."""
    params = read_params(root / "params.yaml")

    with pytest.raises(ValidationError, match="frozen"):
        params.seed = 3


def test_every_problem_is_named(tmp_path: Path, values: dict) -> None:
    """Unknown, missing and out-of-bounds keys are reported together, with the file."""
    values["crop"]["size_px"] = 63
    values["crop"]["colour"] = "grey"
    del values["seed"]

    with pytest.raises(InputError, match=r"params\.yaml") as error:
        read_params(write(tmp_path, values))

    for key in ("crop.size_px", "crop.colour", "seed"):
        assert key in str(error.value)


def test_shares_must_add_up(tmp_path: Path, values: dict) -> None:
    """Train, test and validation are shares of one whole."""
    values["split"]["train"] += 0.1

    with pytest.raises(InputError, match="must be 1"):
        read_params(write(tmp_path, values))


@pytest.mark.parametrize("content", [b"[1, 2", b"just words", b"", b"seed: \xff\xfe", b"\x89PNG"])
def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path, content: bytes) -> None:
    """Broken YAML, a bare string, an empty file and no text at all are clear errors."""
    (tmp_path / "params.yaml").write_bytes(content)

    with pytest.raises(InputError, match=r"params\.yaml"):
        read_params(tmp_path / "params.yaml")
