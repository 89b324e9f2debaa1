"""Curves to watch while a training runs, by DVCLive; off unless an environment variable asks.

The tables that a stage leaves (`losses.csv`) appear when it has ended. These grow with every row,
and DVC's extension for VS Code or the page `report.html` beside them shows them. They are no output
of a stage: nothing reads them, and no result depends on them.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from semforensics.core import distributed
from semforensics.core.errors import InputError

FOLDER_VARIABLE = "SEMFORENSICS_LIVE"
"""Names the folder that the curves go to, one folder in it per training."""
Show = Callable[[int, Mapping[str, float]], None]
"""Takes a step and what was measured there."""


@contextmanager
def live_curves(scratch: Path, *, resumed: bool) -> Iterator[Show]:
    """Open the curves of the training whose unfinished state lies in `scratch`.

    The last two parts of that path name the folder of the curves, as in `train_gan/fastgan`.
    `resumed` continues the curves that are there.

    Raises:
        InputError: They are asked for and DVCLive is not installed.
    """
    folder = os.environ.get(FOLDER_VARIABLE)
    if not folder or not distributed.is_first():
        yield lambda _step, _values: None
        return
    try:
        from dvclive.live import Live
    except ImportError as error:
        raise InputError(f"{FOLDER_VARIABLE}: install `semforensics[live]` to use it") from error

    with Live(
        str(Path(folder, *scratch.parts[-2:])),
        resume=resumed,
        report="html",
        save_dvc_exp=False,
        dvcyaml=None,
    ) as live:

        def show(step: int, values: Mapping[str, float]) -> None:
            live.step = step
            for name, value in values.items():
                if name not in ("iteration", "step", "epoch"):
                    live.log_metric(name, value)
            live.make_summary()
            live.make_report()

        yield show
