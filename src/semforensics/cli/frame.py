"""What all commands share: their options, the processes they run in, and the line they print.

A command is a function of paths, of at most one run (parameters, device, threads, scratch folder,
processes) and of further options, and returns the lines to print. Nothing heavy is imported before
a command runs, so that `--help` answers at once.
"""

import functools
import inspect
import re
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from semforensics.core.portable import is_portable, refuse_unportable
from semforensics.params import DetectorName, GanName, Params, in_float32, read_params

if TYPE_CHECKING:
    import torch

    from semforensics.core.training import Setup

InDir = Annotated[Path, typer.Argument(exists=True, file_okay=False)]
MayBeDir = Annotated[Path, typer.Argument(help="Needed only where parameters name files of it.")]
InFile = Annotated[Path, typer.Argument(exists=True, dir_okay=False)]
OutPath = Annotated[Path, typer.Argument()]
Gan = Annotated[GanName, typer.Argument(help="Which generator.")]
Detector = Annotated[DetectorName, typer.Argument(help="Whose fakes the classifier learns from.")]
Device = Annotated[
    str, typer.Option("--device", envvar="SEMFORENSICS_DEVICE", help="auto, cpu or cuda.")
]
Threads = Annotated[
    int, typer.Option(envvar="SEMFORENSICS_THREADS", help="CPU threads; 0: all cores.")
]


@dataclass(frozen=True)
class Run:
    """A run of a stage that only reads parameters."""

    params_file: Annotated[Path, typer.Option("--params", exists=True, dir_okay=False)] = Path(
        "params.yaml"
    )

    @cached_property
    def params(self) -> Params:
        """The parameters, read and checked; in the portable mode of float32 precision."""
        params = read_params(self.params_file)
        return in_float32(params) if is_portable() else params


@dataclass(frozen=True)
class ScratchRun(Run):
    """A run that keeps unfinished work."""

    scratch: Annotated[
        Path,
        typer.Option(
            envvar="SEMFORENSICS_SCRATCH", help="Where unfinished work waits to be resumed."
        ),
    ] = Path(".scratch")


@dataclass(frozen=True)
class DeviceRun(Run):
    """A run that computes with networks."""

    device_name: Device = "auto"
    threads: Threads = 0

    @cached_property
    def device(self) -> "torch.device":
        """Where to compute; in the portable mode on the CPU."""
        from semforensics.core.device import choose_device

        if is_portable():
            refuse_unportable("device", self.device_name, ("auto", "cpu"))
        return choose_device("cpu" if is_portable() else self.device_name)

    @cached_property
    def params(self) -> Params:
        """The parameters, in float32 where the device would compute bfloat16 in software."""
        from semforensics.core.device import bf16_is_emulated

        params = super().params
        return in_float32(params) if bf16_is_emulated(self.device) else params


@dataclass(frozen=True)
class TrainingRun(ScratchRun, DeviceRun):
    """A run that trains networks, and is resumed where it was killed."""

    def setup(self, p: Params, *folders: str) -> "Setup":
        """Return how to train; `folders` lead to the state of the unfinished training."""
        from semforensics.core.training import Setup

        return Setup(p.seed, self.scratch.joinpath(*folders), self.device)


@dataclass(frozen=True)
class SharedTrainingRun(TrainingRun):
    """A training that several processes can share."""

    processes: Annotated[
        int,
        typer.Option(
            envvar="SEMFORENSICS_PROCESSES",
            min=1,
            help="Processes that share each batch, one per GPU, or on the CPU's cores.",
        ),
    ] = 1


@dataclass(frozen=True)
class Panel:
    """Commands that `--help` shows together."""

    title: str
    app: typer.Typer = field(default_factory=typer.Typer)
    around: Callable[[], AbstractContextManager[None]] = nullcontext
    """What each of them runs in."""

    def command(self, function: Callable[..., str | None]) -> Callable[..., str | None]:
        """Register a function as a command; the lines that it returns are printed."""
        text = re.sub(r"(?<!\n)\n(?!\n)", " ", inspect.getdoc(function) or "")  # unwrap paragraphs
        command = expand_options(function, self.around)
        self.app.command(help=text, rich_help_panel=self.title)(command)
        return function


def expand_options(
    function: Callable[..., str | None],
    around: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> Callable[..., None]:
    """Turn the fields of a function's dataclass parameters into options, as Typer reads them.

    Returns:
        A function of keywords: the parameters of `function`, each that is annotated with a
        dataclass replaced by the fields of this dataclass. It prints what `function` returns.
    """
    shown: list[inspect.Parameter] = []
    grouped: dict[str, Any] = {}
    for name, parameter in inspect.signature(function).parameters.items():
        kind = parameter.annotation
        if is_dataclass(kind):
            grouped[name] = kind
            hints = get_type_hints(kind, include_extras=True)
            for f in fields(kind):
                default = inspect.Parameter.empty if f.default is MISSING else f.default
                shown.append(_parameter(f.name, default, hints[f.name]))
        else:
            shown.append(_parameter(name, parameter.default, kind))

    @functools.wraps(function)
    def command(**given: Any) -> None:
        values = {
            name: kind(**{f.name: given.pop(f.name) for f in fields(kind)})
            for name, kind in grouped.items()
        }
        runs = [value for value in values.values() if isinstance(value, DeviceRun)]
        call = functools.partial(function, **given, **values)
        with around():
            line = _run_on_device(call, runs[0]) if runs else call()
        if line is not None:
            typer.echo(line)

    command.__signature__ = inspect.Signature(shown)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in shown}
    return command


def _parameter(name: str, default: Any, annotation: Any) -> inspect.Parameter:
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation
    )


def _run_on_device(call: Callable[[], str | None], run: DeviceRun) -> str | None:
    """Call with the threads and among the processes of a run; the first process has the line."""
    from semforensics.core import distributed
    from semforensics.core.device import set_threads

    if is_portable():
        refuse_unportable("processes", getattr(run, "processes", 1), (1,))
    if isinstance(run, SharedTrainingRun) and run.processes > 1 and not distributed.is_worker():
        raise typer.Exit(distributed.launch(run.processes))
    set_threads(1 if is_portable() else run.threads)
    if not isinstance(run, SharedTrainingRun):
        return call()
    with distributed.process_group(run.device):
        line = call()
        return line if distributed.is_first() else None
