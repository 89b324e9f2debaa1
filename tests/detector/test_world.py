"""Folds of collections, and the training of a fold."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from semforensics.core.errors import InputError
from semforensics.core.images import write_grey_png
from semforensics.core.tables import CROP_COLUMNS, read_text
from semforensics.core.training import Setup
from semforensics.detector import world
from semforensics.detector.frozen import FrozenTrunk
from semforensics.detector.heads import statistics_of
from semforensics.detector.panels import GRID
from semforensics.detector.world import divide, learning_rate, load_fold, load_trunk, train_world
from semforensics.detector.world_calibration import load_calibration
from semforensics.params import TrainWorldParams

TINY = TrainWorldParams(
    folds=2,
    steps=4,
    pairs=2,
    crop_px=32,
    width=4,
    lr=0.01,
    weight_decay=0.0,
    ema_decay=0.9,
    precision="float32",
    head_pairs=6,
    head_crop_px=64,
    head_strength=0.1,
)
COLLECTIONS = {"large": 6, "middle": 3, "small": 2}


CPU = torch.device("cpu")


@pytest.fixture(scope="module", autouse=True)
def _trunk() -> Iterator[None]:
    """A frozen network of random weights, in the place of the published one."""
    torch.manual_seed(5)
    trunk = FrozenTrunk().eval()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(world, "fetch_trunk", lambda _scratch: trunk)
        yield


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Crops of three collections, and fakes of two autoencoders."""
    root = tmp_path_factory.mktemp("world")
    for folder in ("cropped", "reconstructed/one", "reconstructed/two"):
        (root / folder).mkdir(parents=True)
    rng = np.random.default_rng(0)
    rows = []
    for collection, count in COLLECTIONS.items():
        for index in range(count):
            file = f"{collection}_{index}.png"
            real = rng.integers(0, 256, (72, 72), dtype=np.uint8)
            write_grey_png(root / "cropped" / file, real)
            for shift, name in ((1, "one"), (2, "two")):
                write_grey_png(root / f"reconstructed/{name}" / file, np.roll(real, shift) // 2)
            split = ("train", "test", "validation")[index % 3] if collection == "large" else "train"
            micrograph, left = f"{collection}_{index // 2}", 72 * (index % 2)
            known = {"file": file, "micrograph": micrograph, "group": file, "split": split}
            rows.append(known | {"collection": collection, "top_px": 0, "left_px": left})
    table = pd.DataFrame(rows).reindex(columns=[*CROP_COLUMNS, "split", "collection"])
    table.to_csv(root / "splits.csv", index=False)
    return root


def run(images: Path, out: Path, params: TrainWorldParams = TINY, **more: str) -> str:
    """Train all folds."""
    return train_world(
        images / "cropped",
        images / "splits.csv",
        images / more.get("reconstructed", "reconstructed"),
        out,
        params=params,
        setup=Setup(0, out.with_name(f"{out.name}_scratch"), CPU, 0.0),
    )


@pytest.fixture(scope="module")
def trained(images: Path) -> Path:
    """The folder of all folds, trained once."""
    run(images, images / "out")
    return images / "out"


def files(folder: Path) -> dict[str, bytes]:
    """All files of a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_folds_are_of_about_equal_size_and_hold_each_collection_once() -> None:
    """Sizes count by their roots; autoencoders take turns in being left out."""
    names = [
        name for name, count in {"a": 16, "b": 9, "c": 4, "d": 1}.items() for _ in range(count)
    ]

    folds = divide(names, ["one", "two"], 3)

    assert [fold.collections for fold in folds] == [("a",), ("b",), ("c", "d")]
    assert [fold.autoencoder for fold in folds] == ["one", "two", "one"]
    assert divide(names, ["one"], 2)[0].autoencoder is None
    with pytest.raises(InputError, match="4 collections, need at least 5"):
        divide(names, ["one"], 5)


def test_each_fold_has_a_network_and_says_what_it_left_out(images: Path, tmp_path: Path) -> None:
    """The table of folds names every collection; networks differ."""
    summary = run(images, tmp_path / "out")

    table = read_text(tmp_path / "out/folds.csv", ["collection", "fold", "autoencoder"])
    assert sorted(table["collection"]) == sorted(COLLECTIONS)
    assert dict(zip(table["fold"], table["autoencoder"], strict=True)) == {"0": "one", "1": "two"}
    first, second = (load_fold(tmp_path / f"out/fold_{index}.safetensors") for index in (0, 1))
    assert not torch.equal(first[0].head.weight, second[0].head.weight)
    assert not np.array_equal(first[1].weight, second[1].weight)
    assert summary.startswith("2 folds of 9 crops")
    assert not (tmp_path / "out_scratch").exists()


def test_the_calibration_holds_panels_of_every_history(trained: Path, tmp_path: Path) -> None:
    """Each micrograph is there as a real and as a fake, by networks that have not seen it."""
    cells, weights = load_calibration(trained)

    assert set(cells) == set(weights) == set(GRID)
    for cell in cells.values():
        assert {p.unit for p in cell.panels if not p.family} == set(COLLECTIONS)
        assert {p.family for p in cell.panels} == {"", "one", "two"}
        assert len(cell.panels) == 2 * 6
    power = read_text(trained / "power.csv", ["history", "tiles", "power"])
    assert len(power) == 3 * len(GRID)
    assert all(0 <= float(share) <= 1 for share in power["power"])
    with pytest.raises(FileNotFoundError, match="no such file"):
        load_calibration(tmp_path)


def test_the_stored_trunk_and_head_score_images(trained: Path) -> None:
    """What is read from the files describes and scores images."""
    stack = torch.from_numpy(np.stack([np.full((64, 64), level, np.uint8) for level in (9, 90)]))

    statistics = statistics_of(load_trunk(trained), stack[:, None], CPU)

    logits = load_fold(trained / "fold_0.safetensors")[1].logits(statistics)
    assert logits.shape == (2,)
    assert np.isfinite(logits).all()


def test_another_file_is_no_fold(trained: Path) -> None:
    """A trunk in the place of a fold is refused, and a missing file is named."""
    with pytest.raises(InputError, match="not the detector it says it holds"):
        load_fold(trained / "trunk.safetensors")
    with pytest.raises(FileNotFoundError, match="no such file"):
        load_fold(trained / "fold_9.safetensors")


def test_a_killed_training_ends_with_the_same_bytes(
    images: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is resumed after the last saved step of its fold."""
    steps = iter(range(6))  # the second fold is cut after two steps
    whole_loss = world.pair_loss

    def killed(logits: torch.Tensor) -> torch.Tensor:
        if next(steps, None) is None:
            raise KeyboardInterrupt
        return whole_loss(logits)

    with monkeypatch.context() as patch:
        patch.setattr(world, "pair_loss", killed)
        with pytest.raises(KeyboardInterrupt):
            run(images, tmp_path / "part")
    run(images, tmp_path / "part")

    assert files(tmp_path / "part") == files(trained)


def test_it_is_off_without_folds_or_without_fakes(images: Path, tmp_path: Path) -> None:
    """Then the folder says so and holds nothing else."""
    (tmp_path / "none").mkdir()
    run(images, tmp_path / "a", TINY.model_copy(update={"folds": 0}))
    run(images, tmp_path / "b", reconstructed=str(tmp_path / "none"))

    for name in "ab":
        assert [path.name for path in (tmp_path / name).iterdir()] == ["off.json"]


def test_a_missing_fake_is_named(images: Path, tmp_path: Path) -> None:
    """Training does not begin."""
    (tmp_path / "fakes/one").mkdir(parents=True)

    with pytest.raises(FileNotFoundError, match=r"one/middle_0\.png"):
        run(images, tmp_path / "out", reconstructed=str(tmp_path / "fakes"))


def test_the_learning_rate_rises_then_falls() -> None:
    """A hundred steps up, half a cosine down."""
    params = TINY.model_copy(update={"steps": 1000, "lr": 1.0})

    rates = [learning_rate(params, step) for step in (1, 100, 500, 1000)]

    assert rates[0] == pytest.approx(0.01)
    assert rates[1] > 0.95
    assert rates[2] == pytest.approx(0.5, abs=0.01)
    assert rates[3] < 1e-4
