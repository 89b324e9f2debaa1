"""Packing a classifier into the file that `screen` loads."""

from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from semforensics.cli.main import app
from semforensics.detector.corpus import Corpus
from semforensics.publish.model import package_model
from semforensics.screening.judge.model import load_model
from tests.screening.small_model import PARAMS, corpus_of, write_classifier

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a classifier, its crops and their splits."""
    root = tmp_path_factory.mktemp("pipeline")
    write_classifier(root)
    return root


def test_the_command_makes_the_same_file(tmp_path: Path, pipeline: Path, root: Path) -> None:
    """`package-model` takes names and phases from the parameter file."""
    text = (root / "params.yaml").read_text().replace("phases: 4", "phases: 1")
    assert "phases: 1" in text
    (tmp_path / "params.yaml").write_text(text)
    names = ("classifier", "cropped", "splits.csv", "fakes", "false_alarms.json")
    inputs = [str(pipeline / name) for name in names]
    out = tmp_path / "model"

    ran = CliRunner().invoke(
        app, ["package-model", *inputs, str(out), "--params", str(tmp_path / "params.yaml")]
    )

    assert ran.exit_code == 0, ran.output
    assert "fingerprints of 140 reals" in ran.output
    made = load_model(out / "model.safetensors", CPU)
    assert made.about["training_domain"]["data"] == "simulated"


def test_other_data_or_sides_than_the_classifiers_are_refused(
    tmp_path: Path, pipeline: Path
) -> None:
    """A classifier is not packed with references of micrographs that it does not know."""
    settings = {"params": PARAMS, "phases": 1}
    splits = tmp_path / "splits.csv"
    splits.write_text((pipeline / "splits.csv").read_text().replace(",A4,", ",A5,"))

    def package(corpus: Corpus, false_alarms: Path, data: str) -> None:
        out = tmp_path / "out"
        package_model(pipeline / "classifier", corpus, false_alarms, out, data=data, **settings)

    good = pipeline / "false_alarms.json"
    with pytest.raises(ValueError, match="n_validation_groups 1, the classifier's are 2"):
        package(corpus_of(pipeline, splits), good, "simulated")
    with pytest.raises(ValueError, match="trained on data 'simulated', expected 'folder'"):
        package(corpus_of(pipeline), good, "folder")
    other = tmp_path / "other.json"
    other.write_text(good.read_text().replace("both", "fastgan"))
    with pytest.raises(ValueError, match="not the false alarms of detector both"):
        package(corpus_of(pipeline), other, "simulated")
    assert not (tmp_path / "out").exists()
