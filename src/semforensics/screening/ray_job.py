"""The same screening as a Ray Data job, for a cluster of machines; needs `semforensics[ray]`.

Every machine must have this package and see the inputs under the same paths. What is found travels
back through Ray; only the machine that starts the job writes. Ray restarts a worker that dies and
gives it the same input again; if the job fails for good, starting it again continues where it
stopped, as on one machine.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_limits

from semforensics.core.device import count_cores
from semforensics.core.errors import InputError
from semforensics.screening.store import Found
from semforensics.screening.submission import InputJob, Keep, Options

# Ray reports how it is used unless told otherwise before it is imported.
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
_HINT = "is it running? A cluster that `ray start` began asks for a token: set RAY_AUTH_MODE=token"


@dataclass(frozen=True)
class RayRunner:
    """Judges inputs on a Ray cluster: a `Run` for `screen_submission`.

    `Options.workers` are processes of one core each, on all machines together; 0 takes all cores
    but one, for the tasks that hand out the inputs.

    Raises:
        InputError: Ray is not installed, or there is no such cluster.
    """

    address: str
    """Of the cluster, as `ray.init` takes it: "auto" is the one that RAY_ADDRESS names or that runs
    on this machine, "local" starts one here and stops it in the end."""

    def __post_init__(self) -> None:
        """Miss Ray before anything is read."""
        if find_spec("ray") is None:
            raise InputError("Ray is not installed: pip install 'semforensics[ray]'")

    def __call__(
        self, job: InputJob, inputs: Mapping[Path, str], options: Options, keep: Keep
    ) -> None:
        """Do a job on inputs, path → name, and hand over what is found of each."""
        import ray
        import ray.data

        cores = (options.workers or count_cores()) + 1 if self.address == "local" else None
        try:
            ray.init(self.address, num_cpus=cores, include_dashboard=False, log_to_driver=False)
        except Exception as error:  # of many kinds, by what is wrong with the address
            raise InputError(f"Ray at {self.address!r}: {error}; {_HINT}") from error
        try:
            total = ray.cluster_resources()["CPU"]  # type: ignore[no-untyped-call]
            workers = options.workers or max(1, int(total) - 1)
            ray.data.DataContext.get_current().enable_progress_bars = False
            rows = [{"path": str(path), "name": name} for path, name in inputs.items()]
            actor: Any = InputActor  # Ray's types know functions only
            # A block for each input: the next one goes to whoever is free.
            judged = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
                actor,
                fn_constructor_args=(job,),
                compute=ray.data.ActorPoolStrategy(size=workers),
                num_cpus=1,
            )
            for row in judged.iter_rows():
                keep(Path(row["path"]), row["found"].items)
        finally:
            ray.shutdown()


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
