"""Screen a submission of any size: inputs one by one, on several processes, resumed where killed.

One driver lists the inputs, keeps what is found and writes the report; a runner judges the inputs.
A few inputs are judged in this process, as many pictures of one at a time as there are cores. For
many inputs each core has a process with a copy of the screener and one thread: scoring is
arithmetic that gains nothing from more threads. Each process that judges has a child that reads for
it, so an input that breaks a decoder is refused by name while the others are judged. `ray_job` has
a runner for a cluster. What is found lies on disk until the report is written, so memory does not
grow with the number of pictures.
"""

import shlex
import subprocess
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Literal, Protocol, runtime_checkable

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from threadpoolctl import threadpool_limits

from semforensics.core.device import count_cores
from semforensics.core.errors import InputError
from semforensics.core.worker import ProcessLimits, Worker
from semforensics.screening.read.apart import read_input
from semforensics.screening.read.intake import list_inputs
from semforensics.screening.records import (
    WORDING,
    Grey,
    Limits,
    Panel,
    PanelName,
    Picture,
    PictureResult,
    Refusal,
    Reuse,
)
from semforensics.screening.store import Found, Judged, Store
from semforensics.screening.write.fragment import picture_fragment
from semforensics.screening.write.report import REPORT_NAMES, write_report

FailOn = Literal["never", "ai-suspected", "inconclusive", "refused"]
INPUT_TIMEOUT_S = 900.0
"""An input that takes a worker longer is given up; a long PDF takes minutes."""
FEW_INPUTS = 8
"""No more than these are screened without further processes, unless workers are asked for."""
MOST_THREADS = 8
"""Pictures of an input that one process judges at a time: each takes memory, and Python's own work
is done one at a time."""


@runtime_checkable
class PictureScreener(Protocol):
    """What judges pictures: `screener.Screener`, or something smaller. Can be pickled."""

    alpha: float
    prevalence: float
    pooling: str
    evidence: bool

    def screen_picture(self, picture: Picture, info_bar: int | None = None) -> PictureResult:
        """Judge the panels of a picture; `info_bar` is the height to cut off, None to find it."""
        ...

    def describe(self) -> dict[str, Any]:
        """Say what the report says of the model."""
        ...


@dataclass(frozen=True)
class Options:
    """How a submission is screened."""

    scratch: Path
    """Folder for unfinished work, removed in the end. A run that was killed continues from it when
    the same is asked for again."""
    command: str
    """That repeats the screening, for the report."""
    workers: int = 1
    """Processes; 1 works in this one, 0 takes one per core where there are many inputs."""
    threads: int = 0
    """Pictures of an input that this process judges at a time; 0 takes one per core, at most
    `MOST_THREADS`."""
    limits: Limits = field(default_factory=Limits)
    """On what is read."""
    info_bar: int | None = None
    """Rows to cut off the bottom of each panel; None finds the bar."""
    names: Mapping[Path, str] = field(default_factory=dict)
    """Path → what the report shows in its place."""
    timeout_s: float = INPUT_TIMEOUT_S
    """Most seconds an input may take where there are several workers."""
    reuse: bool = True
    """Whether panels are searched for others that show the same place."""


@dataclass(frozen=True)
class Totals:
    """What a screening found, in numbers."""

    n_inputs: int
    n_pictures: int
    verdicts: Counter[str]
    """Panels of each verdict; "refused" counts inputs and pictures that are not judged, too."""
    n_reuses: int | None
    """None where panels were not compared."""
    n_in_part: int = 0
    """Of the suspected panels, those that are suspected in part alone."""

    def lines(self) -> list[str]:
        """Say how many panels have each verdict, one line each, and what else was found."""
        counts = [
            f"{self.verdicts[name]} {words}"
            + (f" ({self.n_in_part} in part)" if name == "ai-suspected" and self.n_in_part else "")
            for name, words in WORDING.items()
        ]
        if self.n_reuses is None:
            return [*counts, "panels were not compared with each other"]
        return [*counts, f"{self.n_reuses} pairs of panels that may show the same place"]

    def meets(self, fail_on: FailOn) -> bool:
        """Say whether a script asked to be told: each condition includes those before it.

        `ai-suspected` is met by a suspected panel, `inconclusive` by that or an inconclusive one,
        `refused` by these or anything that was not judged.
        """
        order = ("ai-suspected", "inconclusive", "refused")
        if fail_on == "never":
            return False
        if fail_on not in order:
            raise InputError(f"fail-on {fail_on!r}: expected never, {', '.join(order)}")
        return any(self.verdicts[name] for name in order[: order.index(fail_on) + 1])


@dataclass(frozen=True)
class InputJob:
    """Judges one input after another; can be pickled."""

    screener: PictureScreener
    store: Store
    """Names pictures, and knows which have been judged; is not written to."""
    limits: Limits
    info_bar: int | None
    threads: int = 1
    """Pictures judged at a time."""

    def __call__(self, path: Path, name: str) -> Iterator[Found]:
        """Judge the pictures of an input.

        Args:
            path: A file, as `list_inputs` returns it.
            name: To show in its place.

        Yields:
            What is found of each picture. An error that nobody expects is a refusal and stops no
            other picture.
        """
        pictures = read_input(path, name, self.limits)
        if self.threads == 1:
            yield from map(self._find, pictures)
            return
        # Products are small here: further threads inside of one would wait for each other.
        with ThreadPoolExecutor(self.threads, "", threadpool_limits, (1,)) as pool:
            waiting: deque[Future[Found]] = deque()
            for picture in pictures:
                waiting.append(pool.submit(self._find, picture))
                if len(waiting) > self.threads:  # so that few pictures are held
                    yield waiting.popleft().result()
            for future in waiting:
                yield future.result()

    def _find(self, picture: Picture | Refusal) -> Found:
        if isinstance(picture, Refusal):
            return picture
        key = self.store.picture_key(picture)
        if self.store.has_picture(key):
            return key
        try:
            result = self.screener.screen_picture(picture, info_bar=self.info_bar)
            panels = [_without_insets(panel.panel) for panel in result.panels]
            return Judged(key, picture_fragment(result), panels)
        except Exception as error:
            reason = f"could not be judged: {type(error).__name__}: {error}"
            return Refusal(picture.path, picture.location, picture.sha256, reason)


def _without_insets(panel: Panel) -> Grey:
    """Blacken the insets of a panel: these pixels are compared as panels of their own."""
    grey = panel.grey.copy()
    for box in panel.drawn:
        if box.kind == "inset":
            grey[box.top : box.bottom, box.left : box.right] = 0
    return grey


Keep = Callable[[Path, Iterable[Found]], None]
"""Takes an input and what is found of it, which may be computed while it is kept."""
Run = Callable[[InputJob, Mapping[Path, str], Options, Keep], None]
"""Does a job on inputs, path → name, and hands over what is found of each, in any order."""


def screen_submission(
    paths: Sequence[Path],
    out: Path,
    screener: PictureScreener,
    options: Options,
    run: Run | None = None,
) -> Totals:
    """Judge files, folders, PDFs and archives, and write `report.html`, `.json` and `.csv`.

    Args:
        paths: What to screen.
        out: Folder of the report; an older report there is replaced and not screened.
        screener: Judges a picture. With several workers it is pickled.
        options: How it is screened.
        run: Does the work; None takes this process, or as many others as `options.workers` says.

    Raises:
        FileNotFoundError: A path does not exist.
        InputError: There is nothing to screen, a number is out of range, or another run is at work
            in scratch.
        OSError: Report or scratch cannot be written.
    """
    if options.workers < 0:
        raise InputError(f"workers: {options.workers}, expected 0 (one per core) or more")
    shown = {path: options.names.get(path, str(path)) for path in inputs_outside(paths, out)}
    settings = {
        "alpha": screener.alpha,
        "prevalence": screener.prevalence,
        "pooling": screener.pooling,
        "maps": screener.evidence,
        "info_bar": "found" if options.info_bar is None else f"{options.info_bar} rows",
    }
    head = {
        "model": screener.describe(),
        "settings": settings,
        "command": options.command,
        "version": code_version(),
    }
    made_with = {**head, "command": None, "limits": options.limits}
    with Store.open(options.scratch, made_with).locked() as store:
        keys = {path: store.input_key(path, name) for path, name in shown.items()}
        left = {path: name for path, name in shown.items() if store.read_record(keys[path]) is None}
        died: dict[Path, Refusal] = {}
        if run is None:
            is_small = options.workers == 0 and len(shown) <= FEW_INPUTS
            run = _run_here if options.workers == 1 or is_small else _run_apart
        job = InputJob(screener, store, options.limits, options.info_bar)
        with _progress(len(shown), len(left)) as advance:

            def keep(path: Path, found: Iterable[Found]) -> None:
                try:
                    store.keep(keys[path], found)
                except (RuntimeError, TimeoutError) as error:  # of its process
                    reason = f"could not be judged: {error}"
                    died[path] = Refusal(shown[path], "", None, reason)
                advance()

            if left:
                run(job, left, options, keep)
        return _finish(store, shown, died, out, head, options.reuse)


def _run_here(job: InputJob, inputs: Mapping[Path, str], options: Options, keep: Keep) -> None:
    job = replace(job, threads=options.threads or min(count_cores(), MOST_THREADS))
    with threadpool_limits(1):
        for path, name in inputs.items():
            keep(path, job(path, name))


def _run_apart(job: InputJob, inputs: Mapping[Path, str], options: Options, keep: Keep) -> None:
    """Judge inputs on processes of their own; a thread waits for each."""
    count = min(options.workers or count_cores(), len(inputs))
    idle: SimpleQueue[Worker] = SimpleQueue()

    def run(path: Path, name: str) -> None:
        worker = idle.get()
        try:
            keep(path, worker.stream(path, name, timeout_s=options.timeout_s))
        finally:
            idle.put(worker)

    with ExitStack() as stack:
        for _ in range(count):
            idle.put(worker := Worker(job, ProcessLimits(threads=1)))
            stack.callback(worker.close)
        # Leaving early cancels what waits, then closes the workers, which ends their threads.
        pool = ThreadPoolExecutor(count)
        stack.callback(pool.shutdown, cancel_futures=True, wait=False)
        for done in as_completed([pool.submit(run, *one) for one in inputs.items()]):
            done.result()


@contextmanager
def _progress(total: int, left: int) -> Iterator[Callable[[], None]]:
    """Show on a terminal how many inputs are done; yield what advances it by one."""
    console = Console(stderr=True)
    columns = (TextColumn("Screening"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("Screening", total=total, completed=total - left)
        yield lambda: progress.advance(task)


def _finish(
    store: Store,
    shown: Mapping[Path, str],
    died: Mapping[Path, Refusal],
    out: Path,
    head: Mapping[str, Any],
    reuse: bool,
) -> Totals:
    """Compare the panels, write the report, and remove the store.

    Args:
        store: Holds a record of every input that did not die.
        shown: All inputs, and what the report calls them.
        died: Inputs that broke the process that judged them.
        out: Folder of the report.
        head: Of the report.
        reuse: Whether to compare the panels.
    """
    keys: list[str] = []
    refusals: list[Refusal] = []
    for path, name in shown.items():
        if path in died:
            refusals.append(died[path])
            continue
        record = store.read_record(store.input_key(path, name))
        if record is None:
            raise InputError(f"{name}: changed while it was screened; run it again")
        keys += record.pictures
        refusals += record.refusals
    verdicts: Counter[str] = Counter(refused=len(refusals))
    n_in_part = 0
    panels: list[tuple[PanelName, str, int]] = []
    for key in keys:
        fragment = store.read_fragment(key)
        verdicts["refused"] += len(fragment["refusals"])
        verdicts.update(panel["verdict"] for panel in fragment["panels"])
        n_in_part += sum(panel["in_part"] for panel in fragment["panels"])
        where = fragment["path"], fragment["location"]
        panels += [((*where, p["name"]), key, i) for i, p in enumerate(fragment["panels"])]
    reuses, note = _compare(store, panels) if reuse else ([], "not searched (--no-reuse)")
    head = {
        **head,
        "settings": {**head["settings"], "reuse": note},
        "created": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
    }
    write_report(out, head, lambda: map(store.read_fragment, keys), refusals, reuses)
    store.remove()
    return Totals(len(shown), len(keys), verdicts, len(reuses) if reuse else None, n_in_part)


def _compare(store: Store, panels: Sequence[tuple[PanelName, str, int]]) -> tuple[list[Reuse], str]:
    """Find the panels that show the same place, and say what was compared."""
    if len(panels) < 2:
        return [], f"{len(panels)} panels compared"
    # Imported here: OpenCV takes time to load, and one panel needs none of it.
    from semforensics.screening.judge.reuse import MOST_PANELS, find_reuse

    if len(panels) > MOST_PANELS:
        return [], f"not searched: {len(panels)} panels, at most {MOST_PANELS} are compared"
    comparison = find_reuse(_PanelsOnDisk(store, panels))
    return comparison.reuses, comparison.note()


@dataclass(frozen=True)
class _PanelsOnDisk(Sequence[tuple[PanelName, Grey]]):
    """The panels of a store, each read when it is asked for."""

    store: Store
    panels: Sequence[tuple[PanelName, str, int]]
    """Name, key of the picture, and number in the picture."""

    def __len__(self) -> int:
        return len(self.panels)

    def __getitem__(self, index: Any) -> Any:
        name, key, number = self.panels[index]
        return name, self.store.read_panel(key, number)


def inputs_outside(paths: Sequence[Path], out: Path) -> list[Path]:
    """List the inputs of paths, each once, without an older report and what it left unfinished.

    Raises:
        FileNotFoundError: A path does not exist.
        InputError: Nothing is left.
    """
    reports = {(out / name).resolve() for name in REPORT_NAMES}
    found: dict[Path, Path] = {}
    for path in list_inputs(paths):
        resolved = path.resolve()
        if resolved not in reports:
            found.setdefault(resolved, path)
    if not found:
        raise InputError(f"nothing to screen in {', '.join(map(str, paths))}")
    return [*found.values()]


def code_version() -> str:
    """Return the version of this package, with the commit where it runs from a checkout."""
    number, root = version("semforensics"), Path(__file__).parents[3]
    if not (root / ".git").exists():
        return number
    git = ["git", "-C", str(root), "rev-parse", "--short", "HEAD"]
    try:
        done = subprocess.run(git, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return number
    return f"{number} ({done.stdout.strip()})"


def repeating_command(arguments: Sequence[str]) -> str:
    """Write the arguments of the command line so that a shell takes them back."""
    return shlex.join(["semforensics", *arguments])
