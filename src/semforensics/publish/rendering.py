"""Markdown pages from the templates of this room, and the escapes for text in them."""

import html
import re
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined


def render(name: str, **values: Any) -> str:
    """Fill in a template. Only the filters `text`, `code` and `attribute` escape anything."""
    return _PAGES.get_template(name).render(values)


def text(value: object) -> str:
    """Take from text what Markdown or a forge would act on: marks, HTML, tables, @mentions."""
    flat = html.escape(_flat(value))
    return re.sub(r"([\\`*_{}\[\]()#+!|~])", r"\\\1", flat).replace("@", "@\u200b")


def code(value: object) -> str:
    """Make text fit between backticks inside a table."""
    return re.sub(r"[`|\s]+", " ", str(value))


def attribute(value: object) -> str:
    """Make text fit between the quotes of an HTML attribute."""
    return html.escape(_flat(value), quote=True)


def number(value: object) -> str:
    """Write a value of a metrics file, numbers with four digits."""
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else text(value)


def _flat(value: object) -> str:
    return re.sub(r"\s+", " ", str(value))


_PAGES = Environment(
    loader=PackageLoader("semforensics.publish"),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
_PAGES.filters |= {"text": text, "code": code, "attribute": attribute, "number": number}
