"""The rule by which the scores of a panel's tiles become one of three verdicts.

The logits of the tiles are pooled, by their mean unless told otherwise, and the pooled logit is
read by the calibration of the model (`model.Reading`). Real is excluded when p_real is at
most alpha, generated when p_fake is, and "AI-suspected" and "consistent" need exactly one of them
excluded. A panel of which half of the tiles or more are outside the training domain is
inconclusive, and "consistent" is said only where at least `LEAST_JUDGED` of the panel's area lies
in its tiles: text and lines drawn over it do not count as area, but what lies too near to them for
a tile does, and so does what may be an info bar. A panel that may be a composite is never called
consistent, and neither is one of which the model doubts that generated panels would have been
suspected: one kind where pixels went through JPEG or resampling, as far as is known or shows, the
other where few of the calibration panels would have been. Nor is one whose score more than a few
known generated panels have (`RARELY`). "AI-suspected" stays. Where the
predictive value of a suspicion is below one half, its reason says that most panels with such a
score are real.

A panel is suspected in part where a group of neighbouring windows disagrees with the rest (`parts`)
and its highest tile would be suspected by itself. The two ways to a
suspicion share alpha: nine tenths for the whole, one tenth for a part. A panel with a part that
native reals rarely have, or that is as high as those of composites, is not called consistent.
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from semforensics.core.errors import InputError
from semforensics.detector.calibration import at_prevalence
from semforensics.detector.tiling import Tiles
from semforensics.detector.verdict import decide
from semforensics.screening.judge.model import Reading, ScreeningModel
from semforensics.screening.judge.parts import IN_PART, Part
from semforensics.screening.records import Finding, Panel, Verdict

LEAST_JUDGED = 0.9
"""Share of a panel's area that must have been judged before it is called consistent."""
RARELY = 0.2
"""Of alpha: the share of generated panels, of generators that the model knows, that may have such a
score before a panel is called consistent. To overlook a generated one is worse than to say
nothing. A calibration too small for it asks for the lowest of its scores."""


@dataclass
class Rule:
    """A model and how it decides."""

    model: ScreeningModel
    alpha: float = 0.05
    """Share of reals, like those the model knows, that may be suspected."""
    prevalence: float = 0.5
    """Share of generated panels among those screened; moves the predictive value alone."""
    pooling: str = "mean"
    """Of the logits of a panel's tiles: mean, median or max."""

    def __post_init__(self) -> None:
        """Check the settings against the model.

        Raises:
            InputError: alpha is finer than the model's calibration resolves, the prevalence is not
                between 0 and 1, or there is no such pooling.
        """
        if self.pooling not in self.model.poolings:
            expected = ", ".join(self.model.poolings)
            raise InputError(f"pooling {self.pooling!r}: expected one of {expected}")
        if not 0 < self.alpha < 1:
            raise InputError(f"alpha {self.alpha}: expected between 0 and 1, both left out")
        at_prevalence(0.0, self.prevalence)
        try:
            self.model.check_alpha(self.alpha_of_whole)
        except InputError as error:
            raise InputError(f"alpha {self.alpha:g}, for whole panels {error}") from error

    @property
    def alpha_of_whole(self) -> float:
        """Share of reals that may be suspected as a whole."""
        return self.alpha * self.model.share_for_whole

    def decide(
        self,
        panel: Panel,
        tiles: Tiles,
        logits: Float[np.ndarray, " tiles"],
        inside: Bool[np.ndarray, " tiles"],
        part: Part | None = None,
        *,
        is_lossy: bool,
        is_resampled: bool,
    ) -> Finding:
        """Decide on a panel.

        Args:
            panel: Without info bar, at least as large as a tile.
            tiles: Of the panel; there are none where too much is drawn into it.
            logits: Of the tiles, positive for generated.
            inside: Which tiles are inside the training domain.
            part: That disagrees most with the rest; None: none was searched for.
            is_lossy: The panel is known to have gone through a lossy codec.
            is_resampled: It is known to have been brought to another size.
        """
        if not len(tiles):
            reason = (
                "What is drawn over it, or may be an info bar, leaves no square of"
                f" {self.model.size_px} px free that could be judged."
            )
            return Finding("inconclusive", reason, share_judged=0.0)
        areas = tiles.areas.astype(float)
        logit = self.model.pool(logits, areas, self.pooling)
        known = _known_history(is_lossy, is_resampled)
        reading = self.model.read(panel, tiles, known, self.alpha_of_whole)
        p_real, p_fake = reading.p_values(logit)
        share = float(np.average(inside, weights=areas))
        share_judged = min(float(areas.sum()) / max(panel.micrograph_px, 1), 1.0)
        corrected = p_real * self.alpha / self.alpha_of_whole
        is_known = share > 0.5 and reading.outside is None
        p_values = np.array([corrected]), np.array([p_fake])
        decided = decide(*p_values, self.alpha, np.array([is_known]))
        verdict: Verdict = str(decided[0])  # type: ignore[assignment]
        reason = _what_p_values_say(verdict, p_real, p_fake, self.alpha)
        if share <= 0.5:
            reason = (
                f"{int((~inside).sum())} of its {len(tiles)} tiles are unlike the images that the"
                " model was trained on, so its score says nothing."
            )
        elif reading.outside is not None:
            reason = f"{reading.outside}, so its score says nothing."
        elif verdict == "consistent" and (
            doubt := _doubt(panel, reading, share_judged)
            or _too_usual(p_fake, max(RARELY * self.alpha, reading.p_values(-math.inf)[1]))
        ):
            verdict = "inconclusive"
            reason = f"Its score is that of a real micrograph, but {doubt}."
        part_box = None
        if part is not None and is_known and verdict != "ai-suspected":
            found = self._what_the_part_says(part, verdict, reading)
            if found is not None:
                (verdict, reason), part_box = found, part.box
        if is_known and reading.comparison:
            reason += f" {reading.comparison}"
        log_odds = reading.log_odds(logit)
        predictive_value = _probability(at_prevalence(log_odds, self.prevalence))
        if verdict == "ai-suspected" and part_box is None and predictive_value < 0.5:
            reason += (
                f" But at this prevalence ({self.prevalence:g}) most suspected panels with such a"
                f" score are real: the chance that this one is generated is {predictive_value:.2g}."
            )
        return Finding(
            verdict,
            reason,
            n_tiles=len(tiles),
            logit=logit,
            probability=_probability(log_odds),
            predictive_value=predictive_value,
            p_real=p_real,
            p_fake=p_fake,
            share_inside=share,
            share_judged=share_judged,
            p_part=None if part is None else part.p_real,
            part_box=part_box,
            history=reading.history,
            power=reading.power,
            is_known=is_known,
        )

    def _what_the_part_says(
        self, part: Part, verdict: Verdict, reading: Reading
    ) -> tuple[Verdict, str] | None:
        """Return the verdict on a panel that is not suspected as a whole; None: it stays."""
        box = part.box
        where = f"A part of it (rows {box.top} to {box.bottom}, columns {box.left} to {box.right})"
        p_real, p_fake = (np.array([p]) for p in reading.p_values_of_tile(part.logit))
        is_known = np.array([part.share_inside > 0.5])
        of_tile = decide(p_real, p_fake, self.alpha, is_known)[0]
        if part.p_real <= IN_PART * self.alpha and of_tile == "ai-suspected":
            reason = (
                f"{where} may be generated, or pasted from another picture: its scores are unusual"
                f" for real micrographs and not those of the rest. {_in_thousand(part.p_real)} real"
                " panels of this size are expected to have such a part. Real structures that differ"
                " much from their surroundings can cause it, too."
            )
            if self.prevalence < IN_PART * self.alpha * (1 - self.prevalence):
                reason += (
                    f" But at this prevalence ({self.prevalence:g}) most panels that are suspected"
                    " in part are real."
                )
            return "ai-suspected", reason
        if verdict == "consistent" and (
            part.p_native <= self.alpha or part.p_composite > self.alpha
        ):
            return "inconclusive", (
                f"Its mean score is that of a real micrograph, but {where[0].lower()}{where[1:]}"
                " disagrees with the rest, as a generated part can."
            )
        return None


def _doubt(panel: Panel, reading: Reading, share_judged: float) -> str | None:
    """Say in a clause why a panel is not called consistent; None where it is."""
    if panel.may_be_composite:
        return (
            "it may be a composite of several pictures, and then one score says nothing of each of"
            " them"
        )
    if share_judged < LEAST_JUDGED:
        return f"only {share_judged:.0%} of its area could be judged, less than {LEAST_JUDGED:.0%}"
    return reading.doubt()


def _too_usual(p_fake: float, most: float) -> str | None:
    """Say in a clause that too many generated panels have such a score; None: they are few."""
    if p_fake <= most:
        return None
    return (
        f"also that of some images of generators that the model knows (p = {p_fake:.3f}, more than"
        f" {most:.2g})"
    )


def _known_history(is_lossy: bool, is_resampled: bool) -> str | None:
    """Say what the file tells of its pixels' way, in one clause."""
    if is_resampled:
        return "it was brought to another size on the way here"
    return "it was stored with loss, as in a JPEG file" if is_lossy else None


def _in_thousand(share: float) -> str:
    """Write a small share; fewer than one in a thousand is as fine as the calibration can tell."""
    number = math.ceil(1000 * share)
    return f"About {number} in 1000" if number > 1 else "Fewer than 1 in 1000"


def _probability(logit: float) -> float:
    """Turn a logit into a probability; a small one keeps all its digits."""
    odds = math.exp(-abs(logit))  # of a large positive number it would overflow
    return 1 / (1 + odds) if logit >= 0 else odds / (1 + odds)


def _what_p_values_say(verdict: Verdict, p_real: float, p_fake: float, alpha: float) -> str:
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
