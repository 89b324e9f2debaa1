"""The small model, made once for all tests of screening."""

from pathlib import Path

import pytest
import torch

from semforensics.publish.model import package_model
from semforensics.screening.judge.model import load_model
from semforensics.screening.judge.npr_model import NprModel
from semforensics.screening.screener import Screener
from tests.screening.small_model import PARAMS, corpus_of, write_classifier


@pytest.fixture(scope="session")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a classifier, its crops, their sides, and the packed model in model/."""
    root = tmp_path_factory.mktemp("small_model")
    write_classifier(root)
    package_model(
        root / "classifier",
        corpus_of(root),
        root / "false_alarms.json",
        root / "model",
        params=PARAMS,
        phases=1,
        data="simulated",
    )
    return root


@pytest.fixture(scope="session")
def model_file(pipeline: Path) -> Path:
    """The packed model."""
    return pipeline / "model/model.safetensors"


@pytest.fixture(scope="session")
def model(model_file: Path) -> NprModel:
    """The packed model, loaded."""
    return load_model(model_file, torch.device("cpu"))


@pytest.fixture(scope="session")
def screener(model: NprModel) -> Screener:
    """A screener without evidence; at 0.1 its few calibration tiles tell doubled images apart."""
    return Screener(model, alpha=0.1, evidence=False)
