"""Judge pictures from outside: tiles, score, p-values, and one of three verdicts.

The rule. A panel is cut into tiles at native resolution; their logits are pooled, by their mean
unless told otherwise, and the pooled logit is read by the calibration of single tiles. A mean
scatters less than a tile, so its false alarms are rarer than alpha promises; those of a maximum are
more frequent. Real is excluded when p_real is at most alpha, generated when p_fake is, and
"AI-suspected" and "consistent" need exactly one of them excluded. A panel of which half of the
tiles or more are outside the training domain is inconclusive. A "consistent" where pixels went
through JPEG or resampling, as far as is known or shows (`limits`), is inconclusive too: after these
most generated images look real. "AI-suspected" stays: it makes hardly any real suspect.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from jaxtyping import Bool, Float
from PIL import Image

from semforensics.core.errors import InputError
from semforensics.core.images import to_8_bit
from semforensics.detector.calibration import (
    at_prevalence,
    calibration_sizes,
    check_alpha,
    decide,
)
from semforensics.detector.inference import FoldedNetwork
from semforensics.detector.scoring import score_images, sigmoid
from semforensics.detector.tiling import Pooling, cut_tiles, pool
from semforensics.screening.judge.limits import why_not_native
from semforensics.screening.judge.model import ScreeningModel, find_model
from semforensics.screening.read.intake import read_inputs, to_grey
from semforensics.screening.records import (
    Evidence,
    Finding,
    Grey,
    GreyOfAnySize,
    PanelResult,
    Picture,
    PictureResult,
    Provenance,
    Refusal,
    Verdict,
)
from semforensics.screening.split.panels import split_panels

Logits = Float[np.ndarray, " tiles"]


class Screener:
    """A model with the settings of a screening; can be pickled.

    screener = Screener.load()
    for panel in screener.screen("figure.png").panels:
        print(panel.finding.verdict, panel.finding.reason)
    """

    def __init__(
        self,
        model: ScreeningModel,
        *,
        alpha: float = 0.05,
        prevalence: float = 0.5,
        pooling: str = "mean",
        evidence: bool = True,
    ) -> None:
        """Check the settings against the model, and prepare its network.

        Raises:
            InputError: alpha is finer than the model's calibration resolves, the prevalence is not
                between 0 and 1, or there is no such pooling.
        """
        detector = model.detector
        if pooling not in get_args(Pooling):
            raise InputError(f"pooling {pooling!r}: expected one of {', '.join(get_args(Pooling))}")
        if not 0 < alpha < 1:
            raise InputError(f"alpha {alpha}: expected between 0 and 1, both left out")
        at_prevalence(0.0, prevalence)
        sides = detector.meta["calibration"][str(detector.phases)]
        check_alpha(alpha, *calibration_sizes(sides))
        self.model = model
        self.alpha, self.prevalence = alpha, prevalence
        self.pooling = pooling
        self.evidence = evidence
        self.size_px: int = model.about["size_px"]
        """Side of a tile, and the least of a panel."""
        self._network = FoldedNetwork(detector.network, "float32")

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
            model: As `find_model` takes it; None is the released one.
            alpha: Share of reals, like those the model knows, that may be suspected.
            prevalence: Share of generated panels among those screened; moves the predictive value
                alone.
            pooling: Of the logits of a panel's tiles: mean, median or max.
            device: Where to score.
            evidence: Whether to gather what stands beside a verdict, which takes most of the time.

        Raises:
            InputError: As the constructor; or the file is no screening model.
            FileNotFoundError: There is no such model.
        """
        loaded = ScreeningModel.load(find_model(model), torch.device(device))
        return cls(loaded, alpha=alpha, prevalence=prevalence, pooling=pooling, evidence=evidence)

    def describe(self) -> dict[str, Any]:
        """Return what a report says of the model."""
        return self.model.describe()

    def screen(self, image: str | Path | GreyOfAnySize | Image.Image) -> PictureResult:
        """Judge one image.

        Args:
            image: A file that holds one picture, an array of grey levels (8 or 16 bits), or a
                Pillow image.

        Raises:
            InputError: It cannot be read, or holds several pictures.
            FileNotFoundError: There is no such file.
        """
        if not isinstance(image, str | Path):
            return self.screen_picture(_picture_of(image))
        found = list(read_inputs([Path(image)]))
        if len(found) != 1:
            raise InputError(
                f"{image}: {len(found)} pictures, expected one; `semforensics screen` takes all"
            )
        if isinstance(found[0], Refusal):
            raise InputError(f"{image}: {found[0].reason}")
        return self.screen_picture(found[0])

    def screen_picture(self, picture: Picture, info_bar: int | None = None) -> PictureResult:
        """Judge the panels of a picture.

        Args:
            picture: As intake reads it.
            info_bar: Rows to cut off the bottom of each panel; None finds the bar.
        """
        panels, refusals = split_panels(picture, self.size_px, info_bar)
        findings = self.judge(
            [panel.grey for panel in panels],
            is_lossy=picture.is_lossy,
            is_resampled=picture.is_resampled,
        )
        results = tuple(
            PanelResult(panel, finding, self._evidence_of(panel.grey, finding, picture.is_lossy))
            for panel, finding in zip(panels, findings, strict=True)
        )
        return PictureResult(picture, results, tuple(refusals))

    def judge(
        self,
        panels: Sequence[GreyOfAnySize],
        *,
        is_lossy: bool = False,
        is_resampled: bool = False,
    ) -> list[Finding]:
        """Judge panels, each by itself.

        Args:
            panels: Grey levels without info bar. One smaller than a tile is refused.
            is_lossy: They are known to have gone through a lossy codec.
            is_resampled: They are known to have been brought to another size.
        """
        large = [min(panel.shape) >= self.size_px for panel in panels]
        tiles = [
            cut_tiles(p, self.size_px)
            for p, is_large in zip(panels, large, strict=True)
            if is_large
        ]
        if not tiles:
            return [self._refusal(panel) for panel in panels]
        stack = torch.cat(tiles)
        logits, inside = self.tile_logits(stack), self.model.detector.domain.is_inside(stack)
        ends = np.cumsum([len(part) for part in tiles])[:-1]
        parts = iter(zip(np.split(logits, ends), np.split(inside, ends), strict=True))
        return [
            self._finding(panel, *next(parts), is_lossy=is_lossy, is_resampled=is_resampled)
            if is_large
            else self._refusal(panel)
            for panel, is_large in zip(panels, large, strict=True)
        ]

    def tile_logits(self, tiles: torch.Tensor) -> Logits:
        """Score tiles: uint8 [n, 1, size, size] → one logit each, positive for generated."""
        detector = self.model.detector
        return score_images(self._network, tiles, phases=detector.phases, device=detector.device)

    def _finding(
        self,
        panel: Grey,
        logits: Logits,
        inside: Bool[np.ndarray, " tiles"],
        *,
        is_lossy: bool,
        is_resampled: bool,
    ) -> Finding:
        """Read the logits of a panel's tiles by the rule of this module."""
        detector = self.model.detector
        logit = pool(logits, self.pooling)  # type: ignore[arg-type]  # checked in __init__
        p_real, p_fake = (p[0] for p in detector.p_values(np.array([logit], dtype=np.float32)))
        share = float(inside.mean())
        is_inside = share > 0.5
        decided = decide(np.array([p_real]), np.array([p_fake]), self.alpha, np.array([is_inside]))
        verdict: Verdict = str(decided[0])  # type: ignore[assignment]
        reason = _reason(verdict, float(p_real), float(p_fake), self.alpha)
        if not is_inside:
            outside = int((~inside).sum())
            reason = (
                f"{outside} of its {len(logits)} tiles are unlike the images that the model was"
                " trained on, so its score says nothing."
            )
        elif verdict == "consistent":
            sign = _known_history(is_lossy, is_resampled)
            sign = sign or why_not_native(panel, self.model.references)
            if sign is not None:
                verdict = "inconclusive"
                reason = (
                    f"Its score is that of a real micrograph, but {sign}, and then generated images"
                    " get such scores, too."
                )
        calibrated = logit / detector.temperature
        return Finding(
            verdict,
            reason,
            n_tiles=len(logits),
            logit=logit,
            probability=sigmoid(calibrated),
            predictive_value=sigmoid(at_prevalence(calibrated, self.prevalence)),
            p_real=float(p_real),
            p_fake=float(p_fake),
            share_inside=share,
        )

    def _refusal(self, panel: GreyOfAnySize) -> Finding:
        height, width = panel.shape
        return Finding(
            "refused",
            f"It is too small: {width}x{height} px, need at least {self.size_px}x{self.size_px}.",
        )

    def _evidence_of(self, panel: Grey, finding: Finding, is_lossy: bool) -> Evidence:
        if not self.evidence or finding.verdict == "refused":
            return Evidence()
        # Imported here: drawing Grad-CAM needs modules that a screening without maps does not.
        from semforensics.screening.judge.evidence import gather

        return gather(self, panel, is_lossy=is_lossy)


def _known_history(is_lossy: bool, is_resampled: bool) -> str | None:
    """Say what the file tells of its pixels' way, in one clause."""
    if is_resampled:
        return "it was brought to another size on the way here"
    return "it was stored with loss, as in a JPEG file" if is_lossy else None


def _reason(verdict: Verdict, p_real: float, p_fake: float, alpha: float) -> str:
    """Say in one sentence what the p-values say."""
    real, generated = f"(p = {p_real:.3f})", f"(p = {p_fake:.3f})"
    if verdict == "ai-suspected":
        return (
            f"Its score is unusual for real micrographs {real} and usual for generated ones"
            f" {generated}."
        )
    if verdict == "consistent":
        return (
            f"Its score is usual for real micrographs {real} and unusual for images of the"
            f" generators that the model knows {generated}."
        )
    how = "unusual" if max(p_real, p_fake) <= alpha else "usual"
    return (
        f"Its score is {how} both for real micrographs {real} and for generated ones {generated}."
    )


def _picture_of(image: Any) -> Picture:
    """Wrap pixels that came from no file."""
    if isinstance(image, Image.Image):
        grey, notes = to_grey(image)
        kind = image.format or "Pillow image"
        is_lossy = kind in ("JPEG", "MPO", "WEBP")
        digest = hashlib.sha256(grey.tobytes()).hexdigest()
        return Picture("array", "", digest, grey, Provenance(kind), is_lossy, False, tuple(notes))
    image = np.asarray(image)
    if image.ndim == 3 and image.dtype == np.uint8 and image.shape[2] in (3, 4) and image.size:
        return replace(_picture_of(Image.fromarray(image)), provenance=Provenance("array"))
    if image.ndim != 2 or image.dtype not in (np.uint8, np.uint16) or image.size == 0:
        raise InputError(
            f"array of shape {image.shape} and type {image.dtype}, expected grey levels [height, "
            "width] of 8 or 16 bits, or 8-bit colours [height, width, 3]"
        )
    grey = image if image.dtype == np.uint8 else to_8_bit(image)
    digest = hashlib.sha256(np.ascontiguousarray(image).tobytes()).hexdigest()
    return Picture("array", "", digest, grey, Provenance("array"), False, False)
