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
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TextIO

from markupsafe import Markup

from semforensics.core.files import atomic_file
from semforensics.screening.records import Refusal, Reuse
from semforensics.screening.write.figures import TILE_LOGIT_END
from semforensics.screening.write.fragment import refusal_entry
from semforensics.screening.write.rendering import REPORT_CSS, TEMPLATES, visible

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
SIMULATED = (
    "This model was trained on simulated micrographs. Its verdicts on real ones mean nothing."
)
_HEAD = ("created", "version", "command", "settings", "model")
_ORDER = ("ai-suspected", "inconclusive", "consistent", "refused")
"""In which verdicts are listed: what asks for work first."""

Fragments = Callable[[], Iterator[dict[str, Any]]]


def is_simulated(model: Mapping[str, Any]) -> bool:
    """Tell whether a model, as it describes itself, has learned from simulated micrographs."""
    domain = model.get("training_domain")
    inner = domain.get("data") if isinstance(domain, Mapping) else None
    return "simulated" in (model.get("data"), inner)


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
        verdicts = [panel["verdict"] for panel in fragment["panels"]]
        if "ai-suspected" in verdicts:
            self.suspected.append(self.n_pictures)
        elif "inconclusive" in verdicts:
            self.inconclusive.append(self.n_pictures)
        self.verdicts.update(verdicts)
        self.verdicts["refused"] += len(fragment["refusals"])
        self.n_pictures += 1

    def detailed(self) -> frozenset[int]:
        """Return the numbers of the pictures that the HTML shows in full detail."""
        if self.n_pictures <= FULL_DETAIL:
            return frozenset(range(self.n_pictures))
        return frozenset((self.suspected + self.inconclusive)[:MOST_DETAILED])


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
        refusals: Inputs and pictures that are not judged. Refused panels are in their pictures.
        reuses: Panels that show the same place.

    Raises:
        ValueError: `head` lacks something.
    """
    missing = {*_HEAD, "training_domain"} - {*head, *head.get("model", {})}
    if missing:
        raise ValueError(f"report: no {', '.join(sorted(missing))} in the head: {head}")
    refused = [refusal_entry(refusal) for refusal in refusals]
    pairs = [_pair(reuse) for reuse in reuses]
    with ExitStack() as renamed, ExitStack() as closed:  # all are whole before one gets its name
        json_file, csv_file, html_file = (
            closed.enter_context(
                renamed.enter_context(atomic_file(folder / name)).open(
                    "w", encoding="utf-8", newline=""
                )
            )
            for name in REPORT_NAMES
        )
        survey = _write_json_and_csv(json_file, csv_file, head, fragments, refused, pairs)
        page = TEMPLATES.get_template("report.html")
        html_file.writelines(page.generate(_values(head, fragments, refused, pairs, survey)))


def _pair(reuse: Reuse) -> dict[str, Any]:
    """Return two panels that show the same place, as report.json lists them."""
    names = ("path", "location", "panel")
    return {
        "first": dict(zip(names, reuse.first, strict=True)),
        "second": dict(zip(names, reuse.second, strict=True)),
        "transform": reuse.transform,
        "overlap": asdict(reuse.overlap),
        "correlation": reuse.correlation,
    }


def _write_json_and_csv(
    file: TextIO,
    csv_file: TextIO,
    head: Mapping[str, Any],
    fragments: Fragments,
    refused: Sequence[Mapping[str, Any]],
    pairs: Sequence[Mapping[str, Any]],
) -> Survey:
    survey = Survey()
    table = csv.DictWriter(csv_file, COLUMNS, extrasaction="ignore", lineterminator="\r\n")
    table.writeheader()
    file.write(f'{{\n"schema_version": {_json(SCHEMA_VERSION)},\n')
    file.writelines(f"{_json(key)}: {_json(head[key])},\n" for key in _HEAD)
    file.write('"images": [')
    for fragment in fragments():
        entry = {key: value for key, value in fragment.items() if key != "figures"}
        file.write(f"{',' if survey.n_pictures else ''}\n{_json(entry)}")
        for panel in fragment["panels"]:
            table.writerow(_cells(fragment | panel | panel["box"] | {"panel": panel["name"]}))
        table.writerows(map(_cells, fragment["refusals"]))
        survey.add(fragment)
    table.writerows(map(_cells, refused))
    survey.verdicts["refused"] += len(refused)
    summary = {"n_pictures": survey.n_pictures, "n_reuses": len(pairs)}
    summary |= {f"n_{name.replace('-', '_')}": survey.verdicts[name] for name in _ORDER}
    file.write(
        f'\n],\n"refusals": {_json(refused)},\n"reuse": {_json(pairs)},\n'
        f'"summary": {_json(summary)}\n}}\n'
    )
    return survey


def _json(value: Any) -> str:
    return json.dumps(value, allow_nan=False)  # ASCII: names on disk need not be Unicode


def _cells(values: Mapping[str, Any]) -> dict[str, Any]:
    """Keep a spreadsheet from taking a hostile name for a formula."""
    shown = {key: visible(it) if isinstance(it, str) else it for key, it in values.items()}
    return {
        key: f"'{it}" if isinstance(it, str) and it.startswith(("=", "+", "-", "@")) else it
        for key, it in shown.items()
    }


def _values(
    head: Mapping[str, Any],
    fragments: Fragments,
    refused: Iterable[Mapping[str, Any]],
    pairs: Sequence[Mapping[str, Any]],
    survey: Survey,
) -> dict[str, Any]:
    """Return what the template shows; pictures come from iterators, to be read once each."""
    model, settings, detailed = head["model"], head["settings"], survey.detailed()
    first = ("name", "sha256", "data", "training_domain", "calibration")
    limits = model.get("limits") or []
    paired = {
        (panel["path"], panel["location"]) for p in pairs for panel in (p["first"], p["second"])
    }
    shown = ((n, fragment) for n, fragment in enumerate(fragments()) if n in detailed)
    return {
        **head,
        "css": Markup(REPORT_CSS),
        "simulated": SIMULATED if is_simulated(model) else "",
        "model_facts": {
            key: model[key] for key in (*first, *model) if key in model and key != "limits"
        },
        "limits": [limits] if isinstance(limits, str) else limits,
        # The largest of many tiles exceeds alpha more often: it bounds no false alarms then.
        "alpha": None if settings.get("pooling") == "max" else settings.get("alpha"),
        "tile_logit_end": TILE_LOGIT_END,
        "reuse_note": str(settings.get("reuse", "")),
        "order": _ORDER,
        "verdicts": survey.verdicts,
        "n_judged": survey.verdicts.total() - survey.verdicts["refused"],
        "n_pictures": survey.n_pictures,
        "n_detailed": len(detailed),
        "full_detail": FULL_DETAIL,
        "most_detailed": MOST_DETAILED,
        "pictures": shown,
        "others": (f for n, f in enumerate(fragments()) if n not in detailed),
        "refused": _refused(fragments, refused),
        "reuses": pairs,
        "anchors": {
            (fragment["path"], fragment["location"]): n
            for n, fragment in enumerate(fragments() if paired else ())
            if n in detailed and (fragment["path"], fragment["location"]) in paired
        },
    }


def _refused(
    fragments: Fragments, refused: Iterable[Mapping[str, Any]]
) -> Iterator[Mapping[str, Any]]:
    """Return all that is not judged: inputs first, then parts of pictures."""
    yield from refused
    for fragment in fragments():
        yield from fragment["refusals"]
        for panel in fragment["panels"]:
            if panel["verdict"] == "refused":
                location = ", ".join(filter(None, [fragment["location"], f"panel {panel['name']}"]))
                yield {**fragment, "location": location, "reason": panel["reason"]}
