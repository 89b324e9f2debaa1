"""DVC's plots as pictures: what `dvc plots` shows in a browser, drawn without one or a network.

DVC compares revisions and fills its Vega-Lite templates; vl-convert draws them.
"""

import json
import re
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from semforensics.core.errors import InputError
from semforensics.core.files import atomic_folder
from semforensics.publish.dvc import run_dvc

_SCALE = 1.5  # pixels of a picture per pixel of a template


@dataclass(frozen=True)
class DrawnPlot:
    """A picture of one plot of dvc.yaml."""

    name: str
    """Of the plot, as dvc.yaml defines it."""
    revisions: tuple[str, ...]
    """That it shows: all that have it for curves, one for a picture that a stage made."""
    path: Path
    is_same: bool = False
    """Curves of several revisions that all have the same values."""


def render_plots(repository: Path, revisions: Sequence[str], folder: Path) -> list[DrawnPlot]:
    """Draw the plots of dvc.yaml as PNG files, of several revisions into one picture.

    Revisions are of Git or DVC; "workspace", or none, is what lies in the repository.

    Returns:
        What was drawn, in the order of dvc.yaml. A plot without data in any revision is left out.

    Raises:
        InputError: DVC refuses, such as a revision that does not exist.
    """
    import vl_convert  # slow to import; a report needs it, nothing else does

    drawn = []
    with tempfile.TemporaryDirectory() as name, atomic_folder(folder) as pictures:
        for plot, entries in _plots(repository, revisions, Path(name)).items():
            for entry in entries:
                shown = tuple(str(revision) for revision in entry["revisions"])
                is_same = False
                if entry["type"] == "vega":
                    is_same = _is_same(entry["content"])
                    path = pictures / f"{_file_name(plot)}.png"
                    path.write_bytes(vl_convert.vegalite_to_png(entry["content"], scale=_SCALE))
                else:
                    source = Path(entry["url"])
                    stem = _file_name(f"{Path(plot).with_suffix('')}_{'_'.join(shown)}")
                    path = pictures / f"{stem}{source.suffix}"
                    shutil.copy(source, path)
                drawn.append(DrawnPlot(plot, shown, folder / path.name, is_same))
    return drawn


def _plots(
    repository: Path, revisions: Sequence[str], pictures: Path
) -> dict[str, list[dict[str, Any]]]:
    """Ask DVC for all plots: filled templates, and pictures copied into a folder."""
    command = ["plots", *(["diff", *revisions] if revisions else ["show"])]
    done = run_dvc(repository, *command, "--json", "-o", str(pictures))
    if done.returncode:
        raise InputError(f"dvc {' '.join(command)}: {done.stderr.strip()}")
    found: dict[str, list[dict[str, Any]]] = json.loads(done.stdout).get("data", {})
    return found


def _is_same(content: str | dict[str, Any]) -> bool:
    """Whether a filled template shows the same values of two or more revisions."""
    template = json.loads(content) if isinstance(content, str) else content
    rows: dict[str, list[str]] = {}
    for row in template["data"]["values"]:
        values = {name: value for name, value in row.items() if not name.startswith("rev")}
        rows.setdefault(row["rev"], []).append(json.dumps(values, sort_keys=True))
    first, *others = (sorted(values) for values in rows.values())
    return bool(others) and all(values == first for values in others)


def _file_name(text: str) -> str:
    """Turn the name of a plot into that of a file."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", text).strip("_.")
