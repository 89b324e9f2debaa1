"""Raw micrographs to square crops: canonical 8-bit grey, without info bars.

Geometries: `tiles` cuts native pixels, side by side from the top-left corner, so that every crop
begins at even coordinates and neither class is ever resampled; what is left at the right and bottom
edges is dropped. `resize` and `squash` resample by Lanczos with antialiasing (Pillow): the centre
square, or the whole frame pressed into a square as the thesis does.
"""

import csv
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from rich.console import Console
from rich.progress import track

from semforensics.core.errors import InputError
from semforensics.core.files import atomic_file, atomic_folder
from semforensics.core.images import read_samples, to_8_bit, write_grey_png
from semforensics.micrographs.info_bar import UnsureError, find_info_bar
from semforensics.params import CropParams

INHERITED = ("group", "label", "magnification_k", "kv")
COLUMNS = ("file", "micrograph", *INHERITED, "top_px", "left_px")
Row = dict[str, str]
Grey = UInt8[np.ndarray, "height width"]


def crop_folder(raw: Path, catalogue: Path, cropped: Path, crops: Path, params: CropParams) -> int:
    """Cut every micrograph of the catalogue into crops, and list them.

    Args:
        raw: Folder of the micrographs.
        catalogue: CSV with the columns file, group, label, magnification_k and kv, one row per
            micrograph.
        cropped: Folder to write, one PNG per crop, named after its micrograph and place.
        crops: CSV to write, one row per crop.
        params: Geometry, size and info bar.

    Returns:
        The number of crops.

    Raises:
        InputError: Catalogue and folder disagree, two micrographs would share a name, or files
            cannot be used: one message lists them all. Nothing is written then.
    """
    micrographs = read_catalogue(catalogue)
    _check_files(raw, catalogue, [row["file"] for row in micrographs])
    stems = _crop_stems([row["file"] for row in micrographs])
    bad: list[str] = []
    listed: list[Row] = []
    console = Console(stderr=True)
    with (
        atomic_file(crops) as table,
        atomic_folder(cropped) as folder,
        ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool,
    ):
        for row, stem in zip(
            track(micrographs, "crop", console=console, disable=not console.is_terminal),
            stems,
            strict=True,
        ):
            try:
                parts = list(cut(read_image_area(raw / row["file"], params), params))
            except ValueError as error:
                bad.append(str(error))
                continue
            names = [_crop_name(stem, top, left, params) for top, left, _ in parts]
            # Decoding stays in this thread: turning warnings into errors is not thread-safe.
            list(pool.map(write_grey_png, [folder / n for n in names], [c for *_, c in parts]))
            for name, (top, left, _) in zip(names, parts, strict=True):
                place = {"file": name, "micrograph": row["file"], "top_px": str(top)}
                listed.append({**row, **place, "left_px": str(left)})
        if bad:
            raise InputError(
                f"{len(bad)} of {len(micrographs)} micrographs cannot be used:\n" + "\n".join(bad)
            )
        _write_table(table, sorted(listed, key=lambda r: r["file"]))
    return len(listed)


def read_catalogue(path: Path) -> list[Row]:
    """Read what crops inherit from the catalogue, sorted by file.

    Raises:
        InputError: A column is missing, there are no rows, a file is listed twice or has no group.
    """
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        missing = [c for c in ("file", *INHERITED) if c not in (reader.fieldnames or ())]
        if missing:
            raise InputError(f"{path}: no column {', '.join(missing)}")
        rows = [{c: row[c] or "" for c in ("file", *INHERITED)} for row in reader]
    if not rows:
        raise InputError(f"{path}: lists no micrographs")
    listed = set[str]()
    for row in rows:
        if not row["file"] or not row["group"]:
            raise InputError(f"{path}: {row['file'] or 'a row'} has no file name or no group")
        if row["file"] in listed:
            raise InputError(f"{path}: lists {row['file']} twice")
        listed.add(row["file"])
    return sorted(rows, key=lambda row: row["file"])


def _check_files(raw: Path, catalogue: Path, listed: list[str]) -> None:
    found = {p.relative_to(raw).as_posix() for p in raw.rglob("*") if p.is_file()}
    wrong = [f"{raw / name}: in {catalogue}, but missing" for name in sorted(set(listed) - found)]
    wrong += [f"{raw / name}: not in {catalogue}" for name in sorted(found - set(listed))]
    if wrong:
        raise InputError(f"{catalogue} and {raw} disagree:\n" + "\n".join(wrong))


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
    place = f"_y{top:04d}_x{left:04d}" if params.geometry == "tiles" else ""
    return f"{stem}{place}.png"


def read_image_area(path: Path, params: CropParams) -> Grey:
    """Read a micrograph as 8-bit grey without its info bar.

    Depth is reduced after the bar is off, so that its black and white do not set the scale.

    Raises:
        InputError: The file cannot be read, its bar is not certain, or what is left is smaller than
            a crop.
    """
    samples = read_samples(path, params.max_megapixels)
    height, width = samples.shape
    if params.info_bar == "auto":
        try:
            top = find_info_bar(to_8_bit(samples))
        except UnsureError as error:
            raise InputError(f"{path}: {error}") from error
        bar_px = 0 if top is None else height - top
    else:
        bar_px = params.info_bar
    rows = height - bar_px
    if min(rows, width) < params.size_px:
        raise InputError(
            f"{path}: {width}x{max(rows, 0)} px without {bar_px} rows of info bar, need at least "
            f"{params.size_px}x{params.size_px}"
        )
    return to_8_bit(samples[:rows])


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


def _write_table(path: Path, rows: list[Row]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
