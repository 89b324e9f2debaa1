"""A process of its own for work on hostile files."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.screening.jobs import LoadsFor, do_as_told, items

from semforensics.core.errors import InputError
from semforensics.core.worker import ProcessLimits, Worker


@pytest.fixture(scope="module")
def start(pytestconfig: pytest.Config) -> Iterator[Callable[..., Worker]]:
    """Starts a worker on a job; its process imports the jobs from the checkout."""
    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        patch.syspath_prepend(pytestconfig.rootpath)

        def start_worker(job: Callable[..., Any], limits: ProcessLimits | None = None) -> Worker:
            worker = Worker(job, limits)
            stack.callback(worker.close)
            return worker

        yield start_worker


@pytest.fixture(scope="module")
def worker(start: Callable[..., Worker]) -> Worker:
    """A worker that does as it is told."""
    return start(do_as_told)


def pid_of(worker: Worker, place: Path) -> int:
    """Have the worker write down which process it is."""
    worker.run("write", place, timeout_s=60, cancelled=lambda: False)
    return int(place.read_text())


def is_running(pid: int) -> bool:
    """Tell whether there is such a process, a zombie not counted."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_jobs_share_a_process_that_is_not_ours(worker: Worker, tmp_path: Path) -> None:
    """What one job has loaded, the next one has; the owner keeps out of it."""
    first, second = pid_of(worker, tmp_path / "1"), pid_of(worker, tmp_path / "2")

    assert first == second != os.getpid()


@pytest.mark.parametrize(
    ("what", "error", "message"),
    [
        ("refuse", InputError, "x.png: not a picture"),
        ("fail", RuntimeError, "ZeroDivisionError: division by zero"),
        ("crash", RuntimeError, "one of the files broke it"),
    ],
)
def test_what_a_job_meets_reaches_the_caller(
    worker: Worker, tmp_path: Path, what: str, error: type[Exception], message: str
) -> None:
    """Errors and crashes come back as errors, and the next job is done."""
    with pytest.raises(error, match=message):
        worker.run(what, tmp_path / "x.png", timeout_s=60, cancelled=lambda: False)

    assert pid_of(worker, tmp_path / "after") > 0


def test_a_job_that_hangs_is_ended(worker: Worker, tmp_path: Path) -> None:
    """After its time the process is killed, and another one does the next job."""
    before = pid_of(worker, tmp_path / "before")

    with pytest.raises(TimeoutError, match="not done after 1 s"):
        worker.run("hang", timeout_s=1, cancelled=lambda: False)

    assert not is_running(before)
    assert pid_of(worker, tmp_path / "after") != before


def test_a_job_that_nobody_waits_for_is_ended(worker: Worker, tmp_path: Path) -> None:
    """When its caller goes away, its process is killed at once."""
    place = tmp_path / "pid"

    with pytest.raises(InterruptedError):
        worker.run("hang", place, timeout_s=60, cancelled=place.exists)

    assert not is_running(int(place.read_text()))


def test_the_start_of_the_process_takes_none_of_the_time(
    start: Callable[..., Worker], tmp_path: Path
) -> None:
    """Slow imports are not the file's fault: its time begins when the process is ready."""
    slow = start(LoadsFor(4))

    slow.run(tmp_path / "pid", timeout_s=3, cancelled=lambda: False)

    assert int((tmp_path / "pid").read_text()) != os.getpid()


def test_a_process_that_cannot_start_is_not_blamed_on_the_file(
    start: Callable[..., Worker], tmp_path: Path
) -> None:
    """Each job is told so, and none waits for ever."""
    broken = start(LoadsFor(None))

    for _ in range(2):
        with pytest.raises(RuntimeError, match="could not be started"):
            broken.run(tmp_path / "pid", timeout_s=60, cancelled=lambda: False)


def test_what_a_job_yields_arrives_item_by_item(start: Callable[..., Worker]) -> None:
    """The caller has each item while the job is at the next; what is too late ends the process."""
    worker = start(items)

    found = worker.stream("a", "b", "hang", timeout_s=60, item_s=2)

    assert (next(found), next(found)) == ("a", "b")
    with pytest.raises(TimeoutError, match="not done after 2 s"):
        next(found)
    assert list(worker.stream("c", timeout_s=60)) == ["c"]


def test_the_time_of_a_job_does_not_count_its_caller(start: Callable[..., Worker]) -> None:
    """A caller that is slow to ask for the next item takes none of the job's time."""
    for _ in (found := start(items).stream("a", "b", timeout_s=2)):
        time.sleep(1.5)

    assert list(found) == []


def test_leaving_a_job_early_ends_its_process(start: Callable[..., Worker]) -> None:
    """A job that nobody asks any more does not run on; the next one has a new process."""
    worker = start(items)
    found = worker.stream("pid", "hang", timeout_s=60)
    pid = next(found)

    found.close()

    assert not is_running(pid)
    assert list(worker.stream("a", timeout_s=60)) == ["a"]


@pytest.mark.parametrize("what", ["memory", "spin"])
def test_a_process_keeps_its_limits(start: Callable[..., Worker], what: str) -> None:
    """Too much memory is refused, too much time of a core ends the process."""
    worker = start(items, ProcessLimits(threads=1, memory_bytes=2**30, cpu_s=2))

    with pytest.raises(RuntimeError, match="MemoryError" if what == "memory" else "died"):
        list(worker.stream("a", what, timeout_s=60))
    assert list(worker.stream("threads", timeout_s=60)) == ["1"]


def test_the_time_of_a_core_is_that_of_each_job(start: Callable[..., Worker]) -> None:
    """A process that has used its time on one job has it anew for the next."""
    worker = start(items, ProcessLimits(threads=1, cpu_s=2))

    pids = {pid for _ in range(3) for pid in worker.stream("pid", "busy", timeout_s=60)}

    assert len(pids) == 1


def test_a_script_without_a_guard_is_not_started_again(tmp_path: Path, root: Path) -> None:
    """A worker whose job is a library's runs nothing of its owner's script; and ends with it."""
    script = tmp_path / "script.py"
    script.write_text(
        "from tests.screening.jobs import items\n"
        "from semforensics.core.worker import Worker\n"
        "print(*Worker(items).stream('a', 'b', timeout_s=60))\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), *sys.path])}

    done = subprocess.run(
        [sys.executable, script], env=environment, capture_output=True, text=True, timeout=120
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, "a b\n", "")


def test_closing_ends_the_process(start: Callable[..., Worker], tmp_path: Path) -> None:
    """After `close` there is no process, and none comes back."""
    worker, place = start(partial(do_as_told, "write")), tmp_path / "pid"
    worker.run(place, timeout_s=60, cancelled=lambda: False)

    worker.close()

    assert not is_running(int(place.read_text()))
    with pytest.raises(InterruptedError):
        worker.run(place, timeout_s=60, cancelled=lambda: False)
