"""Pixels give away their history, and groups do not pass for classes."""

import numpy as np
import pandas as pd
import pytest

from semforensics.core.errors import InputError
from semforensics.core.processing import jpeg
from semforensics.trials.metrics import auroc
from semforensics.trials.pixel_features import (
    cross_validated_scores,
    feature_table,
    pixel_features,
)


def grey(seed: int = 0) -> np.ndarray:
    """Noise about a slope."""
    rng = np.random.default_rng(seed)
    return (np.linspace(60, 180, 64) + rng.normal(0, 10, (64, 64))).round().astype(np.uint8)


def test_pixels_tell_compression_stretched_levels_and_borders() -> None:
    """Each trace raises its own feature, and is near 0 without it."""
    image = grey()
    framed = image.copy()
    framed[[0, -1]] = framed[[0, -1]] // 2
    stretched = (image.astype(float) * 1.4).clip(0, 255).astype(np.uint8)
    variants = {"plain": image, "jpeg": jpeg(image, 30), "frame": framed, "stretch": stretched}

    found = {name: pixel_features(pixels, 3000) for name, pixels in variants.items()}

    plain = found["plain"]
    assert abs(plain["blockiness"]) < 0.05
    assert abs(plain["border"]) < 0.2
    assert found["jpeg"]["blockiness"] > plain["blockiness"] + 0.2
    assert found["frame"]["border"] > plain["border"] + 0.3
    assert found["stretch"]["comb"] > 3 * plain["comb"]
    assert plain["grey_levels"] == len(np.unique(image))
    assert plain["bits_per_pixel"] == pytest.approx(8 * 3000 / image.size)


def test_a_flat_image_has_features_too() -> None:
    """No step between pixels is no error."""
    assert pixel_features(np.full((16, 16), 9, dtype=np.uint8), 99)["blockiness"] == 0


def test_features_that_never_vary_say_nothing() -> None:
    """Their AUROC is one half exactly, and so is its interval."""
    is_fake = np.arange(40) >= 20
    groups = np.array([f"{i // 2}" for i in range(40)])
    features = pd.DataFrame({"grey_levels": [9] * 40, "comb": [0.5] * 40})

    table = feature_table(features, is_fake, groups, 100, 0)

    assert table["feature"].tolist() == ["all", "grey_levels", "comb"]
    assert (table[["auroc", "auroc_low", "auroc_high"]] == 0.5).all(axis=None)


def test_what_tells_groups_does_not_tell_classes() -> None:
    """A number that is the same within each group is no help for groups that were not seen."""
    rng = np.random.default_rng(0)
    is_fake = np.arange(200) >= 100
    groups = np.array([f"g{i // 10}" for i in range(200)])
    features = pd.DataFrame({"of_group": np.repeat(rng.normal(size=20), 10)})
    for group in range(20):  # one column per group would name each of them
        features[f"is_{group}"] = (np.arange(200) // 10 == group).astype(float)

    scores = cross_validated_scores(features, is_fake, groups, 0)

    assert 0.2 < auroc(scores, is_fake) < 0.8


def test_a_telling_feature_is_found_among_others() -> None:
    """The joint score and its own are high, those of the others are not."""
    rng = np.random.default_rng(0)
    is_fake = np.arange(200) >= 100
    groups = np.array([f"g{i // 10}" for i in range(200)])
    features = pd.DataFrame({"size": is_fake + rng.normal(0, 0.1, 200), "x": rng.normal(size=200)})

    table = feature_table(features, is_fake, groups, 200, 0).set_index("feature")

    assert table.loc["all", "auroc"] > 0.95
    assert table.loc["size", "auroc_low"] > 0.95
    assert table.loc["x", "auroc_low"] < 0.6
    assert float(table.loc["size", "fake"]) == pytest.approx(1, abs=0.05)


def test_one_group_cannot_be_validated_across_groups() -> None:
    """Both classes need two."""
    features = pd.DataFrame({"x": [1.0, 2.0, 3.0, 4.0]})

    with pytest.raises(InputError, match="single group"):
        cross_validated_scores(
            features, np.array([True, True, False, False]), np.array(["a", "b", "c", "c"]), 0
        )
