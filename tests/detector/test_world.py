"""Folds of collections, and the training of a fold."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd
import pytest
import torch

from semforensics.core.checkpoints import load_checkpoint, save_checkpoint
from semforensics.core.errors import InputError
from semforensics.core.images import write_grey_png
from semforensics.core.tables import CROP_COLUMNS, read_text
from semforensics.core.training import Setup
from semforensics.detector import world
from semforensics.detector.panels import GRID
from semforensics.detector.scoring import MODEL_FILE
from semforensics.detector.traces import CELLS
from semforensics.detector.world import learning_rate, load_sources, train_world
from semforensics.detector.world_calibration import (
    calibrate_world,
    calibration_groups,
    load_calibration,
)
from semforensics.detector.world_data import Fold, WorldData, divide, load_world
from semforensics.generators.published.drawn import Drawn, write_drawn
from semforensics.params import CalibrateWorldParams, TrainWorldParams, WorldPart

TINY = TrainWorldParams(
    steps=3,
    published_trunk=False,
    generators=(),
    beside="",
    pairs=2,
    crop_px=32,
    smoothed_reals=0.3,
    noisy_fakes=0.2,
    drawn_pairs=0.5,
    lr=0.01,
    weight_decay=0.0,
    ema_decay=0.9,
    precision="float32",
)
COLLECTIONS = {"large": 6, "middle": 3, "small": 2}


CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Crops of three collections, and fakes of two families."""
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
            for shift, folder in ((1, "reconstructed/one"), (2, "reconstructed/two")):
                write_grey_png(root / folder / file, np.roll(real, shift) // 2)
            split = ("train", "test", "validation")[index % 3] if collection == "large" else "train"
            micrograph, left = f"{collection}_{index // 2}", 72 * (index % 2)
            known = {"file": file, "micrograph": micrograph, "group": file, "split": split}
            rows.append(known | {"collection": collection, "top_px": 0, "left_px": left})
    table = pd.DataFrame(rows).reindex(columns=[*CROP_COLUMNS, "split", "collection"])
    table.to_csv(root / "splits.csv", index=False)
    return root


def data_of(images: Path) -> WorldData:
    """Where the images are."""
    return WorldData(
        images / "cropped",
        images / "splits.csv",
        images / "reconstructed",
        images / "pseudo",
        images / "generators",
    )


def run(images: Path, out: Path, part: WorldPart, params: TrainWorldParams = TINY) -> str:
    """Train a part."""
    setup = Setup(0, out / f"{part}_scratch", CPU, 0.0)
    return train_world(part, data_of(images), out / part, params=params, setup=setup)


@pytest.fixture(scope="module")
def trained(images: Path) -> Path:
    """The folder of all parts, trained once."""
    for part in get_args(WorldPart):
        run(images, images / "out", part)
    return images / "out"


def test_folds_are_of_about_equal_size_and_hold_each_collection_once() -> None:
    """Sizes count by their roots; autoencoders take turns in being left out."""
    names = [
        name for name, count in {"a": 16, "b": 9, "c": 4, "d": 1}.items() for _ in range(count)
    ]

    folds = divide(names, ["one", "two"], 3)

    assert [fold.collections for fold in folds] == [("a",), ("b",), ("c", "d")]
    assert [fold.families for fold in folds] == [("one",), ("two",), ("one",)]
    five = divide(names, list("abcde"), 3)
    assert [fold.families for fold in five] == [("a", "d"), ("b", "e"), ("c",)]
    assert divide(names, ["one"], 2)[0].families == ()
    with pytest.raises(InputError, match="4 collections, need at least 5"):
        divide(names, ["one"], 5)


def test_a_part_says_what_it_left_out(trained: Path) -> None:
    """Its collections and a family; networks differ."""
    metas = [load_checkpoint(trained / part / MODEL_FILE)[1] for part in get_args(WorldPart)]

    assert sorted(name for meta in metas for name in meta["left_out"]) == sorted(COLLECTIONS)
    assert [meta["families_left_out"] for meta in metas] == [["one"], ["two"], ["one"]]
    first, second = (load_world(trained / part).head.weight for part in ("fold_0", "fold_1"))
    assert not torch.equal(first, second)
    assert not (trained / "fold_0_scratch").exists()


def test_training_leaves_the_test_split_alone_unless_crops_are_for_measuring(
    images: Path, tmp_path: Path
) -> None:
    """Crops that are marked take its place."""
    table = pd.read_csv(images / "splits.csv")
    data = data_of(images)

    marked = table.assign(use=np.where(table["collection"] == "small", "measure", ""))
    marked.to_csv(tmp_path / "splits.csv", index=False)

    assert set(data.learned()["split"]) == {"train", "validation"}
    learned = replace(data, splits=tmp_path / "splits.csv").learned()
    assert set(learned["collection"]) == {"large", "middle"}
    assert len(learned) == 9


def test_images_of_a_generator_stand_beside_reals_of_its_collection(
    images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And beside no others."""
    drawn = [np.full((72, 72), 7, np.uint8)] * 3
    monkeypatch.setattr(world, "draw_images", lambda *_: drawn)

    sources = load_sources(data_of(images), Fold(), ("gan",), "large")

    beside = [source for source in sources if source.collection == "large, GANs"]
    assert {len(source.fakes) for source in beside} == {3}
    assert all(image is drawn[0] for source in beside for image in source.fakes)
    assert {source.collection for source in sources} == {*COLLECTIONS, "large, GANs"}


def test_drawn_pictures_of_what_is_left_out_are_left_out(images: Path, tmp_path: Path) -> None:
    """Neither those of a family nor those of a collection that the fold does not see are there."""
    copied = tmp_path / "reconstructed"
    shutil.copytree(images / "reconstructed", copied)
    picture = np.zeros((256, 256), np.uint8)
    for family, level in (("one", 1), ("two", 2)):
        made = [
            Drawn("leaves", "", picture, picture + level),
            Drawn("micrograph", "small", picture, picture + level),
            Drawn("micrograph", "large", picture, picture + level),
        ]
        write_drawn(copied / family, iter(made))
    data = replace(data_of(images), reconstructed=copied)

    sources = load_sources(data, Fold(("large",), ("two",)), (), "")

    drawn = [source for source in sources if source.drawn]
    assert [source.collection for source in drawn] == ["leaves", "micrograph"]
    assert all((source.fakes[0] == 1).all() for source in drawn)
    assert {s.collection for s in sources if not s.drawn} == {"middle", "small"}


def test_the_calibration_holds_panels_of_every_history(
    images: Path, trained: Path, tmp_path: Path
) -> None:
    """Each micrograph is there as a real and as a fake, in the cell that its pixels tell."""
    params = CalibrateWorldParams(published=())
    calibrate_world(
        data_of(images), trained, tmp_path / "out", params=params, known=TINY, device=CPU
    )

    cells = load_calibration(tmp_path / "out")

    panels = [panel for cell in cells.values() for panel in cell.panels]
    assert {p.unit for p in panels if not p.family} == set(COLLECTIONS)
    assert {p.family for p in panels} == {"", "one", "two"}
    assert len(panels) == 2 * 6 * len(GRID)
    power = read_text(tmp_path / "out/power.csv", ["cell", "tiles", "units", "power"])
    assert len(power) == 3 * len(CELLS)
    assert all(0 <= float(share) <= 1 for share in power["power"])
    with pytest.raises(FileNotFoundError, match="no such file"):
        load_calibration(tmp_path)


def test_every_second_paper_calibrates() -> None:
    """In the order of their names, whatever that of the table is."""
    table = pd.DataFrame({"group": ["c", "a", "b", "a", "d"]})

    assert calibration_groups(table) == ["a", "c"]


def test_another_file_is_no_network(tmp_path: Path) -> None:
    """A file of something else is refused, and a missing one is named."""
    save_checkpoint(tmp_path / MODEL_FILE, {}, {"architecture": "another", "arguments": {}})

    with pytest.raises(InputError, match=r"model\.safetensors"):
        load_world(tmp_path)
    with pytest.raises(FileNotFoundError, match="no such file"):
        load_world(tmp_path / "none")


def test_a_killed_training_ends_with_the_same_bytes(
    images: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is resumed after the last saved step."""
    steps = iter(range(2))
    whole_loss = world.pair_loss

    def killed(logits: torch.Tensor) -> torch.Tensor:
        if next(steps, None) is None:
            raise KeyboardInterrupt
        return whole_loss(logits)

    with monkeypatch.context() as patch:
        patch.setattr(world, "pair_loss", killed)
        with pytest.raises(KeyboardInterrupt):
            run(images, tmp_path, "fold_1")
    run(images, tmp_path, "fold_1")

    for name in (MODEL_FILE, "losses.csv"):
        assert (tmp_path / "fold_1" / name).read_bytes() == (trained / "fold_1" / name).read_bytes()


def test_it_is_off_with_no_steps(images: Path, tmp_path: Path) -> None:
    """Then the folders say so and hold nothing else."""
    run(images, tmp_path, "fold_0", TINY.model_copy(update={"steps": 0}))
    params = CalibrateWorldParams(published=())
    calibrate_world(
        data_of(images), tmp_path, tmp_path / "out", params=params, known=TINY, device=CPU
    )

    for name in ("fold_0", "out"):
        assert [path.name for path in (tmp_path / name).iterdir()] == ["off.json"]


def test_pseudo_fakes_are_the_family_where_there_is_no_other(images: Path, tmp_path: Path) -> None:
    """Families that are off, and folders that are being written, do not count."""
    for name in ("off", ".two.1.part"):
        (tmp_path / name).mkdir()
    (tmp_path / "off/off.json").write_text("{}")

    assert list(data_of(images).families()) == ["one", "two"]
    assert list(replace(data_of(images), reconstructed=tmp_path).families()) == ["pseudo"]


def test_a_missing_fake_is_named(images: Path, tmp_path: Path) -> None:
    """Training does not begin."""
    (tmp_path / "of/fakes").mkdir(parents=True)
    data = replace(data_of(images), reconstructed=tmp_path / "of")

    with pytest.raises(FileNotFoundError, match=r"fakes/middle_0\.png"):
        train_world(
            "fold_0", data, tmp_path / "out", params=TINY, setup=Setup(0, tmp_path / "s", CPU)
        )


def test_the_learning_rate_rises_then_falls() -> None:
    """A hundred steps up, half a cosine down."""
    params = TINY.model_copy(update={"steps": 1000, "lr": 1.0})

    rates = [learning_rate(params, step) for step in (1, 100, 500, 1000)]

    assert rates[0] == pytest.approx(0.01)
    assert rates[1] > 0.95
    assert rates[2] == pytest.approx(0.5, abs=0.01)
    assert rates[3] < 1e-4
