"""Commands for those who screen figures."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from semforensics.cli.frame import Device, Panel, Threads
from semforensics.core.allocator import wait_asleep
from semforensics.core.errors import InputError

if TYPE_CHECKING:
    from semforensics.screening.screener import Screener
    from semforensics.screening.submission import Run

PANEL = Panel("Screen figures")


@dataclass(frozen=True)
class ScreenerOptions:
    """The model and how it decides."""

    model: Annotated[
        str | None,
        typer.Option(help="Model file or DVC artifact; without it, the two released ones."),
    ] = None
    alpha: Annotated[
        float, typer.Option(min=0, max=1, help="Share of reals that may be suspected.")
    ] = 0.05
    prevalence: Annotated[
        float, typer.Option(min=0, max=1, help="Share of generated panels that you expect.")
    ] = 0.5
    pooling: Annotated[
        str, typer.Option(help="How the tiles of a panel become one score: mean, median or max.")
    ] = "mean"
    maps: Annotated[bool, typer.Option(help="Draw the evidence beside each verdict.")] = True
    device: Device = "cpu"
    threads: Threads = 0

    def load(self) -> "Screener":
        """Load the model.

        Raises:
            InputError: A setting does not fit the model, or the file is no screening model.
            FileNotFoundError: There is no such model.
        """
        wait_asleep()
        from semforensics.core.device import choose_device, set_threads
        from semforensics.screening.screener import Screener

        set_threads(self.threads)
        return Screener.load(
            self.model,
            alpha=self.alpha,
            prevalence=self.prevalence,
            pooling=self.pooling,
            device=choose_device(self.device),
            evidence=self.maps,
        )

    def arguments(self) -> tuple[str, ...]:
        """Return the options that decide alike, on any device."""
        model = () if self.model is None else ("--model", self.model)
        numbers = ("--alpha", f"{self.alpha:g}", "--prevalence", f"{self.prevalence:g}")
        return (
            *numbers, "--pooling", self.pooling, "--maps" if self.maps else "--no-maps", *model
        )  # fmt: skip


@dataclass(frozen=True)
class ReportOptions:
    """What is read, on how many processes, and where the report is written."""

    out: Annotated[Path, typer.Option(help="Folder of the report.")] = Path("report")
    workers: Annotated[
        int, typer.Option(min=0, help="Processes; 0: one for a few inputs, else one per core.")
    ] = 0
    fail_on: Annotated[
        Literal["never", "ai-suspected", "inconclusive", "refused"],
        typer.Option(help="End with 1 from this on; each includes those before it."),
    ] = "never"
    info_bar: Annotated[
        str, typer.Option(help="Rows to cut off the bottom of every panel, or auto.")
    ] = "auto"
    reuse: Annotated[bool, typer.Option(help="Search for panels that show the same place.")] = True
    scratch: Annotated[
        Path | None,
        typer.Option(help="Unfinished work, removed in the end; without it, inside of --out."),
    ] = None
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Judge on this Ray cluster; auto: one that runs, local: start one here.",
        ),
    ] = None

    @property
    def reads_here(self) -> bool:
        """Whether this process may be the one that judges."""
        return self.workers <= 1 and self.ray is None

    def runner(self) -> "Run | None":
        """Return what judges on a Ray cluster; None where none is asked for.

        Raises:
            InputError: Ray is not installed.
        """
        if self.ray is None:
            return None
        from semforensics.screening.ray_job import RayRunner

        return RayRunner(self.ray)

    def info_bar_rows(self) -> int | None:
        """Return the height of the info bar; None to find it.

        Raises:
            InputError: It is neither "auto" nor a number.
        """
        if self.info_bar == "auto":
            return None
        if not self.info_bar.isdecimal():
            raise InputError(f"--info-bar {self.info_bar!r}: expected auto or a number of rows")
        return int(self.info_bar)


@PANEL.command
def screen(
    paths: Annotated[
        list[Path],
        typer.Argument(
            help="Images, folders, PDFs, DOCX, PPTX, ODT, ODP and ZIP archives.", metavar="PATH"
        ),
    ],
    report: ReportOptions,
    options: ScreenerOptions,
) -> None:
    """Judge micrographs from outside and write report.html, report.json and report.csv.

    Everything stays on this machine. A run that was killed goes on where it stopped when the same
    is asked for again.

    Exit code 0: done. 1: done, and what --fail-on names was found. 2: bad input or option, no
    report. 3: out of memory, or a mistake of this program; no report.
    """
    wait_asleep()
    from semforensics.screening.read.apart import start_reader

    if report.reads_here:
        start_reader()  # it loads while torch does
    from semforensics.core.device import choose_device
    from semforensics.screening.submission import (
        Options,
        inputs_outside,
        repeating_command,
        screen_submission,
    )

    run = report.runner()
    info_bar = report.info_bar_rows()
    inputs_outside(paths, report.out)  # a missing path is reported before the model is loaded
    on_cpu = choose_device(options.device).type == "cpu"
    how = Options(
        scratch=report.scratch or report.out / ".unfinished",
        command=repeating_command(sys.argv[1:]),
        workers=report.workers or (0 if on_cpu else 1),  # one process fills a GPU,
        threads=options.threads if on_cpu else 1,  # and one thread of it
        info_bar=info_bar,
        reuse=report.reuse,
    )
    totals = screen_submission(paths, report.out, options.load(), how, run)
    for line in (*totals.lines(), f"report: {report.out / 'report.html'}"):
        typer.echo(line)
    if totals.meets(report.fail_on):
        raise typer.Exit(1)


@PANEL.command
def serve(
    options: ScreenerOptions,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 8765,
) -> None:
    """Open a page on this computer alone: drop files, read the report; nothing is kept."""
    from semforensics.screening.page import serve_page
    from semforensics.screening.page_job import PageJob
    from semforensics.screening.write.report import SIMULATED, is_simulated

    # Loaded here first: options that can never work are reported before anybody waits for a page.
    screener = options.load()
    serve_page(
        PageJob(options.load, options.arguments()),
        port=port,
        notice=SIMULATED if is_simulated(screener.describe()) else "",
        announce=lambda url: typer.echo(f"{url} answers on this computer alone; Ctrl-C ends it"),
    )
