"""Write a submission's report as one HTML file, as JSON and as CSV, one picture at a time.

The HTML needs no script and fetches nothing. Everything that comes from a file is escaped. What the
program says of a panel is in `WORDING`; the word for a generated image that passes for a real one
does not occur, because no program can tell intent.
"""

import csv
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from markupsafe import Markup

from semforensics.core.files import atomic_file
from semforensics.screening.records import Refusal, Reuse
from semforensics.screening.write.figures import GRAD_CAM_END, TILE_LOGIT_END
from semforensics.screening.write.fragment import refusal_entry
from semforensics.screening.write.rendering import REPORT_CSS, TEMPLATES, visible

SCHEMA_VERSION = "1.3"
FULL_DETAIL = 40
"""A submission of no more pictures than this has all of them in full detail."""
MOST_DETAILED = 100
"""Pictures in full detail in a larger one: suspected ones first, then inconclusive ones."""
COLUMNS = (
    "path", "location", "sha256", "panel", "top", "left", "bottom", "right", "verdict",
    "probability", "predictive_value", "p_real", "p_fake", "n_tiles", "logit", "share_inside",
    "share_judged", "reason", "in_part", "second_p_real", "by_second",
)  # fmt: skip
REPORT_NAMES = ("report.json", "report.csv", "report.html")
SIMULATED = (
    "This model was trained on simulated micrographs. Its verdicts on real ones mean nothing."
)
_HEAD = ("created", "version", "command", "settings", "model")
_ORDER = ("ai-suspected", "inconclusive", "consistent", "refused")
"""The order in which verdicts are listed: what needs work first."""

_json = partial(json.dumps, allow_nan=False)  # ASCII: names on disk need not be Unicode

Fragments = Callable[[], Iterator[dict[str, Any]]]


def is_simulated(model: Mapping[str, Any]) -> bool:
    """Tell whether a model, as it describes itself, has learned from simulated micrographs."""
    domain = model.get("training_domain")
    inner = domain.get("data") if isinstance(domain, Mapping) else None
    return "simulated" in (model.get("data"), inner)


@dataclass
class _Survey:
    """What the first reading of the fragments finds, so that later ones know what to show."""

    verdicts: Counter[str] = field(default_factory=Counter)
    """Panels of each verdict; "refused" counts inputs and pictures too."""
    n_in_part: int = 0
    """Panels that are suspected in part."""
    ranks: list[int] = field(default_factory=list)
    """Of each picture: the first of `_ORDER` that a panel of it has."""
    n_refused: list[int] = field(default_factory=list)
    """Of each picture: parts that were not judged."""

    def add(self, fragment: Mapping[str, Any]) -> None:
        """Count one picture."""
        verdicts = [panel["verdict"] for panel in fragment["panels"]]
        self.ranks.append(min(map(_ORDER.index, verdicts), default=len(_ORDER)))
        self.verdicts.update(verdicts, refused=len(fragment["refusals"]))
        self.n_refused.append(len(fragment["refusals"]) + verdicts.count("refused"))
        self.n_in_part += sum(panel["in_part"] for panel in fragment["panels"])

    def detailed(self) -> frozenset[int]:
        """Return the numbers, from 0, of the pictures that the HTML shows in full detail."""
        if len(self.ranks) <= FULL_DETAIL:
            return frozenset(range(len(self.ranks)))
        urgent = [number for number, rank in enumerate(self.ranks) if rank < 2]
        return frozenset(sorted(urgent, key=self.ranks.__getitem__)[:MOST_DETAILED])

    def at_a_glance(self) -> frozenset[int]:
        """Return the numbers of the pictures in the list on top: of many, the suspected ones."""
        shown, is_small = self.detailed(), len(self.ranks) <= FULL_DETAIL
        return frozenset(number for number in shown if is_small or self.ranks[number] == 0)


@dataclass(frozen=True)
class _Submission:
    """What a report is written from; all but its pictures as report.json lists it."""

    head: Mapping[str, Any]
    fragments: Fragments
    refused: Sequence[Mapping[str, Any]]
    pairs: Sequence[Mapping[str, Any]]


def write_report(
    folder: Path,
    head: Mapping[str, Any],
    fragments: Fragments,
    refusals: Sequence[Refusal],
    reuses: Sequence[Reuse],
) -> None:
    """Write `report.html`, `report.json` and `report.csv`, all three or none.

    Memory does not grow with the number of pictures: they are read again for every part.

    Args:
        folder: Made where it is missing; other files in it stay.
        head: `model` (with `training_domain`), `settings`, `command`, `version`, `created`.
        fragments: Returns all pictures anew at every call, in the same order, as
            `picture_fragment` makes them.
        refusals: Of inputs and pictures. Refused panels are in their pictures.
        reuses: Panels that show the same place.

    Raises:
        ValueError: `head` lacks something.
    """
    missing = {*_HEAD} - {*head} or {"training_domain"} - {*head["model"]}
    if missing:
        raise ValueError(f"report: no {', '.join(sorted(missing))}; found {', '.join(head)}")
    submission = _Submission(
        head, fragments, [*map(refusal_entry, refusals)], [*map(_pair, reuses)]
    )
    with ExitStack() as renamed, ExitStack() as closed:  # all are whole before one gets its name
        paths = [renamed.enter_context(atomic_file(folder / name)) for name in REPORT_NAMES]
        json_file, csv_file, html_file = (
            closed.enter_context(path.open("w", encoding="utf-8", newline="")) for path in paths
        )
        survey = _write_json_and_csv(submission, json_file, csv_file)
        page = TEMPLATES.get_template("report.html")
        html_file.writelines(page.generate(_values(submission, survey)))


def _pair(reuse: Reuse) -> dict[str, Any]:
    """Return two panels that show the same place, as report.json lists them."""
    names = ("path", "location", "panel")
    first, second = (dict(zip(names, end, strict=True)) for end in (reuse.first, reuse.second))
    return asdict(reuse) | {"first": first, "second": second}


def _write_json_and_csv(submission: _Submission, json_file: TextIO, csv_file: TextIO) -> _Survey:
    """Write all numbers, and count the verdicts on the way."""
    survey = _Survey()
    table = csv.DictWriter(csv_file, COLUMNS, extrasaction="ignore", lineterminator="\r\n")
    table.writeheader()
    json_file.write(f'{{\n"schema_version": {_json(SCHEMA_VERSION)},\n')
    json_file.writelines(f"{_json(key)}: {_json(submission.head[key])},\n" for key in _HEAD)
    json_file.write('"images": [')
    for fragment in submission.fragments():
        entry = {key: value for key, value in fragment.items() if key != "figures"}
        json_file.write(f"{',' if survey.ranks else ''}\n{_json(entry)}")
        for panel in fragment["panels"]:
            table.writerow(_cells(fragment | panel | panel["box"] | {"panel": panel["name"]}))
        table.writerows(map(_cells, fragment["refusals"]))
        survey.add(fragment)
    table.writerows(map(_cells, submission.refused))
    survey.verdicts["refused"] += len(submission.refused)
    summary = {"n_pictures": len(survey.ranks), "n_reuses": len(submission.pairs)}
    summary |= {f"n_{name.replace('-', '_')}": survey.verdicts[name] for name in _ORDER}
    summary["n_ai_suspected_in_part"] = survey.n_in_part
    json_file.write(
        f'\n],\n"refusals": {_json(submission.refused)},\n"reuse": {_json(submission.pairs)},\n'
        f'"summary": {_json(summary)}\n}}\n'
    )
    return survey


def _cells(values: Mapping[str, Any]) -> dict[str, Any]:
    """Keep a spreadsheet from taking a hostile name for a formula."""
    shown = {key: visible(it) if isinstance(it, str) else it for key, it in values.items()}
    return {
        key: f"'{it}" if isinstance(it, str) and it.startswith(("=", "+", "-", "@")) else it
        for key, it in shown.items()
    }


def _values(submission: _Submission, survey: _Survey) -> dict[str, Any]:
    """Return what the template shows; pictures come from iterators, to be read once each."""
    model, detailed, strip = submission.head["model"], survey.detailed(), survey.at_a_glance()

    def pictures() -> Iterator[tuple[int, dict[str, Any]]]:
        return enumerate(submission.fragments())

    return {
        **submission.head,
        "css": Markup(REPORT_CSS),
        "simulated": SIMULATED if is_simulated(model) else "",
        "model_facts": _facts(model),
        "second_facts": _facts(model.get("second", {})),
        "order": _ORDER,
        "verdicts": survey.verdicts,
        "n_in_part": survey.n_in_part,
        "n_pictures": len(survey.ranks),
        "n_by_rank": [survey.ranks.count(rank) for rank in range(len(_ORDER))],
        "n_strip": len(strip),
        "n_detailed": len(detailed),
        "full_detail": FULL_DETAIL,
        "most_detailed": MOST_DETAILED,
        "tile_logit_end": TILE_LOGIT_END,
        "grad_cam_end": GRAD_CAM_END,
        "strip": _by_rank(submission, survey, strip),
        "pictures": _by_rank(submission, survey, detailed),
        "others": (picture for number, picture in pictures() if number not in detailed),
        "refused": _refused_outside(submission, detailed),
        "n_inputs_refused": len(submission.refused),
        "n_refused_above": sum(survey.n_refused[number] for number in detailed),
        "pairs": submission.pairs,
        "anchors": {
            (picture["path"], picture["location"]): number
            for number, picture in (pictures() if submission.pairs else ())
            if number in detailed
        },
    }


def _facts(model: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is said of a model in a list, in this order; the rest has its own places."""
    first = ("name", "sha256", "data", "training_domain", "calibration")
    apart = ("limits", "false_alarms", "second")
    return {k: model[k] for k in (*first, *model) if k in model and k not in apart}


def _by_rank(
    submission: _Submission, survey: _Survey, numbers: Set[int]
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Return numbered pictures, suspected ones first; read anew for each rank, to hold but one."""
    for rank in sorted({survey.ranks[number] for number in numbers}):
        for number, picture in enumerate(submission.fragments()):
            if number in numbers and survey.ranks[number] == rank:
                yield number, picture


def _refused_outside(submission: _Submission, detailed: Set[int]) -> Iterator[Mapping[str, Any]]:
    """Return refusals of inputs, then of parts of pictures that are not shown in full detail."""
    yield from submission.refused
    for number, fragment in enumerate(submission.fragments()):
        if number in detailed:
            continue
        yield from fragment["refusals"]
        for panel in fragment["panels"]:
            if panel["verdict"] == "refused":
                location = ", ".join(filter(None, [fragment["location"], f"panel {panel['name']}"]))
                yield {**fragment, "location": location, "reason": panel["reason"]}
