"""The same screening as a Ray Data job, for a cluster of machines; needs `semforensics[ray]`.

Every machine must have this package and see the inputs under the same paths. Verdicts, fragments
and panels travel back through Ray; only the machine that starts the job writes. Ray restarts a
worker that dies and gives it the same input again; if the job fails for good, starting it again
goes on where it stopped, as it does on one machine.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from semforensics.core.errors import InputError
from semforensics.screening.read.intake import DEFAULT_LIMITS, Limits
from semforensics.screening.records import Picture, Refusal
from semforensics.screening.store import InputRecord, Store
from semforensics.screening.submission import (
    PictureScreener,
    Totals,
    finish,
    judge,
    limit_threads,
    make_plan,
    read_shown,
)

# Ray reports how it is used unless told otherwise before it is imported.
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"


class InputActor:
    """Judges inputs on one core of some machine; made once, then called for each."""

    def __init__(
        self, screener: PictureScreener, store: Store, limits: Limits, info_bar: int | None
    ) -> None:
        """Keep what is needed; the store is not written here, it names pictures."""
        limit_threads(1)
        self._screener, self._store = screener, store
        self._limits, self._info_bar = limits, info_bar

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Judge an input.

        Args:
            row: `path` and `name`.

        Returns:
            `path`, `name`, and `found`: a list of refusals and of (key, fragment, panels), in one
            object, since Arrow has no columns for them.
        """
        found: list[Any] = []
        for one in read_shown(Path(row["path"]), row["name"], self._limits):
            judged = judge(self._screener, one, self._info_bar) if isinstance(one, Picture) else one
            if isinstance(one, Refusal) or isinstance(judged, Refusal):
                found.append(judged)
            else:
                found.append((self._store.picture_key(one), *judged))
        return {"path": row["path"], "name": row["name"], "found": _Found(found)}


class _Found:
    """Keeps Ray Data from looking into what an actor found."""

    def __init__(self, items: list[Any]) -> None:
        self.items = items


def screen_with_ray(
    paths: Sequence[Path],
    out: Path,
    screener: PictureScreener,
    *,
    workers: int = 2,
    scratch: Path,
    command: str,
    limits: Limits = DEFAULT_LIMITS,
    info_bar: int | None = None,
    names: Mapping[Path, str] | None = None,
) -> Totals:
    """Judge files, folders, PDFs and archives on a Ray cluster, and write the report here.

    Joins the cluster that `ray.init` was called for or that RAY_ADDRESS names; where there is
    none, starts one on this machine, without a dashboard, and stops it in the end.

    Args:
        paths: As in `bulk.screen_submission`, and so are the other arguments.
        out: Folder of the report.
        screener: Travels to every worker.
        workers: Processes of one core each, on all machines together.
        scratch: On this machine.
        command: For the report.
        limits: On what is read.
        info_bar: Rows to cut off the bottom of each panel; None finds the bar.
        names: Path → what the report shows in its place.

    Raises:
        ImportError: Ray is not installed.
        FileNotFoundError: A path does not exist.
        InputError: There is nothing to screen, no worker, or another run is at work in scratch.
    """
    if workers < 1:
        raise InputError(f"workers: {workers}, expected 1 or more")
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise ImportError("Ray is missing: pip install 'semforensics[ray]'") from error
    plan = make_plan(paths, out, screener, scratch, limits, info_bar, names)
    with plan.store.locked() as store:
        rows = [
            {"path": str(path), "name": name, "key": store.input_key(path, name)}
            for path, name in plan.shown.items()
        ]
        keys = {row["path"]: row["key"] for row in rows}
        left = [row for row in rows if store.read_record(row["key"]) is None]
        is_ours = not ray.is_initialized()
        if is_ours:
            # One core beside the workers' for the tasks that hand out the inputs.
            cores = None if os.environ.get("RAY_ADDRESS") else workers + 1
            ray.init(num_cpus=cores, include_dashboard=False, log_to_driver=False)
        try:
            ray.data.DataContext.get_current().enable_progress_bars = False
            actor: Any = InputActor  # Ray's types know functions only
            if left:
                # A block for each input: the next one goes to whoever is free.
                judged = ray.data.from_items(left, override_num_blocks=len(left)).map(
                    actor,
                    fn_constructor_args=(screener, store, limits, info_bar),
                    compute=ray.data.ActorPoolStrategy(size=workers),
                    num_cpus=1,
                )
                for row in judged.iter_rows():
                    _keep(store, keys[row["path"]], row["found"].items)
        finally:
            if is_ours:
                ray.shutdown()
        return finish(plan, {}, out, command)


def _keep(store: Store, key: str, found: Sequence[Any]) -> None:
    """Write what an actor found of an input."""
    pictures, refusals = [], []
    for one in found:
        if isinstance(one, Refusal):
            refusals.append(one)
        else:
            picture_key, fragment, panels = one
            store.write_picture(picture_key, fragment, [np.asarray(panel) for panel in panels])
            pictures.append(picture_key)
    store.write_record(key, InputRecord(tuple(pictures), tuple(refusals)))
