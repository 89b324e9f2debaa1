"""A detector says what its calibration and its domain allow."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from semforensics.core.checkpoints import load_checkpoint, save_checkpoint
from semforensics.detector.conformal import conformal_p_values
from semforensics.detector.detector import Detector
from semforensics.detector.verdict import decide
from tests.detector.conftest import labelled, write_data

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier of doubled images, calibrated on twelve."""
    root = tmp_path_factory.mktemp("detector")
    folders = write_data(root)
    folders.train(num_seeds=2)
    return folders.model


def load(folder: Path, **more: object) -> Detector:
    """Four phases on the CPU."""
    return Detector.load(folder, **({"phases": 4, "device": CPU} | more))


def test_verdicts_follow_from_calibration_and_domain(model: Path) -> None:
    """p-values are conformal on the stored logits; what is outside has no verdict."""
    detector, images = load(model), labelled(30, 5).images
    _, meta = load_checkpoint(model / "model.safetensors")

    verdicts = detector.verdicts(images, 0.2)

    logits = detector.logits(images)
    sides = meta["calibration"]["4"]
    reals, fakes = np.array(sides["real"]), np.array(sides["generators"]["fastgan"])
    p_values = conformal_p_values(logits, reals, fakes)
    np.testing.assert_array_equal(detector.p_values(logits), p_values)
    inside = detector.domain.is_inside(images)
    assert verdicts.tolist() == decide(*p_values, 0.2, inside).tolist()
    assert {"consistent", "ai-suspected"} <= set(verdicts)
    blank = torch.full((3, 1, 32, 32), 7, dtype=torch.uint8)
    assert set(detector.verdicts(blank, 0.2)) == {"inconclusive"}


def test_what_is_known_need_not_be_computed_again(model: Path) -> None:
    """Logits and insides that are given are taken."""
    detector, images = load(model), labelled(4, 5).images
    logits = np.full(8, 1e3, dtype=np.float32)

    verdicts = detector.verdicts(images, 0.2, logits, np.ones(8, dtype=bool))

    assert set(verdicts) == {"ai-suspected"}


def test_numbers_belong_to_the_phases(model: Path) -> None:
    """Threshold, temperature and calibration of one phase are not those of four."""
    one, four = load(model, phases=1), load(model)

    assert one.threshold == one.meta["thresholds"]["1"]
    assert four.temperature == four.meta["temperature"]["4"]
    logits = np.linspace(-5, 5, 50).astype(np.float32)
    assert (one.threshold, one.temperature) != (four.threshold, four.temperature)
    assert not np.array_equal(one.p_values(logits), four.p_values(logits))


def test_another_seed_has_its_own_calibration(model: Path) -> None:
    """The second training scores and calibrates for itself, in the same domain."""
    first, second = load(model), load(model, name="seed_1.safetensors")

    images = labelled(5, 1).images
    assert not np.array_equal(first.logits(images), second.logits(images))
    assert first.meta["calibration"] != second.meta["calibration"]
    assert (first.meta["training_seed"], second.meta["training_seed"]) == (0, 1)
    np.testing.assert_array_equal(first.domain.distances(images), second.domain.distances(images))


def test_an_alpha_beyond_the_calibration_is_refused(model: Path) -> None:
    """Six calibration images of a class cannot speak of one error in twenty."""
    with pytest.raises(ValueError, match="needs 19 calibration reals, found 6"):
        load(model).verdicts(labelled(2, 0).images, 0.05)


def test_models_without_calibration_are_refused(model: Path, tmp_path: Path) -> None:
    """An older model, and one without its domain, say what they lack."""
    shutil.copytree(model, tmp_path / "model")
    state, meta = load_checkpoint(model / "model.safetensors")
    del meta["calibration"]
    save_checkpoint(tmp_path / "model/model.safetensors", state, meta)
    with pytest.raises(ValueError, match=r"model.safetensors: a model without calibration of 4"):
        load(tmp_path / "model")

    (tmp_path / "model/domain.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="no such training domain"):
        load(tmp_path / "model", name="seed_1.safetensors")


def test_areas_are_the_units_where_the_calibration_names_enough(
    model: Path, tmp_path: Path
) -> None:
    """p_real gives each area one vote, and an alpha that the areas cannot resolve is refused."""
    shutil.copytree(model, tmp_path / "model")
    state, meta = load_checkpoint(tmp_path / "model/model.safetensors")
    sides, rng = meta["calibration"]["4"], np.random.default_rng(0)
    sides["real"], sides["groups"] = rng.normal(size=44).tolist(), [n // 2 for n in range(44)]
    sides["generators"] = {"fastgan": rng.normal(3, 1, 40).tolist()}
    save_checkpoint(tmp_path / "model/model.safetensors", state, meta)
    detector, logits = load(tmp_path / "model"), np.linspace(-2, 5, 15)

    expected, _ = conformal_p_values(
        logits, np.array(sides["real"]), np.zeros(1), np.array(sides["groups"])
    )
    np.testing.assert_array_equal(detector.p_values(logits)[0], expected)
    detector.check_alpha(0.05)
    with pytest.raises(ValueError, match="needs 24 calibration areas, found 22"):
        detector.check_alpha(0.04)


def test_p_values_are_the_largest_over_kinds_of_reals_and_generators(
    model: Path, tmp_path: Path
) -> None:
    """Processed reals and every generator of the calibration have a say."""
    shutil.copytree(model, tmp_path / "model")
    state, meta = load_checkpoint(tmp_path / "model/model.safetensors")
    rng = np.random.default_rng(0)
    sides = meta["calibration"]["4"]
    top, bottom = max(sides["real"]), min(sides["generators"]["fastgan"])
    sides["processed"] = {"jpeg": rng.normal(top + 1, 1, 30).tolist()}
    sides["generators"]["other"] = rng.normal(bottom - 1, 1, 30).tolist()
    save_checkpoint(tmp_path / "model/model.safetensors", state, meta)

    logits = np.linspace(bottom - 4, top + 4, 25)
    p_real, p_fake = load(tmp_path / "model").p_values(logits)

    fakes = np.array(sides["generators"]["fastgan"])
    raw, _ = conformal_p_values(logits, np.array(sides["real"]), fakes)
    processed, _ = conformal_p_values(logits, np.array(sides["processed"]["jpeg"]), fakes)
    np.testing.assert_array_equal(p_real, np.maximum(raw, processed))
    assert (p_real != raw).any()
    _, one = conformal_p_values(logits, fakes, fakes)  # p_fake does not ask the reals
    _, other = conformal_p_values(logits, fakes, np.array(sides["generators"]["other"]))
    np.testing.assert_array_equal(p_fake, np.maximum(one, other))
    assert (p_fake != one).any()
