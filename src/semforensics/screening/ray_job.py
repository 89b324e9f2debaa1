"""The same screening as a Ray Data job, for a cluster of machines; needs `semforensics[ray]`.

Every machine must have this package and see the inputs under the same paths. What is found travels
back through Ray; only the machine that starts the job writes. Ray restarts a worker that dies and
gives it the same input again; if the job fails for good, starting it again continues where it
stopped, as on one machine.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_limits

from semforensics.core.errors import InputError
from semforensics.screening.store import Found
from semforensics.screening.submission import (
    InputJob,
    Keep,
    Options,
    PictureScreener,
    Totals,
    screen_submission,
)

# Ray reports how it is used unless told otherwise before it is imported.
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"


def screen_with_ray(
    paths: Sequence[Path], out: Path, screener: PictureScreener, options: Options
) -> Totals:
    """Judge files, folders, PDFs and archives on a Ray cluster, and write the report here.

    Joins the cluster that `ray.init` was called for or that RAY_ADDRESS names; where there is
    none, starts one on this machine, without a dashboard, and stops it in the end.

    Args:
        paths: As in `screen_submission`.
        out: Folder of the report.
        screener: Travels to every worker.
        options: As in `screen_submission`; `workers` are processes of one core each, on all
            machines together, `scratch` is on this machine, and no time-out holds.

    Raises:
        ImportError: Ray is not installed.
        FileNotFoundError: A path does not exist.
        InputError: There is nothing to screen, no worker, or another run is at work in scratch.
    """
    if options.workers < 1:
        raise InputError(f"workers: {options.workers}, expected 1 or more")
    try:
        import ray.data  # noqa: F401 - missed before anything is read
    except ImportError as error:
        raise ImportError("Ray is missing: pip install 'semforensics[ray]'") from error
    return screen_submission(paths, out, screener, options, _run_on_ray)


class InputActor:
    """Judges inputs on one core of some machine; made once, then called for each."""

    def __init__(self, job: InputJob) -> None:
        """Use one thread: workers whose libraries all take every core wait for each other."""
        import torch

        threadpool_limits(1)
        torch.set_num_threads(1)
        self._job = job

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Judge the input that a row names by `path` and `name`; return the row with `found`."""
        return {**row, "found": _Items(list(self._job(Path(row["path"]), row["name"])))}


class _Items:
    """Keeps Ray Data from looking into what an actor found: Arrow has no columns for it."""

    def __init__(self, items: list[Found]) -> None:
        self.items = items


def _run_on_ray(job: InputJob, inputs: Mapping[Path, str], options: Options, keep: Keep) -> None:
    import ray
    import ray.data

    is_ours = not ray.is_initialized()
    if is_ours:
        # One core beside the workers' for the tasks that hand out the inputs.
        cores = None if os.environ.get("RAY_ADDRESS") else options.workers + 1
        ray.init(num_cpus=cores, include_dashboard=False, log_to_driver=False)
    try:
        ray.data.DataContext.get_current().enable_progress_bars = False
        rows = [{"path": str(path), "name": name} for path, name in inputs.items()]
        actor: Any = InputActor  # Ray's types know functions only
        # A block for each input: the next one goes to whoever is free.
        judged = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
            actor,
            fn_constructor_args=(job,),
            compute=ray.data.ActorPoolStrategy(size=options.workers),
            num_cpus=1,
        )
        for row in judged.iter_rows():
            keep(Path(row["path"]), row["found"].items)
    finally:
        if is_ours:
            ray.shutdown()
