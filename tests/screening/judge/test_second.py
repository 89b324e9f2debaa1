"""The word of a second model: when it is asked, and what it changes."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from tests.screening.small_model import doubled, original

from semforensics.screening.judge.second import LEAST_P_REAL, is_asked, join
from semforensics.screening.records import Finding
from semforensics.screening.screener import Screener

CONSISTENT = Finding("consistent", "Its score is usual.", 4, p_real=0.6, is_known=True)
UNKNOWN = Finding("inconclusive", "It says nothing.", 4, p_real=0.6, is_known=False)
SUSPECTED = Finding("ai-suspected", "Unusual for a real.", 4, p_real=0.01, is_known=True)
USUAL = Finding("inconclusive", "Usual for both.", 4, p_real=0.5, is_known=True, power=0.19)


@pytest.mark.parametrize(
    ("first", "asked"),
    [
        (CONSISTENT, True),
        (UNKNOWN, True),
        (SUSPECTED, False),
        (USUAL, False),
        (Finding("refused", "Too small."), False),
        (Finding("inconclusive", "No square is free."), False),
    ],
)
def test_it_is_asked_before_a_consistent_and_where_the_first_knows_nothing(
    first: Finding, asked: bool
) -> None:
    """A suspicion of the first stands, and so does its doubt."""
    assert is_asked(first) is asked


@pytest.mark.parametrize(("p_real", "stays"), [(LEAST_P_REAL, False), (LEAST_P_REAL + 0.01, True)])
def test_a_consistent_panel_needs_its_agreement(p_real: float, stays: bool) -> None:
    """Where it contradicts, the panel is inconclusive; both p-values are told."""
    found = join(CONSISTENT, replace(USUAL, p_real=p_real))

    assert found.verdict == ("consistent" if stays else "inconclusive")
    assert (found.p_real, found.second_p_real, found.by_second) == (0.6, p_real, False)
    assert f"(p = {p_real:.3f})" in found.reason
    assert ("does not contradict" if stays else "finds it unusual for one") in found.reason


def test_its_suspicion_counts_where_the_first_knows_nothing() -> None:
    """The numbers are its own; else it leaves the verdict and says how little that means."""
    suspected, usual = join(UNKNOWN, SUSPECTED), join(UNKNOWN, USUAL)

    assert (suspected.verdict, suspected.by_second, suspected.p_real) == (
        "ai-suspected",
        True,
        0.01,
    )
    assert "the word of a second model" in suspected.reason
    assert (usual.verdict, usual.by_second, usual.second_p_real) == ("inconclusive", False, 0.5)
    assert usual.reason.startswith("It says nothing. A second model")
    assert "it would suspect 19%" in usual.reason


def test_its_suspicion_does_not_count_where_a_panel_looks_denoised() -> None:
    """It was calibrated on no such reals; the reason says so, and a contradiction stays."""
    found = join(UNKNOWN, SUSPECTED, denoised=True)

    assert (found.verdict, found.by_second, found.second_p_real) == ("inconclusive", False, 0.01)
    assert "would suspect it (p = 0.010), but its pixels repeat" in found.reason
    assert join(CONSISTENT, SUSPECTED, denoised=True).verdict == "inconclusive"


@pytest.mark.parametrize("first", [CONSISTENT, UNKNOWN])
@pytest.mark.parametrize(
    "second", [replace(SUSPECTED, is_known=False), Finding("refused", "small")]
)
def test_nothing_changes_where_it_knows_nothing(first: Finding, second: Finding) -> None:
    """Neither its suspicion nor a refusal counts then."""
    assert join(first, second) == first


@dataclass
class Stand:
    """A second model that says one thing of every panel, and keeps what it was asked."""

    says: Finding
    asked: list[Any]

    def judge(self, panels: list[Any], **_: Any) -> list[Finding]:
        """Say it."""
        self.asked.append(panels)
        return [self.says] * len(panels)


def test_a_screener_asks_it_once_and_only_where_it_is_asked(screener: Screener) -> None:
    """Of a real, a generated and an unknown panel, the first and the last in one call."""
    panels = [original(6), doubled(original(6)), np.full((128, 128), 77, np.uint8)]
    before = screener.judge(panels)
    second = Stand(replace(USUAL, p_real=0.1), [])

    found = replace(screener, second=second).judge(panels)  # type: ignore[arg-type]

    assert [finding.verdict for finding in before] == ["consistent", "ai-suspected", "inconclusive"]
    assert before[2].is_known is False
    assert [finding.verdict for finding in found] == [
        "inconclusive",
        "ai-suspected",
        "inconclusive",
    ]
    (asked,) = second.asked
    assert [panel.grey.shape for panel in asked] == [panels[0].shape, panels[2].shape]
    assert found[1] == before[1]
    alone = replace(screener, second=second)  # type: ignore[arg-type]
    assert alone.judge(panels, alone=True) == before


def test_few_tiles_of_a_panel_may_be_enough(screener: Screener) -> None:
    """A limit is kept, spread over the panel; a panel of fewer is judged as without it."""
    few = replace(screener, most_tiles=16)
    panel, small = original(6), original(6)[:128, :128]

    found = few.judge([panel, small])

    assert [finding.n_tiles for finding in found] == [16, 4]
    assert found[1] == screener.judge([small])[0]
    assert found[0].verdict == "inconclusive", "most of its area was not judged"
    assert found[0].share_judged == pytest.approx(16 / 35, abs=0.05)
