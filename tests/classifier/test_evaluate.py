"""The test side becomes the numbers and tables that were promised."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score

from semforensics.classifier.evaluate import curves, evaluate_row, measure
from semforensics.classifier.training import train_row
from semforensics.evaluation.metrics import wilson_interval
from semforensics.params import EvaluateClassifierParams
from tests.classifier.conftest import SHARES, Folders, recipe

CPU = torch.device("cpu")
NAMES = ("accuracy", "accuracy_real", "accuracy_fake", "average_precision", "auroc")
AT_HALF = ("accuracy_at_half", "accuracy_real_at_half", "accuracy_fake_at_half")


@pytest.fixture
def trained(folders: Folders, tmp_path: Path) -> Folders:
    """Images on disk, and a classifier of them in `model`."""
    train_row(
        "fastgan", folders.cropped, folders.splits, folders.fakes, tmp_path / "model",
        params=recipe(epochs=4), shares=SHARES, protocol="clean", data="simulated", seed=0,
        scratch=tmp_path / "scratch", device=CPU,
    )  # fmt: skip
    return folders


def evaluate(folders: Folders, output: Path, phases: int = 4) -> dict[str, Any]:
    """Run the stage; its metrics."""
    model = folders.cropped.parent / "model"
    evaluate_row(
        "fastgan", model, folders.cropped, folders.splits, folders.fakes,
        output / "m.json", output / "plots",
        params=EvaluateClassifierParams(phases=phases, bootstrap_resamples=200), seed=0, device=CPU,
    )  # fmt: skip
    return json.loads((output / "m.json").read_text())


def made_up(seed: int = 0, reals: int = 60, fakes: int = 50) -> pd.DataFrame:
    """Scores of overlapping classes, reals in six groups."""
    rng = np.random.default_rng(seed)
    logits = np.concatenate([rng.normal(-1, 1.5, reals), rng.normal(1, 1.5, fakes)])
    return pd.DataFrame(
        {
            "class": ["real"] * reals + ["fake"] * fakes,
            "generator": [""] * reals + ["fastgan"] * fakes,
            "group": [f"g{i % 6}" for i in range(reals)] + [f"f{i}" for i in range(fakes)],
            "logit": logits.astype(np.float32),
        }
    )


def test_metrics_follow_their_definitions() -> None:
    """Accuracies count at the threshold and at logit 0; the ranking is scikit-learn's."""
    scores = made_up()
    is_fake = scores["class"] == "fake"

    numbers = measure(scores, 0.7, 300, np.random.default_rng(0))

    for suffix, threshold in (("", 0.7), ("_at_half", 0.0)):
        right = (scores["logit"] > threshold) == is_fake
        assert numbers[f"accuracy{suffix}"] == right.mean()
        assert numbers[f"accuracy_real{suffix}"] == right[~is_fake].mean()
        assert numbers[f"accuracy_fake{suffix}"] == right[is_fake].mean()
        interval = (numbers[f"accuracy_fake{suffix}_low"], numbers[f"accuracy_fake{suffix}_high"])
        assert interval == wilson_interval(int(right[is_fake].sum()), 50)
    assert numbers["auroc"] == pytest.approx(roc_auc_score(is_fake, scores["logit"]))
    precision = average_precision_score(is_fake, scores["logit"])
    assert numbers["average_precision"] == pytest.approx(precision)
    assert (numbers["n_real"], numbers["n_fake"], numbers["n_groups"]) == (60, 50, 6)
    assert numbers["prevalence"] == 50 / 110
    for name in (*NAMES, *AT_HALF):
        assert 0 <= numbers[f"{name}_low"] <= numbers[name] <= numbers[f"{name}_high"] <= 1
        assert numbers[f"{name}_low"] < numbers[f"{name}_high"]


def test_few_groups_widen_the_interval() -> None:
    """Reals that share a shift by group have a wider interval than reals by themselves."""
    scores = made_up()
    shift = (
        scores["group"].str.removeprefix("g").where(scores["class"] == "real", "0").astype(float)
    )
    scores["logit"] = (scores["logit"] + shift).astype(np.float32)
    alone = scores.assign(group=[f"x{i}" for i in range(len(scores))])

    grouped, single = (measure(s, 0.0, 500, np.random.default_rng(0)) for s in (scores, alone))

    def width(numbers: dict[str, float]) -> float:
        return numbers["auroc_high"] - numbers["auroc_low"]

    assert width(grouped) > 1.3 * width(single)
    assert grouped["auroc"] == single["auroc"]


def test_the_stage_writes_the_promised_files(trained: Folders, tmp_path: Path) -> None:
    """Metrics hold one object per generator; plots hold the curves and every score."""
    metrics = evaluate(trained, tmp_path / "out")

    plots = tmp_path / "out/plots"
    assert {p.name for p in plots.iterdir()} == {"roc.csv", "pr.csv", "confusion.csv", "scores.csv"}
    assert (metrics["protocol"], metrics["data"], metrics["row"]) == (
        "clean",
        "simulated",
        "fastgan",
    )
    assert 0 < metrics["threshold"] < 1
    numbers = metrics["fastgan"]
    for name in (*NAMES, *AT_HALF):
        assert {name, f"{name}_low", f"{name}_high"} <= numbers.keys()
    assert (numbers["n_real"], numbers["n_fake"], numbers["n_groups"]) == (18, 18, 3)

    scores = pd.read_csv(plots / "scores.csv", keep_default_na=False)
    assert list(scores.columns) == [
        "file", "class", "generator", "side", "group", "logit", "probability",
    ]  # fmt: skip
    assert set(scores["side"]) == {"test"}
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


def test_images_that_changed_sides_are_refused(trained: Folders, tmp_path: Path) -> None:
    """A test image may have been a training image when sides changed since: nothing is written."""
    table = pd.read_csv(trained.splits)
    table.loc[table["group"] == "S1-A0", "side"] = "test"
    table.to_csv(trained.splits, index=False)

    with pytest.raises(ValueError, match="not the images and sides"):
        evaluate(trained, tmp_path / "out")

    assert not (tmp_path / "out").exists()


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
        numbers = measure(part, 0.0, 100, np.random.default_rng(0))
        roc = tables["roc"]
        area = np.trapezoid(roc[f"tpr_{generator}"], roc["fpr"])
        assert area == pytest.approx(numbers["auroc"])
        mean = tables["pr"][f"precision_{generator}"].mean()
        assert mean == pytest.approx(numbers["average_precision"])
    assert tables["roc"].iloc[0].tolist() == [0, 0, 0]
    assert len(tables["confusion"]) == 160
