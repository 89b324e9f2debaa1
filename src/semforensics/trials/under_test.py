"""A trained detector and the images that it may be tested on: what a trial starts from."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from semforensics.core.errors import InputError
from semforensics.detector.corpus import Corpus, LabelledImages, load_test_images
from semforensics.detector.detector import Detector


@dataclass(frozen=True)
class DetectorUnderTest:
    """A detector, its images, and the error rate that its verdicts are read at."""

    folder: Path
    detector: Detector
    """Of the first training."""
    corpus: Corpus
    """Its seed is that of a trial's own draws; images are drawn with the seed of the training."""
    listing: pd.DataFrame
    """All images with their splits, as `Corpus.list_images` returns them."""
    alpha: float
    """Chance that a verdict excludes a true class."""

    @classmethod
    def load(
        cls,
        folder: Path,
        corpus: Corpus,
        *,
        phases: int,
        alpha: float,
        device: torch.device,
        name: str | None = None,
    ) -> "DetectorUnderTest":
        """Load a classifier, and check that these are the images that it was trained on.

        `name` is the detector that is expected; None: any. Whether the calibration resolves `alpha`
        is not checked here.

        Raises:
            InputError: The folder holds no classifier with its calibration, or another detector's;
                or the images are not those that it was trained on.
            FileNotFoundError: Images or model are missing.
        """
        detector = Detector.load(folder, phases=phases, device=device)
        return cls(folder, detector, corpus, corpus.list_images_of(detector.meta, name), alpha)

    @property
    def name(self) -> str:
        """Which detector it is: it says whose fakes it learned from."""
        return str(self.meta["detector"])

    @property
    def meta(self) -> dict[str, Any]:
        """What training wrote beside the weights."""
        return self.detector.meta

    @property
    def note(self) -> str:
        """What a summary adds if `alpha` is finer than the calibration resolves; else nothing.

        Without enough calibration reals no p-value is so small that an image is suspected, without
        enough fakes none that one is called consistent.
        """
        try:
            self.detector.check_alpha(self.alpha)
        except InputError as error:
            return f"; not every verdict can occur: {error}"
        return ""

    @property
    def about(self) -> dict[str, Any]:
        """What a trial's metrics begin with."""
        return {
            "detector": self.name,
            "network": self.meta["network"],
            "data": self.meta["data"],
            "threshold_logit": self.detector.threshold,
            "phases": self.detector.phases,
            "alpha": self.alpha,
        }

    @cached_property
    def test(self) -> LabelledImages:
        """The images of the test split, balanced.

        Raises:
            InputError: They have another size than those of the training.
        """
        return load_test_images(self.listing, self.meta)
