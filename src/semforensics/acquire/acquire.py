"""Bring raw micrographs from one of three sources into one folder, with a catalogue."""

from pathlib import Path

from semforensics.acquire.boiko import acquire_boiko
from semforensics.acquire.catalogue import describe_files, write_catalogue
from semforensics.acquire.folder import acquire_folder
from semforensics.acquire.simulated import simulate_set
from semforensics.core.errors import InputError
from semforensics.core.files import atomic_folder
from semforensics.params import AcquireParams


def acquire(
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
        catalogue: CSV to write, one row per micrograph (columns: `CATALOGUE_COLUMNS`).
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
        match params.source:
            case "simulated":
                rows = simulate_set(params.simulated, new, seed=seed)
            case "boiko":
                rows = acquire_boiko(params.boiko, new, scratch / "figshare")
            case "folder":
                if folder is None:
                    raise InputError(
                        "acquire.source is `folder`, but no folder is named: set "
                        "SEMFORENSICS_FOLDER, or call `make repro FOLDER=...`"
                    )
                rows = acquire_folder(params.folder, new, folder, listing)
        for row in rows:
            row["source"] = params.source
        return write_catalogue(describe_files(new, rows), catalogue)
