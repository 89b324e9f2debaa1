"""The parts of the HTML report, each from plain JSON values; whatever comes from a file is escaped.

Verdicts are told by a shape, a word and a colour; figures have texts for those who cannot see.
"""

import math
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from html import escape
from importlib.resources import files
from typing import Any

from semforensics.screening.records import WORDING
from semforensics.screening.write.figures import TILE_LOGIT_END

ORDER = ("ai-suspected", "inconclusive", "consistent", "refused")
"""In which verdicts are listed: what asks for work first."""
NO_GUILT = (
    "No tag is not guilt: most programs and many upload systems remove tags. A tag is no proof"
    " either: anyone can write one. Nothing in this box has moved the verdict."
)
SIMULATED = (
    "This model was trained on simulated micrographs. Its verdicts on real ones mean nothing."
)
_HIDDEN = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
"""Unicode's categories of what does not show, with lone surrogates, which no file can hold."""
_SHAPES = {
    "ai-suspected": '<path d="M8 1 15.5 14.5H.5Z" fill="#b34a00"/>',
    "inconclusive": '<path d="M8 1 15 8 8 15 1 8Z" fill="none" stroke="#6b6b6b" stroke-width="2"/>',
    "consistent": '<circle cx="8" cy="8" r="6.8" fill="#0072b2"/>',
    "refused": '<path d="M3 3l10 10M13 3 3 13" stroke="#333" stroke-width="2.4"/>',
}
_COLOURS = {"ai-suspected": "#b34a00", "inconclusive": "#444", "consistent": "#0072b2"}
_DASHES = {"ai-suspected": "", "inconclusive": "7 4", "consistent": "2 3"}
_SHORT = {
    "ai-suspected": "AI-suspected",
    "inconclusive": "inconclusive",
    "consistent": "consistent",
    "refused": "refused",
}
_FIGURES = {
    "tile_map": (
        "Score by tile",
        f"Logit of each tile; 0 is neutral, full colour at ± {TILE_LOGIT_END:g}. Plus and"
        " vermilion: toward generated. Minus and blue: toward real.",
    ),
    "grad_cam": (
        "Grad-CAM",
        "Where the network found what speaks for generated: yellow most, dark blue nothing. Scaled"
        " to this panel's own maximum, so not comparable between panels.",
    ),
    "residual": (
        "NPR residual",
        "What the network sees: differences between neighbouring pixels, here of the stretch that"
        " scored highest, as grey levels.",
    ),
    "spectrum": (
        "Power spectrum",
        "Averaged over directions, beside the band of the real references that the model carries.",
    ),
}


def visible(text: str) -> str:
    """Write what does not show, such as control characters and turned writing, as its number."""
    return "".join(
        f"\\u{ord(c):04x}" if unicodedata.category(c) in _HIDDEN else c
        for c in text.translate(dict.fromkeys(b"\t\n\r", " "))
    )


def text(value: object) -> str:
    """Escape a value for HTML, in text and in attributes alike."""
    return escape(visible(str(value)))


def verdict(name: str, *, words: str | None = None) -> str:
    """Return a verdict as shape, words and colour."""
    return (
        f'<span class="verdict {name}"><svg viewBox="0 0 16 16" aria-hidden="true">{_SHAPES[name]}'
        f"</svg><span>{text(words or WORDING[name])}</span></span>"  # type: ignore[index]
    )


def share(value: float | None) -> str:
    """Write a number of 0 … 1 with three digits, never as a certainty."""
    if value is None:
        return "&ndash;"
    if value < 0.001:
        return "&lt; 0.001"
    return "&gt; 0.999" if value > 0.999 else f"{value:.3f}"


def is_simulated(model: Mapping[str, Any]) -> bool:
    """Tell whether a model, as it describes itself, has learned from simulated micrographs."""
    domain = model.get("training_domain")
    inner = domain.get("data") if isinstance(domain, Mapping) else None
    return "simulated" in (model.get("data"), inner)


def opening(head: Mapping[str, Any]) -> str:
    """Return everything up to the first section."""
    css = files("semforensics.screening.write").joinpath("report.css").read_text(encoding="utf-8")
    simulated = is_simulated(head["model"])
    banner = f'<div class="banner" role="note"><span>{SIMULATED}</span></div>' if simulated else ""
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>Screening report, {text(head["created"])}</title>
<style>
{css}</style>
</head>
<body{' class="simulated"' if simulated else ""}>
{banner}
<a class="skip" href="#summary">To the summary</a>
<header>
<p class="kicker">semforensics · electron micrographs</p>
<div class="titleblock"><h1>Screening report</h1>
<p class="small soft">{text(head["created"])} · version {text(head["version"])}</p></div>
</header>
<main>
"""


def _keeps_promise(head: Mapping[str, Any]) -> bool:
    """Say whether alpha bounds false alarms: the largest of many tiles exceeds it more often."""
    settings = head["settings"]
    return settings.get("alpha") is not None and settings.get("pooling") != "max"


def about(head: Mapping[str, Any]) -> str:
    """Say what the report is and what it is not."""
    alpha = head["settings"].get("alpha")
    promise = (
        f" Of real panels like those the model was calibrated on, at most"
        f" {100 * alpha:g} % end here."
        if _keeps_promise(head)
        else ""
    )
    return f"""<section aria-labelledby="about">
<h2 id="about">What this report is, and what it is not</h2>
<p>A program has measured how much the pixels of each panel look like those that an image generator
leaves behind. The report gives reasons to ask. It decides nothing, and by itself it is evidence
against nobody.</p>
<ul>
<li>{verdict("consistent")}: no trace that this model knows. A generator that it does not know, or
processing after the generation, can leave none.</li>
<li>{verdict("inconclusive")}: the program does not know, and says so. This is an answer.</li>
<li>{verdict("ai-suspected")}: a request for the files that the microscope saved.{promise}</li>
<li>{verdict("refused")}: not judged, for the reason given.</li>
</ul>
<p class="small soft">It does not look for splicing, for copying within a picture or for altered
contrast, and it judges nothing but micrographs.</p>
</section>
"""


def summary(
    verdicts: Mapping[str, int], *, n_pictures: int, n_reuses: int, head: Mapping[str, Any]
) -> str:
    """Return the counts, and how many suspicions chance alone would make."""
    judged = sum(verdicts.get(name, 0) for name in ORDER if name != "refused")
    items = "".join(f"<li><b>{verdicts.get(name, 0)}</b>{verdict(name)}</li>\n" for name in ORDER)
    alpha = head["settings"].get("alpha")
    chance = (
        " If all of them were real and like the calibration reals, up to"
        f" {judged * alpha:.{0 if judged * alpha >= 10 else 1}f} would be suspected by chance."
        if _keeps_promise(head) and judged
        else ""
    )
    searched = str(head["settings"].get("reuse", ""))
    if n_reuses:
        found = (
            f'<a href="#reuse">{_count(n_reuses, "pair")} of panels</a> may show the same place.'
        )
    elif searched.startswith("not searched"):
        found = f"Panels that show the same place: {text(searched)}."
    else:
        found = "No two panels were found to show the same place."
    return f"""<section aria-labelledby="summary">
<h2 id="summary">Summary</h2>
<ul class="counts">
{items}</ul>
<p>{_count(judged, "panel")} judged, from {_count(n_pictures, "picture")}.{chance} {found}</p>
</section>
"""


def model_box(model: Mapping[str, Any]) -> str:
    """Return all that the model says of itself, its limits last."""
    order = ("name", "sha256", "data", "training_domain", "calibration")
    first = [key for key in order if key in model]
    middle = [key for key in model if key not in (*order, "limits")]
    facts = _facts({key: model[key] for key in (*first, *middle)})
    limits = model.get("limits") or []
    listed = [limits] if isinstance(limits, str) else limits
    items = "".join(f"<li>{text(limit)}</li>" for limit in listed)
    return f"""<section aria-labelledby="model">
<h2 id="model">The model and its limits</h2>
{facts}
{f"<h3>Limits</h3><ul>{items}</ul>" if items else ""}
</section>
"""


def pictures_heading(shown: int, rest: int, most: int, least: int) -> str:
    """Open the section of the pictures in full detail; say which are not."""
    note = (
        f'<p class="small soft">With more than {least} pictures, those with a suspected panel are'
        f" shown here first, then those with an inconclusive one, {most} at most. The other"
        f' {rest} are <a href="#others">rows of a table</a>.</p>'
        if rest
        else ""
    )
    return f"""<section aria-labelledby="pictures">
<h2 id="pictures">{"Picture" if shown == 1 else "Pictures"}</h2>
{note}
"""


def picture(fragment: Mapping[str, Any], number: int, settings: Mapping[str, Any]) -> str:
    """Return a picture: what it is, its panels, and the evidence about its file."""
    panels = "".join(
        _panel(panel, drawn, settings, whole=len(fragment["panels"]) == 1 and not panel["name"])
        for panel, drawn in zip(fragment["panels"], fragment["figures"]["panels"], strict=True)
    )
    left_out = "".join(
        f"<li>{text(refusal['location'])}: {text(refusal['reason'])}</li>"
        for refusal in fragment["refusals"]
    )
    place = f" · {text(fragment['location'])}" if fragment["location"] else ""
    stacked = " stacked" if fragment["width_px"] > 1.8 * fragment["height_px"] else ""
    return f"""<article class="picture" id="picture-{number}" aria-labelledby="title-{number}">
<h3 id="title-{number}">{text(fragment["path"])}{place}</h3>
<div class="overview{stacked}">
{_overview(fragment)}
<div class="box provenance">
{_provenance(fragment)}
</div>
</div>
{panels or "<p>No panel of this picture is judged.</p>"}
{f"<h4>Not judged</h4><ul>{left_out}</ul>" if left_out else ""}
</article>
"""


def _overview(fragment: Mapping[str, Any]) -> str:
    """Draw the picture with the boxes of its panels, in the line style of their verdicts."""
    width, height = fragment["width_px"], fragment["height_px"]
    size = max(width, height) / 22
    boxes = []
    for panel in fragment["panels"]:
        box, name = panel["box"], panel["verdict"]
        colour, dash = _COLOURS.get(name, "#333"), _DASHES.get(name, "1 4")
        place = (
            f'x="{box["left"]}" y="{box["top"]}" width="{box["right"] - box["left"]}"'
            f' height="{box["bottom"] - box["top"]}" fill="none" vector-effect="non-scaling-stroke"'
        )
        boxes.append(
            f'<rect {place} stroke="#fff" stroke-width="5"/>'
            f'<rect {place} stroke="{colour}" stroke-width="3" stroke-dasharray="{dash}"/>'
            f'<text x="{box["left"] + 0.35 * size:.1f}" y="{box["top"] + 1.1 * size:.1f}"'
            f' font-size="{size:.1f}" font-weight="700" fill="{colour}" stroke="#fff"'
            f' stroke-width="{size / 4:.1f}" paint-order="stroke" font-family="sans-serif">'
            f"{text(panel['name'])}</text>"
        )
    count = len(fragment["panels"])
    alt = f"The picture, {width} by {height} pixels, with the boxes of {_count(count, 'panel')}"
    notes = _sentences(fragment["notes"])
    return f"""<figure>
<svg viewBox="0 0 {width} {height}" role="img" aria-label="{alt}">
<image width="{width}" height="{height}" href="{text(fragment["figures"]["thumbnail"])}"/>
{"".join(boxes)}
</svg>
<figcaption>{width} &times; {height} px. Frames: solid, suspected; dashed, inconclusive; dotted,
consistent. {notes}</figcaption>
</figure>"""


def _provenance(fragment: Mapping[str, Any]) -> str:
    found = fragment["provenance"]
    facts: dict[str, Any] = {
        "SHA-256 of the input": fragment["sha256"],
        "Format": found["file_format"],
        "Content credentials (C2PA)": found["c2pa"],
        "Lossy codec on the way": _yes(fragment["is_lossy"]),
        "Resampled on the way": _yes(fragment["is_resampled"]),
        f"Instrument, {found['instrument_source'] or 'no settings found'}": found["instrument"],
        "Software tags": found["software"],
        "Notes": found["notes"],
    }
    return f"""<h4>Evidence about the file, beside the verdict</h4>
{_facts({key: value if value != {} else "none" for key, value in facts.items() if value != []})}
<p class="small soft">{NO_GUILT}</p>"""


def _panel(
    panel: Mapping[str, Any],
    drawn: Mapping[str, str],
    settings: Mapping[str, Any],
    *,
    whole: bool,
) -> str:
    name = "The whole picture" if whole else f"Panel {panel['name']}"
    prevalence = settings.get("prevalence")
    numbers: dict[str, str] = {}
    if panel["probability"] is not None:
        numbers["Probability of generated, calibrated at a prevalence of 0.5"] = share(
            panel["probability"]
        )
    if panel["predictive_value"] is not None:
        numbers[f"The same at the prevalence given, {prevalence:g}"] = share(
            panel["predictive_value"]
        )
    if panel["p_real"] is not None:
        numbers["p-value as a real: small speaks against a real"] = share(panel["p_real"])
    if panel["p_fake"] is not None:
        numbers["p-value as generated: small speaks against a generator that is known"] = share(
            panel["p_fake"]
        )
    if panel["logit"] is not None:
        numbers["Score (logit)"] = _signed(panel["logit"])
    if panel["n_tiles"]:
        numbers["Tiles"] = str(panel["n_tiles"])
    if panel["share_inside"] is not None:
        numbers["Of them inside the training domain"] = f"{panel['share_inside']:.0%}"
    listed = "".join(f"<div><dt>{k}</dt><dd>{v}</dd></div>\n" for k, v in numbers.items())
    box = panel["box"]
    size = f"{box['right'] - box['left']} &times; {box['bottom'] - box['top']} px"
    reason = f"{text(panel['reason'])} {_sentences(panel['notes'])}".strip()
    return f"""<section class="panel {panel["verdict"]}">
<h4>{text(name)} · {size}</h4>
<p class="verdict">{verdict(panel["verdict"])}</p>
<p>{reason}</p>
{f'<dl class="numbers">{listed}</dl>' if listed else ""}
{_evidence(panel["evidence"], drawn, name)}
</section>
"""


def _evidence(evidence: Mapping[str, Any], drawn: Mapping[str, str], name: str) -> str:
    parts = [
        f"<figure{' class=wide' if key == 'spectrum' else ''}>"
        f'<img src="{text(drawn[key])}" alt="{title} of {text(name.lower())}. {words}"'
        f"{' class=pixels' if key == 'residual' else ''}>"
        f"<figcaption><strong>{title}.</strong> {words}</figcaption></figure>\n"
        for key, (title, words) in _FIGURES.items()
        if key in drawn
    ]
    if evidence["reencoded"]:
        lines = "".join(
            f'<tr><th scope="row">{text(after)}</th><td class="number">{_signed(of["logit"])}</td>'
            f"<td>{verdict(of['verdict'], words=_SHORT[of['verdict']])}</td></tr>"
            for after, of in evidence["reencoded"].items()
        )
        parts.append(
            '<div class="scroll"><table class="narrow"><caption>The score after re-encoding and'
            ' re-scaling</caption><thead><tr><th scope="col">After</th>'
            '<th scope="col" class="number">Score</th><th scope="col">Verdict</th></tr></thead>'
            f"<tbody>{lines}</tbody></table></div>"
        )
    shown = f'<div class="figures">{"".join(parts)}</div>' if parts else ""
    if evidence["nearest_real"]:
        shown += (
            "<h4>Suspiciously near to a micrograph that the model has learned from</h4>"
            + _facts(evidence["nearest_real"])
        )
    return f"<h4>Evidence beside the verdict</h4>{shown}" if shown else ""


def rows(fragments: Iterable[Mapping[str, Any]], count: int) -> Iterator[str]:
    """Return the pictures that are not shown in detail, one row a panel."""
    heads = "".join(
        f'<th scope="col"{" class=number" if number else ""}>{name}</th>'
        for name, number in (
            ("Picture", False), ("Panel", False), ("Verdict", False), ("Probability", True),
            ("p real", True), ("p generated", True), ("Reason", False),
        )
    )  # fmt: skip
    yield f"""<section aria-labelledby="others">
<h2 id="others">Other pictures</h2>
<div class="scroll" tabindex="0" role="region" aria-labelledby="others">
<table><caption>{_count(count, "picture")} without figures; report.json has all numbers.</caption>
<thead><tr>{heads}</tr></thead><tbody>
"""
    for fragment in fragments:
        where = ", ".join(filter(None, [fragment["path"], fragment["location"]]))
        for panel in fragment["panels"]:
            numbers = "".join(
                f'<td class="number">{share(panel[key])}</td>'
                for key in ("probability", "p_real", "p_fake")
            )
            yield (
                f'<tr><td class="name">{text(where)}</td><td>{text(panel["name"] or "whole")}</td>'
                f"<td>{verdict(panel['verdict'], words=_SHORT[panel['verdict']])}</td>{numbers}"
                f"<td>{text(panel['reason'])}</td></tr>\n"
            )
    yield "</tbody></table></div></section>\n"


def refused(entries: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """List what is not judged, and why; nothing where there is none."""
    started = False
    for entry in entries:
        if not started:
            yield """<section aria-labelledby="refused"><h2 id="refused">Not judged</h2>
<div class="scroll"><table><thead><tr><th scope="col">Input</th><th scope="col">Place</th>
<th scope="col">Reason</th></tr></thead><tbody>
"""
            started = True
        yield (
            f'<tr><td class="name">{text(entry["path"])}</td><td>{text(entry["location"])}</td>'
            f"<td>{text(entry['reason'])}</td></tr>\n"
        )
    if started:
        yield "</tbody></table></div></section>\n"


def reuse(
    pairs: Iterable[Mapping[str, Any]], anchors: Mapping[tuple[str, str], int]
) -> Iterator[str]:
    """List panels that show the same place, apart from the verdicts.

    Args:
        pairs: As report.json has them.
        anchors: Path and location of a picture shown in detail → its number.
    """

    def place(panel: Mapping[str, str]) -> str:
        words = ", ".join(
            filter(None, [panel["path"], panel["location"], f"panel {panel['panel']}".strip()])
        ).removesuffix(", panel")
        number = anchors.get((panel["path"], panel["location"]))
        return text(words) if number is None else f'<a href="#picture-{number}">{text(words)}</a>'

    started = False
    for pair in pairs:
        if not started:
            yield """<section aria-labelledby="reuse">
<h2 id="reuse">Panels that show the same place</h2>
<p>These pairs were found by comparing all panels of this submission over turns, mirror images and
crops. This is no part of the verdicts. Showing a place twice can be right, as an overview and a
detail are; the captions should say so.</p>
<div class="scroll"><table><thead><tr><th scope="col">Panel</th>
<th scope="col">shows the same as</th>
<th scope="col">which lies on it</th><th scope="col" class="number">Correlation</th>
<th scope="col" class="number">Common part (px)</th></tr></thead><tbody>
"""
            started = True
        box = pair["overlap"]
        size = f"{box['right'] - box['left']} &times; {box['bottom'] - box['top']}"
        yield (
            f'<tr><td class="name">{place(pair["first"])}</td>'
            f'<td class="name">{place(pair["second"])}</td><td>{text(pair["transform"])}</td>'
            f'<td class="number">{pair["correlation"]:.2f}</td>'
            f'<td class="number">{size}</td></tr>\n'
        )
    if started:
        yield "</tbody></table></div></section>\n"


def method(head: Mapping[str, Any]) -> str:
    """Say how it was done and how to do it again, and close the page."""
    facts = {"Version": head["version"], "Written": head["created"]}
    if "sha256" in head["model"]:
        facts["SHA-256 of the model"] = head["model"]["sha256"]
    return f"""<section aria-labelledby="method">
<h2 id="method">Method, and how to repeat it</h2>
<p>Info bars are found and cut off. Composite figures are split by a plain rule, at straight empty
gutters, which can fail: look at the frames before you read a verdict. Panels smaller than the
model's tile are refused. Each panel is cut into tiles of native pixels, never resized; the network
scores each tile by the differences between neighbouring pixels, and the scores are pooled. Two
conformal p-values compare the pooled score with calibration images, real and generated. A panel
is suspected only if its score is unusual for a real and not unusual for a generated image.</p>
<p>The probability is calibrated at a prevalence of one half. At the prevalence that you expect
among your submissions it is the predictive value, often much smaller. Everything ran on this
computer; nothing was sent anywhere.</p>
<h3>Command</h3>
<pre>{text(head["command"])}</pre>
<h3>Settings</h3>
{_facts({**facts, **head["settings"]})}
</section>
</main>
</body>
</html>
"""


def _facts(values: Mapping[str, Any]) -> str:
    """Lay out names and values, those inside others too."""
    items = "".join(
        f"<dt>{text(_label(str(key)))}</dt><dd>{_value(value)}</dd>\n"
        for key, value in values.items()
    )
    return f'<dl class="facts">{items}</dl>'


def _value(value: Any) -> str:
    match value:
        case None:
            return "&ndash;"
        case bool():
            return _yes(value)
        case float():
            return f"{value:.4g}"
        case {"top": top, "left": left, "bottom": bottom, "right": right}:
            return text(f"rows {top} to {bottom}, columns {left} to {right}")
        case dict():
            return _facts(value) if value else "none"
        case list() | tuple() if any(isinstance(inner, dict) for inner in value):
            return "".join(map(_value, value))
        case list() | tuple() if any(isinstance(inner, str) and " " in inner for inner in value):
            return "<ul>" + "".join(f"<li>{_value(inner)}</li>" for inner in value) + "</ul>"
        case list() | tuple():
            return ", ".join(map(_value, value)) or "none"
        case str() if len(value) in (40, 64) and set(value) <= set("0123456789abcdef"):
            return f'<span class="mono">{value}</span>'
    return text(value)


def _label(key: str) -> str:
    """Turn a key of JSON into words for readers; a key with a space is words already."""
    if " " in key:
        return key
    if key == "sha256":
        return "SHA-256"
    words = key.replace("fake", "generated").split("_")
    if words[0] == "n":
        words[0] = "number of"
    if words[-1] in ("px", "nm", "dpi", "mb", "kv"):
        words[-1] = f"({words[-1]})"
    sentence = " ".join(words)
    return sentence[:1].upper() + sentence[1:]


def _sentences(notes: Iterable[str]) -> str:
    return " ".join(text(f"{note[:1].upper()}{note[1:].rstrip('.')}.") for note in notes)


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _signed(value: float | None) -> str:
    return (
        "&ndash;" if value is None or math.isnan(value) else f"{value:+.2f}".replace("-", "&minus;")
    )
