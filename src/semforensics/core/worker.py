"""A child process for work on hostile files, with limits of time and memory.

Decoders of images and PDFs are large programs in C. One that crashes, takes all memory or never
ends brings down the process it runs in. Here that process is a child, which is killed and replaced.
"""

import atexit
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from types import ModuleType
from typing import Any

from semforensics.core.allocator import search_rarely
from semforensics.core.errors import InputError

resource: Any = None  # Windows has no such limits; the owner's time-outs hold all the same
with suppress(ImportError):
    import resource

_POLL_S = 0.1
_START_S = 300.0
"""A process that has not loaded its libraries by then is given up."""


@dataclass(frozen=True)
class ProcessLimits:
    """What one process may take; None sets no limit. Windows knows none of memory and CPU time."""

    threads: int | None = None
    """Of the libraries that compute: NumPy, SciPy and torch."""
    memory_bytes: int | None = None
    """Of address space."""
    cpu_s: int | None = None
    """Of CPU time, for each job; also ends a process whose owner is gone."""


class Worker:
    """One process that does one job after another; `close` or the end of the owner ends it."""

    def __init__(self, job: Callable[..., Any], limits: ProcessLimits | None = None) -> None:
        """Start the process.

        Args:
            job: Can be pickled; loads what it needs at its first call and keeps it. Where it has a
                method `warm`, that is called at once. What a generator yields, `stream` returns.
            limits: Of the process; without, it has those of its owner.
        """
        self._job, self._limits = pickle.dumps(job), limits or ProcessLimits()
        self._lock = threading.Lock()
        self._process: SpawnProcess | None = None
        self._connection: Connection | None = None
        self._is_ready = self._is_closed = False
        # The interpreter waits for its children when it ends.
        atexit.register(self.close)
        self._start()

    def run(self, *arguments: Any, timeout_s: float, cancelled: Callable[[], bool]) -> None:
        """Do the job with these arguments; errors are those of `stream`."""
        for _ in self.stream(*arguments, timeout_s=timeout_s, cancelled=cancelled):
            pass

    def stream(
        self,
        *arguments: Any,
        timeout_s: float,
        item_s: float = float("inf"),
        cancelled: Callable[[], bool] = lambda: False,
    ) -> Iterator[Any]:
        """Do the job with these arguments, one caller at a time, and yield what it yields.

        Args:
            arguments: Of the job.
            timeout_s: Most seconds that the job may take, not counting the start of its process
                and the time that the caller takes between two items.
            item_s: Most seconds for the next item.
            cancelled: Whether the caller no longer waits for it.

        Raises:
            InputError: What the job raised as InputError or OSError: the caller's to mend.
            RuntimeError: Whatever else the job raised, or its process died or did not start.
            TimeoutError: It took longer than `timeout_s` or `item_s`.
            InterruptedError: `cancelled` became true.
        """
        while not self._lock.acquire(timeout=_POLL_S):
            if cancelled():
                raise InterruptedError("nobody waits for the answer any more")
        try:
            kind, value = yield from self._do(arguments, timeout_s, item_s, cancelled)
        finally:
            self._lock.release()
        if kind == "expected":
            raise InputError(value)
        if kind == "unexpected":
            raise RuntimeError(value)

    def _do(
        self, arguments: Any, timeout_s: float, item_s: float, cancelled: Callable[[], bool]
    ) -> Generator[Any, None, tuple[str, Any]]:
        """Yield the items of the job; return how it ended."""
        if self._process is None or not self._process.is_alive():
            self._start()
        self._await_start(cancelled)
        assert self._connection is not None
        is_idle = False
        left_s = timeout_s
        try:
            self._connection.send(arguments)
            while True:
                start = time.monotonic()
                if not self._has_message(min(left_s, item_s), cancelled):
                    raise TimeoutError(f"not done after {min(timeout_s, item_s):.0f} s")
                left_s -= time.monotonic() - start
                kind, value = self._connection.recv()
                if kind != "item":
                    is_idle = True
                    return kind, value
                yield value
        except (EOFError, BrokenPipeError, ConnectionResetError) as error:
            raise RuntimeError("the process that judges died; one of the files broke it") from error
        except (InterruptedError, TimeoutError):
            self._kill()
            if not self._is_closed:
                self._start()  # the next caller need not wait for it
            is_idle = True
            raise
        finally:
            if not is_idle:  # dead, or at work for a caller who left
                self._kill()

    def _await_start(self, cancelled: Callable[[], bool]) -> None:
        if self._is_ready:
            return
        assert self._connection is not None
        try:
            if not self._has_message(_START_S, cancelled):
                raise EOFError(f"silent for {_START_S:.0f} s")
            self._connection.recv()
        except (EOFError, ConnectionResetError) as error:
            self._kill()
            raise RuntimeError("the process that judges could not be started") from error
        self._is_ready = True

    def _has_message(self, timeout_s: float, cancelled: Callable[[], bool]) -> bool:
        """Wait until the process sends something or ends; false after `timeout_s`."""
        assert self._connection is not None
        end = time.monotonic() + timeout_s
        while not self._connection.poll(_POLL_S):
            if cancelled():
                raise InterruptedError("nobody waits for the answer any more")
            if time.monotonic() > end:
                return False
        return True

    def close(self) -> None:
        """End the process at once, whatever it does; none is started again."""
        self._is_closed = True
        atexit.unregister(self.close)
        self._kill()

    def _start(self) -> None:
        if self._is_closed:
            raise InterruptedError("closed")
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        # A worker inside a worker stays in its group, and ends with it.
        leads = multiprocessing.parent_process() is None
        # Not daemonic: a daemonic process may not have workers of its own.
        self._process = context.Process(
            target=_serve_jobs, args=(theirs, self._job, self._limits, leads), daemon=False
        )
        with _main_module_hidden(unless=b"__main__" in self._job):
            self._process.start()
        self._is_ready = False
        theirs.close()

    def _kill(self) -> None:
        if self._process is None or self._connection is None:
            return
        self._connection.close()
        if self._process.pid is not None and self._process.is_alive():
            try:  # its workers too, once it leads a group of its own
                os.killpg(self._process.pid, signal.SIGKILL)
            except (AttributeError, ProcessLookupError, PermissionError):
                self._process.kill()
        self._process.join()
        self._process = self._connection = None


@contextmanager
def _main_module_hidden(*, unless: bool) -> Iterator[None]:
    """Keep `spawn` from running the owner's script in the child, where its job needs nothing of it.

    Otherwise a script without `if __name__ == "__main__"` would start itself again.
    """
    main = sys.modules["__main__"]
    if not unless:
        sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _serve_jobs(connection: Connection, job: bytes, limits: ProcessLimits, leads: bool) -> None:
    """Say when ready, then do jobs until the other end is closed."""
    if leads and hasattr(os, "setsid"):
        os.setsid()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the owner's, who ends us
    signal.signal(signal.SIGTERM, lambda *_: os._exit(143))
    _set_limits(limits)
    search_rarely()
    function = pickle.loads(job)  # loads libraries, which heed the limits
    if hasattr(function, "warm"):
        with suppress(Exception):  # the first call meets the same error, and tells its caller
            function.warm()
    with suppress(EOFError, ConnectionResetError, BrokenPipeError):  # the owner is gone
        connection.send(("ready", None))
        while True:
            arguments = connection.recv()
            _allow_cpu_time(limits.cpu_s)
            for answer in _answers(function, arguments):
                connection.send(answer)


def _answers(job: Callable[..., Any], arguments: Any) -> Iterator[tuple[str, Any]]:
    """Do a job: what it yields, then how it ended."""
    try:
        found = job(*arguments)
        for item in found if isinstance(found, Iterator) else ():
            yield "item", item
    except (InputError, OSError) as error:
        yield "expected", str(error)
    except Exception as error:
        yield "unexpected", f"{type(error).__name__}: {error}"
    else:
        yield "done", None


def _set_limits(limits: ProcessLimits) -> None:
    """Bound this process, where the system can."""
    if limits.threads is not None:
        for library in ("OMP", "OPENBLAS", "MKL"):
            os.environ[f"{library}_NUM_THREADS"] = str(limits.threads)
    if resource is None or limits.memory_bytes is None:
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(ValueError):  # macOS knows this limit and refuses to set it
        resource.setrlimit(resource.RLIMIT_AS, (limits.memory_bytes, limits.memory_bytes))


def _allow_cpu_time(seconds: int | None) -> None:
    """Let this process use a core for so long from now on."""
    if resource is None or seconds is None:
        return
    used = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
    _, most = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (int(used) + 1 + seconds, most))
