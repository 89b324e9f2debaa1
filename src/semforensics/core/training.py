"""The frame of every training: its state, how it is saved, resumed, watched and described.

A training that was killed is resumed from its state in a scratch folder, and ends in the same bytes
on the same machine with the same number of threads. The state has a stamp: the code that can have
an effect on the training, its parameters except its length, its data, and the libraries and the
device it ran on. Where any of these differ, the training starts anew and says what differs.
"""

import csv
import hashlib
import json
import platform
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Int64
from pydantic import BaseModel
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from semforensics.core import distributed
from semforensics.core.errors import InputError
from semforensics.core.files import atomic_file
from semforensics.core.live import live_curves
from semforensics.core.source import hash_source

STATE_FILE = "state.pt"
Stamp = dict[str, str]
Show = Callable[..., None]


@dataclass(frozen=True)
class Setup:
    """How a training is run, apart from its data and its parameters."""

    seed: int
    """Of the weights and all draws."""
    scratch: Path
    """Folder for the state of the unfinished training, which is removed at the end."""
    device: torch.device
    seconds_between_saves: float = 120.0
    """Of the state; never changes a result."""


class EndlessPermutations:
    """Indices 0 … count - 1 in one random permutation after the other.

    A batch may reach over the end of a permutation, so no image is ever left out.
    """

    def __init__(self, count: int, rng: torch.Generator) -> None:
        self.count, self.rng = count, rng
        self.waiting = torch.empty(0, dtype=torch.int64)

    def take(self, number: int) -> Int64[Tensor, " number"]:
        """Return the next indices."""
        while len(self.waiting) < number:
            self.waiting = torch.cat([self.waiting, torch.randperm(self.count, generator=self.rng)])
        taken, self.waiting = self.waiting[:number], self.waiting[number:].clone()
        return taken

    def state_dict(self) -> dict[str, Tensor]:
        """Return the indices that are left of a permutation; the generator is not part of it."""
        return {"waiting": self.waiting}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue where the state was taken."""
        self.waiting = state["waiting"]


@dataclass(kw_only=True)
class TrainingState:
    """All that changes while a training runs; its state dict is what resuming needs.

    A training adds fields: networks, optimizers and others with a state dict, random generators,
    tensors, numbers and lists of them.
    """

    unit: ClassVar[str] = "iteration"
    """What is counted: the first column of the rows, and the word in messages."""
    iteration: int = 0
    rows: list[dict[str, float]] = field(default_factory=list)

    def state_dict(self) -> dict[str, Any]:
        """Return all fields, as tensors on the CPU, numbers, lists and state dicts."""
        state: dict[str, Any] = {}
        for name, value in self._fields():
            if isinstance(value, torch.Generator):
                value = value.get_state()
            elif isinstance(value, Tensor):
                value = value.cpu()
            elif hasattr(value, "state_dict"):
                value = value.state_dict()
            state[name] = value
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where the state was taken."""
        for name, value in self._fields():
            if isinstance(value, torch.Generator):
                value.set_state(state[name])
            elif isinstance(value, Tensor):
                setattr(self, name, state[name].to(value.device))
            elif hasattr(value, "load_state_dict"):
                value.load_state_dict(state[name])
            else:
                setattr(self, name, state[name])

    def _fields(self) -> list[tuple[str, Any]]:
        return [(f.name, getattr(self, f.name)) for f in fields(self)]


@dataclass(kw_only=True)
class MeasuredState(TrainingState):
    """A state whose rows are means over the steps since the row before."""

    columns: ClassVar[tuple[str, ...]]
    """The names of what is measured."""
    window: Tensor
    """Sum of what was measured since the last row, and how often: [2, columns]."""

    def measure(self, values: Mapping[str, Tensor]) -> None:
        """Add what this step has measured, in all processes, to the means of the next row."""
        at = [self.columns.index(name) for name in values]
        measured = torch.stack([value.detach().float() for value in values.values()])
        self.window[0, at] += distributed.average(measured)
        self.window[1, at] += 1

    def log(self, **more: float) -> dict[str, float]:
        """Add a row: the iteration, means since the row before, and what the caller knows.

        Raises:
            InputError: A mean is not finite.
        """
        total, count = self.window.tolist()
        means = {
            name: s / n for name, s, n in zip(self.columns, total, count, strict=True) if n > 0
        }
        if not np.isfinite(list(means.values())).all():
            raise InputError(
                f"training diverged before {self.unit} {self.iteration}: "
                + ", ".join(f"{name} {mean:.3g}" for name, mean in means.items())
            )
        self.window.zero_()
        self.rows.append({self.unit: float(self.iteration), **means, **more})
        return self.rows[-1]


def make_stamp(
    module: str, settings: Mapping[str, Any], *data: Tensor, device: torch.device
) -> Stamp:
    """Return all that a training depends on, except its length.

    Args:
        module: The training's module, whose source and imports count.
        settings: Its parameters, seed and other settings: anything JSON can hold.
        data: What it learns from, on the CPU.
        device: Where it runs.
    """
    return {
        "code": hash_source(module),
        "parameters": fingerprint(settings),
        "data": fingerprint({}, *data),
        "torch": str(torch.__version__),  # its own class, which a state cannot hold
        "numpy": np.__version__,
        "threads": str(torch.get_num_threads()),
        "processes": str(distributed.num_processes()),
        "device": device.type,
        "instructions": torch.backends.cpu.get_cpu_capability(),
    }


def fingerprint(settings: Mapping[str, Any], *tensors: Tensor) -> str:
    """Return a SHA-256 of settings, anything JSON can hold, and of CPU tensors."""
    digest = hashlib.sha256(json.dumps(dict(settings), sort_keys=True).encode())
    for tensor in tensors:
        digest.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def describe_difference(found: Stamp, expected: Stamp) -> str:
    """Name the parts in which two stamps differ; empty if they are equal.

    What is hashed is only named (`other code`), the rest is shown (`torch 2.12 (now 2.13)`).
    """
    return ", ".join(
        f"other {name}"
        if name in ("code", "parameters", "data")
        else f"{name} {found.get(name)} (now {now})"
        for name, now in expected.items()
        if found.get(name) != now
    )


class Training:
    """One training in its scratch folder: resumes and saves a state, shows progress."""

    def __init__(self, title: str, setup: Setup, stamp: Stamp) -> None:
        self.title, self.setup, self.stamp = title, setup, stamp
        self.scratch, self.device = setup.scratch, setup.device
        self.console = make_console()
        self.saved_at = time.monotonic()

    def resume(self, state: TrainingState, length: int) -> None:
        """Load the state of the same training into a fresh one, or remove another and say why.

        A state that has more iterations than the whole training, `length`, is of another one.
        """
        saved, why_not = self._read(state.unit, length) if distributed.is_first() else (None, "")
        saved = distributed.from_first(saved)
        if saved is not None:
            state.load_state_dict(saved)
            self._say(f"resuming at {state.unit} {state.iteration} from {self.scratch}")
        elif why_not:
            self._say(f"{why_not}: starting anew")
        if saved is None and distributed.is_first():
            self.clear()

    def _read(self, unit: str, length: int) -> tuple[dict[str, Any] | None, str]:
        """Return the saved state, or None and why there is none; empty: because nothing is there.

        Raises:
            OSError: The file cannot be read.
        """
        path = self.scratch / STATE_FILE
        if not path.is_file():
            return None, ""
        with path.open("rb") as file:
            # What is no archive would be read as a pickle of an old kind, which fails in many ways.
            is_archive = zipfile.is_zipfile(file)
            file.seek(0)
            try:
                saved = (
                    torch.load(file, map_location="cpu", weights_only=True) if is_archive else None
                )
                stamp, state = dict(saved["stamp"]), dict(saved["state"])  # type: ignore[index]
                iteration = int(state["iteration"])
            except OSError:
                raise
            except Exception:  # a damaged archive fails in as many ways
                return None, f"{path} is not the state of a training"
        unfinished = f"the unfinished training in {self.scratch}"
        if difference := describe_difference(stamp, self.stamp):
            return None, f"{unfinished} belongs to {difference}"
        if iteration > length:
            return None, f"{unfinished} is at {unit} {iteration}, beyond {length}"
        return state, ""

    def save(self, state: TrainingState) -> None:
        """Keep the state of an unfinished training; the first process's is everyone's."""
        with distributed.writing() as writes:
            if writes:
                with atomic_file(self.scratch / STATE_FILE) as temporary:
                    torch.save({"stamp": self.stamp, "state": state.state_dict()}, temporary)
        self.saved_at = time.monotonic()

    def save_if_due(self, state: TrainingState, *, done: bool) -> None:
        """Keep the state at the end, and when the last time was long enough ago."""
        seconds = time.monotonic() - self.saved_at
        if done or distributed.from_first(seconds >= self.setup.seconds_between_saves):
            self.save(state)

    def clear(self) -> None:
        """Remove what this training has written into its scratch folder, and nothing else."""
        clear_scratch(self.scratch)

    @contextmanager
    def progress(self, state: TrainingState, total: int) -> Iterator[Show]:
        """Show a bar on a terminal, and curves where they are asked for, while the block runs.

        Yields:
            A function that moves the bar to the iteration of the state; given a row and a text, it
            adds the row to the curves and shows the text behind the bar.
        """
        bar = Progress(
            TextColumn(self.title),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[losses]}"),
            console=self.console,
            disable=self.console.quiet or not self.console.is_terminal,
        )
        with bar, live_curves(self.scratch, resumed=state.iteration > 0) as show_row:
            task = bar.add_task("", total=total, completed=state.iteration, losses="")

            def show(row: Mapping[str, float] | None = None, text: str = "") -> None:
                bar.update(task, completed=state.iteration)
                if row is not None:
                    bar.update(task, losses=text)
                    show_row(state.iteration, row)

            yield show

    def _say(self, text: str) -> None:
        self.console.print(text, soft_wrap=True, highlight=False, markup=False)


def clear_scratch(scratch: Path) -> None:
    """Remove from a folder what a training writes there, and the folder if nothing is left."""
    own = (STATE_FILE, ".state.*.pt", "snapshots/*.safetensors", "grids/*.png")
    for path in [path for pattern in own for path in scratch.glob(pattern)]:
        path.unlink()
    for folder in (scratch / "snapshots", scratch / "grids", scratch):
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def make_console() -> Console:
    """Return the console on which the first of several processes speaks."""
    return Console(stderr=True, quiet=not distributed.is_first())


def write_rows(path: Path, rows: list[dict[str, float]]) -> None:
    """Write rows of numbers as CSV, six digits each; what a row lacks stays empty."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: f"{value:.6g}" for name, value in row.items()} for row in rows)


def describe_training(
    architecture: str, network: Any, params: BaseModel, setup: Setup, protocol: str, n_real: int
) -> dict[str, Any]:
    """Say how a generator was trained, and on what, for the description in its file.

    The architecture is the network's name there; its `arguments` rebuild it. It learned from
    `n_real` reals, which the protocol chose.
    """
    return {
        "architecture": architecture,
        "arguments": network.arguments,
        "params": params.model_dump(mode="json"),
        "protocol": protocol,
        "seed": setup.seed,
        "n_real": n_real,
        **describe_machine(setup.device),
    }


def describe_machine(device: torch.device) -> dict[str, Any]:
    """Say what trained, for the checkpoint's description."""
    cuda, processes = device.type == "cuda", distributed.num_processes()
    return {
        "versions": {"torch": torch.__version__, "python": platform.python_version()},
        "device": torch.cuda.get_device_name(device) if cuda else platform.machine(),
        "threads": torch.get_num_threads(),
        **({"processes": processes} if processes > 1 else {}),
    }
