"""Put crops and fakes into the two folders of a published dataset, with where each came from.

Names say nothing but a number, drawn at random within each folder: neither order nor name tells
generators, splits or micrographs apart. Files are copies byte by byte, so DVC stores them once.
Micrographs whose licence does not let others pass them on are not copied: for them the manifest
holds hashes and names only, with which their owner can be asked.
"""

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from semforensics.core.checkpoints import load_checkpoint
from semforensics.core.errors import InputError
from semforensics.core.files import atomic_folder, sha256_of
from semforensics.core.tables import SPLITS, read_catalogue, read_splits, write_table
from semforensics.detector.corpus import Corpus
from semforensics.params import PackageDatasetParams
from semforensics.publish.croissant import COLUMNS, describe_dataset
from semforensics.publish.rendering import render

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
    snapshots: Mapping[str, str],
) -> str:
    """Write `real/`, `fake/`, `manifest.csv`, `croissant.json`, `README.md`; return a summary.

    The seed of the corpus is that of the order of the names. `snapshots` says of each generator
    which checkpoint drew its fakes, "last" or "best".

    Raises:
        InputError: A micrograph is not in the catalogue, or fakes are not named after seeds.
        FileNotFoundError: A file or folder is missing.
    """
    images = corpus.list_images(tuple(snapshots))
    digests = {name: _checkpoint(checkpoints / name, which) for name, which in snapshots.items()}
    known = _origins_of_reals(corpus.splits, catalogue)
    rng = np.random.default_rng(corpus.seed)
    with atomic_folder(folder) as temporary:
        rows: list[dict[str, Any]] = []
        for kind in ("real", "fake"):
            part = images[images["class"] == kind]
            shuffled = part.iloc[rng.permutation(len(part))]
            origins = [
                known[entry["file"]] if kind == "real" else _origin_of_fake(entry, digests)
                for entry in shuffled.to_dict("records")
            ]
            rows += _copy_images(shuffled, origins, temporary / kind)
        manifest = pd.DataFrame(rows).assign(protocol=corpus.protocol)
        manifest = manifest.reindex(columns=list(COLUMNS)).fillna("")
        write_table(manifest, temporary / "manifest.csv")
        description = describe_dataset(
            params, sorted(set(manifest["licence"])), sha256_of(temporary / "manifest.csv")
        )
        text = json.dumps(description, indent=2, ensure_ascii=False) + "\n"
        (temporary / "croissant.json").write_text(text, encoding="utf-8")
        (temporary / "README.md").write_text(_card(params, manifest), encoding="utf-8")
    counts = manifest["class"].value_counts()
    return (
        f"{counts.get('real', 0)} reals and {counts.get('fake', 0)} fakes in {folder}, "
        f"{(manifest['file'] == '').sum()} of them as references only"
    )


def _copy_images(
    images: pd.DataFrame, origins: list[dict[str, Any]], folder: Path
) -> Iterator[dict[str, Any]]:
    """Copy those images whose licence is open under new names; yield a row for every one."""
    folder.mkdir()
    entries = images.to_dict("records")
    for number, (entry, origin) in enumerate(zip(entries, origins, strict=True)):
        path, name = entry["path"], ""
        if origin["licence"] in OPEN_LICENCES:
            name = f"{folder.name}/{number:06d}.png"
            shutil.copyfile(path, folder.parent / name)
        with Image.open(path) as image:
            width, height = image.size
        yield {
            "file": name,
            "class": entry["class"],
            "sha256": sha256_of(path),
            "width_px": width,
            "height_px": height,
            "split": entry["split"],
            **origin,
        }


def _origins_of_reals(splits: Path, catalogue: Path) -> dict[str, dict[str, Any]]:
    """Say of every crop which group and micrograph it is of, and what is known of that."""
    known = read_catalogue(catalogue).set_index("file")
    origins = {}
    for crop in read_splits(splits).to_dict("records"):
        micrograph = crop["micrograph"]
        if micrograph not in known.index:
            raise InputError(f"{catalogue}: no {micrograph}, of which {splits} has crops")
        row = known.loc[micrograph]
        origins[crop["file"]] = {
            "group": crop["group"],
            "micrograph": micrograph,
            "micrograph_sha256": row["sha256"],
            "source": row["source"],
            "licence": row["licence"],
        }
    return origins


def _origin_of_fake(entry: Mapping[Any, Any], digests: Mapping[str, str]) -> dict[str, Any]:
    return {
        # Of a fake nothing but its generator and seed is known: it is a group by itself.
        "group": entry["group"].removesuffix(".png"),
        "generator": entry["generator"],
        "seed": str(int(Path(entry["path"]).stem)),
        "checkpoint_sha256": digests[entry["generator"]],
        "source": "generated",
        "licence": _FAKES_LICENCE,
    }


def _checkpoint(folder: Path, snapshot: str) -> str:
    """Return the hash of the generator's file that drew the fakes."""
    path = folder / {"last": "generator.safetensors", "best": "best.safetensors"}[snapshot]
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such checkpoint; `train-gan` makes it")
    load_checkpoint(path)  # refuses what is no checkpoint of this project
    return sha256_of(path)


def _card(params: PackageDatasetParams, manifest: pd.DataFrame) -> str:
    """Write the card in Markdown: what is in it, where it comes from, what it is fit for."""
    reals, fakes = (manifest[manifest["class"] == kind] for kind in ("real", "fake"))
    counts = fakes["generator"].value_counts().sort_index()
    sizes = manifest["width_px"].astype(str) + "x" + manifest["height_px"].astype(str)
    return render(
        "dataset_card.md",
        about=params,
        reals=reals,
        fakes=fakes,
        splits=SPLITS,
        is_simulated=set(reals["source"]) == {"simulated"},
        sizes=sorted(set(sizes)),
        fakes_of=[f"{count} of {name}" for name, count in counts.items()],
    )
