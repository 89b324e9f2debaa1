"""Bring raw micrographs from one of three sources into one folder, with a catalogue."""

from pathlib import Path
from typing import Any

from semforensics.acquire.boiko import acquire_boiko
from semforensics.acquire.catalogue import describe_files, write_catalogue
from semforensics.acquire.folder import acquire_folder
from semforensics.acquire.simulated import simulate_set
from semforensics.core.errors import InputError
from semforensics.core.files import atomic_folder
from semforensics.params import AcquireParams

SIMULATED_LICENCE = "MIT"  # as this repository


def acquire_micrographs(
    params: AcquireParams,
    raw: Path,
    catalogue: Path,
    *,
    seed: int,
    listing: Path,
    folder: Path | None,
    scratch: Path,
) -> int:
    """Fill a folder with the micrographs of the chosen source, and describe them.

    Args:
        params: The source, and what it needs.
        raw: Folder to write, replaced whole.
        catalogue: CSV to write, one row per micrograph (columns: `catalogue.COLUMNS`).
        seed: Of the simulated set.
        listing: What `folder` held when it was listed; the other sources leave it unread.
        folder: Where the user's own micrographs lie; None for the other sources.
        scratch: Downloads stay here between runs.

    Returns:
        The number of micrographs.

    Raises:
        InputError: The source is not as expected; the message lists every bad file with its reason.
            Neither output is changed.
    """
    with atomic_folder(raw) as new:
        rows: list[dict[str, Any]]
        match params.source:
            case "simulated":
                rows = [
                    dict(row) | {"licence": SIMULATED_LICENCE}
                    for row in simulate_set(params.simulated, new, seed=seed)
                ]
            case "boiko":
                rows = acquire_boiko(params.boiko, new, scratch / "figshare")
            case "folder":
                if folder is None:
                    raise InputError(
                        "acquire.source is `folder`, but no folder is named: set "
                        "SEMFORENSICS_FOLDER, or call `make repro FOLDER=...`"
                    )
                rows = acquire_folder(params.folder, new, folder, listing)
        described = describe_files(new, rows)
        return write_catalogue([row | {"source": params.source} for row in described], catalogue)
