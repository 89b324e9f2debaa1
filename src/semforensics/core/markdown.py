"""Tables as Markdown."""

from collections.abc import Sequence

import pandas as pd


def markdown_table(names: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table, its columns padded to one width; cells keep their text.

    Args:
        names: Of the columns; may repeat.
        lines: Cells of each line, already formatted. A `|` in a cell must be escaped.
    """
    table = pd.DataFrame(list(lines), columns=list(names), dtype=str)
    return table.to_markdown(index=False, tablefmt="github", disable_numparse=True) + "\n"
