"""The protocol `world`: what is compared with what, and what is left out."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from semforensics.detector.pairs import Source
from semforensics.detector.panels import Cell, Panel
from semforensics.params import read_params
from semforensics.trials.baselines import BASELINES
from semforensics.trials.world_protocol import METHODS, Rivals, compare_methods, verdicts

KNOWN = read_params(Path(__file__).parents[2] / "params.yaml").train_world


def panels(rng: np.random.Generator) -> pd.DataFrame:
    """Two folds of four collections: the network knows all, `dct` nothing, the others half."""
    rows = []
    for fold in range(2):
        for unit in range(4):
            for family in ["", "one", "two"] * 5:
                known = float(family != "")
                scores = {name: known + rng.normal(0, 0.8) for name in METHODS}
                scores |= {"network": known + 10 * fold, "dct": rng.normal()}
                about = {"fold": f"fold_{fold}", "unit": f"{fold} {unit}", "family": family}
                rows.append(about | scores)
    return pd.DataFrame(rows)


def test_fakes_are_compared_with_reals_of_their_fold() -> None:
    """A level that the folds do not share costs nothing; differences are against the network."""
    found = compare_methods(panels(np.random.default_rng(0)), 200, seed=0)

    assert list(found) == list(METHODS)
    assert found["network"] == {"auroc": 1.0, "auroc_low": 1.0, "auroc_high": 1.0}
    dct = found["dct"]
    assert dct["auroc_low"] < 0.5 < dct["auroc_high"]
    assert dct["difference"] == pytest.approx(1 - dct["auroc"])
    assert (dct["low"], dct["high"]) == pytest.approx((1 - dct["auroc_high"], 1 - dct["auroc_low"]))
    assert 0.6 < found["srm"]["auroc"] < 0.95


def test_a_collection_has_one_vote() -> None:
    """One of many panels, all called fake, weighs as much as one of a single panel."""
    rows = [("large", "", 1.0)] * 9 + [("small", "", 0.0), ("large", "one", 0.5)]
    table = pd.DataFrame(rows, columns=["unit", "family", "network"]).assign(fold="fold_0")
    for name in METHODS[1:]:
        table[name] = table["network"]

    assert compare_methods(table, 10, seed=0)["network"]["auroc"] == pytest.approx(0.5, abs=1e-3)


def test_baselines_learn_from_pairs_and_score_any_size() -> None:
    """Fakes that are blurred reals of other collections are found by each but `noise`."""
    rng = np.random.default_rng(0)

    def source(name: str) -> Source:
        real = rng.integers(0, 256, (96, 96), dtype=np.uint8)
        return Source(name, real, ((real // 2 + np.roll(real, 1, axis=1) // 2),))

    sources = [source(name) for name in "aabbccdd"]
    rivals = Rivals.learn(sources, 64, 60, 0, KNOWN)
    new = source("e")

    real, fake = rivals.score(new.real), rivals.score(new.fakes[0][:80, :70])

    assert set(real) == {*BASELINES, "stack"}
    assert rivals.tile_px == 32
    assert all(real[name] < fake[name] for name in ("spectrum", "dct", "srm", "stack"))


def test_a_unit_is_judged_without_itself() -> None:
    """Of 50 units alike one stands out: its panel alone is a false alarm."""
    rng = np.random.default_rng(0)
    reals = [Panel(f"{unit}", "", rng.normal(0, 1, 4) + 9 * (unit == 0)) for unit in range(50)]
    fakes = [Panel("gan", name, rng.normal(5, 1, 4)) for name in ("one", "two") for _ in range(40)]

    found = verdicts(Cell((*reals, *fakes)))

    assert found["n_units"] == 50
    assert found["false_alarms"] == pytest.approx(1 / 50)
    assert found["suspected"] == pytest.approx(0.95, abs=0.05)
    assert verdicts(Cell(tuple(reals)))["false_alarms"] is None
