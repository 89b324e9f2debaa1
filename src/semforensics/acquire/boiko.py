"""The micrographs of Boiko et al. 2020, from their two figshare records.

Boiko, D. A. et al., "Electron microscopy dataset for the recognition of nanoscale ordering effects
and location of nanoparticles", Scientific Data 7, 101 (2020), doi 10.1038/s41597-020-0439-1.
"""

import csv
import io
import os
import shutil
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from semforensics.acquire.figshare import Client, RemoteFile, download_all, list_record
from semforensics.acquire.names import parse_name
from semforensics.core.errors import InputError, raise_problems
from semforensics.params import BoikoParams

LICENCE = "CC BY 4.0"
NUM_IMAGES: Mapping[int, int] = {11783661: 750, 11783667: 250}
"""Micrographs in each record, so that a listing that ends early is noticed."""

_DESCRIPTION = "_description_w_units.csv"
_KV_PER_UNIT = {"v": 1e-3, "volt": 1e-3, "volts": 1e-3, "kv": 1.0}
_MM_PER_UNIT = {"nm": 1e-6, "um": 1e-3, "µm": 1e-3, "μm": 1e-3, "micron": 1e-3, "mm": 1.0, "m": 1e3}
_K_PER_UNIT = {"": 1e-3, "x": 1e-3, "times": 1e-3, "k": 1.0, "kx": 1.0}
_NUMBERS = {
    "AcceleratingVoltage": ("kv", _KV_PER_UNIT),
    "WorkingDistance": ("wd_mm", _MM_PER_UNIT),
    "Magnification": ("magnification_k", _K_PER_UNIT),
}
"""Columns of a description: what the catalogue calls them, and the factors of their units."""


def acquire_boiko(
    params: BoikoParams,
    raw: Path,
    scratch: Path,
    *,
    client: Client | None = None,
    num_images: Mapping[int, int] = NUM_IMAGES,
) -> list[dict[str, Any]]:
    """Bring the micrographs of the records into `raw/<record>/`; return what is known of each.

    Downloads stay in `scratch` between runs. `num_images` says how many micrographs each record
    must have.

    Raises:
        InputError: A record is not as published, or some files cannot be had whole; the message
            lists them. What is whole stays in the scratch folder for the next run.
    """
    client = client or Client()
    rows = []
    for record in params.records:
        files = list_record(record, client)
        images, description = sort_files(record, files, num_images[record])
        folder = scratch / str(record)
        download_all([*images, description], folder, client)
        described = read_description(folder / description.name)
        (raw / str(record)).mkdir(parents=True)
        names = [image.name for image in images]
        for name in names:
            _link(folder / name, raw / str(record) / name)
        rows += [describe_image(record, name, described) for name in names]
        _report_unknown(record, names, described)
    return rows


def sort_files(
    record: int, files: list[RemoteFile], num_images: int
) -> tuple[list[RemoteFile], RemoteFile]:
    """Divide the files into the micrographs, sorted by name, and the description.

    Raises:
        InputError: A name appears twice, or the numbers are not those of the publication.
    """
    names = Counter(file.name.casefold() for file in files)
    twice = sorted(name for name, count in names.items() if count > 1)
    raise_problems(twice, f"names of record {record} belong to several files")
    images = sorted((f for f in files if f.name.endswith(".tif")), key=lambda file: file.name)
    descriptions = [file for file in files if file.name.endswith(_DESCRIPTION)]
    if len(images) != num_images or len(descriptions) != 1:
        raise InputError(
            f"record {record}: {len(images)} micrographs and {len(descriptions)} descriptions, "
            f"expected {num_images} and 1"
        )
    if others := sorted({f.name for f in files} - {f.name for f in [*images, *descriptions]}):
        print(f"record {record}: not fetched: {', '.join(others)}", file=sys.stderr)
    return images, descriptions[0]


def _link(source: Path, target: Path) -> None:
    """Link a file, or copy it where the file system cannot link."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def read_description(path: Path) -> dict[str, dict[str, Any]]:
    """Read a record's description: what it says of each micrograph, by the stem of its name.

    A unit follows a comma in a column's header; values come out in kV, mm and thousands.

    Raises:
        InputError: A column is missing, its unit unknown, or a value not a number.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        text = path.read_text(encoding="latin-1")
    header, *lines = [line for line in csv.reader(io.StringIO(text)) if line] or [[]]
    split = [[part.strip() for part in name.partition(",")] for name in header]
    units = {name: unit.lower() for name, _, unit in split}
    if missing := sorted({"Filename", "Sample", "Area", *_NUMBERS} - units.keys()):
        raise InputError(f"{path}: no column {', '.join(missing)} among {'; '.join(header)}")
    for column, (_, known) in _NUMBERS.items():
        if units[column] not in known:
            raise InputError(
                f"{path}: {column} in {units[column]!r}, expected one of {', '.join(known)}"
            )
    described = {}
    for line in lines:
        if len(line) != len(header):
            raise InputError(f"{path}: {len(line)} values for {len(header)} columns: {line}")
        value = {name: text.strip() for (name, *_), text in zip(split, line, strict=True)}
        row: dict[str, Any] = {"sample": value["Sample"], "area": value["Area"]}
        for column, (name, known) in _NUMBERS.items():
            row[name] = _scaled(value[column], known[units[column]], f"{path}: {column}")
        described[Path(value["Filename"]).stem.casefold()] = row
    return described


def _scaled(text: str, scale: float, what: str) -> float | None:
    """Turn a number into another unit; None if nothing is written."""
    if not text:
        return None
    try:
        return round(float(text) * scale, 9)  # 8300 um are 8.3 mm, no digit more
    except ValueError as error:
        raise InputError(f"{what}: {text!r} is not a number") from error


def describe_image(
    record: int, name: str, described: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Join the description to a micrograph; sample, area and label are those of its name.

    Raises:
        InputError: The name is not one of the publication's.
    """
    parsed = parse_name(name)
    if parsed is None:
        raise InputError(
            f"record {record}: {name}, expected "
            "<id>-<sample>-<area>-<magnification>-<ordered|disordered>.tif"
        )
    known = described.get(Path(name).stem.casefold(), {})
    row = {"file": f"{record}/{name}", "kv": known.get("kv"), "wd_mm": known.get("wd_mm")}
    return row | parsed.row() | {"licence": LICENCE}


def _report_unknown(
    record: int, names: list[str], described: Mapping[str, Mapping[str, Any]]
) -> None:
    """Print how many micrographs the description leaves out, or describes unlike their names."""
    pairs = [(parse_name(name), described.get(Path(name).stem.casefold())) for name in names]
    unknown = sum(row is None for _, row in pairs)
    other = sum(
        (name.sample, name.magnification_k) != (row["sample"], row["magnification_k"])
        for name, row in pairs
        if name and row
    )
    if unknown == len(names):
        raise InputError(
            f"record {record}: the description names none of its {unknown} micrographs"
        )
    if unknown or other:
        print(
            f"record {record}: the description leaves out {unknown} micrographs, and gives "
            f"{other} another sample or magnification than their names do; the names count",
            file=sys.stderr,
        )
