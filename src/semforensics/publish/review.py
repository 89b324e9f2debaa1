"""What a change does to the numbers: a report for the one who reviews it.

Works on any forge and without a network: it reads two revisions of a checkout whose data have been
pulled, and writes a Markdown page with pictures beside it. Nothing is run again: hashes of another
machine would differ, and whether dvc.lock belongs to the code is asked of DVC (`stale_stages`).
"""

import html
import json
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from semforensics.core.errors import InputError
from semforensics.core.files import atomic_file, atomic_folder
from semforensics.publish.dvc import run_dvc
from semforensics.publish.dvc_plots import DrawnPlot, render_plots

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
_MAX_ROWS = 200  # of one table: a page that nobody scrolls through helps nobody


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
    """Write `report.md` and its pictures.

    Args:
        base: Revision that the change goes into.
        head: Revision with the change.
        out: Folder to write; an older one is replaced.
        repository: A folder of the checkout, with the data of both revisions in its cache.

    Returns:
        The number of warnings: headline numbers that fell by more than their interval.

    Raises:
        InputError: A revision is unknown, or DVC refuses.
    """
    metrics = _diff(repository, "metrics", base, head, _metrics_files(repository, base, head))
    params = _diff(repository, "params", base, head)
    warnings = list(_warnings(metrics))
    with atomic_folder(out) as folder:
        drawn = _drop_same(render_plots(repository, [base, head], folder / "plots"))
        changed = [c for c in metrics if c.old != c.new]
        lines = [
            f"# {_text(base)} → {_text(head)}",
            "",
            *_warning_lines(warnings),
            "## Parameters",
            "",
            *_table(params, ["parameter", "before", "after"]),
            "## Metrics",
            "",
            "▲ better, ▼ worse, ↑ ↓ neither by its name alone. "
            f"{len(metrics) - len(changed)} numbers are the same in both and left out.",
            "",
            *_table(changed, ["metric", "before", "after", "step", ""]),
            "## Plots",
            "",
            "Pictures that are the same in both are left out.",
            "",
            *_pictures(drawn),
        ]
        with atomic_file(folder / "report.md") as path:
            path.write_text("\n".join(lines).rstrip() + "\n")
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


def _warnings(metrics: Sequence[Change]) -> Iterator[str]:
    """Name the numbers that left their interval on the bad side."""
    known = {(c.file, c.key): c for c in metrics}
    for change in metrics:
        ends = [known.get((change.file, f"{change.key}{end}")) for end in ("_low", "_high")]
        if "worse" not in change.mark or None in ends or change.step is None:
            continue
        low, high = (end.old for end in ends if end is not None)
        if isinstance(low, int | float) and isinstance(high, int | float):
            fell = change.new < low if change.step < 0 else change.new > high
            if fell:
                yield (
                    f"`{_code(change.file)}` `{_code(change.key)}`: {_number(change.old)} "
                    f"({_number(low)} to {_number(high)}) → {_number(change.new)}"
                )


def _warning_lines(warnings: Sequence[str]) -> list[str]:
    if not warnings:
        return ["No number with an interval got worse by more than it.", ""]
    head = f"⚠ **{len(warnings)} numbers got worse by more than their 95 % interval:**"
    return [head, "", *(f"- {warning}" for warning in warnings), ""]


def _table(changes: Sequence[Change], names: Sequence[str]) -> list[str]:
    """Return one table per file."""
    if not changes:
        return ["None.", ""]
    lines: list[str] = []
    for file in dict.fromkeys(change.file for change in changes):
        rows = [c for c in changes if c.file == file and c.old != c.new]
        if not rows:
            continue
        lines += [f"`{_code(file)}`", "", _line(names), _line(["---"] * len(names))]
        for change in rows[:_MAX_ROWS]:
            step = "" if change.step is None else f"{change.step:+.4g}"
            cells = [f"`{_code(change.key)}`", _number(change.old), _number(change.new)]
            lines.append(_line([*cells, step, change.mark][: len(names)]))
        if len(rows) > _MAX_ROWS:
            lines += ["", f"{len(rows) - _MAX_ROWS} more are left out."]
        lines.append("")
    return lines or ["None.", ""]


def _drop_same(drawn: Sequence[DrawnPlot]) -> list[DrawnPlot]:
    """Delete pictures whose before and after are the same bytes; give the others."""
    kept: list[DrawnPlot] = []
    for name in dict.fromkeys(plot.name for plot in drawn):
        plots = [plot for plot in drawn if plot.name == name]
        is_pair = len(plots) == 2 and all(len(plot.revisions) == 1 for plot in plots)
        if is_pair and plots[0].path.read_bytes() == plots[1].path.read_bytes():
            for plot in plots:
                plot.path.unlink()
        else:
            kept += plots
    return kept


def _pictures(drawn: Sequence[DrawnPlot]) -> list[str]:
    """Show curves of both revisions in one picture, pictures before and after side by side."""
    if not drawn:
        return ["None."]
    lines: list[str] = []
    for name in dict.fromkeys(plot.name for plot in drawn):
        plots = [plot for plot in drawn if plot.name == name]
        shown = dict.fromkeys(revision for plot in plots for revision in plot.revisions)
        lines += [f"**{_text(name)}** ({_text(', '.join(shown))})", ""]
        lines += [
            f'<img alt="{_attribute(name)}, {_attribute(", ".join(plot.revisions))}" '
            f'src="plots/{_attribute(plot.path.name)}" width="{95 // min(len(plots), 2)}%">'
            for plot in plots
        ]
        lines.append("")
    return lines


def _number(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else _text(str(value))


def _text(text: str) -> str:
    """Take from text what Markdown or a forge would act on: marks, HTML, tables, @mentions."""
    flat = re.sub(r"\s+", " ", text)
    return re.sub(r"([\\`*_{}\[\]()#+!|~])", r"\\\1", html.escape(flat)).replace("@", "@\u200b")


def _code(text: str) -> str:
    """Make text fit between backticks inside a table."""
    return re.sub(r"[`|\s]+", " ", text)


def _attribute(text: str) -> str:
    return html.escape(re.sub(r"\s+", " ", text), quote=True)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
