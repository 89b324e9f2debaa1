"""A classifier with all that training stored beside it: from images to verdicts."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Shaped, UInt8
from torch import Tensor

from semforensics.core.errors import InputError
from semforensics.detector.conformal import (
    PValues,
    calibration_groups,
    calibration_sizes,
    check_alpha,
    largest_p_values,
)
from semforensics.detector.domain import DOMAIN_FILE, Domain
from semforensics.detector.networks import NPRNetwork
from semforensics.detector.scoring import MODEL_FILE, load_classifier, score_images
from semforensics.detector.verdict import decide

Logits = Float[np.ndarray, " n"]


@dataclass(frozen=True)
class Detector:
    """A network, its calibration and its training domain."""

    network: NPRNetwork
    meta: dict[str, Any]
    """What training wrote beside the weights."""
    domain: Domain
    phases: int
    """Of the 2x2 grid, averaged: 1 or 4. Threshold, temperature and calibration belong to it."""
    device: torch.device

    @classmethod
    def load(
        cls, folder: Path, *, phases: int, device: torch.device, name: str = MODEL_FILE
    ) -> "Detector":
        """Load the classifier of a folder.

        Args:
            folder: As training writes it.
            phases: 1 or 4.
            device: Where to score.
            name: Which training's model; its calibration comes with it.

        Raises:
            InputError: The model is none of this project, or was trained before models carried
                their calibration.
            FileNotFoundError: Model or training domain are missing.
        """
        network, meta = load_classifier(folder, device, name)
        for key in ("calibration", "thresholds", "temperature"):
            if str(phases) not in meta.get(key, {}):
                raise InputError(
                    f"{folder / name}: a model without {key} of {phases} phases; train it again"
                )
        return cls(network, meta, Domain.load(folder / DOMAIN_FILE), phases, device)

    @property
    def threshold(self) -> float:
        """The logit above which an image is called fake."""
        return float(self.meta["thresholds"][str(self.phases)])

    @property
    def temperature(self) -> float:
        """What a logit is divided by to be that of a calibrated probability."""
        return float(self.meta["temperature"][str(self.phases)])

    def logits(self, images: UInt8[Tensor, "n 1 height width"]) -> Logits:
        """Score images; positive means fake."""
        return score_images(self.network, images, phases=self.phases, device=self.device)

    @property
    def calibration(self) -> dict[str, Any]:
        """Logits of the calibration images: `real`, `processed` by kind, `generators` by name.

        `groups` is the area of each real, where the training stored it.
        """
        calibration: dict[str, Any] = self.meta["calibration"][str(self.phases)]
        return calibration

    def p_values(self, logits: Logits) -> tuple[PValues, PValues]:
        """Return p_real and p_fake of logits.

        p_real is the largest over the calibration reals as they are and after each kind of benign
        processing that the training names, p_fake the largest over the generators: so they hold
        for each of these. The calibration says whether crops or areas are the units of p_real.
        """
        reals = [self.calibration["real"], *self.calibration["processed"].values()]
        fakes = [*self.calibration["generators"].values()]
        real, fake = ([np.array(kind, float) for kind in kinds] for kinds in (reals, fakes))
        return largest_p_values(logits, real, fake, calibration_groups(self.calibration))

    def check_alpha(self, alpha: float) -> None:
        """Refuse an error rate that the calibration cannot resolve.

        Raises:
            InputError: It cannot; the message says how many crops or areas it needs.
        """
        unit = "reals" if calibration_groups(self.calibration) is None else "areas"
        check_alpha(alpha, *calibration_sizes(self.calibration), unit)

    def verdicts(
        self,
        images: UInt8[Tensor, "n 1 height width"],
        alpha: float,
        logits: Logits | None = None,
        inside: Bool[np.ndarray, " n"] | None = None,
    ) -> Shaped[np.ndarray, " n"]:
        """Return the verdict on each image, inconclusive outside the training domain.

        Args:
            images: Grey levels 0 … 255, of even size.
            alpha: Chance that a true class is excluded.
            logits: Of these images where they are known already.
            inside: Whether they are inside the training domain, where that is known already.

        Raises:
            InputError: The calibration cannot resolve `alpha`.
        """
        self.check_alpha(alpha)
        p_real, p_fake = self.p_values(self.logits(images) if logits is None else logits)
        inside = self.domain.is_inside(images) if inside is None else inside
        return decide(p_real, p_fake, alpha, inside)
