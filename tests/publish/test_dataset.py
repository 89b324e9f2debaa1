"""The published dataset: neutral names, whole provenance, and no pixel without a licence."""

import csv
import hashlib
import json
import warnings
from pathlib import Path

import pandas as pd
import pytest
import torch

from semforensics.core.checkpoints import save_checkpoint
from semforensics.core.tables import CATALOGUE_COLUMNS
from semforensics.params import PackageDatasetParams
from semforensics.publish.croissant import COLUMNS
from semforensics.publish.dataset import package_dataset
from tests.detector.conftest import Folders, write_data

ABOUT = PackageDatasetParams(
    name="tiny",
    description="A tiny dataset.",
    attribution="Boiko et al. 2020, doi 10.1038/s41597-020-0439-1, CC BY 4.0. Changes: cropped.",
    creator="The semforensics authors",
    url="https://example.org/tiny",
    version="0.1.0",
    date="2026-11-25",
)


def prepare(root: Path, licence: str) -> Folders:
    """30 reals of 10 groups, 40 fakes, a catalogue and a checkpoint."""
    folders = write_data(root, per_group=3, fakes=40)
    table = pd.read_csv(folders.splits)
    known = {"source": "folder", "licence": licence, "group": "known to the splits"}
    header = {"size_bytes": 1, "width_px": 1, "height_px": 1, "bit_depth": 8}
    rows = [
        {"file": name, "sha256": hashlib.sha256(name.encode()).hexdigest(), **known, **header}
        for name in sorted(set(table["micrograph"]))
    ]
    catalogue = pd.DataFrame(rows, columns=list(CATALOGUE_COLUMNS))
    catalogue.to_csv(root / "catalogue.csv", index=False)
    save_checkpoint(
        root / "checkpoints/fastgan/generator.safetensors",
        {"weight": torch.zeros(2, 2)},
        {"architecture": "fastgan"},
    )
    return folders


def package(root: Path, folders: Folders, seed: int = 0) -> str:
    """Package FastGAN's fakes and the reals."""
    return package_dataset(
        folders.corpus(seed=seed), root / "catalogue.csv", root / "checkpoints",
        root / "published", params=ABOUT, snapshots={"fastgan": "last"},
    )  # fmt: skip


def manifest(root: Path) -> list[dict[str, str]]:
    """The rows of the manifest."""
    with (root / "published/manifest.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_image_is_there_with_where_it_came_from(tmp_path: Path) -> None:
    """Files are copies byte by byte; hashes, sides, seeds and checkpoints are those of the data."""
    folders = prepare(tmp_path, "CC BY 4.0")

    summary = package(tmp_path, folders)

    rows = manifest(tmp_path)
    assert list(rows[0]) == list(COLUMNS)
    assert "30 reals and 40 fakes" in summary
    originals = {
        hashlib.sha256(p.read_bytes()).hexdigest(): p
        for p in [*folders.cropped.iterdir(), *(folders.fakes / "fastgan").iterdir()]
    }
    for row in rows:
        copy = tmp_path / "published" / row["file"]
        assert hashlib.sha256(copy.read_bytes()).hexdigest() == row["sha256"]
        assert row["sha256"] in originals
        assert row["file"].startswith(f"{row['class']}/")
    checkpoint = (tmp_path / "checkpoints/fastgan/generator.safetensors").read_bytes()
    fakes = [row for row in rows if row["class"] == "fake"]
    assert {row["checkpoint_sha256"] for row in fakes} == {hashlib.sha256(checkpoint).hexdigest()}
    assert sorted(int(row["seed"]) for row in fakes) == list(range(40))
    sides = pd.read_csv(folders.splits).set_index("file")["split"]
    for row in (row for row in rows if row["class"] == "real"):
        assert row["split"] == sides[originals[row["sha256"]].name]
        assert row["licence"] == "CC BY 4.0"
        assert row["micrograph"]


def test_names_tell_nothing(tmp_path: Path) -> None:
    """Numbers follow neither seeds nor names; another seed draws another order."""
    folders = prepare(tmp_path, "MIT")

    package(tmp_path, folders)
    first = {row["file"]: row["sha256"] for row in manifest(tmp_path)}
    package(tmp_path, folders)
    again = {row["file"]: row["sha256"] for row in manifest(tmp_path)}
    package(tmp_path, folders, seed=1)
    other = {row["file"]: row["sha256"] for row in manifest(tmp_path)}

    assert first == again
    assert first != other
    assert set(first) == {
        *(f"real/{i:06d}.png" for i in range(30)),
        *(f"fake/{i:06d}.png" for i in range(40)),
    }
    seeds = [int(r["seed"]) for r in manifest(tmp_path) if r["class"] == "fake"]
    assert seeds != sorted(seeds)


@pytest.mark.parametrize("licence", ["unknown", "CC BY-NC 4.0", ""])
def test_reals_that_may_not_be_passed_on_are_references(tmp_path: Path, licence: str) -> None:
    """Of such reals there are hashes and names, and no file."""
    folders = prepare(tmp_path, licence)

    summary = package(tmp_path, folders)

    assert list((tmp_path / "published/real").iterdir()) == []
    assert len(list((tmp_path / "published/fake").iterdir())) == 40
    reals = [row for row in manifest(tmp_path) if row["class"] == "real"]
    assert all(row["file"] == "" and row["sha256"] and row["micrograph"] for row in reals)
    assert "30 of them as references only" in summary


def test_the_card_carries_the_attribution(tmp_path: Path) -> None:
    """Attribution, counts and licences stand in README.md; simulated reals are called so."""
    folders = prepare(tmp_path, "CC BY 4.0")
    package(tmp_path, folders)
    card = (tmp_path / "published/README.md").read_text()
    table = pd.read_csv(tmp_path / "catalogue.csv").assign(source="simulated")
    table.to_csv(tmp_path / "catalogue.csv", index=False)

    package(tmp_path, folders)

    assert ABOUT.attribution in card
    assert "| images | 30 | 40 |" in card
    assert "simulated" not in card
    assert "simulated micrographs" in (tmp_path / "published/README.md").read_text()


def test_the_description_is_croissant_and_gives_the_records(tmp_path: Path) -> None:
    """MLCommons' own library takes it without a complaint and reads every line."""
    mlcroissant = pytest.importorskip("mlcroissant")
    folders = prepare(tmp_path, "CC BY 4.0")
    package(tmp_path, folders)
    path = tmp_path / "published/croissant.json"

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of libraries underneath
        dataset = mlcroissant.Dataset(jsonld=path)
        records = list(dataset.records("images"))

    issues = dataset.metadata.ctx.issues
    assert not issues.errors
    assert len(records) == 70
    by_hash = {record["images/sha256"].decode(): record for record in records}
    for row in manifest(tmp_path):
        record = by_hash[row["sha256"]]
        assert record["images/split"].decode() == row["split"]
        assert record["images/width_px"] == int(row["width_px"])
    assert json.loads(path.read_text())["conformsTo"] == "http://mlcommons.org/croissant/1.0"


def test_what_does_not_fit_together_leaves_nothing(tmp_path: Path) -> None:
    """A micrograph that the catalogue lacks is named; the older dataset stays."""
    folders = prepare(tmp_path, "MIT")
    package(tmp_path, folders)
    before = sorted(p.name for p in (tmp_path / "published").rglob("*"))
    table = pd.read_csv(tmp_path / "catalogue.csv")
    table.iloc[1:].to_csv(tmp_path / "catalogue.csv", index=False)

    with pytest.raises(ValueError, match=f"no {table['file'][0]}"):
        package(tmp_path, folders)
    (tmp_path / "checkpoints/fastgan/generator.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"generator\.safetensors"):
        package(tmp_path, folders)

    assert sorted(p.name for p in (tmp_path / "published").rglob("*")) == before
