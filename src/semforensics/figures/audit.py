"""The gates of the shortcut audit: one panel each, and a table."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from semforensics.core.markdown import markdown_table, with_interval
from semforensics.figures.style import NEUTRAL, add_source, styled

# Bluish green and vermilion of Okabe and Ito's palette. The words say the same.
_PASSED, _FAILED = "#009E73", "#D55E00"
_LONGEST_REMARK = 105  # letters in the width of the figure


@styled
def gates_figure(gates: Sequence[Mapping[str, Any]], *, source: str) -> Figure:
    """Draw each gate's value and interval beside its bound, each gate on its own scale.

    A gate has `name`, `passed`, `value`, `low`, `high` (None where there was no test), `bound`,
    `rule` and `remark`.
    """
    figure = Figure(figsize=(8, 1.5 * len(gates) + 0.3), layout="constrained")
    for axes, gate in zip(figure.subplots(len(gates), squeeze=False)[:, 0], gates, strict=True):
        colour, word = (_PASSED, "PASSED") if gate["passed"] else (_FAILED, "RED")
        axes.set_title(f"{word}  {_words(gate['name'])}", loc="left", color=colour)
        axes.set_title(_number(gate), loc="right", size=9, weight="normal")
        axes.axvline(gate["bound"], color=NEUTRAL, linestyle="--", linewidth=1.2)
        if gate["value"] is not None:
            axes.hlines(0, gate["low"], gate["high"], color=colour, linewidth=5, alpha=0.4)
            axes.plot(gate["value"], 0, "o" if gate["passed"] else "X", color=colour, markersize=9)
        axes.set_ylim(-1, 1)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.margins(x=0.1)
        note = f"{gate['rule']}\n{_shortened(gate['remark'])}"
        axes.set_xlabel(note, size=8, loc="left", color=NEUTRAL)
    add_source(figure, f"dashed: bound · {source}")
    return figure


def audit_markdown(
    gates: Sequence[Mapping[str, Any]], pixel_features: pd.DataFrame, *, source: str
) -> str:
    """Write the gates as a table, and below it how well traces in the pixels tell the classes.

    `pixel_features` has the columns feature, auroc, auroc_low, auroc_high, real and fake.
    """
    of_gates = [
        [
            _words(gate["name"]),
            "passed" if gate["passed"] else "**RED**",
            _number(gate),
            f"{gate['bound']:g}",
            gate["rule"],
            gate["remark"],
        ]
        for gate in gates
    ]
    of_pixels = [
        [row["feature"], with_interval(row, "auroc"), row["real"], row["fake"]]
        for row in pixel_features.to_dict("records")
    ]
    parts = [
        f"Shortcut audit: {source}.\n",
        markdown_table(["gate", "", "value (interval)", "bound", "rule", "remark"], of_gates),
        "Traces in the pixels, for the record: no gate, since noise is one of them.\n",
        markdown_table(["feature", "AUROC (95 %)", "mean of reals", "of fakes"], of_pixels),
    ]
    return "\n".join(parts)


def _words(name: str) -> str:
    return name.replace("_", " ").capitalize().replace("One sided", "One-sided")


def _number(gate: Mapping[str, Any]) -> str:
    if gate["value"] is None:
        return "not tested"
    return f"{gate['value']:.4f} ({gate['low']:.4f} to {gate['high']:.4f})"


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST_REMARK else f"{text[: _LONGEST_REMARK - 1]}…"
