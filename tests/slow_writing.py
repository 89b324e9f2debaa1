"""Train FastGAN in two processes, of which the first writes slowly: ROOT [impatient].

For test_distributed.py: writing a state or a snapshot takes longer than a process waits for the
others in a step. `impatient`: the others do not wait for what the first writes.
"""

import itertools
import sys
import time
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch

from semforensics.core import distributed

if __name__ == "__main__" and not distributed.is_worker():
    sys.exit(distributed.launch(2))  # without what only its workers need

from semforensics.core import training as frame
from semforensics.generators.common import snapshots
from tests.generators.conftest import CPU, Place, tiny

WRITING_SECONDS = 7
STEP_SECONDS = 5


def slowly(write: Any) -> Any:
    """The same, but slow when it is called for the first time."""
    calls = itertools.count()

    def wrapped(*arguments: Any, **more: Any) -> Any:
        if next(calls) == 0:
            time.sleep(WRITING_SECONDS)
        return write(*arguments, **more)

    return wrapped


@contextmanager
def impatient() -> Any:
    """Yield whether this is the process that writes, as `distributed.writing` does; do not wait."""
    yield distributed.is_first()


if __name__ == "__main__":
    torch.set_num_threads(1)
    distributed.TIMEOUT = timedelta(seconds=STEP_SECONDS)
    frame.torch.save = slowly(torch.save)
    snapshots.save_checkpoint = slowly(snapshots.save_checkpoint)
    if sys.argv[2:] == ["impatient"]:
        distributed.writing = impatient
    with distributed.process_group(CPU):
        params = tiny(iterations=2, snapshot_every=1, log_every=1, precise_bn_images=4)
        Place(Path(sys.argv[1])).train(params, seconds_between_saves=0)
