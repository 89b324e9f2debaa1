"""Inputs are read in a child process, which may break."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tests.screening import jobs
from tests.screening.documents import encoded, micrograph

from semforensics.core.worker import ProcessLimits, Worker
from semforensics.screening.read import apart, intake
from semforensics.screening.records import Limits, Picture, Refusal


@pytest.fixture
def child(pytestconfig: pytest.Config) -> Iterator[Callable[..., None]]:
    """Puts a child with another job or other limits in the place of the usual one."""
    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        patch.syspath_prepend(pytestconfig.rootpath)

        def put(job: Callable[..., Any], memory_bytes: int = 2**30) -> None:
            worker = Worker(job, ProcessLimits(threads=1, memory_bytes=memory_bytes))
            stack.callback(worker.close)
            patch.setattr(apart, "_child", lambda: worker)

        yield put


@pytest.mark.parametrize(
    ("what", "seconds", "reason"),
    [
        ("crash", 60, "it broke the program that reads it"),
        ("hang", 1, "not read in time: not done after 1 s"),
    ],
)
def test_a_file_that_breaks_its_reader_is_refused_by_name(
    child: Callable[..., None], what: str, seconds: float, reason: str
) -> None:
    """What was read of it before stays, and the next file is read."""
    child(jobs.read)

    picture, refusal = apart.read_input(Path("x.tif"), what, Limits(), picture_s=seconds)
    after = list(apart.read_input(Path("y.tif"), "fine", Limits()))

    assert isinstance(picture, Picture)
    assert refusal == Refusal(what, "behind its first 1 pictures", None, reason)
    assert [type(one) for one in after] == [Picture]


def test_a_picture_that_takes_all_memory_is_refused(
    child: Callable[..., None], tmp_path: Path
) -> None:
    """In plain words, and the process goes on."""
    Image.new("RGBA", (8000, 6000)).save(tmp_path / "x.png", compress_level=1)
    child(intake.read_input, memory_bytes=600 * 2**20)

    (refusal,) = apart.read_inputs([tmp_path / "x.png"], Limits())

    assert isinstance(refusal, Refusal)
    assert refusal.reason == "reading it takes more memory than a file may take"


def test_reading_needs_neither_torch_nor_this_process(tmp_path: Path) -> None:
    """The child that decodes loads no torch, and a script without a guard may read."""
    (tmp_path / "x.png").write_bytes(encoded(micrograph(), "PNG"))
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\nfrom pathlib import Path\n"
        "from semforensics.screening.read.apart import read_inputs\n"
        "from semforensics.screening.records import Limits\n"
        "(picture,) = read_inputs([Path(sys.argv[1])], Limits())\n"
        "import PIL.PngImagePlugin as png\n"
        "print(picture.grey.shape, 'torch' in sys.modules)\n"
    )

    done = subprocess.run(
        [sys.executable, script, tmp_path / "x.png"], capture_output=True, text=True, timeout=120
    )

    assert (done.stdout, done.stderr) == ("(96, 128) False\n", "")
