"""The whole comparison on small images: who learned from what, who wins, what is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.metrics import average_precision_score
from tests.detector.conftest import Folders, original, write_data

from semforensics.core.files import sha256_of
from semforensics.params import CompareDetectorsParams
from semforensics.trials.baselines import BASELINES
from semforensics.trials.columns import Unseen
from semforensics.trials.compare import (
    MEAN,
    compare,
    compare_detectors,
    leave_one_out,
    measure_cell,
)
from semforensics.trials.detectors import METHODS, cross_fitted
from semforensics.trials.intervals import percentile_interval, stratified_resamples, wilson_interval
from semforensics.trials.metrics import auroc

CPU = torch.device("cpu")
NAMES = ("fastgan", "stylegan2_ada")


def smoothed(rng: np.random.Generator) -> np.ndarray:
    """Noise of half the size, enlarged bilinearly: another up-sampler than the other GAN's."""
    small = Image.fromarray(original(rng, 16))
    return np.array(small.resize((32, 32), Image.Resampling.BILINEAR))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    """Two GANs, re-synthesis, a control, small diffusion images; classifiers of both GANs."""
    root = tmp_path_factory.mktemp("compare")
    folders = write_data(root)
    rng = np.random.default_rng(3)
    reals = sorted(path.name for path in folders.cropped.iterdir())
    names = [f"{seed:06d}.png" for seed in range(60)]
    tested = [name for name in reals if name.startswith(("S1-A6", "S1-A7", "S1-A8"))]
    for folder, files, size in (
        (folders.fakes / "stylegan2_ada", names, 32),
        (root / "unseen/bilinear", tested, 32),
        (root / "unseen/diffusion", names[:8], 24),
    ):
        folder.mkdir(parents=True)
        for name in files:
            Image.fromarray(smoothed(rng)[:size, :size]).save(folder / name)
    # A control that changes nothing: each image is its original.
    (root / "unseen/resized").mkdir()
    for name in tested:
        (root / "unseen/resized" / name).write_bytes((folders.cropped / name).read_bytes())
    for name in NAMES:
        folders.train(name, root / "classifiers" / name, epochs=2, num_seeds=2)
    return folders


def run(folders: Folders, output: Path) -> tuple[str, dict[str, Any]]:
    """Run the stage; its lines and metrics."""
    root = folders.cropped.parent
    lines = compare_detectors(
        root / "classifiers", folders.corpus(), Unseen(root / "unseen", True), output / "m.json",
        output / "plots", params=CompareDetectorsParams(max_images=15, bootstrap_resamples=200),
        phases=4, device=CPU,
    )  # fmt: skip
    return lines, json.loads((output / "m.json").read_text())


@pytest.fixture(scope="module")
def output(trained: Folders, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the stage wrote."""
    folder = tmp_path_factory.mktemp("output")
    lines, _ = run(trained, folder)
    (folder / "lines.txt").write_text(lines)
    return folder


def test_every_method_stands_in_every_cell(output: Path) -> None:
    """Six methods, two rows, five columns; seeds, sizes, marks and files are as promised."""
    names = {path.name for path in (output / "plots").iterdir()}
    assert names == {"cells.csv", "differences.csv", "table.md", "matrix.png", "leave_one_out.png"}
    cells = pd.read_csv(output / "plots/cells.csv")
    columns = ["fastgan", "stylegan2_ada", "diffusion", "bilinear", "resized"]
    assert list(cells["column"].unique()) == columns
    assert list(cells["method"].unique()) == list(METHODS)
    assert len(cells) == len(METHODS) * 2 * 5
    notes = cells.set_index(["detector", "column"])["note"].to_dict()
    assert [notes["fastgan", column] for column in columns] == [
        "seen", "left out", "under-trained", "unseen", "control",
    ]  # fmt: skip
    assert set(cells.loc[cells["method"] == "npr", "n_seeds"]) == {2}
    assert set(cells.loc[cells["method"] != "npr", "n_seeds"]) == {1}
    assert set(cells.loc[cells["column"] == "diffusion", "n_real"]) == {8}
    assert set(cells.loc[cells["column"] != "diffusion", "n_real"]) == {15}
    assert (cells["n_real"] == cells["n_fake"]).all()
    for name in ("auroc", "called_fake", "reals_called_fake"):
        assert (cells[f"{name}_low"] <= cells[name]).all()
        assert (cells[name] <= cells[f"{name}_high"]).all()
    # Two intervals of rounded counts aside, what is the same image is called the same.
    same = cells[cells["column"] == "resized"]
    np.testing.assert_array_equal(same["called_fake"], same["reals_called_fake"])
    np.testing.assert_array_equal(same["auroc"], 0.5)


def test_the_headline_leaves_a_generator_out(output: Path) -> None:
    """The mean is over the two off-diagonal cells, and its best baseline is the best of them."""
    cells = pd.read_csv(output / "plots/cells.csv")
    metrics = json.loads((output / "m.json").read_text())

    crossed = cells[cells["note"] == "left out"]
    means = crossed.groupby("method")["auroc"].mean()
    for method in METHODS:
        assert metrics["leave_one_out"][method]["auroc"] == pytest.approx(means[method])
    assert metrics["best_baseline"] in means[list(BASELINES)][means == means[list(BASELINES)].max()]
    npr = cells[(cells["method"] == "npr") & ~cells["note"].isin(["control", "under-trained"])]
    assert metrics["worst"]["auroc"] == pytest.approx(npr["auroc"].min())
    assert (metrics["data"], metrics["n_seeds"], metrics["tile_px"]) == ("simulated", 2, 24)
    lines = (output / "lines.txt").read_text().splitlines()
    assert lines[0].startswith("leave one generator out, mean AUROC: NPR 0.")
    assert "false alarms of NPR" in lines[-1]


def test_differences_are_those_of_the_cells(output: Path) -> None:
    """Each is NPR's cell less the method's; who wins follows from the interval, and is counted."""
    cells = pd.read_csv(output / "plots/cells.csv").set_index(["method", "detector", "column"])[
        "auroc"
    ]
    differences = pd.read_csv(output / "plots/differences.csv")
    metrics = json.loads((output / "m.json").read_text())

    assert len(differences) == 5 * 2 * 4  # no controls
    for line in differences.to_dict("records"):
        method, row, column = line["method"], line["detector"], line["column"]
        expected = cells["npr", row, column] - cells[method, row, column]
        assert line["difference"] == pytest.approx(expected)
        better = "npr" if line["low"] > 0 else method if line["high"] < 0 else "open"
        assert line["better"] == better
    counted = differences[(differences["note"] != "under-trained")]
    counted = counted[counted["method"] != "stack"]
    assert metrics["compared"] == len(counted) == 4 * 2 * 3
    assert metrics["npr_wins"] == (counted["better"] == "npr").sum()
    assert metrics["baseline_wins"] == counted["better"].isin(BASELINES).sum()


def test_the_same_seed_gives_the_same_files(trained: Folders, output: Path, tmp_path: Path) -> None:
    """Two runs write the same bytes."""
    run(trained, tmp_path)

    for name in ("m.json", *(f"plots/{p.name}" for p in (output / "plots").iterdir())):
        assert sha256_of(tmp_path / name) == sha256_of(output / name), name


def test_images_that_changed_splits_are_refused(trained: Folders, tmp_path: Path) -> None:
    """A test image may have been a training image when splits changed since: nothing is written."""
    text = trained.splits.read_text()
    table = pd.read_csv(trained.splits)
    table.loc[table["group"] == "S1-A0", "split"] = "test"
    table.to_csv(trained.splits, index=False)
    try:
        with pytest.raises(ValueError, match="not the images and splits"):
            run(trained, tmp_path / "out")
    finally:
        trained.splits.write_text(text)

    assert not (tmp_path / "out").exists()


def test_no_classifier_is_no_comparison(trained: Folders, tmp_path: Path) -> None:
    """An empty folder of classifiers is named."""
    with pytest.raises(FileNotFoundError, match="no classifier of fastgan"):
        compare_detectors(
            tmp_path, trained.corpus(), Unseen(tmp_path, True), tmp_path / "m.json",
            tmp_path / "plots",
            params=CompareDetectorsParams(max_images=15, bootstrap_resamples=200),
            phases=1, device=CPU,
        )  # fmt: skip


def made_up(seed: int, shift: float, n: int = 50) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores of overlapping classes; reals in ten groups."""
    rng = np.random.default_rng(seed)
    is_fake = np.repeat([False, True], n)
    scores = (rng.normal(0, 1, 2 * n) + shift * is_fake).astype(np.float32)
    return (
        scores,
        is_fake,
        np.array([f"f{i}" if f else f"g{i % 10}" for i, f in enumerate(is_fake)]),
    )


def test_a_cell_is_the_mean_over_seeds() -> None:
    """AUROC, precision and shares are means of the seeds' own; the spread is their deviation."""
    first, is_fake, groups = made_up(0, 1.5)
    second = made_up(1, 1.0)[0]
    scores, thresholds = np.stack([first, second]), np.array([0.5, -0.25])
    weights = stratified_resamples(groups, is_fake, 300, np.random.default_rng(0))

    cell, resampled = measure_cell(scores, thresholds, is_fake, weights)

    areas = [auroc(one, is_fake) for one in scores]
    assert cell["auroc"] == pytest.approx(np.mean(areas))
    assert cell["auroc_sd"] == pytest.approx(abs(areas[0] - areas[1]) / np.sqrt(2))
    precisions = [average_precision_score(is_fake, one) for one in scores]
    assert cell["average_precision"] == pytest.approx(np.mean(precisions))
    called = [(first > 0.5)[is_fake].sum(), (second > -0.25)[is_fake].sum()]
    assert cell["called_fake"] == pytest.approx(sum(called) / 100)
    low, high = wilson_interval(round(sum(called) / 2), 50)
    assert (cell["called_fake_low"], cell["called_fake_high"]) == (low, high)
    assert (cell["auroc_low"], cell["auroc_high"]) == percentile_interval(resampled)
    one, _ = measure_cell(scores[:1], thresholds[:1], is_fake, weights)
    assert one["auroc_sd"] is None
    assert one["auroc"] == pytest.approx(areas[0])


def test_pairing_narrows_a_difference() -> None:
    """Two detectors that nearly agree differ by less than their own intervals are wide.

    The better one is named only where the interval leaves out 0.
    """
    scores, is_fake, groups = made_up(2, 1.0, 300)
    rng = np.random.default_rng(0)
    weights = stratified_resamples(groups, is_fake, 400, rng)
    noise = rng.normal(0, 1, len(scores))
    rows, resampled = [], {}
    for method in METHODS:
        blurred = scores if method == "npr" else scores + (0.02 if method == "dct" else 1) * noise
        for row, column in (("fastgan", "stylegan2_ada"), ("stylegan2_ada", "fastgan")):
            cell, values = measure_cell(
                blurred.astype(np.float32)[None], np.zeros(1), is_fake, weights
            )
            resampled[method, row, column] = values
            rows.append(
                {"method": method, "detector": row, "column": column, "note": "left out", **cell}
            )
    cells = pd.DataFrame(rows)

    differences = compare(cells, resampled).set_index(["method", "detector"])
    headline = leave_one_out(cells, resampled).set_index(["method", "detector"])

    assert differences.loc[("dct", "fastgan"), "better"] == "open"
    assert differences.loc[("srm", "fastgan"), "better"] == "npr"
    mean = headline.loc[("srm", MEAN)]
    assert mean["low"] > 0
    assert mean["high"] - mean["low"] < mean["auroc_high"] - mean["auroc_low"]
    assert mean["difference"] == pytest.approx(headline.loc[("npr", MEAN), "auroc"] - mean["auroc"])
    # The cells are copies, drawn with the same groups: their mean is as uncertain as each.
    single = headline.loc[("srm", "fastgan")]
    assert mean["auroc_low"] == pytest.approx(single["auroc_low"])


def test_cross_fitted_scores_do_not_remember() -> None:
    """On labels of chance, scores of the fit itself rank well, cross-fitted ones do not."""
    rng = np.random.default_rng(4)
    features = rng.normal(0, 1, (80, 30)).astype(np.float32)
    is_fake = np.arange(80) % 2 == 1
    groups = np.array([str(i // 4) for i in range(80)])

    scores = cross_fitted(features, is_fake, groups)

    assert auroc(scores, is_fake) < 0.65
    one = np.where(is_fake, groups, "the only")
    remembered = cross_fitted(features, is_fake, one)
    assert auroc(remembered, is_fake) > 0.8
