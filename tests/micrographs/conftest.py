"""Raw folders with their catalogues."""

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

Raw = tuple[Path, Path]
MakeRaw = Callable[[dict[str, np.ndarray]], Raw]


def write_catalogue(path: Path, files: list[str]) -> None:
    """List files with a group of their own, and with columns that crops do not inherit."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "sha256", "group", "label", "magnification_k", "kv", "source"])
        writer.writerows([f, "0" * 64, f"group of {f}", "ordered", "50", "", "test"] for f in files)


@pytest.fixture
def make_raw(tmp_path: Path) -> MakeRaw:
    """Write images to a raw folder with its catalogue; give the paths of both."""

    def make(images: dict[str, np.ndarray]) -> Raw:
        raw, catalogue = tmp_path / "raw", tmp_path / "catalogue.csv"
        for name, image in images.items():
            (raw / name).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(raw / name)
        write_catalogue(catalogue, list(images))
        return raw, catalogue

    return make
