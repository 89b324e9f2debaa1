"""A process of its own for work on hostile files."""

import os
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from semforensics.screening.isolation import Worker
from tests.screening.jobs import do_as_told


@pytest.fixture(scope="module")
def worker(pytestconfig: pytest.Config) -> Iterator[Worker]:
    """A worker that does as it is told; its process imports the jobs from the checkout."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(pytestconfig.rootpath)
        worker = Worker(do_as_told)
        yield worker
        worker.close()


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
        ("refuse", ValueError, "x.png: not a picture"),
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


def test_closing_ends_the_process(pytestconfig: pytest.Config, tmp_path: Path) -> None:
    """After `close` there is no process, and none comes back."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(pytestconfig.rootpath)
        worker = Worker(partial(do_as_told, "write"))
        place = tmp_path / "pid"
        worker.run(place, timeout_s=60, cancelled=lambda: False)
        worker.close()

    time.sleep(0.01)
    assert not is_running(int(place.read_text()))
    with pytest.raises(InterruptedError):
        worker.run(place, timeout_s=60, cancelled=lambda: False)
