"""Raw folders with their catalogues."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from semforensics.core.tables import CATALOGUE_COLUMNS

Raw = tuple[Path, Path]
MakeRaw = Callable[[dict[str, np.ndarray]], Raw]


def write_catalogue(path: Path, files: list[str]) -> None:
    """List files with a group of their own, of 50k and an unknown voltage."""
    known = {"label": "ordered", "magnification_k": 50, "kv": "", "source": "folder"}
    header = {"sha256": "0" * 64, "size_bytes": 1, "width_px": 1, "height_px": 1, "bit_depth": 8}
    rows = [{"file": file, "group": f"group of {file}", **known, **header} for file in files]
    table = pd.DataFrame(rows, columns=list(CATALOGUE_COLUMNS))
    table.to_csv(path, index=False)


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
