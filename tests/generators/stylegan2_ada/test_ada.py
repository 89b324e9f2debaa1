"""The controller steers p by the signs of the logits of reals."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from semforensics.generators.stylegan2_ada.ada import AdaController

STEP = 8 * 4 / 500_000


def logits_of(positive: int, negative: int) -> torch.Tensor:
    """Logits of various sizes, so many above and so many below 0."""
    return torch.cat([torch.linspace(0.1, 9, positive), -torch.linspace(0.1, 9, negative)])


def test_p_rises_with_a_confident_discriminator() -> None:
    """Where r_t exceeds its target, p grows by its speed."""
    ada = AdaController(p=0.1)
    ada.observe(logits_of(8, 0))

    r = ada.update(batch=8)

    assert r == ada.r == 1
    assert ada.p == 0.1 + STEP


def test_p_falls_with_an_unsure_discriminator() -> None:
    """Where r_t is below its target, p shrinks by its speed, but not below 0."""
    ada = AdaController(p=1.5 * STEP)

    for expected in (0.5 * STEP, 0.0, 0.0):
        ada.observe(logits_of(4, 4))
        assert ada.update(batch=8) == 0
        assert ada.p == pytest.approx(expected, abs=1e-15)


def test_p_rests_at_the_target() -> None:
    """Eight of ten logits above 0 are r_t 0.6: nothing to correct."""
    ada = AdaController(p=0.3)
    ada.observe(logits_of(8, 2))

    assert ada.update(batch=8) == 0.6
    assert ada.p == 0.3


def test_r_is_the_mean_sign_since_the_last_update() -> None:
    """Every logit counts once, whatever its size and batch; 0 counts as neither; then anew."""
    ada = AdaController()
    for logits in (logits_of(3, 1), logits_of(0, 2), torch.zeros(2, 1)):
        ada.observe(logits)

    assert ada.update(batch=8) == 0
    ada.observe(logits_of(1, 0))
    assert ada.update(batch=8) == 1


def test_p_stops_at_its_bound_and_says_so() -> None:
    """The last step is cut short; without a bound p goes on, beyond 1 too."""
    bound, free = AdaController(p=0.8 - STEP / 2), AdaController(p=1.0, p_max=None)
    assert not bound.is_at_bound

    for ada in (bound, free):
        ada.observe(logits_of(8, 0))
        ada.update(batch=8)

    assert bound.p == 0.8
    assert bound.is_at_bound
    assert free.p == 1.0 + STEP
    assert not free.is_at_bound


@given(
    counts=st.lists(st.tuples(st.integers(0, 9), st.integers(1, 9)), min_size=1, max_size=30),
    batch=st.integers(1, 100_000),
)
def test_p_stays_between_0_and_its_bound(counts: list[tuple[int, int]], batch: int) -> None:
    """However large the steps."""
    ada = AdaController()

    for positive, negative in counts:
        ada.observe(logits_of(positive, negative))
        assert -1 <= ada.update(batch) <= 1
        assert 0 <= ada.p <= 0.8


def test_a_resumed_controller_goes_on_exactly(tmp_path: Path) -> None:
    """Saved between two updates and read from a file, it gives the same p and r_t."""
    generator = torch.Generator().manual_seed(0)
    batches = [torch.randn(8, generator=generator) + 0.8 for _ in range(40)]
    whole, resumed = AdaController(p=0.2), AdaController(p=0.2)
    course = []

    for step, logits in enumerate(batches):
        whole.observe(logits)
        resumed.observe(logits)
        if step == 17:  # between two updates
            torch.save(resumed.state_dict(), tmp_path / "state.pt")
            resumed = AdaController()
            resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
        if step % 4 == 3:
            assert resumed.update(batch=8) == whole.update(batch=8)
            assert resumed.p == whole.p
            course.append(whole.p)

    assert min(course) < max(course)


def test_a_state_is_a_copy() -> None:
    """Going on changes neither a saved state nor the controller it came from."""
    first, second = AdaController(), AdaController()
    first.observe(logits_of(2, 1))
    state = first.state_dict()
    second.load_state_dict(state)

    second.observe(logits_of(0, 5))

    assert first.signs.tolist() == state["signs"].tolist() == [1, 3]
    assert second.signs.tolist() == [-4, 8]


def test_signs_of_several_processes_add_up() -> None:
    """The sum of two controllers' signs gives r_t of all their logits."""
    one, other, all_ = AdaController(), AdaController(), AdaController()
    one.observe(logits_of(5, 1))
    other.observe(logits_of(1, 3))
    all_.observe(logits_of(6, 4))

    one.signs += other.signs

    assert one.update(batch=8) == all_.update(batch=8)


def test_an_update_needs_logits() -> None:
    """There is no mean sign of nothing, nor of what is not a number."""
    ada = AdaController()
    with pytest.raises(ValueError, match="no logits of reals"):
        ada.update(batch=8)

    ada.observe(torch.tensor([1.0, float("nan")]))
    with pytest.raises(ValueError, match="not a number"):
        ada.update(batch=8)


@pytest.mark.parametrize(
    "settings", [{"p": 0.9}, {"p": -0.1}, {"speed_kimg": 0.0}, {"interval": 0}]
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, float]) -> None:
    """P outside its bounds; no speed; no interval."""
    with pytest.raises(ValueError, match="expected"):
        AdaController(**settings)
