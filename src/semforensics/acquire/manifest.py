"""What tables in a folder of micrographs say of its files.

A table is a CSV file; only the column `file` (or `path`) is needed. Columns that are not of COLUMNS
are not read. Names of columns do not depend on capitals.
"""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from semforensics.core.errors import InputError, raise_problems
from semforensics.core.tables import MEASURE, read_text

COLUMNS = (
    "group", "sample", "area", "magnification_k", "kv", "wd_mm", "label",
    "collection", "instrument", "pixels", "info_bar", "use", "licence",
)  # fmt: skip
"""What a table may say of a file."""

_NAME = "manifest.csv"
_ALIASES = {
    "path": "file",
    "filename": "file",
    "license": "licence",
    "state": "pixels",
    "pixel_state": "pixels",
}
_NUMBERS = ("magnification_k", "kv", "wd_mm")
_USES = ("", "train", MEASURE)


def read_manifests(folder: Path, files: Sequence[str], manifest: Path | None) -> pd.DataFrame:
    """Read what is known of files.

    Args:
        folder: Where the files lie.
        files: Relative posix paths.
        manifest: A table whose paths are relative to `folder`. None: each file's table is the
            MANIFEST.csv nearest above it, whose paths are relative to its own folder.

    Returns:
        `file` and COLUMNS, as text, one row per file; what is not known is the empty string. A
        collection that no table names is the folder of the MANIFEST.csv, else the first
        sub-folder, else `folder`.

    Raises:
        InputError: A table is none, names none of the files, or a file twice, or says of a file
            what its column cannot hold; the message names the table.
    """
    whole = folder.resolve().name
    known: dict[str, dict[str, str]] = {}
    for file in files:
        first, _, rest = file.partition("/")
        known[file] = dict.fromkeys(COLUMNS, "") | {"collection": first if rest else whole}
    tables = [(folder, manifest)] if manifest else [(p.parent, p) for p in _find(folder)]
    for place, path in tables:  # the nearest comes last
        prefix = "" if place == folder else f"{place.relative_to(folder).as_posix()}/"
        below = [file for file in files if file.startswith(prefix)]
        if not below:
            continue
        table = _read_table(path).set_index("file")
        told = {f"{prefix}{name}": row for name, row in table.to_dict("index").items()}
        if not told.keys() & set(below):
            raise InputError(
                f"{path}: names none of the {len(below)} pictures of {place}; the first of them "
                f"is {below[0].removeprefix(prefix)}"
            )
        for file in below:
            row = {str(k): v for k, v in told.get(file, {}).items() if v}
            default = known[file]["collection"] if manifest else prefix.rstrip("/") or whole
            known[file] = dict.fromkeys(COLUMNS, "") | {"collection": default} | row
    return pd.DataFrame([{"file": file} | row for file, row in known.items()], dtype=str)


def _find(folder: Path) -> list[Path]:
    """Find the tables below a folder, outer ones first."""
    found = [p for p in folder.rglob("*.[cC][sS][vV]") if p.name.lower() == _NAME and p.is_file()]
    return sorted(found, key=lambda path: (len(path.parts), path))


def _read_table(path: Path) -> pd.DataFrame:
    """Read and check one table."""
    table = read_text(path)
    names = [_ALIASES.get(name.strip().lower(), name.strip().lower()) for name in table.columns]
    if "file" not in names:
        raise InputError(
            f"{path}: columns {', '.join(table.columns)}; expected file, and perhaps "
            f"{', '.join(COLUMNS)}"
        )
    table.columns = pd.Index(names)
    twice = sorted(set(table.columns[table.columns.duplicated()]) & {"file", *COLUMNS})
    raise_problems([f"{name}: a column twice" for name in twice], f"problems with {path}")
    table = table[[name for name in ("file", *COLUMNS) if name in names]].apply(
        lambda column: column.str.strip()
    )
    table["file"] = table["file"].str.removeprefix("./").str.replace("\\", "/")
    problems = [f"{f}: named twice" for f in sorted(set(table["file"][table["file"].duplicated()]))]
    for name in set(_NUMBERS) & set(table):
        wrong = ~(pd.to_numeric(table[name], errors="coerce") > 0) & (table[name] != "")
        problems += _wrong(table, name, wrong, "a number above 0")
    if "info_bar" in table:
        table["info_bar"] = table["info_bar"].replace({"none": "0", "auto": ""})
        wrong = ~table["info_bar"].str.fullmatch(r"\d*")
        problems += _wrong(table, "info_bar", wrong, "rows to cut from the bottom, none or auto")
    if "use" in table:
        wrong = ~table["use"].isin(_USES)
        problems += _wrong(table, "use", wrong, f"train or {MEASURE}")
    raise_problems(problems, f"problems with {path}")
    return pd.DataFrame(table)


def _wrong(table: pd.DataFrame, name: str, wrong: "pd.Series[bool]", expected: str) -> list[str]:
    rows = table.loc[wrong, ["file", name]].to_numpy()
    return [f"{file}: {name} {value!r}, expected {expected}" for file, value in rows]
