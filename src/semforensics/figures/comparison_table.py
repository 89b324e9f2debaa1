"""Every detector on every generator, as Markdown tables."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from semforensics.core.markdown import markdown_table, with_interval
from semforensics.figures.matrix import name_of

_MARKS = {"seen": " ‡", "under-trained": " (under-trained)"}

Record = Mapping[Any, Any]


def comparison_table(
    cells: pd.DataFrame,
    headline: pd.DataFrame,
    differences: pd.DataFrame,
    summary: Mapping[str, Any],
) -> str:
    """Write headline, matrix and controls as Markdown, from the tables of `compare_detectors`."""
    seeds = summary["n_seeds"]
    parts = [
        f"AUROC with 95 % interval (bootstrap by groups, {summary['bootstrap_resamples']} "
        f"resamples). Data: {summary['data']}, protocol {summary['protocol']}; in a column at most "
        f"{summary['n_real']} test reals of {summary['n_groups']} groups, and as many others. "
        f"NPR is {summary['network']}, mean over {seeds} training{'s' * (seeds > 1)}."
    ]
    if not headline.empty:
        parts += ["## One generator left out", _left_out(headline)]
    parts += [
        f"A single baseline beats NPR in {summary['baseline_wins']} of {summary['compared']} "
        f"comparisons, NPR a baseline in {summary['npr_wins']} (the interval of the paired "
        "difference leaves out 0; under-trained columns are not counted).",
        "## Every detector on every column",
        "**Bold**: beats NPR. ‡: seen in training.",
    ]
    for name, part in cells[cells["note"] != "control"].groupby("detector", sort=False):
        wins = differences[differences["better"] == differences["method"]]
        wins = wins[wins["detector"] == name]
        beaten = set(zip(wins["method"], wins["column"], strict=True))
        parts += [f"Learned from {name_of(str(name))}:", _matrix(part, beaten)]
    controls = cells[cells["note"] == "control"]
    if not controls.empty:
        parts += [
            "## Negative controls",
            "Share called fake (Wilson's interval), in per cent; first the untouched reals.",
            _controls(controls),
        ]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def _left_out(headline: pd.DataFrame) -> str:
    """Write the mean over the pairs first, then each pair, then the difference of the means."""
    *pairs, mean = dict.fromkeys(zip(headline["detector"], headline["column"], strict=True))
    names = ["mean", *(f"{name_of(detector)} → {name_of(column)}" for detector, column in pairs)]
    lines = []
    for method, part in headline.groupby("method", sort=False):
        of_pair = part.set_index(["detector", "column"]).to_dict("index")
        values = [with_interval(of_pair[pair], "auroc") for pair in (mean, *pairs)]
        lines.append([name_of(str(method)), *values, _difference(of_pair[mean], str(method))])
    return markdown_table(["detector", *names, "NPR less it, mean"], lines)


def _matrix(part: pd.DataFrame, beaten: set[tuple[str, str]]) -> str:
    """Write what detectors that learned from the same generators find in every column.

    Where a method beats NPR, given by `beaten` as method and column, its number is bold.
    """
    methods = list(part["method"].unique())
    lines = []
    for column, here in part.groupby("column", sort=False):
        of_method = here.set_index("method").to_dict("index")
        values = [with_interval(of_method[method], "auroc") for method in methods]
        bold = [
            f"**{value}**" if (method, column) in beaten else value
            for method, value in zip(methods, values, strict=True)
        ]
        lines.append([name_of(str(column)) + _MARKS.get(here["note"].iloc[0], ""), *bold])
    return markdown_table(["tested on", *map(name_of, methods)], lines)


def _controls(controls: pd.DataFrame) -> str:
    lines = []
    for _, part in controls.groupby(["detector", "method"], sort=False):
        cells = part.to_dict("records")
        first = cells[0]
        reals = with_interval(first, "reals_called_fake", percent=True)
        shares = [with_interval(cell, "called_fake", percent=True) for cell in cells]
        lines.append([name_of(first["detector"]), name_of(first["method"]), reals, *shares])
    names = [name_of(column) for column in controls["column"].unique()]
    return markdown_table(["learned from", "detector", "reals", *names], lines)


def _difference(cell: Record, method: str) -> str:
    if method == "npr":
        return ""
    return f"{cell['difference']:+.3f} ({cell['low']:+.3f} to {cell['high']:+.3f})"
