"""Methods of a detector see its images alone, and keep to the bound on false positives."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from tests.detector.conftest import original, upsampled

from semforensics.detector.networks import build_network
from semforensics.detector.scoring import score_images
from semforensics.trials.baselines import BASELINES, fit_features, measure_features
from semforensics.trials.detectors import METHODS, fit_methods, measure_images

CPU = torch.device("cpu")
NETWORK = build_network("npr_tiny", 1).eval()
NETWORKS = {("fastgan", 0): NETWORK, ("fastgan", 1): NETWORK}


def write(folder: Path, count: int, seed: int, size: int = 32) -> pd.DataFrame:
    """As many originals, in four groups, as up-sampled images, on disk."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    rows = []
    for index in range(2 * count):
        fake = index >= count
        path = folder / f"{index}.png"
        Image.fromarray((upsampled if fake else original)(rng, size)).save(path)
        rows.append(
            {"file": path.name, "class": "fake" if fake else "real",
             "group": f"f{index}" if fake else f"g{index % 4}", "path": path}
        )  # fmt: skip
    return pd.DataFrame(rows)


def measure(table: pd.DataFrame, size: int = 32, networks=NETWORKS):
    """Measure images cut to `size`."""
    return measure_images(table, networks, tile_px=16, size_px=(size, size), phases=4, device=CPU)


def read(table: pd.DataFrame) -> np.ndarray:
    """The pixels of a table."""
    return np.stack([np.array(Image.open(path)) for path in table["path"]])


def test_images_are_cut_at_even_places(tmp_path: Path) -> None:
    """Larger images are measured in their centre, from an even row and column on."""
    table = write(tmp_path / "a", 4, 0, 38)

    measured = measure(table, 32)

    cut = np.ascontiguousarray(read(table)[:, 2:34, 2:34])  # 3 would move the 2x2 grid
    for name in BASELINES:
        np.testing.assert_array_equal(measured.features[name], measure_features(name, cut, 16))
    expected = score_images(NETWORK, torch.from_numpy(cut)[:, None], phases=4, device=CPU)
    np.testing.assert_array_equal(measured.logits["fastgan", 0], expected)


def test_images_of_two_sizes_are_refused(tmp_path: Path) -> None:
    """A chunk of another size, and images that are too small, are named."""
    table = write(tmp_path / "a", 3, 0, 32)
    with pytest.raises(ValueError, match=r"0\.png: 32x32 px, expected 40x40 px"):
        measure(table, 40)
    with pytest.raises(ValueError, match="expected 32x32 px as"):
        measure(pd.concat([table, write(tmp_path / "b", 1, 0, 40)]))


def test_pick_and_join_keep_the_order(tmp_path: Path) -> None:
    """Images come in the order that is asked for; a file that is listed twice is read once."""
    table = write(tmp_path / "a", 4, 0)
    measured = measure(pd.concat([table, table]))

    backwards = measured.pick(table["path"][::-1])
    halves = measured.pick(table["path"][:3]).join(measured.pick(table["path"][3:]))

    assert len(measured.paths) == 8
    for name, values in measured.features.items():
        np.testing.assert_array_equal(backwards.features[name], values[::-1])
        np.testing.assert_array_equal(halves.features[name], values)
    for key, logits in measured.logits.items():
        np.testing.assert_array_equal(backwards.logits[key], logits[::-1])
        np.testing.assert_array_equal(halves.logits[key], logits)


def test_methods_are_fitted_on_their_images_alone(tmp_path: Path) -> None:
    """Scores are those of baselines fitted by themselves; thresholds keep to their bound."""
    train, validation = write(tmp_path / "a", 24, 0), write(tmp_path / "b", 20, 1)
    foreign = write(tmp_path / "c", 10, 2).assign(**{"class": "real"})
    fresh = write(tmp_path / "d", 10, 3)
    learned, held_out = measure(pd.concat([foreign, train]), networks={}), measure(validation)

    fitted = fit_methods(
        "fastgan", [0.5, -0.5], train, validation, learned, held_out, max_false_positive_rate=0.1
    )

    scores = fitted.score(measure(fresh))
    assert set(scores) == set(METHODS)
    assert scores["npr"].shape == (2, 20)
    is_fake = (train["class"] == "fake").to_numpy()
    for name in BASELINES:
        own, new = (measure_features(name, read(table), 16) for table in (train, fresh))
        alone = fit_features(name, own, is_fake, train["group"].to_numpy(dtype=str))
        np.testing.assert_allclose(scores[name][0], alone.score(new), atol=1e-5)
    np.testing.assert_array_equal(fitted.thresholds["npr"], [0.5, -0.5])
    reals = (validation["class"] == "real").to_numpy()
    for name in BASELINES:
        called = fitted.score(held_out)[name][0] > fitted.thresholds[name]
        assert called[reals].mean() <= 0.1
        assert called[~reals].mean() > 0.9
