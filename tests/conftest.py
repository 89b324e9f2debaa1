"""What every test shares."""

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import settings

from semforensics.core.allocator import search_rarely

search_rarely()
os.environ.setdefault("OMP_NUM_THREADS", "1")  # a worker per core, not a thread
os.environ.setdefault("MPLBACKEND", "Agg")

# No deadline: the first example pays for imports and threads. Derandomised: the same every time.
settings.register_profile("semforensics", deadline=None, derandomize=True)
settings.load_profile("semforensics")

ROOT = Path(__file__).parents[1]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the tests that may take longest: at the end, one process would wait for others."""

    def seconds(item: pytest.Item) -> float:
        marker = item.get_closest_marker("timeout")
        return float(marker.args[0]) if marker else 0

    items.sort(key=seconds, reverse=True)


@dataclass(frozen=True)
class Ended:
    """How a command ended, and what it printed."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture(autouse=True)
def _threads_end_with_their_test() -> Iterator[None]:
    """Take back the threads of a command that ran in this process: other tests run beside it."""
    yield
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


Call = Callable[..., Ended]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Run a command in this process, by the entry point; keywords are its environment."""
    from semforensics.cli import main as entry

    def run(*arguments: object, **environment: str) -> Ended:
        capsys.readouterr()
        with monkeypatch.context() as patch:
            for name in [name for name in os.environ if name.startswith("SEMFORENSICS_")]:
                patch.delenv(name)
            for name, value in {"SEMFORENSICS_THREADS": "1", **environment}.items():
                patch.setenv(name, value)
            patch.setattr(sys, "argv", ["semforensics", *map(str, arguments)])
            patch.setattr(entry, "keep_memory", lambda: False)  # it would hold for all tests
            with pytest.raises(SystemExit) as end:
                entry.main()
        return Ended(int(end.value.code or 0), *capsys.readouterr())

    return run


@pytest.fixture
def root() -> Path:
    """The checkout under test."""
    return ROOT


@pytest.fixture
def shared() -> Path:
    """The folder of real micrographs and parity tensors; the test skips where it is absent."""
    folder = Path(os.environ.get("SEMFORENSICS_SHARED", ROOT.parent / "shared"))
    if not folder.is_dir():
        pytest.skip(f"no real micrographs or parity tensors at {folder.name}/ beside the checkout")
    return folder


@pytest.fixture
def change_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str], None]]:
    """Change a module of the package, given by its file, as the stamps of trainings see it."""
    from semforensics.core import source

    copy = tmp_path / "changed_source"
    shutil.copytree(source.SOURCE / "semforensics", copy / "semforensics")

    def change(file: str) -> None:
        monkeypatch.setattr(source, "SOURCE", copy)
        path = copy / "semforensics" / file
        path.write_text(path.read_text() + "# changed\n")
        source.hash_source.cache_clear()

    yield change
    source.hash_source.cache_clear()
