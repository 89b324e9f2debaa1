"""The word of a second model on a panel that a first one has judged.

The first knows one kind of micrograph well; the second knows many, and suspects fewer generated
panels. So the second is asked where the first would call a panel consistent, and must not
contradict; and where the first knows nothing of a panel, and then its suspicion counts. Nothing
else changes what the first says: no panel becomes consistent by the second.
"""

from dataclasses import replace

from semforensics.screening.records import Finding

LEAST_P_REAL = 0.2
"""A panel is not called consistent where the second's p-value as a real is this or less: of real
panels like those of its calibration about so many lose the word."""

MOST_TILES = 6
"""Of a panel that it judges, spread evenly: more tell it nothing more, since what separates one
collection from another is the same in all tiles of a panel (power.csv of its calibration)."""

_WHO = "a second model, which knows micrographs of many instruments,"


def is_asked(first: Finding) -> bool:
    """Whether a second model is asked about a panel."""
    return first.verdict == "consistent" or first.is_known is False


def join(first: Finding, second: Finding, *, denoised: bool = False) -> Finding:
    """Return what both say together.

    Args:
        first: About which `is_asked`.
        second: Of the same panel.
        denoised: The panel looks so. The second's calibration holds no denoised reals, and it
            suspects some of them.
    """
    if not second.is_known or second.p_real is None:
        return first
    p_real = f"(p = {second.p_real:.3f})"
    if first.verdict == "consistent":
        if second.p_real > LEAST_P_REAL:
            says = f"{_WHO} does not contradict {p_real}"
            reason = f"{first.reason} {says[0].upper()}{says[1:]}."
            return replace(first, reason=reason, second_p_real=second.p_real)
        reason = f"Its score is that of a real micrograph, but {_WHO} finds it unusual for one"
        return replace(
            first,
            verdict="inconclusive",
            reason=f"{reason} {p_real}.",
            second_p_real=second.p_real,
        )
    if second.verdict == "ai-suspected" and denoised:
        says = (
            f"{_WHO} would suspect it {p_real}, but its pixels repeat their neighbours as after"
            " denoising, and that model was calibrated on no denoised images"
        )
        reason = f"{first.reason} {says[0].upper()}{says[1:]}."
        return replace(first, reason=reason, second_p_real=second.p_real)
    if second.verdict == "ai-suspected":
        reason = f"{second.reason} This is the word of {_WHO} for the first knows no such images."
        return replace(second, reason=reason, by_second=True, second_p_real=second.p_real)
    says = f"{_WHO} does not suspect it {p_real}"
    reason = f"{first.reason} {says[0].upper()}{says[1:]}"
    if second.power is not None:
        reason += f"; of generated panels like it, it would suspect {second.power:.0%}"
    return replace(first, reason=f"{reason}.", second_p_real=second.p_real)
