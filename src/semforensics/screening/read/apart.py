"""Read inputs in a child process, under limits of time and memory.

Decoders are large programs in C, and bytes from outside can make them crash, run for ever or take
all memory. Each process that judges has one child that reads for it. The child loads no torch, so
it is ready before a model is.
"""

import os
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

from semforensics.core.worker import ProcessLimits, Worker
from semforensics.screening.read import intake
from semforensics.screening.records import Limits, Picture, Refusal

PICTURE_S = 240.0
"""For the next picture of an input; the pages of a PDF have a shorter limit."""
INPUT_S = 900.0
"""For an input, not counting the time until the caller asks for its next picture."""
MEMORY_GIB = 6
"""Address space of the child; a picture of 64 megapixels in 16-bit colour takes a third of it."""

_PROCESS = ProcessLimits(threads=1, memory_bytes=MEMORY_GIB * 2**30, cpu_s=int(INPUT_S))


@cache
def _child() -> Worker:
    return Worker(intake.read_input, _PROCESS)


if hasattr(os, "register_at_fork"):  # a fork of this process starts a child of its own
    os.register_at_fork(after_in_child=_child.cache_clear)


def start_reader() -> None:
    """Start the child, so that it loads while the caller does."""
    _child()


def read_inputs(paths: Sequence[Path], limits: Limits) -> Iterator[Picture | Refusal]:
    """Read files, folders, PDFs and ZIP archives picture by picture, folders sorted.

    Raises:
        FileNotFoundError: A path does not exist.
    """
    for path in intake.list_inputs(paths):
        yield from read_input(path, str(path), limits)


def read_input(
    path: Path, name: str, limits: Limits, picture_s: float = PICTURE_S
) -> Iterator[Picture | Refusal]:
    """Read one file as `intake.read_input` does; one that breaks the child is refused by name."""
    n_read = 0
    try:
        for found in _child().stream(path, name, limits, timeout_s=INPUT_S, item_s=picture_s):
            n_read += 1
            yield found
        return
    except TimeoutError as error:
        reason = f"not read in time: {error}"
    except RuntimeError:
        reason = "it broke the program that reads it"
    yield Refusal(name, f"behind its first {n_read} pictures" if n_read else "", None, reason)
