"""The test split becomes the numbers and tables that were promised."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score
from tests.detector.conftest import Folders, made_up

from semforensics.detector.verdict import decide
from semforensics.trials.evaluate import curves, evaluate_classifier

CPU = torch.device("cpu")
NAMES = (
    "accuracy", "accuracy_at_half", "accuracy_real", "accuracy_fake", "average_precision", "auroc",
)  # fmt: skip


@pytest.fixture
def trained(folders: Folders) -> Folders:
    """Images on disk, and a classifier of them in `model`."""
    folders.train(epochs=4, num_seeds=2)
    return folders


def evaluate(folders: Folders, output: Path, phases: int = 4, alpha: float = 0.2) -> dict[str, Any]:
    """Run the stage; its metrics."""
    tested = folders.under_test(phases=phases, alpha=alpha)
    evaluate_classifier(tested, output / "m.json", output / "plots", resamples=200)
    return json.loads((output / "m.json").read_text())


def test_the_stage_writes_the_promised_files(trained: Folders, tmp_path: Path) -> None:
    """Metrics hold one object per generator; plots hold the curves and every score."""
    metrics = evaluate(trained, tmp_path / "out")

    plots = tmp_path / "out/plots"
    assert {p.stem for p in plots.iterdir()} == {
        "roc", "pr", "confusion", "scores", "numbers", "seeds", "reliability", "best_of",
        "predictive_values",
    }  # fmt: skip
    assert (metrics["protocol"], metrics["data"], metrics["detector"]) == (
        "clean",
        "simulated",
        "fastgan",
    )
    assert 0 < metrics["threshold"] < 1
    numbers = metrics["fastgan"]
    for name in NAMES:
        assert numbers[f"{name}_low"] <= numbers[name] <= numbers[f"{name}_high"]
    assert (numbers["n_real"], numbers["n_fake"], numbers["n_groups"]) == (18, 18, 3)

    scores = pd.read_csv(plots / "scores.csv", keep_default_na=False)
    assert list(scores.columns) == [
        "file", "class", "generator", "split", "group", "logit", "probability",
        "calibrated", "p_real", "p_fake", "verdict", "inside",
    ]  # fmt: skip
    assert set(scores["split"]) == {"test"}
    probabilities = 1 / (1 + np.exp(-scores["logit"]))
    np.testing.assert_allclose(scores["probability"], probabilities, rtol=1e-5)
    called = scores["probability"] > metrics["threshold"]
    confusion = pd.read_csv(plots / "confusion.csv", keep_default_na=False)
    assert (confusion["actual"] == scores["class"]).all()
    assert ((confusion["predicted"] == "fake") == called).all()
    right = (confusion["actual"] == confusion["predicted"]).mean()
    assert numbers["accuracy"] == pytest.approx(right)
    roc = pd.read_csv(plots / "roc.csv")
    area = np.trapezoid(roc["tpr_fastgan"], roc["fpr"])
    assert area == pytest.approx(numbers["auroc"])


def test_what_the_tables_say_is_what_the_scores_say(trained: Folders, tmp_path: Path) -> None:
    """Verdicts, probabilities and decided shares follow from the p-values and the domain."""
    metrics = evaluate(trained, tmp_path / "out")

    scores, numbers, seeds, best_of = (
        pd.read_csv(tmp_path / f"out/plots/{name}.csv", keep_default_na=False)
        for name in ("scores", "numbers", "seeds", "best_of")
    )
    verdicts = decide(
        scores["p_real"].to_numpy(), scores["p_fake"].to_numpy(), 0.2, scores["inside"].to_numpy()
    )
    assert (scores["verdict"] == verdicts).all()
    calibrated = 1 / (1 + np.exp(-scores["logit"] / metrics["temperature"]))
    np.testing.assert_allclose(scores["calibrated"], calibrated, rtol=1e-5)
    reals = scores[scores["class"] == "real"]
    decided = (reals["verdict"] != "inconclusive").mean()
    assert metrics["fastgan"]["decided_real"] == pytest.approx(decided)
    values = numbers.set_index("name")["value"].astype(float)
    assert values["inside_real"] == pytest.approx(reals["inside"].mean())
    assert set(numbers["n_groups"]) == {3}
    accuracies = seeds[seeds["name"] == "accuracy"]
    assert accuracies["training_seed"].tolist() == [0, 1]
    assert accuracies["value"].iloc[0] == pytest.approx(metrics["fastgan"]["accuracy"])
    assert values["accuracy_over_seeds"] == pytest.approx(accuracies["value"].mean())
    assert best_of["choices"].tolist() == [1, 10]


def test_an_alpha_beyond_the_calibration_decides_nothing(trained: Folders, tmp_path: Path) -> None:
    """Six validation images of a class cannot speak of an error in twenty, and the summary says so.

    All else is measured: a small collection of micrographs does not stop a run.
    """
    tested = trained.under_test(phases=4, alpha=0.05)

    said = evaluate_classifier(tested, tmp_path / "m.json", tmp_path / "plots", resamples=20)

    assert said.endswith(
        "; not every verdict can occur: alpha 0.05 needs 19 calibration reals, found 6"
    )
    numbers = json.loads((tmp_path / "m.json").read_text())["fastgan"]
    assert (numbers["decided_real"], numbers["decided_fake"]) == (0, 0)
    assert numbers["false_alarms_of_decided"] is None
    assert numbers["accuracy"] > 0.5
    assert trained.under_test(alpha=0.2).note == ""


def test_the_same_seed_gives_the_same_files(trained: Folders, tmp_path: Path) -> None:
    """Two evaluations write the same bytes."""
    for name in ("one", "two"):
        evaluate(trained, tmp_path / name)

    for file in ("m.json", "plots/scores.csv", "plots/roc.csv", "plots/pr.csv"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_one_phase_has_its_own_threshold(trained: Folders, tmp_path: Path) -> None:
    """The threshold belongs to the number of phases that were averaged."""
    one, four = (evaluate(trained, tmp_path / str(phases), phases) for phases in (1, 4))

    assert (one["phases"], four["phases"]) == (1, 4)
    assert one["threshold"] != four["threshold"]


def test_images_that_changed_splits_are_refused(trained: Folders, tmp_path: Path) -> None:
    """A test image may have been a training image when splits changed since: nothing is written."""
    table = pd.read_csv(trained.splits)
    table.loc[table["group"] == "S1-A0", "split"] = "test"
    table.to_csv(trained.splits, index=False)

    with pytest.raises(ValueError, match="not the images and splits"):
        evaluate(trained, tmp_path / "out")

    assert not (tmp_path / "out").exists()


def test_pseudo_fakes_are_drawn_with_their_originals(folders: Folders, tmp_path: Path) -> None:
    """Detector both_pseudo is tested on each generator; copies of the reals say nothing."""
    shutil.copytree(folders.cropped, folders.fakes / "pseudo")
    shutil.copytree(folders.fakes / "fastgan", folders.fakes / "stylegan2_ada")
    folders.train("both_pseudo", epochs=4)

    tested = folders.under_test(alpha=0.4)
    evaluate_classifier(tested, tmp_path / "m.json", tmp_path / "plots", resamples=200)

    metrics = json.loads((tmp_path / "m.json").read_text())
    pseudo = metrics["pseudo"]
    # Copy and original have one score and are drawn together, so every resample is a tie.
    assert (pseudo["auroc_low"], pseudo["auroc"], pseudo["auroc_high"]) == (0.5, 0.5, 0.5)
    assert metrics["fastgan"]["auroc"] > 0.6
    reliability = pd.read_csv(tmp_path / "plots/reliability.csv")
    assert {"after_fastgan", "after_stylegan2_ada", "after_pseudo"} <= set(reliability.columns)


def test_two_generators_are_two_lines() -> None:
    """Curves have one x column and a y column per generator, each as if it were alone."""
    one = made_up(0)
    other = made_up(1, reals=0).assign(generator="stylegan2_ada")
    scores = pd.concat([one, other], ignore_index=True)

    tables = curves(scores, 0.0)

    assert tables["pr"].columns.tolist() == [
        "recall",
        "precision_fastgan",
        "precision_stylegan2_ada",
    ]
    assert tables["pr"]["recall"].iloc[-1] == 1
    for generator in ("fastgan", "stylegan2_ada"):
        part = scores[scores["generator"].isin(["", generator])]
        logits, is_fake = part["logit"].to_numpy(), (part["class"] == "fake").to_numpy()
        roc = tables["roc"]
        area = np.trapezoid(roc[f"tpr_{generator}"], roc["fpr"])
        assert area == pytest.approx(roc_auc_score(is_fake, logits))
        mean = tables["pr"][f"precision_{generator}"].mean()
        assert mean == pytest.approx(average_precision_score(is_fake, logits))
    assert tables["roc"].iloc[0].tolist() == [0, 0, 0]
    assert len(tables["confusion"]) == 160
