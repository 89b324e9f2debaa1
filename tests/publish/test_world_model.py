"""Packing the detector for any instrument into the file that `screen` loads."""

from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd
import pytest
import torch

from semforensics.core.checkpoints import save_checkpoint
from semforensics.core.errors import InputError
from semforensics.core.images import write_grey_png
from semforensics.core.tables import CATALOGUE_COLUMNS, CROP_COLUMNS
from semforensics.detector.expected import Expectation
from semforensics.detector.panels import LEAST_FAKES
from semforensics.detector.scoring import MODEL_FILE
from semforensics.detector.traces import CELLS
from semforensics.detector.world_calibration import save_calibration
from semforensics.detector.world_data import WorldData
from semforensics.detector.world_network import ARCHITECTURE, WorldNetwork
from semforensics.params import Origin, PackageWorldParams, WorldPart
from semforensics.publish import world_model
from semforensics.publish.world_model import package_world
from semforensics.screening.judge.model import load_model
from semforensics.screening.judge.world_model import WorldModel
from semforensics.screening.screener import Screener
from tests.screening.small_model import SIZE_PX, crops, doubled, original

CPU = torch.device("cpu")
PARAMS = PackageWorldParams(
    name="small",
    material="simulated particles",
    instrument="none",
    source="made here",
    limits=("Fit for tests.",),
    num_references=12,
    origins={"collection 1": Origin(licence="MIT", source="example.org, Smith 2020")},
)
FOLDERS = ("cropped", "reconstructed/one", "reconstructed/two")


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the stages before leave: crops of four micrographs, fakes, networks, a calibration."""
    root = tmp_path_factory.mktemp("stages")
    rows = []
    for area, split in enumerate(("train", "train", "validation", "test")):
        greys = original(area)[:192, :192], doubled(original(area)[:192, :192])
        for folder, grey in zip(FOLDERS, (greys[0], greys[1], greys[1]), strict=True):
            (root / folder).mkdir(parents=True, exist_ok=True)
            for top, left, crop in crops(grey):
                file = f"{area}_{top}_{left}.png"
                write_grey_png(root / folder / file, crop)
                if folder == "cropped":
                    known = {"file": file, "micrograph": f"{area}.tif", "group": f"group {area}"}
                    place = {"split": split, "top_px": top, "left_px": left}
                    rows.append(known | place | {"collection": f"collection {area}"})
    table = pd.DataFrame(rows).reindex(columns=[*CROP_COLUMNS, "split", "collection"])
    table.to_csv(root / "splits.csv", index=False)
    listed = {"sha256": "0" * 64, "size_bytes": 1, "width_px": 9, "height_px": 9, "bit_depth": 8}
    listed |= {"source": "a | repository", "licence": "CC BY 4.0", "group": "g"}
    micrographs = [{"file": f"{area}.tif", **listed} for area in range(4)]
    catalogue = pd.DataFrame(micrographs).reindex(columns=list(CATALOGUE_COLUMNS))
    catalogue.to_csv(root / "catalogue.csv", index=False)
    torch.manual_seed(0)
    for part in get_args(WorldPart):
        left_out = [f"collection {part[-1]}"]
        meta = {"architecture": ARCHITECTURE, "arguments": {}, "left_out": left_out}
        path = root / "world" / part / MODEL_FILE
        save_checkpoint(
            path, WorldNetwork().state_dict(), meta | {"families_left_out": []}, half=True
        )
    rng = np.random.default_rng(0)
    kinds = [("", f"unit {i}") for i in range(24)] + [("one", f"u {i}") for i in range(LEAST_FAKES)]
    panels = [
        {"cell": cell, "unit": unit, "family": family, "shrunk": 1.0, "logits": logits}
        for cell in CELLS
        for family, unit in kinds
        for logits in [rng.normal(size=9).astype("f4")]
    ]
    (root / "calibration").mkdir()
    levels = dict.fromkeys(get_args(WorldPart), (0.1, 2.0))
    expectation = Expectation(np.zeros(8), np.ones(8), np.zeros(9))
    save_calibration(pd.DataFrame(panels), levels, expectation, root / "calibration")
    return root


def package(root: Path, out: Path) -> str:
    """Package what is there."""
    images = (root / "splits.csv", root / "reconstructed", root / "pseudo", root / "none")
    data = WorldData(root / "cropped", *images)
    where = root / "world", root / "calibration", root / "catalogue.csv"
    return package_world(data, *where, out, params=PARAMS, published=(), source="simulated")


@pytest.fixture(scope="module")
def packed(stages: Path) -> Path:
    """The folder of the packed model."""
    assert "parts searched for" in package(stages, stages / "out")
    return stages / "out"


def test_the_file_holds_all_that_screening_needs(packed: Path) -> None:
    """Network, calibration, domain, references and the search for parts, in 16 bits."""
    model = load_model(packed / MODEL_FILE, CPU)

    assert isinstance(model, WorldModel)
    assert model.size_px == SIZE_PX
    assert {name: cell.num_units for name, cell in model.cells.items()} == dict.fromkeys(CELLS, 24)
    assert model.parts is not None
    assert model.references.names == ()
    assert model.references.spectra_db.shape == (3, len(model.references.frequencies))
    assert model.about["training_domain"]["train"] == "27 crops of 3 collections"
    assert model.about["training_domain"]["generators"] == ["one"]
    assert (packed / MODEL_FILE).stat().st_size < 6_000_000
    found = Screener(model, evidence=False).judge([original(5)])[0]
    assert found.n_tiles == 35
    assert found.p_part is not None or found.share_inside <= 0.5


def test_the_card_names_sources_and_power(packed: Path) -> None:
    """Each collection with its licence, each cell in words, the limits."""
    card = (packed / "README.md").read_text()

    assert "| collection 0 | 1 | 9 | CC BY 4.0 | a \\| repository |" in card
    assert "| collection 1 | 1 | 9 | MIT | example.org, Smith 2020 |" in card
    assert "collection 3" not in card
    for words in CELLS.values():
        assert f"| {words} | 24 | 1 | 0." in card
    assert "- Fit for tests." in card


def test_nothing_is_packed_where_nothing_was_trained(stages: Path, tmp_path: Path) -> None:
    """The stage is off with the training."""
    (tmp_path / "world/fold_0").mkdir(parents=True)
    (tmp_path / "world/fold_0/off.json").write_text("{}")
    for name in ("cropped", "reconstructed", "splits.csv", "calibration"):
        (tmp_path / name).symlink_to(stages / name)

    assert package(tmp_path, tmp_path / "out").startswith("off: train_world is")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["off.json"]


def test_a_file_that_is_too_large_is_refused(
    stages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is written."""
    monkeypatch.setattr(world_model, "MOST_BYTES", 1000)
    monkeypatch.setattr(world_model, "measure_world_parts", lambda *_, **__: None)

    with pytest.raises(InputError, match=r"model\.safetensors: \d+ bytes, at most 1000"):
        package(stages, tmp_path / "out")
    assert not (tmp_path / "out").exists()
