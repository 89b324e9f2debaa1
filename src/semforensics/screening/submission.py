"""Screen a submission of any size: inputs one by one, on several processes, resumed where killed.

With one worker everything happens in this process, which is quickest for a few files. With more,
each worker is a process with a copy of the screener and one thread: scoring is arithmetic that
gains nothing from threads of its own, and an input that kills a process (out of memory, a decoder
that crashes) is refused by name while the others go on. What is found lies on disk until the report
is written, so memory does not grow with the number of pictures.
"""

import shlex
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
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
from semforensics.core.worker import Worker
from semforensics.screening.judge.reuse import MOST_PANELS, PanelName, find_reuse
from semforensics.screening.read.intake import DEFAULT_LIMITS, Limits, list_inputs, read_inputs
from semforensics.screening.records import (
    WORDING,
    Grey,
    GreyOfAnySize,
    Picture,
    PictureResult,
    Refusal,
    Reuse,
)
from semforensics.screening.store import InputRecord, Store
from semforensics.screening.write.fragment import picture_fragment
from semforensics.screening.write.report import REPORT_NAMES, write_report

FailOn = Literal["never", "ai-suspected", "inconclusive", "refused"]
INPUT_TIMEOUT_S = 900.0
"""An input that takes a worker longer is given up; a long PDF takes minutes."""
FEW_INPUTS = 8
"""No more than these are screened without further processes, unless workers are asked for."""


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
class Totals:
    """What a screening found, in numbers."""

    n_inputs: int
    n_pictures: int
    verdicts: Counter[str]
    """Panels of each verdict; "refused" counts inputs and pictures that are not judged, too."""
    n_reuses: int

    def lines(self) -> list[str]:
        """Say how many panels have each verdict, one line each, and what else was found."""
        counts = [f"{self.verdicts[name]} {words}" for name, words in WORDING.items()]
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


@dataclass
class InputJob:
    """Judges one input after another and keeps in the store what it finds; can be pickled."""

    screener: PictureScreener
    store: Store
    limits: Limits
    info_bar: int | None
    threads: int | None = None
    """Of this process; None leaves them as they are."""
    _is_set: bool = field(default=False, init=False)

    def __call__(self, path: Path, name: str) -> None:
        """Judge an input unless it is done already.

        Args:
            path: A file, as `list_inputs` gives it.
            name: To show in its place.

        Raises:
            OSError: The store cannot be written.
        """
        self._set_threads()
        key = self.store.input_key(path, name)
        if self.store.read_record(key) is not None:
            return
        pictures: list[str] = []
        refusals: list[Refusal] = []
        for found in read_shown(path, name, self.limits):
            if isinstance(found, Refusal):
                refusals.append(found)
                continue
            picture_key = self.store.picture_key(found)
            if not self.store.has_picture(picture_key):
                judged = judge(self.screener, found, self.info_bar)
                if isinstance(judged, Refusal):
                    refusals.append(judged)
                    continue
                self.store.write_picture(picture_key, *judged)
            pictures.append(picture_key)
        self.store.write_record(key, InputRecord(tuple(pictures), tuple(refusals)))

    def _set_threads(self) -> None:
        if self.threads is not None and not self._is_set:
            limit_threads(self.threads)
            self._is_set = True


def screen_submission(
    paths: Sequence[Path],
    out: Path,
    screener: PictureScreener,
    *,
    workers: int = 1,
    scratch: Path,
    command: str,
    limits: Limits = DEFAULT_LIMITS,
    info_bar: int | None = None,
    names: Mapping[Path, str] | None = None,
    timeout_s: float = INPUT_TIMEOUT_S,
) -> Totals:
    """Judge files, folders, PDFs and archives, and write `report.html`, `.json` and `.csv`.

    Args:
        paths: What to screen.
        out: Folder of the report; an older report there is replaced and not screened.
        screener: Judges a picture. With several workers it is pickled.
        workers: Processes; 1 works in this one, 0 takes one per core where there are many inputs.
        scratch: Folder for unfinished work, removed in the end. A run that was killed goes on from
            it when the same is asked for again.
        command: That repeats it, for the report.
        limits: On what is read.
        info_bar: Rows to cut off the bottom of each panel; None finds the bar.
        names: Path → what the report shows in its place.
        timeout_s: Most seconds an input may take where there are several workers.

    Raises:
        FileNotFoundError: A path does not exist.
        InputError: There is nothing to screen, a number is out of range, or another run is at work
            in scratch.
        OSError: Report or scratch cannot be written.
    """
    if workers < 0:
        raise InputError(f"workers: {workers}, expected 0 (one per core) or more")
    plan = make_plan(paths, out, screener, scratch, limits, info_bar, names)
    with plan.store.locked() as store:
        job = InputJob(screener, store, limits, info_bar)
        died = _judge_all(job, plan.shown, workers or _workers_for(len(plan.shown)), timeout_s)
        return finish(plan, died, out, command)


@dataclass(frozen=True)
class Plan:
    """What is to be screened, how, and where unfinished work is kept."""

    shown: dict[Path, str]
    """Inputs in the order of the report, and what it calls them."""
    store: Store
    model: dict[str, Any]
    settings: dict[str, Any]


def make_plan(
    paths: Sequence[Path],
    out: Path,
    screener: PictureScreener,
    scratch: Path,
    limits: Limits,
    info_bar: int | None,
    names: Mapping[Path, str] | None,
) -> Plan:
    """List the inputs and open the store, as `screen_submission` says."""
    inputs = inputs_outside(paths, out)
    settings = {
        "alpha": screener.alpha,
        "prevalence": screener.prevalence,
        "pooling": screener.pooling,
        "maps": screener.evidence,
        "info_bar": "found" if info_bar is None else f"{info_bar} rows",
    }
    model = screener.describe()
    made_with = {"settings": settings, "model": model, "code": code_version(), "limits": limits}
    shown = {path: (names or {}).get(path, str(path)) for path in inputs}
    return Plan(shown, Store.open(scratch, made_with), model, settings)


def finish(plan: Plan, died: Mapping[Path, Refusal], out: Path, command: str) -> Totals:
    """Compare the panels, write the report, and remove the store.

    Args:
        plan: Its store holds a record of every input that did not die.
        died: Inputs that broke the process that judged them.
        out: Folder of the report.
        command: That repeats it.
    """
    store, shown = plan.store, plan.shown
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
    places: list[tuple[PanelName, str, int]] = []
    for key in keys:
        fragment = store.read_fragment(key)
        verdicts["refused"] += len(fragment["refusals"])
        verdicts.update(panel["verdict"] for panel in fragment["panels"])
        where = fragment["path"], fragment["location"]
        places += [((*where, p["name"]), key, i) for i, p in enumerate(fragment["panels"])]
    reuses, reuse_note = _compare(store, places)
    head = {
        "model": plan.model,
        "settings": {**plan.settings, "reuse": reuse_note},
        "command": command,
        "version": code_version(),
        "created": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
    }
    write_report(out, head, lambda: store.fragments(keys), refusals, reuses)
    store.remove()
    return Totals(len(shown), len(keys), verdicts, len(reuses))


def read_shown(path: Path, name: str, limits: Limits) -> Iterator[Picture | Refusal]:
    """Read an input under the name to show; whatever breaks its reader is a refusal."""
    try:
        for found in read_inputs([path], limits):
            shown = replace(found, path=_shown(found.path, path, name))
            if isinstance(shown, Refusal):  # messages name the file that was opened
                shown = replace(shown, reason=shown.reason.replace(str(path), name))
            yield shown
    except Exception as error:  # bytes from outside may break anything
        message = str(error).replace(str(path), name)
        yield Refusal(name, "", None, f"cannot be read: {type(error).__name__}: {message}")


def judge(
    screener: PictureScreener, picture: Picture, info_bar: int | None
) -> tuple[dict[str, Any], list[GreyOfAnySize]] | Refusal:
    """Judge a picture; an error that nobody expects is a refusal and stops no other picture.

    Returns:
        What the report says of it, and its panels to compare.
    """
    try:
        result = screener.screen_picture(picture, info_bar=info_bar)
        return picture_fragment(result), [panel.panel.grey for panel in result.panels]
    except Exception as error:
        reason = f"could not be judged: {type(error).__name__}: {error}"
        return Refusal(picture.path, picture.location, picture.sha256, reason)


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


def limit_threads(count: int) -> None:
    """Use so many threads in this process for torch, and for the products of NumPy and SciPy.

    Several workers whose libraries all take every core wait for each other most of the time.
    """
    import torch

    threadpool_limits(count)
    torch.set_num_threads(count)


def repeating_command(arguments: Sequence[str]) -> str:
    """Write the arguments of the command line so that a shell takes them back."""
    return shlex.join(["semforensics", *arguments])


def _workers_for(n_inputs: int) -> int:
    return 1 if n_inputs <= FEW_INPUTS else count_cores()


def _compare(store: Store, places: Sequence[tuple[PanelName, str, int]]) -> tuple[list[Reuse], str]:
    """Find the panels that show the same place, and say what was compared."""
    if len(places) > MOST_PANELS:
        return [], f"not searched: {len(places)} panels, at most {MOST_PANELS} are compared"
    comparison = find_reuse(_PanelsOnDisk(store, places))
    return comparison.reuses, comparison.note()


@dataclass(frozen=True)
class _PanelsOnDisk(Sequence[tuple[PanelName, Grey]]):
    """The panels of a store, each read when it is asked for."""

    store: Store
    places: Sequence[tuple[PanelName, str, int]]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: Any) -> Any:
        name, key, number = self.places[index]
        return name, self.store.read_panel(key, number)


def _shown(found: str, path: Path, name: str) -> str:
    """Put the name to show in the place of the path, also where a member's name follows it."""
    return name + found[len(str(path)) :] if found.startswith(str(path)) else found


def _judge_all(
    job: InputJob, shown: Mapping[Path, str], workers: int, timeout_s: float
) -> dict[Path, Refusal]:
    """Judge all inputs; give a refusal for each that broke its worker."""
    console = Console(stderr=True)
    columns = (TextColumn("Screening"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    died: dict[Path, Refusal] = {}
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("Screening", total=len(shown))

        def advance() -> None:
            progress.advance(task)

        if workers == 1:
            # NumPy's products are small here: further threads would wait for each other.
            with threadpool_limits(1, user_api="blas"):
                for path, name in shown.items():
                    job(path, name)
                    advance()
        else:
            died = _judge_apart(replace(job, threads=1), shown, workers, timeout_s, advance)
    return died


def _judge_apart(
    job: InputJob,
    shown: Mapping[Path, str],
    workers: int,
    timeout_s: float,
    advance: Callable[[], None],
) -> dict[Path, Refusal]:
    """Judge inputs on processes of their own; a thread waits for each."""
    died: dict[Path, Refusal] = {}
    with ExitStack() as stack:
        idle: SimpleQueue[Worker] = SimpleQueue()
        for _ in range(min(workers, len(shown))):
            worker = Worker(job)
            stack.callback(worker.close)
            idle.put(worker)

        def run(path: Path, name: str) -> None:
            worker = idle.get()
            try:
                worker.run(path, name, timeout_s=timeout_s, cancelled=lambda: False)
            except (RuntimeError, TimeoutError) as error:
                died[path] = Refusal(name, "", None, f"could not be judged: {error}")
            finally:
                idle.put(worker)

        # Leaving early cancels what waits, then closes the workers, which ends their threads.
        pool = ThreadPoolExecutor(min(workers, len(shown)))
        stack.callback(pool.shutdown, cancel_futures=True, wait=False)
        waiting: set[Future[None]] = set()
        for path, name in shown.items():
            waiting.add(pool.submit(run, path, name))
            if len(waiting) > 2 * workers:  # few at a time, so that an error ends the run soon
                waiting = _take(waiting, advance)
        while waiting:
            waiting = _take(waiting, advance)
    return died


def _take(waiting: set[Future[None]], advance: Callable[[], None]) -> set[Future[None]]:
    """Wait until something is done; raise what it raised."""
    done, rest = wait(waiting, return_when=FIRST_COMPLETED)
    for future in done:
        future.result()
        advance()
    return rest
