"""A process of its own for work on hostile files, so that what breaks it breaks nothing else.

Decoders of images and PDFs are large programs in C. One that crashes, eats all memory or never
ends takes down the process that it runs in; here that process is killed and made anew.
"""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from types import FrameType
from typing import Any

from semforensics.core.errors import InputError

_POLL_S = 0.1
_START_S = 300.0
"""A process that has not loaded its libraries by then is given up."""


class Worker:
    """One process that does one job after another; `close` or killing the owner ends it."""

    def __init__(self, job: Callable[..., None]) -> None:
        """Start the process.

        Args:
            job: Can be pickled; loads what it needs at its first call and keeps it. Where it has a
                method `warm`, that is called at once.
        """
        self._job = job
        self._lock = threading.Lock()
        self._process: SpawnProcess | None = None
        self._connection: Connection | None = None
        self._is_ready = False
        self._is_closed = False
        self._start()

    def run(self, *arguments: Any, timeout_s: float, cancelled: Callable[[], bool]) -> None:
        """Do the job with these arguments, one caller at a time.

        Args:
            arguments: Of the job.
            timeout_s: Most seconds that the job may take, its process's start not counted.
            cancelled: Whether the caller no longer waits for it.

        Raises:
            InputError: What the job raised as ValueError or OSError: the caller's to mend.
            RuntimeError: Whatever else the job raised, or its process died or did not start.
            TimeoutError: It took longer than `timeout_s`.
            InterruptedError: `cancelled` became true.
        """
        while not self._lock.acquire(timeout=_POLL_S):
            if cancelled():
                raise InterruptedError("nobody waits for the answer any more")
        try:
            kind, message = self._do(arguments, timeout_s, cancelled)
        finally:
            self._lock.release()
        if kind == "expected":
            raise InputError(message)
        if kind == "unexpected":
            raise RuntimeError(message)

    def _do(
        self, arguments: Any, timeout_s: float, cancelled: Callable[[], bool]
    ) -> tuple[str, str]:
        if self._process is None or not self._process.is_alive():
            self._start()
        self._await_start(cancelled)
        assert self._connection is not None
        try:
            self._connection.send(arguments)
            if not self._has_message(timeout_s, cancelled):
                raise TimeoutError(f"not done after {timeout_s:.0f} s")
            answer: tuple[str, str] = self._connection.recv()
            return answer
        except (EOFError, BrokenPipeError, ConnectionResetError) as error:
            self._kill()  # the next caller starts it anew
            raise RuntimeError("the process that judges died; one of the files broke it") from error
        except (InterruptedError, TimeoutError):
            self._kill()
            if not self._is_closed:
                self._start()
            raise

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
        self._kill()

    def _start(self) -> None:
        if self._is_closed:
            raise InterruptedError("closed")
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        # Not daemonic: a daemonic process may not have workers of its own.
        self._process = context.Process(target=_serve_jobs, args=(theirs, self._job), daemon=False)
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


def _serve_jobs(connection: Connection, job: Callable[..., None]) -> None:
    """Say when ready, then do jobs until the other end is closed."""
    if hasattr(os, "setsid"):
        os.setsid()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the owner's, who ends us
    signal.signal(signal.SIGTERM, _leave)
    if hasattr(job, "warm"):
        with suppress(Exception):  # the first call meets the same error, and tells its caller
            job.warm()
    with suppress(BrokenPipeError):  # the owner is gone, which the loop notices
        connection.send(("ready", ""))
    while True:
        try:
            arguments = connection.recv()
        except (EOFError, ConnectionResetError):
            return
        try:
            job(*arguments)
        except (ValueError, OSError) as error:
            connection.send(("expected", str(error)))
        except Exception as error:
            connection.send(("unexpected", f"{type(error).__name__}: {error}"))
        else:
            connection.send(("done", ""))


def _leave(_number: int, _frame: FrameType | None) -> None:
    os._exit(143)
