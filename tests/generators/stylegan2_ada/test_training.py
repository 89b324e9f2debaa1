"""StyleGAN2-ADA's training learns, adapts, resumes to the same bytes, and refuses bad inputs."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from semforensics.core.images import read_crop
from semforensics.generators.generate_fakes import generate_fakes
from semforensics.generators.stylegan2_ada import training
from semforensics.generators.stylegan2_ada.configurations import configuration, resolve
from semforensics.generators.stylegan2_ada.training import (
    StyleGAN2State,
    average_decay,
    lazy_adam,
    new_state,
    take_step,
    train,
)
from semforensics.params import GenerateParams, GenerateStyleGAN2Params, StyleGAN2Params
from tests.generators.conftest import (
    CPU,
    Place,
    flatten,
    interrupted_after_saves,
    quiet_training,
    tiny_style,
)

MakePlace = Callable[[str], Place]


def fresh(params: StyleGAN2Params, n_real: int = 24) -> StyleGAN2State:
    """A state that has not begun."""
    return new_state(params, resolve(params, 64), 64, n_real, 0, CPU)


def train_state(
    state: StyleGAN2State, place: Place, params: StyleGAN2Params, n_real: int | None = None
) -> None:
    """Take the steps that are left, on the first reals, without publishing; watch few fakes."""
    material = replace(place.material, reals=place.material.reals[:n_real])
    configuration = resolve(params, 64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "NUM_WATCHED", 4)
        train(quiet_training(place.root / "scratch"), state, material, params, configuration, {})


@pytest.mark.parametrize(
    "changes", [{}, {"precision": "bfloat16"}, {"channels": 3, "augment": "bgcfnc"}],
    ids=["default", "bfloat16", "rgb"],
)  # fmt: skip
def test_two_steps_and_two_more_are_four(
    make_place: MakePlace, tmp_path: Path, changes: dict[str, Any]
) -> None:
    """Saved, loaded into fresh networks and continued, a training ends bit for bit the same.

    Adam's moments, p and what it has observed, the mean path length, the mean style, the sampler
    and the random state among it.
    """
    place = make_place("place")
    params = tiny_style(kimg=0.016, log_every=3, snapshot_every=100, ada_every=3, **changes)
    straight, first, second = (fresh(params) for _ in range(3))

    train_state(straight, place, params)
    train_state(first, place, params.model_copy(update={"kimg": 0.008}))
    torch.save(first.state_dict(), tmp_path / "state.pt")
    second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    train_state(second, place, params)

    expected, found = flatten(straight.state_dict()), flatten(second.state_dict())
    compared = [n for n in expected if n.split(".")[1] not in ("window", "rows", "snapshots")]
    assert {n.split(".")[1] for n in compared} >= {"ada", "path_length_mean", "rng", "sampler"}
    for name in compared:
        value, other = expected[name], found[name]
        same = torch.equal(value, other) if torch.is_tensor(value) else value == other
        assert same, name
    assert straight.path_length_mean > 0


def test_an_interrupted_training_ends_in_the_same_bytes(
    make_place: MakePlace, capsys: pytest.CaptureFixture[str]
) -> None:
    """Interrupted in the middle, and called again as before, it leaves the same outputs."""
    whole, killed = make_place("whole"), make_place("killed")

    with interrupted_after_saves(3):
        killed.train(tiny_style(kimg=0.02), seconds_between_saves=0)
    assert killed.outputs() == {}
    killed.train(tiny_style(kimg=0.02))
    assert "resuming at iteration 3 " in capsys.readouterr().err
    whole.train(tiny_style(kimg=0.02))

    assert "resuming" not in capsys.readouterr().err
    assert whole.outputs() == killed.outputs()
    assert not (killed.root / "scratch").exists()


def test_truncation_brings_fakes_together(make_place: MakePlace, tmp_path: Path) -> None:
    """With a small psi two fakes differ less; the parameters of another generator are refused."""
    place = make_place("place")
    place.train(tiny_style(kimg=0.008))
    spread = {}
    for psi in (1.0, 0.2):
        params = GenerateStyleGAN2Params(
            num_images=8, first_seed=0, snapshot="best", truncation_psi=psi
        )
        generate_fakes(place.root / "checkpoints", tmp_path / f"{psi}", params, device=CPU)
        files = sorted((tmp_path / f"{psi}").iterdir())
        spread[psi] = np.stack([read_crop(f).astype(float) for f in files]).std(axis=0).mean()

    assert spread[0.2] < 0.8 * spread[1.0]
    params = GenerateParams(num_images=1, first_seed=0, snapshot="last")
    with pytest.raises(ValueError, match="holds StyleGAN2-ADA, expected FastGAN"):
        generate_fakes(place.root / "checkpoints", tmp_path / "no", params, device=CPU)
    assert not (tmp_path / "no").exists()


def test_p_rises_where_the_discriminator_remembers_its_reals(make_place: MakePlace) -> None:
    """Four images shown again and again bring r_t and p up; p stays below its bound."""
    place = make_place("place")
    params = tiny_style(
        kimg=0.1, log_every=4, snapshot_every=1000, lr=0.01, ada_target=0.0, ada_kimg=0.1,
        ada_p_max=0.5, mirror=False,
    )  # fmt: skip
    state = fresh(params, 4)

    train_state(state, place, params, 4)

    p = [row["p"] for row in state.rows]
    assert p[0] <= 0.16
    assert max(p) > 0.3
    assert max(p) <= 0.5


def test_every_parameter_learns(make_place: MakePlace) -> None:
    """After one step no weight of either network stands where it began, but the average's lags."""
    place = make_place("place")
    params = tiny_style(kimg=0.004, snapshot_every=100)
    state, untouched = fresh(params), fresh(params)

    train_state(state, place, params)

    for network in ("generator", "discriminator"):
        before = dict(getattr(untouched, network).named_parameters())
        for name, parameter in getattr(state, network).named_parameters():
            assert not torch.equal(parameter, before[name]), f"{network}.{name}"
    live, average = (dict(n.named_parameters()) for n in (state.generator, state.average))
    start = dict(untouched.generator.named_parameters())
    decay = average_decay(1, resolve(params, 64))
    for name, parameter in average.items():
        torch.testing.assert_close(parameter, live[name].lerp(start[name], decay))
    torch.testing.assert_close(state.average.mapping.w_avg, state.generator.mapping.w_avg)


def test_penalties_in_bf16_training_push_as_in_float32(
    make_place: MakePlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the processor makes of a convolution that goes backward twice in bfloat16."""
    place = make_place("place")
    pushes: dict[str, list[Tensor]] = {"float32": [], "bfloat16": []}

    def gather(optimizer: torch.optim.Adam, loss: Tensor) -> None:
        optimizer.zero_grad()
        loss.backward()
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"]]
        pushes[params.precision].append(
            torch.cat([g.flatten() for g in gradients if g is not None])
        )

    monkeypatch.setattr(training, "descend", gather)
    for precision in pushes:
        params = tiny_style(precision=precision, batch=8, channel_max=32, augment="none")
        take_step(fresh(params), place.material.reals, params, resolve(params, 64))

    _, path_length, _, r1 = pushes["float32"]
    _, rough_path_length, _, rough_r1 = pushes["bfloat16"]
    assert float(torch.cosine_similarity(path_length, rough_path_length, dim=0)) > 0.98
    assert float(torch.cosine_similarity(r1, rough_r1, dim=0)) > 0.98


def test_average_ramps_up() -> None:
    """The half-life of the average is a twentieth of what was shown, until the table's bound."""
    auto = configuration("auto", 256)

    assert average_decay(1, auto) == pytest.approx(0.5 ** (1 / 0.05))
    assert average_decay(10**6, auto) == pytest.approx(0.5 ** (16 / 5000))
    assert average_decay(1, configuration("paper256", 256)) == pytest.approx(0.5 ** (64 / 20000))


def test_adam_is_corrected_for_lazy_penalties() -> None:
    """Rates and decays are those for k + 1 steps in the place of k."""
    network = torch.nn.Linear(2, 2)

    lazy, plain = lazy_adam(network, 0.0025, 16), lazy_adam(network, 0.0025, None)

    assert lazy.defaults["lr"] == pytest.approx(0.0025 * 16 / 17)
    assert lazy.defaults["betas"] == pytest.approx((0, 0.99 ** (16 / 17)))
    assert plain.defaults["lr"] == 0.0025
    assert plain.defaults["betas"] == (0, 0.99)


def test_gradients_that_are_not_finite_are_replaced() -> None:
    """A loss with an infinite slope still moves the weight by a finite step."""
    weight = torch.nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.Adam([weight], 0.1)

    training.descend(optimizer, (weight * torch.tensor([float("inf"), 1.0])).sum())

    assert weight.grad.tolist() == [1e5, 1]
    assert weight.tolist() == pytest.approx([-0.1, -0.1])


def test_inputs_are_refused_before_training(make_place: MakePlace) -> None:
    """Missing weights and groups that do not divide the batch are named at once."""
    place = make_place("place")

    with pytest.raises(FileNotFoundError, match=r"vgg\.safetensors: no such file"):
        place.train(tiny_style(perceptual_net="vgg"))
    with pytest.raises(ValueError, match="groups of 3 do not divide a batch of 4"):
        place.train(tiny_style(mbstd_group=3))
    with pytest.raises(ValueError, match=r"crops of 48 px, StyleGAN2-ADA takes"):
        training.check_size(48, Path("cropped"))
    assert place.outputs() == {}
