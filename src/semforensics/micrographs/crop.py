"""Raw micrographs to square crops: canonical 8-bit grey, without info bars.

Geometries: `tiles` cuts native pixels, side by side from the top-left corner, so that every crop
begins at even coordinates and neither class is ever resampled; what is left at the right and bottom
edges is dropped, and so are tiles with text, scale bars or other things drawn over the image, which
would tell reals from fakes. `resize` and `squash` resample by Lanczos with antialiasing (Pillow):
the centre square, or the whole frame pressed into a square as the thesis does.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Hashable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, UInt8
from PIL import Image

from semforensics.core.blocks import BLOCK_CROPS
from semforensics.core.errors import InputError, raise_problems
from semforensics.core.files import atomic_folder
from semforensics.core.greys import to_8_bit
from semforensics.core.images import read_samples, write_grey_png
from semforensics.core.progress import track
from semforensics.core.tables import (
    CROP_COLUMNS,
    LEFT_OUT_COLUMNS,
    is_measured,
    number_text,
    read_catalogue,
    write_table,
)
from semforensics.micrographs.info_bar import UnsureError
from semforensics.micrographs.text import find_drawn
from semforensics.params import CropParams

INHERITED = ("group", "label", "magnification_k", "kv")
ALSO_INHERITED = ("collection", "use")
"""Where the catalogue has them."""
Grey = UInt8[np.ndarray, "height width"]
Mask = Bool[np.ndarray, "height width"]


@dataclass(frozen=True)
class ImageArea:
    """A micrograph without its info bar."""

    grey: Grey
    drawn: Mask
    """Pixels of text, scale bars and other things drawn over it, with a margin."""


@dataclass(frozen=True)
class Tile:
    """A crop of a micrograph."""

    top_px: int
    """Its first row, in pixels of the file."""
    left_px: int
    grey: Grey


def crop(
    raw: Path, catalogue: Path, cropped: Path, crops: Path, left_out: Path, params: CropParams
) -> str:
    """Cut every micrograph of the catalogue into crops, and list them.

    Args:
        raw: Folder of the micrographs.
        catalogue: Lists them; the columns of INHERITED pass on to the crops. Its `info_bar`, rows
            to cut from the bottom, counts before the parameter.
        cropped: Folder to write, one PNG per crop, named after its micrograph and position.
        crops: CSV to write, one row per crop.
        left_out: CSV to write: micrographs that cannot be used and tiles that are not, with the
            reason.
        params: Geometry, size, info bar and which tiles are used.

    Returns:
        One line: how many crops, and what is left out.

    Raises:
        InputError: Catalogue and folder disagree, two micrographs would share a name, or too large
            a share cannot be used: one message lists them all. Nothing is written then.
    """
    table = read_catalogue(catalogue).sort_values("file")
    for name in ("magnification_k", "kv"):
        table[name] = table[name].map(number_text)
    also = [name for name in ALSO_INHERITED if name in table]
    bars = table["info_bar"].tolist() if "info_bar" in table else [""] * len(table)
    micrographs = table[["file", *INHERITED, *also]].to_dict("records")
    files = table["file"].tolist()
    _check_files(raw, catalogue, files)
    unusable: list[dict[Hashable, Any]] = []
    unused: list[dict[Hashable, Any]] = []
    listed: list[dict[Hashable, Any]] = []
    with (
        atomic_folder(cropped) as folder,
        ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool,
    ):
        rows = zip(track(micrographs, "crop"), _crop_stems(files), bars, strict=True)
        for row, stem, bar in rows:
            path = raw / row["file"]
            try:
                tiles, skipped = cut_micrograph(path, params, int(bar) if bar else None)
            except InputError as error:
                reason = str(error).removeprefix(f"{path}: ")
                unusable.append({"file": row["file"], "num_tiles": "", "reason": reason})
                continue
            unused += [{"file": row["file"], "num_tiles": n, "reason": r} for r, n in skipped]
            names = [_crop_name(stem, tile, params) for tile in tiles]
            # Decoding stays in this thread: turning warnings into errors is not thread-safe.
            list(pool.map(write_grey_png, [folder / n for n in names], [t.grey for t in tiles]))
            for name, tile in zip(names, tiles, strict=True):
                position: dict[Hashable, Any] = {"top_px": tile.top_px, "left_px": tile.left_px}
                listed.append({**row, "micrograph": row["file"], "file": name, **position})
        if not listed or len(unusable) > params.max_left_out * len(files):
            problems = [f"{row['file']}: {row['reason']}" for row in unusable]
            raise_problems(problems, f"of {len(files)} micrographs cannot be used")
        kept = pd.DataFrame(listed, columns=[*CROP_COLUMNS, *also]).sort_values("file")
        if params.max_tiles is not None:
            kept, dropped = _draw_tiles(kept, params.max_tiles, params.size_px)
            for name in dropped["file"]:
                (folder / name).unlink()
            counts = dropped.groupby("micrograph").size().items()
            unused += [{"file": f, "num_tiles": n, "reason": "max_tiles"} for f, n in counts]
        lost = pd.DataFrame(unusable + unused, columns=list(LEFT_OUT_COLUMNS))
        write_table(lost.sort_values("file", kind="stable"), left_out)
        write_table(kept, crops)
    return f"{len(kept)} crops in {cropped}{_summary(unusable, unused, len(files), left_out)}"


def _summary(
    unusable: list[dict[Hashable, Any]],
    unused: list[dict[Hashable, Any]],
    num_files: int,
    left_out: Path,
) -> str:
    """Say what is left out; nothing where nothing is."""
    parts = [f"{len(unusable)} of {num_files} micrographs"] if unusable else []
    counts = Counter[str]()
    for row in unused:
        counts[row["reason"]] += row["num_tiles"]
    parts += [f"{count} tiles ({reason})" for reason, count in sorted(counts.items())]
    lines = [f"\n  {row['file']}: {row['reason']}" for row in unusable]
    return f"; left out: {', '.join(parts)}, listed in {left_out}{''.join(lines)}" if parts else ""


def _draw_tiles(crops: pd.DataFrame, most: int, size_px: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Draw at most so many tiles of the largest collection, of others by the root of their size.

    Tiles for measuring are all kept. Neighbours are drawn together, in blocks of 4x4: shrinking a
    tile needs what surrounds it.
    Groups of a collection, and micrographs of a group, take turns; which block of a micrograph
    comes first is drawn by a hash of its name and place.

    Returns:
        The tiles that are drawn and those that are not, in their order.
    """
    by = crops["collection"] if "collection" in crops else pd.Series("", index=crops.index)
    rows, columns = (crops[f"{side}_px"] // (size_px * BLOCK_CROPS) for side in ("top", "left"))
    block = crops["micrograph"] + " " + rows.astype(str) + " " + columns.astype(str)
    hashes = [hashlib.sha256(name.encode()).hexdigest() for name in block]
    table = crops.assign(by=by, hash=hashes)[~is_measured(crops)]
    blocks = table.drop_duplicates("hash").sort_values("hash")
    for keys in (["micrograph"], ["by", "group"]):
        blocks["turn"] = blocks.groupby(keys).cumcount()
        blocks = blocks.sort_values(["turn", "hash"])
    rank = pd.Series(range(len(blocks)), index=blocks["hash"])
    table = table.assign(rank=table["hash"].map(rank)).sort_values(["rank", "file"])
    sizes = table.groupby("by").size()
    quota = (most * (sizes / sizes.max()) ** 0.5).round().clip(lower=1)
    is_drawn = table.groupby("by").cumcount() < table["by"].map(quota)
    drawn = is_drawn.reindex(crops.index, fill_value=False) | is_measured(crops)
    return crops[drawn], crops[~drawn]


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


def _crop_name(stem: str, tile: Tile, params: CropParams) -> str:
    position = f"_y{tile.top_px:04d}_x{tile.left_px:04d}" if params.geometry == "tiles" else ""
    return f"{stem}{position}.png"


def cut_micrograph(
    path: Path, params: CropParams, info_bar: int | None = None
) -> tuple[list[Tile], list[tuple[str, int]]]:
    """Read a micrograph and cut it into those crops that are used.

    Returns:
        The crops, row by row; and how many are left out, by reason.

    Raises:
        InputError: As `read_image_area`; or no crop is left.
    """
    area = read_image_area(path, params, info_bar)
    tiles, skipped = [], Counter[str]()
    for top, left, grey in cut(area.grey, params):
        rows, columns = slice(top, top + params.size_px), slice(left, left + params.size_px)
        if params.geometry == "tiles" and area.drawn[rows, columns].any():
            skipped["text or lines"] += 1
        elif params.max_flat_share is not None and flat_share(grey) > params.max_flat_share:
            skipped["flat"] += 1
        else:
            tiles.append(Tile(top, left, grey))
    if not tiles:
        counts = ", ".join(f"{reason} in {count}" for reason, count in sorted(skipped.items()))
        raise InputError(f"{path}: none of {skipped.total()} tiles can be used: {counts}")
    return tiles, sorted(skipped.items())


def flat_share(grey: Grey) -> float:
    """Return the share of pixels that are within one level of the commonest grey level."""
    counts = np.bincount(grey.ravel(), minlength=256)
    level = int(counts.argmax())
    return float(counts[max(level - 1, 0) : level + 2].sum() / grey.size)


def read_image_area(path: Path, params: CropParams, info_bar: int | None = None) -> ImageArea:
    """Read a micrograph as 8-bit grey without its info bar, and find what is drawn over it.

    Depth is reduced after the bar is off, so that its black and white do not set the scale.

    Args:
        path: The micrograph.
        params: Info bar and size.
        info_bar: Rows to cut from the bottom of this micrograph; None: as `params` says.

    Raises:
        InputError: The file cannot be read, its bar is not certain, or what is left is smaller than
            a crop.
    """
    samples = read_samples(path, params.max_megapixels)
    height, width = samples.shape
    if info_bar is None and params.info_bar != "auto":
        info_bar = params.info_bar
    rows = max(height - (info_bar or 0), 0)
    found = find_drawn(to_8_bit(samples[:rows]), with_bar=info_bar is None) if rows else None
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
    """Yield the crops of an image and where they begin, as (top, left, crop), row by row.

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
