"""Commands for those who review results and publish them."""

from pathlib import Path
from typing import Annotated

import typer

from semforensics.cli.frame import OutPath, Panel

PANEL = Panel("Review and publish")


@PANEL.command
def check_lock() -> str:
    """Check that dvc.lock belongs to code and parameters; end with 1 if stages would run."""
    from semforensics.publish.review import stale_stages

    stages = stale_stages(Path())
    for stage in stages:
        typer.secho(f"stale: {stage}", fg=typer.colors.RED)
    if stages:
        raise typer.Exit(1)
    return "dvc.lock belongs to code and parameters"


@PANEL.command
def check_release(
    audit: Annotated[Path, typer.Argument(help="As audit-shortcuts wrote it.")],
    classifier: Annotated[Path, typer.Argument(help="Folder of the audited model.")],
) -> None:
    """Say what speaks for and against releasing a model; exit 1 if anything speaks against it."""
    from semforensics.publish.release import check_release

    green, red = check_release(audit, classifier)
    for line in green:
        typer.secho(f"green  {line}", fg=typer.colors.GREEN)
    for line in red:
        typer.secho(f"red    {line}", fg=typer.colors.RED)
    if red:
        raise typer.Exit(1)


@PANEL.command
def compare_protocols(clean: str, thesis: str, table: OutPath) -> str:
    """Put the results of two experiments, one per protocol, into one table.

    CLEAN and THESIS are Git revisions or names of experiments.
    """
    from semforensics.publish.protocols import compare_protocols

    return f"{compare_protocols(clean, thesis, table, Path.cwd())} lines in {table}"


@PANEL.command
def render_plots(
    folder: OutPath,
    revisions: Annotated[
        list[str] | None, typer.Argument(help="To compare; the workspace alone if left out.")
    ] = None,
) -> str:
    """Draw the plots of dvc.yaml as PNG files, without a browser or a network."""
    from semforensics.publish.dvc_plots import render_plots

    return f"{len(render_plots(Path(), revisions or [], folder))} plots in {folder}"


@PANEL.command
def pull_request_report(base: str, head: str, out: OutPath) -> str:
    """Write what a change does to metrics, parameters and plots: out/report.md and pictures."""
    from semforensics.publish.review import write_report

    return f"{write_report(base, head, out, Path())} warnings in {out / 'report.md'}"
