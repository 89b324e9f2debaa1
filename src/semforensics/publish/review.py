"""What a change does to the numbers: a report for the one who reviews it.

Works on any forge and without a network: it reads two revisions of a checkout whose data have been
pulled, and writes a Markdown page with pictures beside it. Nothing is run again: hashes of another
machine would differ, and whether dvc.lock belongs to the code is asked of DVC (`stale_stages`).
"""

import itertools
import json
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from semforensics.core.errors import InputError
from semforensics.core.files import atomic_folder
from semforensics.core.markdown import markdown_table
from semforensics.publish.dvc import run_dvc
from semforensics.publish.dvc_plots import DrawnPlot, render_plots
from semforensics.publish.rendering import code, number, render

_HIGHER_IS_BETTER = re.compile(
    r"accuracy|average_precision|auroc|true_positive_rate|decided|passed|coverage|density"
    r"|^precision_|^recall_|compactness_supported"
)
_LOWER_IS_BETTER = re.compile(
    r"false_alarms|misses|false_positive_rate|flagged|equal_error_rate|^ece|brier|log_loss|^kid_"
    r"|^spectrum_distance|^particle_size_distance|^n_fragile|^n_biased|_change$"
)
_NO_JUDGEMENT = re.compile(r"_low$|_high$|_sd$|_floor$|^max_false_positive_rate$")

_HEADLINE = "headline"  # the file that comes first
_MAX_ROWS = 200  # of one table: a longer one is not read


@dataclass(frozen=True)
class Change:
    """One metric or parameter in two revisions; None: it is not there."""

    file: str
    key: str
    old: Any
    new: Any

    @property
    def step(self) -> float | None:
        """New minus old, where both are numbers."""
        numbers = (int, float)
        if not (isinstance(self.old, numbers) and isinstance(self.new, numbers)):
            return None
        return float(self.new) - float(self.old)

    @property
    def mark(self) -> str:
        """▲ better, ▼ worse, ↑ ↓ neither, as far as the name of the metric tells."""
        name = self.key.rsplit(".", 1)[-1]
        if not self.step:
            return ""
        is_up = self.step > 0
        if not _NO_JUDGEMENT.search(name):
            if _LOWER_IS_BETTER.search(name):  # first: false alarms *of decided*
                return "▼ worse" if is_up else "▲ better"
            if _HIGHER_IS_BETTER.search(name):
                return "▲ better" if is_up else "▼ worse"
        return "↑" if is_up else "↓"


def stale_stages(repository: Path) -> list[str]:
    """Name the stages whose code, parameters or inputs are not those that dvc.lock records.

    Raises:
        InputError: DVC cannot read the pipeline.
    """
    # With data in place this returns 0 whatever it says; without, it fails where something changed.
    done = run_dvc(repository, "repro", "--dry", "--allow-missing")
    stages = re.findall(r"^Running stage '(.+?)'", done.stdout, flags=re.MULTILINE)
    if done.returncode and not stages:
        raise InputError(f"dvc repro: {done.stderr.strip() or done.stdout.strip()}")
    return stages


def write_report(base: str, head: str, out: Path, repository: Path) -> int:
    """Write `report.md` and its pictures; return the number of warnings.

    A warning is a headline number that fell by more than its interval. The data of both revisions
    must be in the cache.

    Raises:
        InputError: A revision is unknown, or DVC refuses.
    """
    metrics = _diff(repository, "metrics", base, head, _metrics_files(repository, base, head))
    params = _diff(repository, "params", base, head)
    changed = [change for change in metrics if change.old != change.new]
    warnings = list(_warnings(metrics))
    with atomic_folder(out) as folder:
        page = render(
            "report.md",
            base=base,
            head=head,
            warnings=warnings,
            params=params,
            metrics=changed,
            num_same=len(metrics) - len(changed),
            pictures=_changed_pictures(render_plots(repository, [base, head], folder / "plots")),
            tables=_tables,
        )
        (folder / "report.md").write_text(page.rstrip() + "\n", encoding="utf-8")
    return len(warnings)


def _metrics_files(repository: Path, *revisions: str) -> list[str]:
    """Name all files of metrics, not only the few that `dvc metrics` shows by itself."""
    found: set[str] = set()
    for revision in revisions:
        command = ["git", "ls-tree", "-r", "--name-only", "--end-of-options", revision]
        done = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False)
        if done.returncode:
            raise InputError(f"{revision}: {done.stderr.strip()}")
        found |= {n for n in done.stdout.splitlines() if re.fullmatch(r"metrics(/.+)?\.json", n)}
    return sorted(found)


def _diff(
    repository: Path, kind: str, base: str, head: str, files: Sequence[str] = ()
) -> list[Change]:
    """List metrics or params of two revisions, equal ones too, sorted by file and key."""
    targets = ["--targets", *files] if files else []
    done = run_dvc(repository, kind, "diff", "--json", "--all", *targets, "--", base, head)
    if done.returncode:
        raise InputError(f"dvc {kind} diff {base} {head}: {done.stderr.strip()}")
    found: Mapping[str, Mapping[str, Mapping[str, Any]]] = json.loads(done.stdout or "{}")
    return [
        Change(file, key, value.get("old"), value.get("new"))
        for file, keys in sorted(
            found.items(), key=lambda item: (_HEADLINE not in item[0], item[0])
        )
        for key, value in sorted(keys.items())
    ]


def _warnings(metrics: Sequence[Change]) -> Iterator[tuple[Change, float, float]]:
    """Find the numbers that left their interval on the bad side; yield its old ends too."""
    old = {(c.file, c.key): c.old for c in metrics}
    for change in metrics:
        low, high = (old.get((change.file, f"{change.key}{end}")) for end in ("_low", "_high"))
        if "worse" not in change.mark or change.step is None:
            continue
        if not (isinstance(low, int | float) and isinstance(high, int | float)):
            continue
        if change.new < low if change.step < 0 else change.new > high:
            yield change, low, high


def _tables(changes: Sequence[Change], names: Sequence[str]) -> str:
    """Return one table per file."""
    parts: list[str] = []
    for file, group in itertools.groupby(changes, key=lambda change: change.file):
        rows = [
            [
                f"`{code(change.key)}`",
                number(change.old),
                number(change.new),
                "" if change.step is None else f"{change.step:+.4g}",
                change.mark,
            ][: len(names)]
            for change in group
            if change.old != change.new
        ]
        if rows:
            parts.append(f"`{code(file)}`\n\n{markdown_table(names, rows[:_MAX_ROWS])}")
        if len(rows) > _MAX_ROWS:
            parts.append(f"{len(rows) - _MAX_ROWS} more are left out.\n")
    return "\n".join(parts) or "None.\n"


def _changed_pictures(drawn: Sequence[DrawnPlot]) -> dict[str, list[DrawnPlot]]:
    """Group pictures by their plot; delete those whose before and after are the same bytes."""
    groups: dict[str, list[DrawnPlot]] = {}
    for plot in drawn:
        groups.setdefault(plot.name, []).append(plot)
    for name, plots in list(groups.items()):
        is_pair = len(plots) == 2 and all(len(plot.revisions) == 1 for plot in plots)
        if is_pair and plots[0].path.read_bytes() == plots[1].path.read_bytes():
            for plot in groups.pop(name):
                plot.path.unlink()
    return groups
