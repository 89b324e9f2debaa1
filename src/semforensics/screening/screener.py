"""Screen micrographs from outside.

In five lines:

    from semforensics.screening.screener import Screener

    screener = Screener.load()
    for panel in screener.screen("figure.png").panels:
        print(panel.panel.name, panel.finding.verdict, panel.finding.reason)

A panel is cut into tiles of the size that the model knows, at native resolution; what is left at
the right and bottom edges is not looked at. The logits of the tiles are pooled (their mean, unless
asked otherwise), and the pooled logit is judged as that of one calibration crop would be. A panel
is inside the training domain when more than half of its tiles are.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from PIL import Image

from semforensics.classifier.inference import FoldedNetwork
from semforensics.classifier.scoring import score_images, sigmoid
from semforensics.classifier.tiling import Pooling, cut_tiles, pool
from semforensics.evaluation.calibration import (
    at_prevalence,
    calibration_sizes,
    check_alpha,
    decide,
)
from semforensics.images import to_8_bit
from semforensics.screening.evidence import gather
from semforensics.screening.intake import read_inputs
from semforensics.screening.limits import find_limits
from semforensics.screening.model import ScreeningModel, find_model
from semforensics.screening.panels import split_panels
from semforensics.screening.records import (
    Evidence,
    Finding,
    PanelResult,
    Picture,
    PictureResult,
    Provenance,
    Refusal,
    Verdict,
)


@dataclass
class Screener:
    """A model, and how its answers are asked for."""

    model: ScreeningModel
    alpha: float
    prevalence: float
    pooling: str
    """mean, median or max of the logits of a panel's tiles."""
    evidence: bool
    """Gather what stands beside a verdict: maps, spectra, scores after processing. Takes longer."""
    _folded: FoldedNetwork | None = None

    @classmethod
    def load(
        cls,
        model: str | Path | None = None,
        *,
        alpha: float = 0.05,
        prevalence: float = 0.5,
        pooling: str = "mean",
        device: str | torch.device = "cpu",
        evidence: bool = True,
    ) -> "Screener":
        """Load a model.

        Args:
            model: File or DVC artifact, as `find_model`; None: the released one.
            alpha: Chance that a real is suspected, and that a generated one passes as real.
            prevalence: Share of generated panels that you expect, for the predictive value.
            pooling: mean, median or max.
            device: Where to score.
            evidence: Gather evidence beside each verdict.

        Raises:
            FileNotFoundError: There is no such model.
            ValueError: It is no screening model, or a number is out of range, such as an alpha that
                its calibration cannot resolve.
        """
        if pooling not in get_args(Pooling):
            raise ValueError(f"pooling {pooling!r}: expected {', '.join(get_args(Pooling))}")
        if not 0 < alpha < 0.5:
            raise ValueError(f"alpha {alpha}: expected between 0 and 0.5")
        at_prevalence(0.0, prevalence)
        loaded = ScreeningModel.load(find_model(model), torch.device(device))
        sides = loaded.detector.meta["calibration"][str(loaded.detector.phases)]
        check_alpha(alpha, *calibration_sizes(sides))
        return cls(loaded, alpha, prevalence, pooling, evidence)

    def describe(self) -> dict[str, Any]:
        """Say what a report says of the model."""
        return self.model.describe()

    def screen(self, image: "str | Path | np.ndarray | Image.Image") -> PictureResult:
        """Judge one image.

        Args:
            image: A file with one picture, a Pillow image, or an array of 8- or 16-bit grey levels.

        Raises:
            ValueError: The file is no image, or holds more than one picture: `bulk` reads those.
            FileNotFoundError: There is no such file.
        """
        if isinstance(image, str | Path):
            found = list(read_inputs([Path(image)]))
            refused = [one for one in found if isinstance(one, Refusal)]
            if refused:
                raise ValueError(f"{image}: {refused[0].reason}")
            if len(found) != 1 or not isinstance(found[0], Picture):
                raise ValueError(f"{image}: {len(found)} pictures, expected one")
            return self.screen_picture(found[0])
        if isinstance(image, Image.Image):
            image = np.asarray(image if image.mode.startswith("I;16") else image.convert("L"))
        if image.ndim != 2 or image.dtype not in (np.uint8, np.uint16):
            raise ValueError(f"array of {image.dtype} {image.shape}, expected 8- or 16-bit grey")
        grey = to_8_bit(image)
        digest = hashlib.sha256(np.ascontiguousarray(image).tobytes()).hexdigest()
        picture = Picture("", "", digest, grey, Provenance("array"), False, False)
        return self.screen_picture(picture)

    def screen_picture(self, picture: Picture, info_bar: int | None = None) -> PictureResult:
        """Judge the panels of a picture.

        Args:
            picture: As `read_inputs` gives it.
            info_bar: Rows to cut off the bottom of each panel; None finds the bar.
        """
        panels, refusals = split_panels(picture, self.model.about["size_px"], info_bar)
        results = []
        for panel in panels:
            limits = find_limits(picture, panel.grey, self.model.references)
            tiles = cut_tiles(panel.grey, self.model.about["size_px"])
            logits = self.score(tiles)
            finding = self.judge(tiles, logits, limits)
            evidence = Evidence()
            if self.evidence:
                evidence = gather(self, panel.grey, tiles, logits, limits)
            results.append(PanelResult(panel, finding, evidence))
        return PictureResult(picture, tuple(results), tuple(refusals))

    def score(self, tiles: torch.Tensor) -> "np.ndarray":
        """Score tiles [n, 1, size, size] of grey levels; positive logits mean generated."""
        detector = self.model.detector
        if self._folded is None:
            self._folded = FoldedNetwork(detector.network, "float32")
        return score_images(self._folded, tiles, phases=detector.phases, device=detector.device)

    def pooled(self, logits: "np.ndarray") -> float:
        """Make one logit of those of a panel's tiles."""
        return pool(logits, self.pooling)  # type: ignore[arg-type]  # checked when it was loaded

    def judge(self, tiles: torch.Tensor, logits: "np.ndarray", limits: list[str]) -> Finding:
        """Make one finding of the tiles of a panel.

        Args:
            tiles: [n, 1, size, size].
            logits: One per tile.
            limits: What speaks against these being the instrument's own pixels.
        """
        detector = self.model.detector
        pooled = self.pooled(logits)
        p_real, p_fake = detector.p_values(np.array([pooled], dtype=np.float32))
        share = float(detector.domain.is_inside(tiles).mean())
        calibrated = pooled / detector.temperature
        verdict, reason = self._decide(float(p_real[0]), float(p_fake[0]), share, limits)
        return Finding(
            verdict=verdict,
            reason=reason,
            n_tiles=len(logits),
            logit=pooled,
            probability=sigmoid(calibrated),
            predictive_value=sigmoid(at_prevalence(calibrated, self.prevalence)),
            p_real=float(p_real[0]),
            p_fake=float(p_fake[0]),
            share_inside=share,
        )

    def _decide(
        self, p_real: float, p_fake: float, share: float, limits: list[str]
    ) -> tuple[Verdict, str]:
        """Give the verdict and the one sentence that says why."""
        if share <= 0.5:
            return "inconclusive", (
                f"Only {share:.0%} of its tiles are like the images that the model was trained on."
            )
        decided = str(decide(np.array([p_real]), np.array([p_fake]), self.alpha)[0])
        if decided == "ai-suspected":
            return "ai-suspected", (
                f"A real micrograph would score as high with a chance of at most {p_real:.3f} "
                f"(limit {self.alpha:g})."
            )
        if decided == "consistent" and limits:
            return "inconclusive", (
                f"It scores like a real micrograph, but that means nothing here: {limits[0]}."
            )
        if decided == "consistent":
            return "consistent", (
                "An image of the generators that the model knows would score as low with a chance "
                f"of at most {p_fake:.3f} (limit {self.alpha:g})."
            )
        both = "neither a real nor a known generator's image is excluded"
        if p_real <= self.alpha:
            both = "it scores unlike the reals and unlike the known generators' images"
        return "inconclusive", f"At a limit of {self.alpha:g} {both}."
