"""Files give away their history, and groups do not pass for classes."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from semforensics.core.images import write_grey_png
from semforensics.core.processing import jpeg
from semforensics.trials.file_features import (
    cross_validated_scores,
    feature_table,
    group_folds,
    header_features,
    pixel_features,
)
from semforensics.trials.metrics import auroc


def grey(seed: int = 0) -> np.ndarray:
    """Noise about a slope."""
    rng = np.random.default_rng(seed)
    return (np.linspace(60, 180, 64) + rng.normal(0, 10, (64, 64))).round().astype(np.uint8)


def test_canonical_files_have_nothing_in_their_headers(tmp_path: Path) -> None:
    """Grey PNG of its size, without metadata."""
    write_grey_png(tmp_path / "a.png", grey())

    assert header_features(tmp_path / "a.png") == {
        "suffix": ".png", "format": "PNG", "mode": "L", "width_px": 64, "height_px": 64,
        "metadata": 0, "channel_difference": 0,
    }  # fmt: skip


def test_headers_tell_format_metadata_and_tint(tmp_path: Path) -> None:
    """Whatever the name says; palettes are looked up."""
    tinted = np.stack([grey(), grey(), grey() - 9], axis=2)
    Image.fromarray(tinted).save(tmp_path / "a.png", dpi=(300, 300))
    Image.fromarray(grey()).save(tmp_path / "b.png", "JPEG")
    palette = Image.fromarray(grey()).convert("P")
    palette.putpalette([v for level in range(256) for v in (level, level, min(255, level + 3))])
    palette.save(tmp_path / "c.png")

    first, second, third = (header_features(tmp_path / f"{name}.png") for name in "abc")

    assert (first["mode"], first["channel_difference"], first["metadata"]) == ("RGB", 9, 1)
    assert (second["suffix"], second["format"]) == (".png", "JPEG")
    assert second["metadata"] > 0
    assert third["channel_difference"] == 3


def test_what_is_no_image_is_named(tmp_path: Path) -> None:
    """The path stands in the message."""
    (tmp_path / "a.png").write_text("no image")

    with pytest.raises(ValueError, match=r"a\.png: not an image"):
        header_features(tmp_path / "a.png")


def test_pixels_tell_compression_stretched_levels_and_borders(tmp_path: Path) -> None:
    """Each trace raises its own feature, and is near 0 without it."""
    image = grey()
    framed = image.copy()
    framed[[0, -1]] = framed[[0, -1]] // 2
    stretched = (image.astype(float) * 1.4).clip(0, 255).astype(np.uint8)
    variants = {"plain": image, "jpeg": jpeg(image, 30), "frame": framed, "stretch": stretched}
    for name, pixels in variants.items():
        write_grey_png(tmp_path / f"{name}.png", pixels)

    found = {name: pixel_features(tmp_path / f"{name}.png") for name in variants}

    plain = found["plain"]
    assert abs(plain["blockiness"]) < 0.05
    assert abs(plain["border"]) < 0.2
    assert found["jpeg"]["blockiness"] > plain["blockiness"] + 0.2
    assert found["frame"]["border"] > plain["border"] + 0.3
    assert found["stretch"]["comb"] > 3 * plain["comb"]
    assert plain["grey_levels"] == len(np.unique(image))
    size = (tmp_path / "plain.png").stat().st_size
    assert plain["bits_per_pixel"] == pytest.approx(8 * size / image.size)


def test_a_flat_image_has_features_too(tmp_path: Path) -> None:
    """No step between pixels is no error."""
    write_grey_png(tmp_path / "a.png", np.full((16, 16), 9, dtype=np.uint8))

    assert pixel_features(tmp_path / "a.png")["blockiness"] == 0


def test_features_that_never_vary_say_nothing() -> None:
    """Their AUROC is one half exactly, and so is its interval."""
    is_fake = np.arange(40) >= 20
    groups = np.array([f"{i // 2}" for i in range(40)])
    features = pd.DataFrame({"format": ["PNG"] * 40, "width_px": [64] * 40})

    table = feature_table(features, is_fake, groups, 100, 0)

    assert table["feature"].tolist() == ["all", "format", "width_px"]
    assert (table[["auroc", "auroc_low", "auroc_high"]] == 0.5).all(axis=None)


def test_what_tells_groups_does_not_tell_classes() -> None:
    """A word of its own in each group is no help for groups that were not seen."""
    rng = np.random.default_rng(0)
    is_fake = np.arange(200) >= 100
    groups = np.array([f"g{i // 10}" for i in range(200)])
    features = pd.DataFrame({"word": groups, "noise": rng.normal(size=200)})
    folds = group_folds(is_fake, groups, 0)

    scores = cross_validated_scores(features, is_fake, folds)

    assert all(len(set(folds[groups == group])) == 1 for group in groups)
    assert 0.25 < auroc(scores, is_fake) < 0.75


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
    with pytest.raises(ValueError, match="single group"):
        group_folds(np.array([True, True, False, False]), np.array(["a", "b", "c", "c"]), 0)
