"""Maps share one scale when drawn, and are put to the test."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from tests.detector.conftest import Folders

from semforensics.figures import explanations
from semforensics.figures.explanations import overlaid_maps
from semforensics.params import ExplainParams
from semforensics.trials.explain import explain, spread
from semforensics.trials.gradcam_controls import STEPS

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("count", "wanted", "expected"),
    [(9, 3, [0, 4, 8]), (2, 5, [0, 1]), (1, 1, [0]), (100, 2, [0, 99])],
)
def test_shown_images_are_spread_evenly(count: int, wanted: int, expected: list[int]) -> None:
    """The images shown are spread over all, ends included, or are all of them."""
    assert spread(count, wanted) == expected


def test_a_detector_is_explained_with_both_classes_on_one_scale(
    folders: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A readable grid per class, the same bytes each time; no map leaves the scale of both."""
    drawn = []

    def draw(images, maps, **how):
        drawn.append((maps.max(), how["scale_max"]))
        return overlaid_maps(images, maps, **how)

    monkeypatch.setattr(explanations, "overlaid_maps", draw)
    folders.train(epochs=2)

    summaries = [
        explain(
            "fastgan", folders.model, folders.corpus(), tmp_path / name,
            params=ExplainParams(num_images=2), resamples=100, device=CPU,
        )
        for name in ("one", "two")
    ]  # fmt: skip

    figures = ("real.png", "fake.png", "compactness.png", "randomised.png")
    tables = {"compactness.csv", "summary.json"}
    assert {p.name for p in (tmp_path / "one").iterdir()} == {*figures, *tables}
    for name in tables:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    for name in figures:
        with Image.open(tmp_path / "one" / name) as image:
            assert np.asarray(image).std() > 10
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    assert "of 18 real maps" in summaries[0]
    assert "of 18 fake maps" in summaries[0]
    (scale,) = {scale_max for _, scale_max in drawn}
    assert max(largest for largest, _ in drawn) <= scale
    table = pd.read_csv(tmp_path / "one" / "compactness.csv")
    assert table.groupby(["evidence", "class"]).size().to_dict() == {
        ("own_class", "real"): 18, ("own_class", "fake"): 18,
        ("towards_fake", "real"): 18, ("towards_fake", "fake"): 18,
    }  # fmt: skip
    summary = json.loads((tmp_path / "one" / "summary.json").read_text())
    for direction in ("own_class", "towards_fake"):
        numbers, listed = summary[direction], table[table["evidence"] == direction]
        for image_class in ("real", "fake"):
            values = listed.loc[listed["class"] == image_class, "half_mass_share"]
            assert numbers[f"zero_{image_class}"] == values.isna().sum()
            if values.notna().any():
                assert numbers[image_class] == pytest.approx(values.mean(), abs=1e-6)
    assert [s["fresh_from_logit_to"] for s in summary["randomised"]["steps"]] == list(STEPS)
