"""Controls see maps that ignore the weights, and measure how compact a map is."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from semforensics.detector.networks import NPRNetwork, build_network
from semforensics.trials import gradcam_controls
from semforensics.trials.gradcam_controls import (
    STEPS,
    compare_compactness,
    decide_claim,
    half_mass_share,
    join_results,
    mean_resamples,
    randomisation_control,
    randomised,
    rank_correlation,
)

CPU = torch.device("cpu")


def network(seed: int = 0) -> NPRNetwork:
    """Fresh weights."""
    torch.manual_seed(seed)
    return build_network("npr_tiny", 1).eval()


def images(count: int = 3) -> torch.Tensor:
    """Uniform noise."""
    rng = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 1, 32, 32), generator=rng, dtype=torch.uint8)


def test_a_constant_map_needs_half_of_its_pixels_and_a_point_half_of_itself() -> None:
    """The share runs from half a pixel to half of all; a map without mass has none."""
    maps = torch.zeros(4, 4, 8)
    maps[0] = 7
    maps[1, 2, 3] = 5
    maps[2, 0, :2] = torch.tensor([3.0, 1.0])

    shares = half_mass_share(maps)

    np.testing.assert_allclose(shares[:3], [0.5, 0.5 / 32, (2 / 3) / 32])
    assert np.isnan(shares[3])


@given(st.lists(st.integers(0, 50), min_size=12, max_size=12).filter(any))
def test_compactness_is_blind_to_scale_and_place(values: list[int]) -> None:
    """Where the mass lies and in what unit does not matter; the share is never above one half."""
    maps = torch.tensor(values, dtype=torch.float32).reshape(1, 3, 4)

    share = half_mass_share(maps)[0]

    assert 0 < share <= 0.5
    assert half_mass_share(8 * maps.flip(2))[0] == pytest.approx(share)


def test_rank_correlation_is_spearmans() -> None:
    """A growing function keeps it at 1, a falling one turns it to -1."""
    rng = torch.Generator().manual_seed(0)
    maps = torch.rand(2, 5, 5, generator=rng)

    assert rank_correlation(maps, maps.exp()) == pytest.approx([1, 1])
    assert rank_correlation(maps, -(maps**3)) == pytest.approx([-1, -1])


def test_a_map_that_vanishes_is_uncorrelated_and_one_that_was_empty_says_nothing() -> None:
    """A constant map has no order to agree with."""
    rng = torch.Generator().manual_seed(0)
    some, none = torch.rand(1, 5, 5, generator=rng), torch.zeros(1, 5, 5)

    assert rank_correlation(some, none) == [0]
    assert np.isnan(rank_correlation(none, some)).all()


@pytest.mark.parametrize("step", STEPS)
def test_weights_are_drawn_anew_down_to_a_part_and_no_further(step: str) -> None:
    """The parts above and the part itself change, the parts below and the network do not."""
    net = network()
    before = {key: value.clone() for key, value in net.state_dict().items()}

    state = torch.random.get_rng_state()
    changed = randomised(net, "npr_tiny", step, 7).state_dict()

    parts = {"fc1": "fc1", "layer2": "layer2", "layer1": "layer1", "stem": "conv1"}
    for index, (name, part) in enumerate(parts.items()):
        keys = [k for k in before if k.startswith(f"{part}.") and k.endswith("weight")]
        convolutions = [k for k in keys if before[k].ndim > 1]
        same = [torch.equal(before[k], changed[k]) for k in convolutions]
        assert same == [index > STEPS.index(step)] * len(convolutions), name
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert torch.equal(state, torch.random.get_rng_state())


def test_the_control_fails_maps_that_ignore_the_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """A map of edges passes for an explanation until the weights are drawn anew."""
    shown = {"real": images(), "fake": images().flip(3)}
    groups = {"real": ["a", "a", "b"], "fake": ["c", "d", "e"]}
    arguments = (network(), "npr_tiny", shown, groups, 100, 0, CPU)

    honest = randomisation_control(*arguments)

    def edges(_network, pixels, _sign, _device):
        return pixels[:, 0].float().diff(dim=1).abs()

    monkeypatch.setattr(gradcam_controls, "explain_images", edges)
    blind = randomisation_control(*arguments)

    assert [step["fresh_from_logit_to"] for step in blind.steps] == list(STEPS)
    assert [step["real"] for step in blind.steps] == pytest.approx([1.0] * 4)
    assert not blind.passed
    assert honest.passed
    assert abs(honest.steps[-1]["fake"]) < 0.5


@pytest.mark.parametrize(
    ("real", "fake", "expected"),
    [(0.1, 0.4, "supported"), (0.4, 0.1, "not supported"), (0.3, 0.3, "undecided")],
)
def test_the_claim_is_judged_by_the_interval(real: float, fake: float, expected: str) -> None:
    """Reals that are more compact support it, fakes that are refute it, neither leaves it open."""
    rng = np.random.default_rng(0)
    shares = {"real": real + rng.normal(0, 0.02, 40), "fake": fake + rng.normal(0, 0.02, 40)}
    groups = {"real": [f"g{i % 8}" for i in range(40)], "fake": [f"f{i}" for i in range(40)]}

    numbers = compare_compactness(shares, groups, 500, 0)

    assert numbers["verdict"] == expected
    assert numbers["difference_low"] < real - fake < numbers["difference_high"]
    assert numbers["difference"] == pytest.approx(numbers["real"] - numbers["fake"])


def test_a_class_without_maps_leaves_the_claim_open() -> None:
    """Zero maps are counted, never averaged; without any other the numbers are NaN."""
    shares = {"real": np.array([np.nan, np.nan]), "fake": np.array([0.2, np.nan])}
    groups = {"real": ["a", "b"], "fake": ["c", "d"]}

    numbers = compare_compactness(shares, groups, 100, 0)

    assert np.isnan(numbers["real"])
    assert np.isnan(numbers["difference_high"])
    assert numbers["fake"] == 0.2
    assert (numbers["zero_real"], numbers["zero_fake"]) == (2, 1)
    assert numbers["verdict"] == "undecided"


def test_few_groups_widen_the_interval_of_a_mean() -> None:
    """The same values in two groups say less than in twenty."""
    rng = np.random.default_rng(0)
    values = np.repeat(rng.normal(size=2), 10)

    widths = []
    for groups in (["a"] * 10 + ["b"] * 10, [str(i) for i in range(20)]):
        _, resampled = mean_resamples(values, groups, 1000, np.random.default_rng(1))
        widths.append(np.ptp(np.quantile(resampled, [0.025, 0.975])))

    assert widths[0] > 1.5 * widths[1]


def test_bounds_on_zero_leave_the_claim_open() -> None:
    """A bound that touches 0 decides nothing."""
    assert decide_claim((-0.2, 0.0)) == "undecided"
    assert decide_claim((0.0, 0.2)) == "undecided"


@pytest.mark.parametrize(
    ("results", "expected"),
    [
        (["supported", "supported"], "supported"),
        (["undecided", "supported"], "undecided"),
        (["not supported", "supported"], "not supported"),
    ],
)
def test_a_claim_must_hold_for_both_signs(results: list, expected: str) -> None:
    """One sign alone supports nothing, and one against it is enough."""
    assert join_results(results) == expected
