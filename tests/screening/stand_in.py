"""A screener of one rule, to test what happens around the real one; spawned workers import it."""

import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Condition
from typing import Any

import numpy as np
import torch
from PIL import Image
from threadpoolctl import threadpool_info

from semforensics.screening.records import (
    Box,
    Evidence,
    Finding,
    Panel,
    PanelResult,
    Picture,
    PictureResult,
)

RAISES, KILLS, HANGS = 1, 2, 3
"""First grey level of pictures that break the screener."""


@dataclass
class StandIn:
    """Suspects pictures that are bright on average; each picture is one panel."""

    alpha: float = 0.05
    prevalence: float = 0.5
    pooling: str = "mean"
    evidence: bool = False
    seconds: float = 0.0
    """To spend on each picture."""
    log: Path | None = None
    """Gets a line for each picture."""

    def screen_picture(self, picture: Picture, info_bar: int | None = None) -> PictureResult:
        """Judge a picture, or break as its first grey level says."""
        match int(picture.grey[0, 0]):
            case 1:
                raise ZeroDivisionError("division by zero")
            case 2:
                os.kill(os.getpid(), signal.SIGKILL)
            case 3:
                time.sleep(600)
        time.sleep(self.seconds)
        if self.log is not None:
            with self.log.open("a") as log:
                print(picture.path, file=log)
        grey = picture.grey[: len(picture.grey) - (info_bar or 0)]
        mean = float(grey.mean())
        verdict = "ai-suspected" if mean > 140 else "inconclusive" if mean > 120 else "consistent"
        finding = Finding(verdict, "By its mean.", n_tiles=1, logit=mean - 140, probability=0.5)
        panel = Panel("", Box(0, 0, *grey.shape), grey)
        return PictureResult(picture, (PanelResult(panel, finding, Evidence()),))

    def describe(self) -> dict[str, Any]:
        """Name a model."""
        return {"name": "stand-in", "sha256": "0" * 64, "training_domain": {"material": "none"}}


class OneThread(StandIn):
    """Judges only where no library of its process would start further threads."""

    def screen_picture(self, picture: Picture, info_bar: int | None = None) -> PictureResult:
        """Raise where a library would take more than one."""
        pools = [f"{p['internal_api']}: {p['num_threads']}" for p in threadpool_info()]
        if torch.get_num_threads() != 1 or any(not p.endswith(": 1") for p in pools):
            raise RuntimeError(f"torch: {torch.get_num_threads()}, {', '.join(pools)}")
        return super().screen_picture(picture, info_bar)


class Together(OneThread):
    """Judges pictures in one process, each only once as many as wanted are judged at a time."""

    def __init__(self, wanted: int) -> None:
        super().__init__()
        self.wanted, self.now, self.most = wanted, 0, 0
        self._changed = Condition()

    def screen_picture(self, picture: Picture, info_bar: int | None = None) -> PictureResult:
        """Wait for the others, not for ever."""
        with self._changed:
            self.now += 1
            self.most = max(self.most, self.now)
            self._changed.notify_all()
            self._changed.wait_for(lambda: self.most >= self.wanted, timeout=20)
        try:
            return super().screen_picture(picture, info_bar)
        finally:
            with self._changed:
                self.now -= 1


def draw(folder: Path, levels: Sequence[int], first: int | None = None) -> list[Path]:
    """Write a PNG file of 160 px for each mean grey level: noise, each another place."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for index, level in enumerate(levels):
        noise = np.random.default_rng(index).normal(level, 12, (160, 160))
        grey = np.clip(noise, 20, 235).astype(np.uint8)
        if first is not None:
            grey[0, 0] = first
        files.append(folder / f"{index:03d}{'' if first is None else f'_{first}'}.png")
        Image.fromarray(grey).save(files[-1])
    return files


def run(folder: str, out: str, scratch: str, workers: int, seconds: float, log: str) -> None:
    """Screen a folder; what a subprocess calls that is killed."""
    from semforensics.screening.submission import Options, screen_submission

    screen_submission(
        [Path(folder)],
        Path(out),
        StandIn(seconds=seconds, log=Path(log)),
        Options(Path(scratch), "semforensics screen", workers),
    )


if __name__ == "__main__":
    run(*sys.argv[1:4], int(sys.argv[4]), float(sys.argv[5]), sys.argv[6])
