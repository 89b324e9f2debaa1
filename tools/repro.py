"""Bring the pipeline up to date like `dvc repro`, with independent stages side by side.

DVC runs one stage after another. This walks DVC's own graph, and starts each stage as soon as all
that it depends on is done, by `dvc repro --single-item`: DVC decides whether it has to run, and
writes dvc.lock. The stages whose chain of dependents takes longest, as measured in the last run,
come first. Run `python tools/repro.py --help` for the options.

Importing torch and pandas takes longer than many stages do. So they are imported once, and each
stage is a fork of a process that has them (`run_stage_warm`).

SEMFORENSICS_THREADS is the number of threads of each stage. If it is not set, all stages that run
at a time share the cores.
"""

import argparse
import atexit
import contextlib
import json
import multiprocessing
import os
import runpy
import shlex
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any, TypeVar

import networkx as nx
import yaml
from dvc.exceptions import DvcException
from dvc.lock import LockError
from dvc.repo import Repo
from dvc.repo.reproduce import plan_repro
from dvc.utils.serialize import modify_yaml
from rich.console import Console
from rich.progress import Progress, TaskID, TextColumn, TimeElapsedColumn

MAX_STAGES = 4
"""Stages at a time, at most, unless told otherwise: the graph is hardly wider."""
POLL_S = 0.2
LOCKED_S = 10.0
"""How long a run that was killed may take to vanish."""
SCRIPT = "src/stage.py"
GENERATORS = Path("data/released/real_subset")
LIBRARIES = ("torch", "pandas", "pydantic", "typer")
"""What most stages import. Not our own package: a stage runs the code that it finds."""
DVC_SAYS = ("Running stage", "> ", "Updating lock file", "Use `dvc push`", "To track the changes")
DVC_SAYS += ("git add", "To enable auto staging", "\tgit add", "\tdvc config")


T = TypeVar("T")


@dataclass
class Running:
    """A stage that runs."""

    process: ForkServerProcess
    log: Path
    began: float
    line: TaskID


def main() -> int:
    """Run the stages that are not up to date; return the exit code of the first that failed."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    parser.add_argument(
        "targets",
        nargs="*",
        help="Stages, with all they depend on; a matrix by its name; none: all.",
    )
    parser.add_argument(
        "--jobs",
        type=int,
        default=1 if "SEMFORENSICS_PROCESSES" in os.environ else min(cores or 1, MAX_STAGES),
        help="Stages at a time; default: as many as cores, at most 4, but one if each training has "
        "several processes (SEMFORENSICS_PROCESSES).",
    )
    options = parser.parse_args()
    if options.jobs < 1:
        parser.error(f"--jobs {options.jobs}: expected 1 or more")
    threads = os.environ.setdefault("SEMFORENSICS_THREADS", str((cores or 1) // options.jobs or 1))
    os.environ.setdefault("OMP_NUM_THREADS", threads)
    scratch = Path(os.environ.get("SEMFORENSICS_SCRATCH", ".scratch")) / "repro"
    scratch.mkdir(parents=True, exist_ok=True)
    try:
        graph = when_unlocked(lambda: stale_stages(options.targets))
    except LockError as error:
        print(f"another run is at work here: {error}", file=sys.stderr)
        return 2
    if any(name.startswith("train_world") for name in graph):
        pull_generators()
    if not graph:
        print("Data and pipelines are up to date.")
        return 0
    lock = Path("dvc.lock")
    before = list(yaml.safe_load(lock.read_text())["stages"]) if lock.is_file() else []
    code = run(graph, options.jobs, scratch)
    if lock.is_file():
        sort_lock(lock, before)
    return code


def when_unlocked(look: Callable[[], T]) -> T:
    """Return what `look` finds; wait for a run that is just ending.

    Raises:
        LockError: The other run goes on.
    """
    deadline = time.monotonic() + LOCKED_S
    while True:
        try:
            return look()
        except LockError:
            if time.monotonic() > deadline:
                raise
        time.sleep(POLL_S)


def sort_lock(lock: Path, before: list[str]) -> None:
    """Bring the stages in dvc.lock into the order that one run after another leaves them in."""
    with Repo() as repo:
        planned = [s.addressing for s in plan_repro(repo.index.graph, list(repo.index.stages))]
    with modify_yaml(str(lock)) as content:
        stages = content["stages"]
        names = dict.fromkeys([*before, *planned, *stages])
        content["stages"] = {name: stages[name] for name in names if name in stages}


def stale_stages(targets: Iterable[str]) -> "nx.DiGraph[str]":
    """Return the stages that may have to run; an edge leads to what a stage depends on."""
    with Repo() as repo:
        whole = repo.index.graph
        names = {stage: stage.addressing for stage in whole if stage.cmd}
        graph = nx.relabel_nodes(whole.subgraph(names), names)
        changed = repo.status().keys() & set(graph)
    stale = changed.union(*(nx.ancestors(graph, name) for name in changed))
    if targets := set(targets):
        chosen = {name for name in graph if targets & {name, name.partition("@")[0]}}
        if unknown := targets - chosen - {name.partition("@")[0] for name in chosen}:
            print(f"{min(unknown)}: no such stage; `dvc stage list` names them", file=sys.stderr)
            sys.exit(2)
        stale &= chosen.union(*(nx.descendants(graph, name) for name in chosen))
    return nx.DiGraph(graph.subgraph(stale))


def pull_generators() -> None:
    """Pull the finished generators that `train_world` learns from, hours before it needs them."""
    params = yaml.safe_load(Path("params.yaml").read_text()).get("train_world") or {}
    if not (params.get("steps") and params.get("generators")) or GENERATORS.is_dir():
        return
    print(f"pulling {GENERATORS}")
    try:
        with Repo() as repo:
            repo.pull([f"{GENERATORS}.dvc"])
    except DvcException as error:
        print(
            f"{GENERATORS}: no such folder, and `dvc pull` failed: {error}. With an empty"
            " train_world.generators in params.yaml it is not needed.",
            file=sys.stderr,
        )
        sys.exit(2)


def run(graph: "nx.DiGraph[str]", jobs: int, scratch: Path) -> int:
    """Run the stages of a graph; if one fails or the run is stopped, stop the others."""
    times = scratch / "seconds.json"
    seconds: dict[str, float] = json.loads(times.read_text()) if times.is_file() else {}
    waiting, total = urgency(graph, seconds), len(graph)
    running: dict[str, Running] = {}
    context = multiprocessing.get_context("forkserver")
    libraries = LIBRARIES if is_warm() else ()
    context.set_forkserver_preload(
        ["dvc.cli", "dvc.commands.repro", "dvc.repo", "dvc.stage", *libraries]
    )
    show = Progress(
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
        TextColumn("{task.fields[says]}", style="dim"),
        console=Console(soft_wrap=True),
    )
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        with show:
            while waiting or running:
                ready = [name for name in waiting if not any(graph.successors(name))]
                for name in ready[: jobs - len(running)]:
                    waiting.remove(name)
                    log = scratch / f"{name}.log"
                    process = context.Process(target=reproduce, args=(name, log))
                    process.start()
                    line = show.add_task(name, says="")
                    running[name] = Running(process, log, time.monotonic(), line)
                    show.console.print(f"started {name}", highlight=False)
                time.sleep(POLL_S)
                for name, stage in list(running.items()):
                    show.update(stage.line, says=last_line(stage.log))
                    if stage.process.exitcode is None:
                        continue
                    del running[name]
                    seconds[name] = round(time.monotonic() - stage.began, 1)
                    done = total - len(waiting) - len(running)
                    show.remove_task(stage.line)
                    for text in results(stage, f"{name} in {seconds[name]} s, {done} of {total}"):
                        show.console.print(text, markup=False, highlight=False)
                    if stage.process.exitcode:
                        return abs(stage.process.exitcode)
                    graph.remove_node(name)
                    times.write_text(json.dumps(seconds, indent=1))
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    finally:
        stop(running.values())
    return 0


def results(stage: Running, what: str) -> list[str]:
    """Return what a stage that ended has printed: its results, or everything if it failed."""
    lines = stage.log.read_text(errors="replace").splitlines()
    if stage.process.exitcode:
        return [*lines, f"FAILED {what}: see {stage.log}"]
    return [*(line for line in lines if line and not line.startswith(DVC_SAYS)), f"done {what}"]


def urgency(graph: "nx.DiGraph[str]", seconds: dict[str, float]) -> list[str]:
    """Sort stages by the time until the last of their dependents is done, the longest first."""
    left: dict[str, float] = {}
    for name in nx.topological_sort(graph):
        dependents = [left[dependent] for dependent in graph.predecessors(name)]
        left[name] = seconds.get(name, 1.0) + max(dependents, default=0.0)
    return sorted(graph, key=lambda name: (-left[name], name))


def reproduce(name: str, log: Path) -> None:
    """Run one stage in a process group, its output in a file."""
    from dvc.cli import main as dvc
    from dvc.stage import run as dvc_run

    os.setsid()
    threading.Thread(target=end_with_driver, daemon=True).start()
    with log.open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    if is_warm() and hasattr(dvc_run, "_run"):  # private: another DVC may not have it
        by_shell = dvc_run._run

        def run_command(executable: str | None, cmd: str, **how: Any) -> None:
            words = shlex.split(cmd)
            if words[:2] != ["python", SCRIPT] or set(how) != {"cwd", "env", "close_fds", "shell"}:
                by_shell(executable, cmd, **how)
            elif code := run_stage_warm(words[1:], how["cwd"], how["env"]):
                raise dvc_run.StageCmdFailedError(cmd, code)

        dvc_run._run = run_command
    sys.exit(dvc(["--wait-for-lock", "repro", "--single-item", name]))


def end_with_driver() -> None:
    """Stop this stage when the driver has ended, even by a signal that it cannot act on."""
    driver = multiprocessing.parent_process()
    assert driver is not None
    driver.join()
    os.killpg(0, signal.SIGTERM)


def is_warm() -> bool:
    """Whether stages can be forks of a process that has loaded libraries.

    Not in the portable mode, which sets variables that they read when they are loaded.
    """
    portable = os.environ.get("SEMFORENSICS_PORTABLE", "") not in ("", "0")
    return hasattr(os, "fork") and Path(SCRIPT).is_file() and not portable


def run_stage_warm(words: list[str], folder: str, environment: dict[str, str]) -> int:
    """Run a Python script as `python` would, in a fork of this process; return its exit code."""
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    code = 1
    try:
        atexit._clear()  # what DVC has registered is not for us to do
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        sys.argv = words
        sys.path.insert(0, str(Path(words[0]).resolve().parent))
        runpy.run_path(words[0], run_name="__main__")
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def last_line(log: Path) -> str:
    """Return the last line that a stage has written, as far as it fits a screen."""
    text = log.read_bytes()[-2000:].decode(errors="replace") if log.is_file() else ""
    lines = [line for line in text.replace("\r", "\n").splitlines() if line.strip()]
    return lines[-1][-80:] if lines else ""


def stop(stages: Iterable[Running]) -> None:
    """Stop stages with all their processes; trainings keep their state and resume the next time."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        for stage in stages:
            if stage.process.pid and stage.process.exitcode is None:
                with contextlib.suppress(ProcessLookupError):  # it has just ended
                    os.killpg(stage.process.pid, sign)
        for stage in stages:
            stage.process.join(30)


if __name__ == "__main__":
    sys.exit(main())
