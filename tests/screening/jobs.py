"""Jobs for a process of their own, as a hostile file could make them."""

import os
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from semforensics.core.errors import InputError


def do_as_told(what: str, place: Path | None = None) -> None:
    """Behave as a screening does on a good file, or on one that breaks it."""
    match what:
        case "write":
            assert place is not None
            place.write_text(str(os.getpid()))
        case "refuse":
            raise InputError(f"{place}: not a picture")
        case "fail":
            raise ZeroDivisionError("division by zero")
        case "crash":
            os.kill(os.getpid(), signal.SIGKILL)
        case "hang":
            if place is not None:
                place.write_text(str(os.getpid()))
            time.sleep(600)


def items(*what: str) -> Iterator[str | int]:
    """Yield each text, or what it asks for."""
    for one in what:
        match one:
            case "hang":
                time.sleep(600)
            case "spin":
                while True:
                    pass
            case "busy":
                end = time.process_time() + 1.2
                while time.process_time() < end:
                    pass
            case "memory":
                yield len(bytearray(4 * 2**30))
            case "pid":
                yield os.getpid()
            case "threads":
                yield os.environ["OMP_NUM_THREADS"]
            case _:
                yield one


class LoadsFor:
    """Writes down its process, after so many seconds of loading; cannot be unpickled without."""

    def __init__(self, seconds: float | None) -> None:
        """Load for that long, or fail where it is None."""
        self.seconds = seconds

    def __setstate__(self, state: dict[str, float | None]) -> None:
        """Load, as the imports of a process do."""
        self.seconds = state["seconds"]
        if self.seconds is None:
            os._exit(1)
        time.sleep(self.seconds)

    def __call__(self, place: Path) -> None:
        """Write the process's number."""
        do_as_told("write", place)


def screen(paths: Sequence[Path], out: Path, scratch: Path, names: Mapping[Path, str]) -> None:
    """Report on files as a screening would: on text as refused, on pictures as suspected.

    Only pictures whose name begins with "figure" have evidence: it takes time to draw.
    """
    from semforensics.screening.records import Refusal
    from semforensics.screening.write.fragment import picture_fragment
    from semforensics.screening.write.report import write_report
    from tests.screening.samples import HEAD, composite

    fragments, refusals = [], []
    for path in paths:
        data = path.read_bytes()[:32]
        if data.startswith(b"do "):
            do_as_told(data.decode().split()[1], path)
        if data.startswith((b"\x89PNG", b"II*\x00")):
            maps = names[path].startswith("figure")
            result = composite(names[path], ("ai-suspected", "consistent"), maps=maps)
            fragments.append(picture_fragment(result))
        else:
            refusals.append(Refusal(names[path], "", None, f"not a picture: {data[:8]!r}"))
    scratch.mkdir()
    write_report(out, HEAD, lambda: iter(fragments), refusals, [])


def read(path: Path, name: str, _limits: object) -> Iterator[Any]:
    """Read an input as its name says: one picture, then the decoder behaves as it is told."""
    from semforensics.screening.records import Picture, Provenance

    grey = np.zeros((40, 50), np.uint8)
    yield Picture(str(path), "", "0" * 64, grey, Provenance("PNG"), False, False)
    do_as_told(name)
