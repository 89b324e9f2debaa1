"""The templates of the report and of the local page, and the words for values in them.

Every value is escaped on its way into a template, and what does not show in it is made visible.
"""

import re
import unicodedata
from collections.abc import Iterable
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from semforensics.screening.read.settings.chosen import CHOSEN
from semforensics.screening.records import WORDING

REPORT_CSS = files(__package__).joinpath("report.css").read_text(encoding="utf-8")


def visible(text: str) -> str:
    """Write what does not show, such as control characters and turned writing, as its number."""
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() or unicodedata.category(c) == "Zs" else f"\\u{ord(c):04x}"
        for c in text.translate(dict.fromkeys(b"\t\n\r", " "))
    )


def _show(value: Any) -> Any:
    """Make a text visible; Jinja escapes it after that. Our own markup stays as it is."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def share(value: float | None) -> str:
    """Write a number of 0 … 1 with three digits, never as a certainty."""
    if value is None:
        return "\N{EN DASH}"
    if value < 0.001:
        return "< 0.001"
    return "> 0.999" if value > 0.999 else f"{value:.3f}"


def signed(value: float | None) -> str:
    """Write a number with its sign and two digits."""
    return "\N{EN DASH}" if value is None else f"{value:+.2f}".replace("-", "\N{MINUS SIGN}")


def counted(number: int, noun: str) -> str:
    """Write a number of things."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def sentences(notes: Iterable[str]) -> str:
    """Write notes one after the other, each with a capital and a full stop."""
    return " ".join(f"{note[:1].upper()}{note[1:].rstrip('.')}." for note in notes)


def file_name(path: str) -> str:
    """Return the last part of a path, of whatever system."""
    return re.split(r"[/\\]", path)[-1] or path


def label(key: str) -> str:
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


TEMPLATES = Environment(
    loader=PackageLoader(__package__),
    autoescape=True,
    undefined=StrictUndefined,
    finalize=_show,
    trim_blocks=True,
    lstrip_blocks=True,
)
TEMPLATES.filters |= {f.__name__: f for f in (counted, file_name, label, sentences, share, signed)}
TEMPLATES.tests["digest"] = re.compile("[0-9a-f]{40}|[0-9a-f]{64}").fullmatch
TEMPLATES.tests["phrase"] = lambda value: isinstance(value, str) and " " in value
TEMPLATES.globals |= {"wording": WORDING, "chosen_settings": CHOSEN}
