"""Put crops and fakes into the two folders of a published dataset, with where each came from.

Names say nothing but a number, drawn at random within each folder: neither order nor name tells
generators, splits or micrographs apart. Files are copies byte by byte, so DVC stores them once.
Micrographs whose licence does not let others pass them on are not copied: for them the manifest
holds hashes and names only, with which their owner can be asked.
"""

import csv
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from semforensics.core.checkpoints import load_checkpoint
from semforensics.core.errors import InputError
from semforensics.core.files import atomic_folder, sha256_of
from semforensics.detector.corpus import Corpus
from semforensics.params import PackageDatasetParams
from semforensics.publish.card import dataset_card
from semforensics.publish.croissant import describe_dataset, write_description

COLUMNS = (
    "file",
    "class",
    "sha256",
    "width_px",
    "height_px",
    "split",
    "group",
    "generator",
    "seed",
    "checkpoint_sha256",
    "micrograph",
    "micrograph_sha256",
    "source",
    "licence",
    "protocol",
)
OPEN_LICENCES = ("MIT", "CC0 1.0", "CC BY 4.0", "CC BY-SA 4.0")
"""Micrographs under any other licence, "unknown" among them, are referred to, not copied."""
_FAKES_LICENCE = "MIT"


def package_dataset(
    corpus: Corpus,
    catalogue: Path,
    checkpoints: Path,
    folder: Path,
    *,
    params: PackageDatasetParams,
    generators: Sequence[str],
    snapshots: Mapping[str, str],
) -> str:
    """Write the dataset: `real/`, `fake/`, `manifest.csv`, `croissant.json`, `README.md`.

    Args:
        corpus: The images. Its seed is that of the order of the names.
        catalogue: Of the micrographs: hashes, source, licence.
        checkpoints: Holds one folder per generator.
        folder: To write; an older one is replaced.
        params: Title and who to ask.
        generators: Names of folders of fakes.
        snapshots: Per generator which checkpoint drew its fakes, "last" or "best".

    Returns:
        One line about the dataset.

    Raises:
        InputError: A micrograph is not in the catalogue, or fakes are not named after seeds.
        FileNotFoundError: A file or folder is missing.
    """
    table = corpus.list_images(tuple(generators))
    known = _catalogue(catalogue)
    micrographs = pd.read_csv(corpus.splits).set_index("file")["micrograph"]
    digests = {name: _checkpoint(checkpoints / name, snapshots[name]) for name in generators}
    rng = np.random.default_rng(corpus.seed)
    rows: list[dict[str, Any]] = []
    with atomic_folder(folder) as temporary:
        for kind in ("real", "fake"):
            (temporary / kind).mkdir()
            part = table[table["class"] == kind].reset_index(drop=True)
            for number, index in enumerate(rng.permutation(len(part))):
                entry = part.iloc[int(index)]
                if kind == "real":
                    origin = _real(entry, micrographs, known, corpus.splits, catalogue)
                else:
                    origin = _fake(entry, digests)
                is_open = origin["licence"] in OPEN_LICENCES
                name = f"{kind}/{number:06d}.png" if is_open else ""
                if is_open:
                    shutil.copyfile(entry["path"], temporary / name)
                with Image.open(entry["path"]) as image:
                    width, height = image.size
                rows.append(
                    {
                        **dict.fromkeys(COLUMNS, ""),
                        "file": name,
                        "class": kind,
                        "sha256": sha256_of(entry["path"]),
                        "width_px": width,
                        "height_px": height,
                        "split": entry["split"],
                        "protocol": corpus.protocol,
                        **origin,
                    }
                )
        with (temporary / "manifest.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        written = pd.DataFrame(rows)
        description = describe_dataset(params, written, sha256_of(temporary / "manifest.csv"))
        write_description(description, temporary / "croissant.json")
        (temporary / "README.md").write_text(dataset_card(params, written))
    copied = int((written["file"] != "").sum())
    counts = written["class"].value_counts()
    return (
        f"{counts.get('real', 0)} reals and {counts.get('fake', 0)} fakes in {folder}, "
        f"{len(written) - copied} of them as references only"
    )


def _real(
    entry: "pd.Series[Any]",
    micrographs: "pd.Series[Any]",
    known: Mapping[str, Mapping[str, str]],
    splits: Path,
    catalogue: Path,
) -> dict[str, Any]:
    micrograph = str(micrographs[entry["file"]])
    if micrograph not in known:
        raise InputError(f"{catalogue}: no {micrograph}, of which {splits} has crops")
    row = known[micrograph]
    return {
        "group": entry["group"],
        "micrograph": micrograph,
        "micrograph_sha256": row["sha256"],
        "source": row["source"],
        "licence": row["licence"],
    }


def _fake(entry: "pd.Series[Any]", digests: Mapping[str, str]) -> dict[str, Any]:
    return {
        # Of a fake nothing but its generator and seed is known; it stands for itself.
        "group": entry["group"].removesuffix(".png"),
        "generator": entry["generator"],
        "seed": int(Path(entry["path"]).stem),
        "checkpoint_sha256": digests[entry["generator"]],
        "source": "generated",
        "licence": _FAKES_LICENCE,
    }


def _catalogue(path: Path) -> dict[str, dict[str, str]]:
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    missing = {"file", "sha256", "source", "licence"} - set(rows[0] if rows else ())
    if missing:
        raise InputError(f"{path}: no column {', '.join(sorted(missing))}")
    return {row["file"]: row for row in rows}


def _checkpoint(folder: Path, snapshot: str) -> str:
    """Return the hash of the generator's file that drew the fakes."""
    path = folder / {"last": "generator.safetensors", "best": "best.safetensors"}[snapshot]
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such checkpoint; `train-gan` makes it")
    load_checkpoint(path)  # refuses what is no checkpoint of this project
    return sha256_of(path)
