"""The course of a GAN's training: all that changes, what is logged, how it is saved and shown."""

import csv
import platform
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from jaxtyping import Int64
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from semforensics.core import distributed
from semforensics.core.errors import InputError
from semforensics.core.resume import load_state, save_state

G = TypeVar("G", bound=nn.Module)
D = TypeVar("D", bound=nn.Module)

SECONDS_BETWEEN_SAVES = 120.0


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


@dataclass(kw_only=True)
class Course(Generic[G, D]):
    """All that changes while a training runs; its state dict is what resuming needs."""

    generator: G
    discriminator: D
    average: G
    optimizer_g: torch.optim.Adam
    optimizer_d: torch.optim.Adam
    rng: torch.Generator
    sampler: EndlessPermutations
    window: Tensor
    """Sum of what was measured since the last row, and how often: [2, columns]."""
    columns: tuple[str, ...]
    iteration: int = 0
    rows: list[dict[str, float]] = field(default_factory=list)
    snapshots: list[dict[str, float]] = field(default_factory=list)

    def _parts(self) -> dict[str, Any]:
        names = ("generator", "discriminator", "average", "optimizer_g", "optimizer_d")
        return {name: getattr(self, name) for name in names}

    def state_dict(self) -> dict[str, Any]:
        """Return everything, as tensors, numbers and lists."""
        return {name: part.state_dict() for name, part in self._parts().items()} | {
            "rng": self.rng.get_state(),
            "waiting": self.sampler.waiting,
            "iteration": self.iteration,
            "window": self.window.cpu(),
            "rows": self.rows,
            "snapshots": self.snapshots,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where the state was taken."""
        for name, part in self._parts().items():
            part.load_state_dict(state[name])
        self.rng.set_state(state["rng"])
        self.sampler.waiting = state["waiting"]
        self.iteration = state["iteration"]
        self.window = state["window"].to(self.window.device)
        self.rows, self.snapshots = state["rows"], state["snapshots"]

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
                f"training diverged before iteration {self.iteration}: "
                + ", ".join(f"{name} {mean:.3g}" for name, mean in means.items())
            )
        self.window.zero_()
        self.rows.append({"iteration": float(self.iteration), **means, **more})
        return self.rows[-1]


def resume(
    course: Course[Any, Any], scratch: Path, stamp: str, iterations: int, console: Console
) -> None:
    """Go on from the state of the same training in `scratch`, or empty it and start anew."""
    state = load_state(scratch / "state.pt", stamp) if distributed.is_first() else None
    state = distributed.from_first(state)
    if state is not None and state["iteration"] <= iterations:
        course.load_state_dict(state)
        console.print(f"resuming at iteration {course.iteration} from {scratch}")
    elif distributed.is_first():
        shutil.rmtree(scratch, ignore_errors=True)


def save(course: Course[Any, Any], scratch: Path, stamp: str) -> None:
    """Keep the state of an unfinished training; the first process's is everyone's."""
    if distributed.is_first():
        save_state(scratch / "state.pt", stamp, course.state_dict())


def fresh_window(columns: tuple[str, ...], device: torch.device) -> Tensor:
    """Return the window of a course that has measured nothing."""
    return torch.zeros(2, len(columns), device=device)


def write_rows(path: Path, rows: list[dict[str, float]]) -> None:
    """Write rows of numbers as CSV, six digits each; what a row lacks stays empty."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: f"{value:.6g}" for name, value in row.items()} for row in rows)


def progress_bar(title: str, console: Console) -> Progress:
    """Return a bar with the losses behind it, shown on a terminal only."""
    return Progress(
        TextColumn(title),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[losses]}"),
        console=console,
        disable=console.quiet or not console.is_terminal,
    )


def describe_machine(device: torch.device) -> dict[str, Any]:
    """Say what trained, for the checkpoint's description."""
    cuda = device.type == "cuda"
    return {
        "versions": {"torch": torch.__version__, "python": platform.python_version()},
        "device": torch.cuda.get_device_name(device) if cuda else platform.machine(),
        "threads": torch.get_num_threads(),
        **({"processes": distributed.num_processes()} if distributed.num_processes() > 1 else {}),
    }
