"""Write a submission's report as one HTML file, as JSON and as CSV, one picture at a time.

The HTML needs no script and fetches nothing. Everything that comes from a file is escaped. What the
program says of a panel is in `WORDING`; the word for a generated image that passes for a real one
does not occur, because no program can tell intent.
"""

import csv
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from semforensics.core.errors import InputError
from semforensics.core.files import atomic_file
from semforensics.screening.records import Refusal, Reuse
from semforensics.screening.write import markup
from semforensics.screening.write.fragment import box_entry, refusal_entry

SCHEMA_VERSION = "1.0"
FULL_DETAIL = 40
"""A submission of no more pictures than this has all of them in full detail."""
MOST_DETAILED = 100
"""Pictures in full detail in a larger one: suspected ones first, then inconclusive ones."""
COLUMNS = (
    "path", "location", "sha256", "panel", "top", "left", "bottom", "right", "verdict",
    "probability", "predictive_value", "p_real", "p_fake", "n_tiles", "logit", "share_inside",
    "reason",
)  # fmt: skip
REPORT_NAMES = ("report.json", "report.csv", "report.html")
_HEAD = ("model", "settings", "command", "version", "created")
_NUMBERS = COLUMNS[COLUMNS.index("probability") : -1]

Fragments = Callable[[], Iterator[dict[str, Any]]]


@dataclass
class Survey:
    """What the first reading of the fragments finds, so that later ones know what to show."""

    n_pictures: int = 0
    verdicts: Counter[str] = field(default_factory=Counter)
    """Panels of each verdict; "refused" counts whatever is not judged."""
    suspected: list[int] = field(default_factory=list)
    """Numbers of pictures with a suspected panel, from 0."""
    inconclusive: list[int] = field(default_factory=list)
    """Numbers of further pictures with an inconclusive panel."""

    def add(self, fragment: Mapping[str, Any]) -> None:
        """Count one picture."""
        verdicts = {panel["verdict"] for panel in fragment["panels"]}
        if "ai-suspected" in verdicts:
            self.suspected.append(self.n_pictures)
        elif "inconclusive" in verdicts:
            self.inconclusive.append(self.n_pictures)
        self.verdicts.update(panel["verdict"] for panel in fragment["panels"])
        self.verdicts["refused"] += len(fragment["refusals"])
        self.n_pictures += 1

    def detailed(self) -> frozenset[int]:
        """Return the numbers of the pictures that the HTML shows in full detail."""
        if self.n_pictures <= FULL_DETAIL:
            return frozenset(range(self.n_pictures))
        return frozenset((self.suspected + self.inconclusive)[:MOST_DETAILED])


def write_report(
    folder: Path,
    head: dict[str, Any],
    fragments: Fragments,
    refusals: Sequence[Refusal],
    reuses: Sequence[Reuse],
) -> None:
    """Write `report.html`, `report.json` and `report.csv`, all three or none.

    Memory does not grow with the number of pictures: they are read again for every part.

    Args:
        folder: Made where it is missing; other files in it stay.
        head: `model` (with `training_domain`), `settings`, `command`, `version`, `created`.
        fragments: Gives all pictures anew at every call, in the same order, as
            `picture_fragment` makes them.
        refusals: Inputs and pictures that are not judged. Refused panels stand in their pictures.
        reuses: Panels that show the same place.

    Raises:
        InputError: `head` lacks something.
    """
    missing = [key for key in _HEAD if key not in head]
    if missing:
        raise InputError(f"report: no {', '.join(missing)} in the head; found {', '.join(head)}")
    if "training_domain" not in head["model"]:
        raise InputError(f"report: no training_domain in the model; found {[*head['model']]}")
    with ExitStack() as renamed, ExitStack() as closed:  # all are whole before one gets its name
        json_file, csv_file, html_file = (
            closed.enter_context(
                renamed.enter_context(atomic_file(folder / name)).open(
                    "w", encoding="utf-8", newline=""
                )
            )
            for name in REPORT_NAMES
        )
        survey = _write_json_and_csv(json_file, csv_file, head, fragments, refusals, reuses)
        for part in _html(head, fragments, refusals, reuses, survey):
            html_file.write(part)


def _write_json_and_csv(
    json_file: TextIO,
    csv_file: TextIO,
    head: Mapping[str, Any],
    fragments: Fragments,
    refusals: Sequence[Refusal],
    reuses: Sequence[Reuse],
) -> Survey:
    survey = Survey()
    table = csv.DictWriter(csv_file, COLUMNS, lineterminator="\r\n")
    table.writeheader()
    json_file.write(f'{{\n"schema_version": {_json(SCHEMA_VERSION)},\n')
    for key in ("created", "version", "command", "settings", "model"):
        json_file.write(f"{_json(key)}: {_json(head[key])},\n")
    json_file.write('"images": [')
    for fragment in fragments():
        entry = {key: value for key, value in fragment.items() if key != "figures"}
        json_file.write(f"{',' if survey.n_pictures else ''}\n{_json(entry)}")
        table.writerows(_rows(fragment))
        survey.add(fragment)
    survey.verdicts["refused"] += len(refusals)
    refused = [refusal_entry(refusal) for refusal in refusals]
    table.writerows(_row(entry, {}) for entry in refused)
    summary = {
        "n_pictures": survey.n_pictures,
        "n_reuses": len(reuses),
        **{f"n_{name.replace('-', '_')}": survey.verdicts[name] for name in markup.ORDER},
    }
    json_file.write(
        f'\n],\n"refusals": {_json(refused)},\n"reuse": {_json([*map(_reuse, reuses)])},\n'
        f'"summary": {_json(summary)}\n}}\n'
    )
    return survey


def _json(value: Any) -> str:
    return json.dumps(value, allow_nan=False)  # ASCII: names on disk need not be Unicode


def _reuse(reuse: Reuse) -> dict[str, Any]:
    names = ("path", "location", "panel")
    return {
        "first": dict(zip(names, reuse.first, strict=True)),
        "second": dict(zip(names, reuse.second, strict=True)),
        "transform": reuse.transform,
        "overlap": box_entry(reuse.overlap),
        "correlation": reuse.correlation,
    }


def _rows(fragment: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for panel in fragment["panels"]:
        yield _row(fragment, panel)
    for refusal in fragment["refusals"]:
        yield _row(refusal, {})


def _row(where: Mapping[str, Any], panel: Mapping[str, Any]) -> dict[str, Any]:
    """Return a line of the table: of a panel, or of what is refused before it is one."""
    judged = panel or {"verdict": "refused", "reason": where["reason"]}
    return {
        "path": _cell(where["path"]),
        "location": _cell(where["location"]),
        "sha256": where["sha256"],
        "panel": _cell(judged.get("name", "")),
        **judged.get("box", {}),
        "verdict": judged["verdict"],
        **{name: judged.get(name) for name in _NUMBERS},
        "reason": _cell(judged["reason"]),
    }


def _cell(text: str) -> str:
    """Keep a spreadsheet from taking a hostile name for a formula."""
    shown = markup.visible(text)
    return f"'{shown}" if shown.startswith(("=", "+", "-", "@")) else shown


def _html(
    head: Mapping[str, Any],
    fragments: Fragments,
    refusals: Sequence[Refusal],
    reuses: Sequence[Reuse],
    survey: Survey,
) -> Iterator[str]:
    detailed = survey.detailed()
    rest = survey.n_pictures - len(detailed)
    yield markup.opening(head)
    yield markup.about(head)
    yield markup.summary(
        survey.verdicts, n_pictures=survey.n_pictures, n_reuses=len(reuses), head=head
    )
    yield markup.model_box(head["model"])
    if detailed:
        yield markup.pictures_heading(len(detailed), rest, MOST_DETAILED, FULL_DETAIL)
        for number, fragment in enumerate(fragments()):
            if number in detailed:
                yield markup.picture(fragment, number, head["settings"])
        yield "</section>\n"
    if rest:
        others = (f for number, f in enumerate(fragments()) if number not in detailed)
        yield from markup.rows(others, rest)
    yield from markup.refused(_refused(fragments, refusals))
    named = {reuse.first[:2] for reuse in reuses} | {reuse.second[:2] for reuse in reuses}
    anchors = {
        (fragment["path"], fragment["location"]): number
        for number, fragment in enumerate(fragments() if named else ())
        if number in detailed and (fragment["path"], fragment["location"]) in named
    }
    yield from markup.reuse(map(_reuse, reuses), anchors)
    yield markup.method(head)


def _refused(fragments: Fragments, refusals: Iterable[Refusal]) -> Iterator[dict[str, Any]]:
    """Return all that is not judged: inputs first, then parts of pictures."""
    yield from map(refusal_entry, refusals)
    for fragment in fragments():
        yield from fragment["refusals"]
        for panel in fragment["panels"]:
            if panel["verdict"] == "refused":
                place = ", ".join(filter(None, [fragment["location"], f"panel {panel['name']}"]))
                yield {**fragment, "location": place, "reason": panel["reason"]}
