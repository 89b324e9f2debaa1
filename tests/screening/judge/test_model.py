"""The model file: what it holds, what it refuses, where it is found."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.screening.small_model import original

from semforensics.core.checkpoints import load_checkpoint, save_checkpoint
from semforensics.core.errors import InputError
from semforensics.detector.detector import Detector
from semforensics.screening.judge import model as module
from semforensics.screening.judge.model import (
    ENVIRONMENT,
    find_model,
    load_model,
)
from semforensics.screening.judge.npr_model import NprModel
from semforensics.screening.screener import Screener
from semforensics.screening.write.report import is_simulated

CPU = torch.device("cpu")


def test_the_file_judges_as_the_classifier_it_was_made_of(pipeline: Path, model: NprModel) -> None:
    """Weights, calibration and training domain arrive unchanged."""
    source = Detector.load(pipeline / "classifier", phases=1, device=CPU)
    images = torch.from_numpy(np.stack([original(7)[:64, x : x + 64] for x in range(0, 320, 64)]))
    logits = source.logits(images[:, None])

    np.testing.assert_array_equal(model.detector.logits(images[:, None]), logits)
    np.testing.assert_array_equal(model.detector.p_values(logits), source.p_values(logits))
    np.testing.assert_array_equal(
        model.detector.domain.distances(images[:, None]), source.domain.distances(images[:, None])
    )
    assert model.detector.temperature == source.temperature


def test_a_model_says_what_it_learned_from(model: NprModel, model_file: Path) -> None:
    """Domain, calibration and limits are plain values that JSON can hold."""
    about = model.describe()

    assert json.loads(json.dumps(about)) == about
    assert about["training_domain"]["train"] == "140 crops of 4 sample areas"
    assert about["training_domain"]["magnifications"] == ["100k"]
    assert about["calibration"]["reals"] == 70
    assert about["limits"] == ["Fit for tests."]
    assert len(about["sha256"]) == 64
    assert is_simulated(about)
    assert is_simulated(load_checkpoint(model_file)[1])


def test_the_file_holds_no_pixels(model_file: Path) -> None:
    """All tensors that are not weights are smaller than a tenth of the crops."""
    state, _ = load_checkpoint(model_file)

    kept = sum(t.nbytes for n, t in state.items() if not n.startswith("network."))
    assert kept < 140 * 64 * 64 / 10
    assert {n.partition(".")[0] for n in state} == {"network", "domain", "references"}
    assert model_file.stat().st_size < 100_000


LOGITS = {"real": [-1.0], "processed": {}, "generators": {"doubler": [1.0]}}


def damage(path: Path, target: Path, **changes: object) -> Path:
    """Copy a model with other values in its header; None takes one out."""
    state, meta = load_checkpoint(path)
    meta = {k: v for k, v in (meta | changes).items() if v is not None}
    save_checkpoint(target, state, meta)
    return target


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "poem"}, "not a screening model"),
        ({"network": "resnet"}, "not a screening model"),
        ({"channels": 3}, "not the model it says it is"),
        ({"calibration": None}, "not the model it says it is.*calibration"),
        ({"domain": {"features": [], "limits": [1, 1]}}, "other statistics"),
        ({"references": {"names": []}}, "not the model it says it is"),
        ({"training_domain": None}, "not the model it says it is.*training_domain"),
        ({"phases": "many"}, "not the model it says it is"),
        ({"params": None}, "not the model it says it is: no 'params' in it"),
        ({"params": {}}, "not the model it says it is: no 'calibrate_on' in it"),
        ({"n_validation_groups": None}, "it says it is: no 'n_validation_groups' in it"),
        ({"temperature": None}, "not the model it says it is: no 'temperature' in it"),
        ({"temperature": {"1": 0}}, r"temperature 0\.0, expected a positive number"),
        ({"temperature": {"1": -1.5}}, r"temperature -1\.5, expected a positive number"),
        ({"temperature": {"1": float("nan")}}, "temperature nan, expected a positive number"),
        ({"temperature": {"1": float("inf")}}, "temperature inf, expected a positive number"),
        ({"temperature": {"1": None}}, "not the model it says it is"),
        ({"temperature": 1.5}, "not the model it says it is"),
        ({"n_validation_groups": 0}, "n_validation_groups 0, expected a number of areas"),
        ({"n_validation_groups": -1}, "n_validation_groups -1, expected a number of areas"),
        ({"n_validation_groups": float("nan")}, "n_validation_groups nan, expected a number"),
        ({"n_validation_groups": "two"}, "n_validation_groups 'two', expected a number"),
        ({"params": {"calibrate_on": 3}}, "not the model it says it is"),
        ({"params": [1]}, "not the model it says it is"),
        ({"phases": 2}, "no '2' in it"),
        ({"phases": -1}, "no '-1' in it"),
        ({"calibration": {"1": LOGITS | {"real": []}}}, "logits that are missing or not finite"),
        ({"calibration": {"1": LOGITS | {"real": [float("nan")]}}}, "missing or not finite"),
        ({"calibration": {"1": LOGITS | {"generators": {}}}}, "not the model it says it is"),
        ({"calibration": {"1": LOGITS | {"groups": [0, 0]}}}, "not one for each real"),
        ({"parts": {"version": 9}}, "calibration of parts of version 9"),
        ({"parts": {}}, "not the model it says it is: no 'version' in it"),
        ({"parts": [1]}, "not the model it says it is"),
        ({"calibration": {"1": {"real": [0]}}}, "not the model it says it is: no 'generators'"),
    ],
    ids=str,
)
def test_a_damaged_model_is_refused(
    tmp_path: Path, model_file: Path, changes: dict[str, object], message: str
) -> None:
    """The message names the file and what is wrong with it."""
    path = damage(model_file, tmp_path / "model.safetensors", **changes)

    with pytest.raises(InputError, match=message) as raised:
        load_model(path, CPU)
    assert str(raised.value).startswith(f"{path}: ")


def test_a_file_from_before_the_search_for_parts_is_read(tmp_path: Path, model_file: Path) -> None:
    """It judges whole panels at all of alpha, and nothing is known of its false alarms."""
    gone = {"parts": None, "false_alarms": None}
    old = load_model(damage(model_file, tmp_path / "model.safetensors", **gone), CPU)
    new = load_model(model_file, CPU)

    assert old.parts is None
    assert (old.share_for_whole, new.share_for_whole) == (1, 0.9)
    assert old.describe()["false_alarms"] == []
    assert new.describe()["false_alarms"][0]["of"] == "the test split"
    assert Screener(old).judge([original(6)])[0].p_part is None
    assert Screener(new).judge([original(6)])[0].p_part is not None


def test_what_is_no_model_is_refused(tmp_path: Path, pipeline: Path) -> None:
    """Neither a classifier alone, nor any other file, nor none."""
    (tmp_path / "poem.safetensors").write_text("a poem")

    with pytest.raises(ValueError, match="not a safetensors file"):
        load_model(tmp_path / "poem.safetensors", CPU)
    with pytest.raises(ValueError, match="not a screening model"):
        load_model(pipeline / "classifier/model.safetensors", CPU)
    with pytest.raises(FileNotFoundError, match="no such model"):
        load_model(tmp_path / "none.safetensors", CPU)


def test_a_model_is_found_by_path_folder_and_environment(
    model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A path comes first, then SEMFORENSICS_MODEL."""
    monkeypatch.setenv(ENVIRONMENT, str(model_file))

    assert find_model(None) == model_file
    assert find_model(model_file.parent) == model_file
    assert find_model("elsewhere.safetensors") == Path("elsewhere.safetensors")


def test_the_released_model_is_looked_for_beside_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checkout's comes first, then the package's; a message says where one can be pulled."""
    monkeypatch.delenv(ENVIRONMENT, raising=False)
    monkeypatch.setattr(
        module, "__file__", str(tmp_path / "src/semforensics/screening/judge/model.py")
    )
    released = tmp_path / "data/released"

    with pytest.raises(FileNotFoundError, match=r"no released model.*--model"):
        find_model(None)
    packed = tmp_path / "src/semforensics/models/screening_model/model.safetensors"
    packed.parent.mkdir(parents=True)
    packed.touch()
    assert find_model(None) == packed
    packed.unlink()
    released.mkdir(parents=True)
    (released / "screening_model.dvc").touch()
    with pytest.raises(FileNotFoundError, match=r"dvc pull data/released/screening_model\.dvc"):
        find_model(None)
    (released / "screening_model").mkdir()
    (released / "screening_model/model.safetensors").touch()
    packed.touch()
    assert find_model(None) == released / "screening_model/model.safetensors"


def test_a_dvc_artifact_is_fetched_by_its_name(
    tmp_path: Path, model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """REPOSITORY#ARTIFACT gives the file of the latest version of that name."""
    repository = tmp_path / "repository"
    repository.mkdir()
    shutil.copy(model_file, repository / "model.safetensors")
    (repository / "dvc.yaml").write_text(
        "artifacts:\n  screener:\n    path: model.safetensors\n    type: model\n"
    )

    def run(*command: str) -> None:
        subprocess.run(command, cwd=repository, check=True, capture_output=True)

    author = ("-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false")
    run("git", "init", "-q")
    run(sys.executable, "-m", "dvc", "init", "-q")
    run(sys.executable, "-m", "dvc", "add", "-q", "model.safetensors")
    run("git", "add", ".")
    run("git", *author, "commit", "-qm", "Add a model")
    run("git", *author, "tag", "-am", "Release it", "screener@v1.0.0")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    found = find_model(f"{repository}#screener")

    assert found.read_bytes() == model_file.read_bytes()
    assert found.is_relative_to(tmp_path / "cache")
    with pytest.raises(ValueError, match="#poem: dvc artifacts get"):
        find_model(f"{repository}#poem")
    with pytest.raises(ValueError, match="expected REPOSITORY#ARTIFACT"):
        find_model(f"{repository}#--help")
