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
    """Fill a folder with the micrographs of the chosen source, describe them, and count them.

    `raw` is replaced whole; downloads stay in `scratch` between runs. The catalogue is a CSV file
    with a row per micrograph (columns: `CATALOGUE_COLUMNS`). The user's own micrographs lie in
    `folder`, and `listing` says what it held when it was listed; other sources read neither. The
    seed is that of the simulated set.

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
