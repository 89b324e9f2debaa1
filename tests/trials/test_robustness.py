"""The detector is measured under every processing, of both classes and of one."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from tests.detector.conftest import Folders, labelled, write_data

from semforensics.core.errors import InputError
from semforensics.detector.perturbations import AXES, GRID, Perturbation
from semforensics.params import RobustnessParams
from semforensics.trials.intervals import wilson_interval
from semforensics.trials.robustness import (
    classify,
    count_biased,
    measure_cell,
    measure_robustness,
    process,
    remark,
    thin,
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    """Images on disk, and a classifier of them in `model`."""
    root = tmp_path_factory.mktemp("trained")
    folders = write_data(root)
    folders.train(epochs=6)
    return folders


def measure(folders: Folders, output: Path) -> str:
    """Run the stage."""
    return measure_robustness(
        folders.under_test(), output / "m.json", output / "plots",
        params=RobustnessParams(max_images=12),
    )  # fmt: skip


@pytest.fixture(scope="module")
def measured(trained: Folders, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the stage writes."""
    output = tmp_path_factory.mktemp("measured")
    (output / "line.txt").write_text(measure(trained, output))
    return output


def outcome(logits: list[float], verdicts: str, inside: str = "") -> pd.DataFrame:
    """Verdicts by their first letters; all inside unless said otherwise."""
    names = {"c": "consistent", "i": "inconclusive", "a": "ai-suspected"}
    return pd.DataFrame(
        {
            "logit": np.array(logits, dtype=np.float32),
            "verdict": [names[letter] for letter in verdicts],
            "is_inside": [letter == "y" for letter in inside or "y" * len(logits)],
        }
    )


def cell(level: str) -> Perturbation:
    """The cell of a name."""
    (found,) = [p for p in GRID if p.level == level]
    return found


def table(reals: int, fakes: int) -> pd.DataFrame:
    """As many images of each class; reals of two groups."""
    return pd.DataFrame(
        {
            "class": ["real"] * reals + ["fake"] * fakes,
            "group": [f"g{i % 2}" for i in range(reals)] + [f"f{i}" for i in range(fakes)],
        }
    )


def test_a_cell_counts_what_it_says() -> None:
    """Rates stand at the threshold, errors of the decided among the decided, shifts by class."""
    before = outcome([-2, -1, -1, 2, 3, 4], "cccaaa")
    after = outcome([-1, 1, 2, 0, 3, -3], "iaciac", "nyyyyy")

    numbers = measure_cell(before, after, "both", table(3, 3), 0.5, 0)

    assert numbers["false_positive_rate"] == pytest.approx(2 / 3)
    assert numbers["false_positive_rate_high"] == wilson_interval(2, 3)[1]
    assert numbers["true_positive_rate"] == pytest.approx(1 / 3)
    assert numbers["auroc"] == pytest.approx((1 + 3 + 0) / 9)
    assert numbers["auroc_change"] == pytest.approx(4 / 9 - 1)
    assert numbers["logit_shift_real"] == pytest.approx((1 + 2 + 3) / 3)
    assert numbers["logit_shift_fake"] == pytest.approx((-2 + 0 - 7) / 3)
    assert (numbers["inside_real"], numbers["inside_fake"]) == (pytest.approx(2 / 3), 1)
    assert numbers["decided"] == pytest.approx(4 / 6)
    assert numbers["false_alarms_of_decided"] == 1 / 2
    assert numbers["misses_of_decided"] == 1 / 2
    assert (numbers["n_real"], numbers["n_fake"], numbers["n_groups"]) == (3, 3, 2)


def test_one_side_leaves_the_other_as_it_was() -> None:
    """With reals processed only, fakes keep logits and verdicts, and the reverse."""
    before = outcome([-2, -1, -1, 2, 3, 4], "cccaaa")
    after = outcome([9, 9, 9, -9, -9, -9], "aaaccc")

    reals = measure_cell(before, after, "reals", table(3, 3), 0.0, 0)
    fakes = measure_cell(before, after, "fakes", table(3, 3), 0.0, 0)

    assert (reals["false_positive_rate"], reals["true_positive_rate"]) == (1, 1)
    assert (fakes["false_positive_rate"], fakes["true_positive_rate"]) == (0, 0)
    assert (reals["logit_shift_fake"], fakes["logit_shift_real"]) == (0, 0)
    assert reals["false_alarms_of_decided"] == 1
    assert reals["misses_of_decided"] == 0
    assert fakes["misses_of_decided"] == 1


def test_no_decision_has_no_error_rate() -> None:
    """Of nothing decided there is no share of false alarms."""
    undecided = outcome([-1, 1], "ii")

    numbers = measure_cell(undecided, undecided, "both", table(1, 1), 0.0, 0)

    assert numbers["decided"] == 0
    assert np.isnan(numbers["false_alarms_of_decided"])
    assert np.isnan(numbers["misses_of_decided_high"])


def test_remarks_tell_fragility_from_bias() -> None:
    """A fall on both sides is fragility, any change on one side bias, uncertainty neither."""
    rng = np.random.default_rng(0)
    count = 60
    reals, fakes = rng.normal(-0.7, 1, count), rng.normal(0.7, 1, count)
    letters = "i" * 2 * count
    before = outcome([*reals, *fakes], letters)
    blurred = outcome([*rng.normal(0, 1, count), *rng.normal(0, 1, count)], letters)
    suspicious = outcome([*reals + 3, *fakes + 3], letters)
    rows = table(count, count)

    def remark_of(after: pd.DataFrame, case: str) -> str:
        return measure_cell(before, after, case, rows, 0.0, 0)["remark"]

    assert remark_of(blurred, "both") == "fragile"
    assert remark_of(suspicious, "both") == ""
    assert remark_of(suspicious, "reals") == "bias"
    assert remark_of(suspicious, "fakes") == "bias"  # a gain counts: processing gives them away
    assert [remark_of(before, case) for case in ("both", "reals", "fakes")] == ["", "", ""]
    assert remark("both", 0.1, 0.2) == ""
    assert remark("reals", -0.1, 0.2) == ""


def test_kinds_are_biased_when_reals_alone_change_the_ranking() -> None:
    """A fall with fakes alone processed may be fragility, and does not count."""
    grid = pd.DataFrame(
        {
            "processed": ["reals", "fakes", "both", "reals", "fakes", "reals"],
            "remark": ["bias", "bias", "fragile", "bias", "bias", ""],
        }
    )

    assert count_biased(grid) == 2
    assert count_biased(grid[grid["processed"] == "fakes"]) == 0


def test_batch_and_order_do_not_matter() -> None:
    """An image processed with others is the image processed alone, noise and donor included."""
    images = labelled(4, 0).images
    files = [f"{i}.png" for i in range(8)]
    donors = labelled(3, 1).images
    order = [5, 2, 7]

    for level in ("normal 5", "spectrum of a real", "figure 150 dpi"):
        together = process(cell(level), images, files, 0, donors)
        some = process(cell(level), images[order], [files[i] for i in order], 0, donors)
        assert torch.equal(some, together[order])


def test_thinning_keeps_classes_and_groups_even() -> None:
    """At most so many of each class, reals from every group, images with their own rows."""
    test = labelled(12, 0, groups=4)

    kept = thin(test, 8, 0)

    assert kept.table["class"].value_counts().to_dict() == {"real": 8, "fake": 8}
    reals = kept.table[kept.table["class"] == "real"]
    assert reals["group"].value_counts().to_dict() == {f"g{i}": 2 for i in range(4)}
    places = [int(file.split("_")[1].removesuffix(".png")) for file in kept.table["file"]]
    assert torch.equal(kept.images, test.images[places])


def test_a_finer_alpha_than_the_calibration_is_refused(trained: Folders) -> None:
    """Six calibration images resolve 1/7 at best."""
    detector = trained.under_test().detector

    detector.check_alpha(0.15)
    with pytest.raises(InputError, match=r"alpha 0\.1 needs 9 calibration reals, found 6"):
        detector.check_alpha(0.1)


def test_outside_the_domain_nothing_is_decided(trained: Folders) -> None:
    """A constant image gets no verdict, whatever its logit."""
    flat = torch.full((2, 1, 32, 32), 100, dtype=torch.uint8)

    found = classify(trained.under_test(), flat)

    assert not found["is_inside"].any()
    assert set(found["verdict"]) == {"inconclusive"}


def test_the_stage_writes_the_promised_files(measured: Path) -> None:
    """One row as it is and three per cell; a small metrics file; two figures."""
    plots = measured / "plots"
    assert {p.name for p in plots.iterdir()} == {"grid.csv", "two_sided.png", "one_sided.png"}
    grid = pd.read_csv(plots / "grid.csv", keep_default_na=False)
    assert len(grid) == 1 + 3 * len(GRID)
    assert grid.iloc[0][["axis", "level", "processed", "remark"]].tolist() == [
        "none", "original", "both", "",
    ]  # fmt: skip
    assert set(grid["n_real"]) == set(grid["n_fake"]) == {12}
    assert set(grid["n_groups"]) == {3}
    for _, cells in grid.iloc[1:].groupby(["axis", "level"]):
        both, fakes, reals = cells.to_dict(orient="records")
        assert [c["processed"] for c in (both, fakes, reals)] == ["both", "fakes", "reals"]
        assert both["false_positive_rate"] == reals["false_positive_rate"]
        assert both["true_positive_rate"] == fakes["true_positive_rate"]
        assert fakes["false_positive_rate"] == grid["false_positive_rate"][0]

    metrics = json.loads((measured / "m.json").read_text())
    assert set(AXES) <= metrics.keys()
    both = grid[(grid["processed"] == "both") & (grid["axis"] == "tone")]
    assert metrics["tone"]["auroc_worst"] == both["auroc"].min()
    assert metrics["tone"]["false_positive_rate_worst"] == both["false_positive_rate"].max()
    assert metrics["original"]["auroc"] == grid["auroc"][0]
    assert metrics["n_fragile"] == (grid["remark"] == "fragile").sum()
    assert (
        (measured / "line.txt").read_text().startswith(f"fastgan: {len(GRID)} kinds of processing")
    )


def test_the_same_seed_gives_the_same_files(
    trained: Folders, measured: Path, tmp_path: Path
) -> None:
    """Two runs write the same bytes."""
    measure(trained, tmp_path)

    for name in ("m.json", "plots/grid.csv", "plots/two_sided.png", "plots/one_sided.png"):
        assert (tmp_path / name).read_bytes() == (measured / name).read_bytes()


def test_the_grid_shows_what_destroys_the_trace(measured: Path) -> None:
    """Fakes of doubled pixels are found as they are and mirrored, but not after a strong blur."""
    grid = pd.read_csv(measured / "plots/grid.csv").query("processed == 'both'").set_index("level")

    assert grid.loc["original", "auroc"] == 1
    assert grid.loc["flip", "auroc"] == 1
    assert grid.loc["blur 2 px", "auroc"] < 1
    assert grid.loc["blur 2 px", "remark"] == "fragile"
