"""What a change does to the numbers: a report for the one who reviews it.

Works on any forge and without a network: it reads two revisions of a checkout whose data have been
pulled, and writes a Markdown page with pictures beside it. Nothing is run again: hashes of another
machine would differ, and whether dvc.lock belongs to the code is asked of DVC (`stale_stages`).
"""

import json
import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from semforensics.core.errors import InputError
from semforensics.core.files import atomic_folder
from semforensics.core.markdown import markdown_table
from semforensics.figures.changes import changes_figure
from semforensics.figures.matrix import name_of
from semforensics.figures.style import save_figure
from semforensics.publish.changes import Change, Measured, exact, flatten, measured_in, results_in
from semforensics.publish.dvc import run_dvc
from semforensics.publish.dvc_plots import DrawnPlot, render_plots
from semforensics.publish.rendering import code, render, text
from semforensics.trials.headline import headline_sources, trials_sources
from semforensics.trials.spread import SPREAD_FILE, read_spread, with_spread

# Copies of numbers of other files, and what finds the originals.
_HEADLINES = {
    "metrics/headline.json": headline_sources,
    "metrics/trials.json": trials_sources,
}
_DETECTOR = re.compile(r"metrics/classifier/(.+)\.json")
_OF_REALS = ("accuracy_real", "decided_real", "false_alarms_of_decided")  # on all generators alike
_FACTS = ("data", "protocol", "n_real", "n_fake", "n_groups")  # where they differ, nothing compares
_PANELS = {
    "accuracy": "Accuracy",
    "average_precision": "Average precision",
    "decided_real": "Reals decided",
    "decided_fake": "Fakes decided",
    "false_alarms_of_decided": "False alarms",
}
_MAX_ROWS = 200  # of one table: a longer one is not read

Metrics = dict[str, dict[str, Any]]
"""What the files of a revision hold, by their paths."""


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

    A warning is a result that got worse by more than its interval (`Change.is_worse`). The data of
    both revisions must be in the cache.

    Raises:
        InputError: A revision is unknown, or DVC refuses.
    """
    before, after = (_read_metrics(repository, revision) for revision in (base, head))
    pairs = _pair(before, after)
    results = {file: _once(found) for file, found in pairs.items()}
    headline = _pair_headline(before, after)
    changed = {file: [c for c in found if not c.is_same] for file, found in results.items()}
    num_worse = sum(change.is_worse for found in results.values() for change in found)
    shown = _picture_rows(pairs)
    with atomic_folder(out) as folder:
        plots = _changed_plots(render_plots(repository, [base, head], folder / "plots"))
        if not shown.empty:
            (folder / "plots").mkdir(exist_ok=True)
            figure = changes_figure(shown, before=base, after=head)
            save_figure(figure, folder / "plots/changes.png")
        page = render(
            "report.md",
            base=base,
            head=head,
            num_worse=num_worse,
            headline=headline,
            headline_table=_headline_table(headline),
            detectors_table=_detectors_table(results),
            has_picture=not shown.empty,
            params=_params(repository, base, head),
            facts=_other_facts(before, after),
            changed={file: found for file, found in changed.items() if found},
            results_table=_results_table,
            plots=plots,
        )
        (folder / "report.md").write_text(page.rstrip() + "\n", encoding="utf-8")
    return num_worse


def _read_metrics(repository: Path, revision: str) -> Metrics:
    """Read all files of metrics, not only the few that `dvc metrics` shows by itself.

    Numbers whose spread over trainings the revision stores get its interval.
    """

    def git(*arguments: str) -> str:
        command = ["git", *arguments]
        done = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False)
        if done.returncode:
            raise InputError(f"{revision}: {done.stderr.strip()}")
        return done.stdout

    names = git("ls-tree", "-r", "-z", "--name-only", "--end-of-options", revision).split("\0")
    found: Metrics = {}
    for name in sorted(name for name in names if re.fullmatch(r"metrics(/.+)?\.json", name)):
        try:
            content = json.loads(git("show", "--end-of-options", f"{revision}:./{name}"))
        except json.JSONDecodeError as error:
            raise InputError(f"{revision}: {name}: not JSON: {error}") from error
        if not isinstance(content, dict):
            raise InputError(f"{revision}: {name}: not a JSON object")
        found[name] = content
    if SPREAD_FILE in names:
        spread = read_spread(git("show", "--end-of-options", f"{revision}:./{SPREAD_FILE}"))
        found = {name: with_spread(content, name, spread) for name, content in found.items()}
    return found


def _params(repository: Path, base: str, head: str) -> list[tuple[str, Any, Any]]:
    """List the parameters that differ: name, before, after."""
    done = run_dvc(repository, "params", "diff", "--json", "--", base, head)
    if done.returncode:
        raise InputError(f"dvc params diff {base} {head}: {done.stderr.strip()}")
    found: dict[str, dict[str, dict[str, Any]]] = json.loads(done.stdout or "{}")
    return [
        (key if file == "params.yaml" else f"{file}: {key}", value.get("old"), value.get("new"))
        for file, keys in sorted(found.items())
        for key, value in sorted(keys.items())
    ]


def _pair(before: Metrics, after: Metrics) -> dict[str, list[Change]]:
    """Pair the results of all files but the headline's."""
    pairs = {}
    for file in sorted({*before, *after} - {*_HEADLINES}):
        old, new = (results_in(metrics.get(file, {})) for metrics in (before, after))
        keys = list(dict.fromkeys([*new, *old]))
        pairs[file] = [Change(key, old.get(key), new.get(key)) for key in keys]
    return pairs


def _once(changes: Sequence[Change]) -> list[Change]:
    """Keep one of the equal changes that reals make on each generator."""
    found: dict[object, Change] = {}
    for change in changes:
        is_of_reals = change.name in _OF_REALS
        found.setdefault((change.name, change.old, change.new) if is_of_reals else change, change)
    return list(found.values())


def _pair_headline(before: Metrics, after: Metrics) -> list[tuple[str, Change]]:
    """Pair the numbers of the headline, with the words for them."""
    old, new = _headline_numbers(before), _headline_numbers(after)
    words = {name: found[0] for name, found in (old | new).items()}
    none = "", None
    return [
        (words[name], Change(name, old.get(name, none)[1], new.get(name, none)[1]))
        for name in words
    ]


def _headline_numbers(metrics: Metrics) -> dict[str, tuple[str, Measured | None]]:
    """Find words and number by name, with the interval of the file that the number is from."""
    found: dict[str, tuple[str, Measured | None]] = {}
    for file, sources_of in _HEADLINES.items():
        try:
            sources = sources_of(lambda name: metrics[f"metrics/{name}.json"])
        except (AttributeError, KeyError, StopIteration, TypeError, ValueError):
            continue  # not measured, or by another version
        copies = flatten(metrics.get(file, {}))
        for source in sources:
            number: Measured | None
            if source.key is None:
                number = exact(source.value)
            else:
                number = measured_in(flatten(metrics[f"metrics/{source.file}.json"]), source.key)
            joined = number and number.joined(measured_in(copies, source.name))
            found[source.name] = source.words, joined
    return found


def _headline_table(headline: Sequence[tuple[str, Change]]) -> str:
    """Return a row per number that changed, and the others in a line."""
    rows = [[text(words), *_cells(change)] for words, change in headline if not change.is_same]
    same = [
        f"{text(words)} {change.new and Measured(change.new.value)}"
        for words, change in headline
        if change.is_same
    ]
    parts = [markdown_table(["headline", "before", "after", ""], rows)] if rows else []
    return "\n".join([*parts, f"Unchanged: {', '.join(same)}.\n"] if same else parts)


def _detectors_table(results: Mapping[str, Sequence[Change]]) -> str:
    """Return a line per detector: how many results left their intervals, and the worst change."""
    rows = []
    for file, changes in results.items():
        if changes and (detector := _DETECTOR.fullmatch(file)):
            counts = [sum(getattr(c, way) for c in changes) for way in ("is_worse", "is_better")]
            worst = min(changes, key=lambda change: (not change.is_worse, change.gain))
            shown = ["-"] * 4
            if worst.gain < 0:
                old, new, verdict = _cells(worst)
                shown = [f"`{code(worst.key)}`", old, new, "⚠" if worst.is_worse else verdict]
            rows.append([f"`{code(detector[1])}`", "{} / {}".format(*counts), *shown])
    names = ["detector", "worse / better", "worst change", "before", "after", ""]
    return markdown_table(names, rows) if rows else ""


def _results_table(changes: Sequence[Change]) -> str:
    """Return one row per result, first those that left their intervals."""
    first = sorted(changes, key=lambda change: (not change.is_worse, not change.is_better))
    rows = [[f"`{code(change.key)}`", *_cells(change)] for change in first[:_MAX_ROWS]]
    table = markdown_table(["result", "before", "after", ""], rows)
    num_left_out = len(changes) - len(rows)
    return table + (f"\n{num_left_out} more are left out.\n" if num_left_out else "")


def _cells(change: Change) -> list[str]:
    old, new = ("-" if one is None else str(one) for one in (change.old, change.new))
    return [old, new, change.verdict]


def _other_facts(before: Metrics, after: Metrics) -> list[tuple[str, Any, Any]]:
    """List what was measured on other data: the name of a fact, before, after."""
    found: dict[str, tuple[str, Any, Any]] = {}
    for file in sorted({*before} & {*after}):
        old, new = flatten(before[file]), flatten(after[file])
        for key in sorted({*old} & {*new}):
            fact = key.rpartition(".")[2], old[key], new[key]
            if fact[0] in _FACTS and old[key] != new[key]:
                found.setdefault(str(fact), fact)
    return list(found.values())


def _picture_rows(pairs: Mapping[str, Sequence[Change]]) -> pd.DataFrame:
    """Return what `changes_figure` draws: a row per detector, generator and panel."""
    rows = []
    for file, changes in pairs.items():
        if not (detector := _DETECTOR.fullmatch(file)):
            continue
        by_key = {change.key: change for change in changes}
        for generator in dict.fromkeys(key.rpartition(".")[0] for key in by_key):
            for name, panel in _PANELS.items():
                if change := by_key.get(f"{generator}.{name}"):
                    line = f"{name_of(detector[1])} on {name_of(generator)}"
                    rows.append({"line": line, "panel": panel, **change.as_row()})
    return pd.DataFrame(rows)


def _changed_plots(drawn: Sequence[DrawnPlot]) -> dict[str, list[DrawnPlot]]:
    """Group pictures by their plot; delete those that show the same before and after."""
    groups: dict[str, list[DrawnPlot]] = {}
    for plot in drawn:
        groups.setdefault(plot.name, []).append(plot)
    for name, plots in list(groups.items()):
        is_pair = len(plots) == 2 and all(len(plot.revisions) == 1 for plot in plots)
        is_same = is_pair and plots[0].path.read_bytes() == plots[1].path.read_bytes()
        if is_same or all(plot.is_same for plot in plots):
            for plot in groups.pop(name):
                plot.path.unlink()
    return groups
