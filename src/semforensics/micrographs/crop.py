"""Raw micrographs to square crops: canonical 8-bit grey, without info bars.

Geometries: `tiles` cuts native pixels, side by side from the top-left corner, so that every crop
begins at even coordinates and neither class is ever resampled; what is left at the right and bottom
edges is dropped, and so are tiles with text, scale bars or other things drawn over the image, which
would tell reals from fakes. `resize` and `squash` resample by Lanczos with antialiasing (Pillow):
the centre square, or the whole frame pressed into a square as the thesis does.
"""

import os
from collections.abc import Hashable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Bool, UInt8
from PIL import Image

from semforensics.core.errors import InputError, raise_problems
from semforensics.core.files import atomic_folder
from semforensics.core.greys import to_8_bit
from semforensics.core.images import read_samples, write_grey_png
from semforensics.core.progress import track
from semforensics.core.tables import CROP_COLUMNS, number_text, read_catalogue, write_table
from semforensics.micrographs.info_bar import UnsureError
from semforensics.micrographs.text import find_drawn
from semforensics.params import CropParams

INHERITED = ("group", "label", "magnification_k", "kv")
Grey = UInt8[np.ndarray, "height width"]
Mask = Bool[np.ndarray, "height width"]


class ImageArea(NamedTuple):
    """A micrograph without its info bar."""

    grey: Grey
    drawn: Mask
    """Pixels of text, scale bars and other things drawn over it, with a margin."""


class Count(NamedTuple):
    """How many crops there are."""

    crops: int
    left_out: int
    """Tiles that hold something drawn."""


def crop(raw: Path, catalogue: Path, cropped: Path, crops: Path, params: CropParams) -> Count:
    """Cut every micrograph of the catalogue into crops, and list them.

    Args:
        raw: Folder of the micrographs.
        catalogue: Lists them; the columns of INHERITED pass on to the crops.
        cropped: Folder to write, one PNG per crop, named after its micrograph and position.
        crops: CSV to write, one row per crop.
        params: Geometry, size and info bar.

    Returns:
        The number of crops, and of tiles left out.

    Raises:
        InputError: Catalogue and folder disagree, two micrographs would share a name, or files
            cannot be used, also because all of their tiles hold something drawn: one message lists
            them all. Nothing is written then.
    """
    table = read_catalogue(catalogue).sort_values("file")
    for name in ("magnification_k", "kv"):
        table[name] = table[name].map(number_text)
    micrographs = table[["file", *INHERITED]].to_dict("records")
    files = table["file"].tolist()
    _check_files(raw, catalogue, files)
    bad: list[str] = []
    left_out = 0
    listed: list[dict[Hashable, Any]] = []
    with (
        atomic_folder(cropped) as folder,
        ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool,
    ):
        for row, stem in zip(track(micrographs, "crop"), _crop_stems(files), strict=True):
            try:
                parts, with_text = read_crops(raw / row["file"], params)
            except InputError as error:
                bad.append(str(error))
                continue
            left_out += with_text
            names = [_crop_name(stem, top, left, params) for top, left, _ in parts]
            # Decoding stays in this thread: turning warnings into errors is not thread-safe.
            list(pool.map(write_grey_png, [folder / n for n in names], [c for *_, c in parts]))
            for name, (top, left, _) in zip(names, parts, strict=True):
                position: dict[Hashable, Any] = {"top_px": top, "left_px": left}
                listed.append({**row, "micrograph": row["file"], "file": name, **position})
        raise_problems(bad, f"of {len(files)} micrographs cannot be used")
        write_table(pd.DataFrame(listed, columns=list(CROP_COLUMNS)).sort_values("file"), crops)
    return Count(len(listed), left_out)


def _check_files(raw: Path, catalogue: Path, listed: list[str]) -> None:
    found = {p.relative_to(raw).as_posix() for p in raw.rglob("*") if p.is_file()}
    wrong = [f"{raw / name}: in {catalogue}, but missing" for name in sorted(set(listed) - found)]
    wrong += [f"{raw / name}: not in {catalogue}" for name in sorted(found - set(listed))]
    raise_problems(wrong, f"files are in one only of {catalogue} and {raw}")


def _crop_stems(files: list[str]) -> list[str]:
    """Flatten relative paths into names that are unique whatever the case."""
    taken: dict[str, str] = {}
    stems = []
    for file in files:
        stem = "_".join(PurePosixPath(file).with_suffix("").parts)
        other = taken.setdefault(stem.casefold(), file)
        if other != file:
            raise InputError(f"crops of {other} and {file} would share the name {stem}")
        stems.append(stem)
    return stems


def _crop_name(stem: str, top: int, left: int, params: CropParams) -> str:
    position = f"_y{top:04d}_x{left:04d}" if params.geometry == "tiles" else ""
    return f"{stem}{position}.png"


def read_crops(path: Path, params: CropParams) -> tuple[list[tuple[int, int, Grey]], int]:
    """Read the crops of a micrograph as `cut` returns them, without tiles that hold text.

    Returns:
        The crops, and the number of tiles that were left out because of what is drawn over them. A
        frame that is resampled stays whole.

    Raises:
        InputError: The file cannot be used, or all of its tiles are left out.
    """
    grey, drawn = read_image_area(path, params)
    crops = list(cut(grey, params))
    if params.geometry != "tiles":
        return crops, 0
    size = params.size_px
    kept = [one for one in crops if not drawn[one[0] : one[0] + size, one[1] : one[1] + size].any()]
    if not kept:
        raise InputError(f"{path}: all {len(crops)} tiles hold text or other things drawn over it")
    return kept, len(crops) - len(kept)


def read_image_area(path: Path, params: CropParams) -> ImageArea:
    """Read a micrograph as 8-bit grey without its info bar, and find what is drawn over it.

    Depth is reduced after the bar is off, so that its black and white do not set the scale.

    Raises:
        InputError: The file cannot be read, its bar is not certain, or what is left is smaller than
            a crop.
    """
    samples = read_samples(path, params.max_megapixels)
    height, width = samples.shape
    is_auto = params.info_bar == "auto"
    rows = height if params.info_bar == "auto" else max(height - params.info_bar, 0)
    found = find_drawn(to_8_bit(samples[:rows]), with_bar=is_auto) if rows else None
    if found is not None and found.doubt is not None:
        raise InputError(f"{path}: {found.doubt}")
    if found is not None and found.info_bar is not None:
        rows = found.info_bar[0]
        if rows == 0:
            raise InputError(f"{path}: {UnsureError('there seems to be one at the top edge')}")
    if found is None or min(rows, width) < params.size_px:
        raise InputError(
            f"{path}: {width}x{rows} px without {height - rows} rows of info bar, need at least "
            f"{params.size_px}x{params.size_px}"
        )
    return ImageArea(to_8_bit(samples[:rows]), found.mask[:rows])


def cut(image: Grey, params: CropParams) -> Iterator[tuple[int, int, Grey]]:
    """Return the crops of an image and where they begin, as (top, left, crop), row by row.

    Args:
        image: At least as large as a crop.
        params: Geometry and size.
    """
    size = params.size_px
    height, width = image.shape
    match params.geometry:
        case "tiles":
            for top in range(0, height - size + 1, size):
                for left in range(0, width - size + 1, size):
                    yield top, left, image[top : top + size, left : left + size]
        case "resize":
            side = min(height, width)
            top, left = (height - side) // 2, (width - side) // 2
            yield top, left, _resample(image[top : top + side, left : left + side], size)
        case "squash":
            yield 0, 0, _resample(image, size)


def _resample(image: Grey, size: int) -> Grey:
    resized = Image.fromarray(image).resize((size, size), Image.Resampling.LANCZOS)
    return np.array(resized)
