"""Tables as Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd


def markdown_table(names: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table, its columns padded to one width; cells keep their text.

    A `|` in a cell must be escaped.
    """
    table = pd.DataFrame(list(lines), columns=list(names), dtype=str)
    return table.to_markdown(index=False, tablefmt="github", disable_numparse=True) + "\n"


def with_interval(numbers: Mapping[Any, Any], name: str, *, percent: bool = False) -> str:
    """Write a number with its interval, such as "0.912 (0.870-0.951)".

    The interval of `name` is `<name>_low` and `<name>_high`. A share in per cent has one digit,
    other numbers have three.
    """
    value, low, high = (numbers[f"{name}{end}"] for end in ("", "_low", "_high"))
    if percent:
        return f"{100 * value:.1f} ({100 * low:.1f}-{100 * high:.1f})"
    return f"{value:.3f} ({low:.3f}-{high:.3f})"
