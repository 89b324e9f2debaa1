"""Run all three trainings in two processes, for test_distributed.py: together.py ROOT [WHERE STEP].

With a place and a step, the second process kills itself there. Each process leaves the SHA-256 of
all that it holds at the end of a training.
"""

import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch

from semforensics.core import distributed

if __name__ == "__main__" and not distributed.is_worker():
    sys.exit(distributed.launch(2))  # without what only its workers need

from semforensics.core.training import Training, TrainingState, fingerprint
from semforensics.detector import training as classifier
from semforensics.generators.fastgan import training as fastgan
from semforensics.generators.stylegan2_ada import training as stylegan2_ada
from tests.detector.conftest import Folders, recipe
from tests.generators.conftest import CPU, Place, flatten, tiny, tiny_style


def leave_digest(root: Path, name: str, state: dict[str, Any]) -> None:
    """Say what this process holds, apart from its own random state."""
    tensors = {k: v for k, v in flatten(state).items() if torch.is_tensor(v)}
    digest = fingerprint({"names": sorted(tensors)}, *(tensors[k] for k in sorted(tensors)))
    rank = torch.distributed.get_rank()
    (root / f"{name}_{rank}.sha256").write_text(digest)


def watch(module: Any, name: str, root: Path, where: str, dies_at: int) -> None:
    """Leave a digest after every step of a GAN, or die."""
    step = module.take_step

    def watched(state: Any, *rest: Any) -> Any:
        if where == name and state.iteration == dies_at and not distributed.is_first():
            os.kill(os.getpid(), signal.SIGKILL)
        result = step(state, *rest)
        leave_digest(root, name, state.state_dict())
        return result

    module.take_step = watched


def watch_classifier(root: Path, where: str, dies_at: int) -> None:
    """The same after every epoch of the classifier."""
    save = Training.save

    def watched(training: Training, state: TrainingState) -> None:
        if isinstance(state, classifier.ClassifierState):
            if where == "classifier" and state.iteration > dies_at and not distributed.is_first():
                os.kill(os.getpid(), signal.SIGKILL)
            leave_digest(root, "classifier", state.state_dict())
        save(training, state)

    Training.save = watched


def main(root: Path, where: str = "", dies_at: int = -1) -> None:
    """Train what is not yet trained."""
    watch(fastgan, "fastgan", root, where, dies_at)
    watch(stylegan2_ada, "stylegan2_ada", root, where, dies_at)
    watch_classifier(root, where, dies_at)
    # Another random start in every process: what they share must not rest on it.
    for name, params in (("fastgan", tiny()), ("stylegan2_ada", tiny_style())):
        place = Place(root / name)
        if not (place.root / "checkpoints").exists():
            place.train(params, seconds_between_saves=0)
        torch.distributed.barrier()
    data = Folders(root / "data/cropped", root / "data/splits.csv", root / "data/fakes")
    classifier.train_classifier(
        "fastgan", data.corpus(), root / "classifier", params=recipe(epochs=4), data="folder",
        scratch=root / "scratch", device=CPU,
    )  # fmt: skip


if __name__ == "__main__":
    torch.set_num_threads(1)
    with distributed.process_group(CPU):
        main(Path(sys.argv[1]), *sys.argv[2:3], *map(int, sys.argv[3:4]))
