"""FastGAN's training learns, resumes to the same bytes, and refuses what it cannot train on."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from semforensics.generators.fastgan import training
from semforensics.generators.fastgan.training import (
    FastGANState,
    augment_fakes,
    augment_reals,
    new_state,
    shrink,
    targets,
    train,
)
from semforensics.params import FastGANParams
from semforensics.perceptual.lpips import LPIPS
from tests.generators.conftest import (
    CPU,
    Place,
    flatten,
    place_in,
    quiet_training,
    tiny,
)

MakePlace = Callable[[str], Place]

KILLED = """
import sys
from pathlib import Path
import torch
from tests.generators.conftest import Place, tiny
torch.set_num_threads({threads})
Place(Path({root!r})).train(tiny(iterations=6), seconds_between_saves=0)
"""


@pytest.fixture(scope="module")
def two_iterations(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """What a training of two iterations leaves."""
    place = place_in(tmp_path_factory.mktemp("two_iterations"))
    place.train(tiny(iterations=2))
    return place


def train_state(state: FastGANState, place: Place, params: FastGANParams) -> None:
    """Take the steps that are left, without publishing, and watch a few fakes only."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "NUM_WATCHED", 4)
        train(quiet_training(place.root / "scratch"), state, place.material, params, {})


@pytest.mark.parametrize(
    "changes",
    [{}, {"precision": "bfloat16"}, {"r1_gamma": 1.0}, {"channels": 3}],
    ids=["default", "bfloat16", "r1", "rgb"],
)
def test_two_steps_and_two_more_are_four(
    make_place: MakePlace, tmp_path: Path, changes: dict[str, Any]
) -> None:
    """Saved, loaded into fresh networks and continued, a training ends bit for bit the same."""
    place = make_place("place")
    params = tiny(iterations=4, log_every=3, snapshot_every=100, **changes)
    straight, first, second = (new_state(params, 64, 24, 0, CPU) for _ in range(3))

    train_state(straight, place, params)
    train_state(first, place, params.model_copy(update={"iterations": 2}))
    torch.save(first.state_dict(), tmp_path / "state.pt")
    first.rows.pop()  # the row at the end of the shorter training
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    second.load_state_dict(state)
    train_state(second, place, params)

    weights = ("generator", "discriminator", "average", "optimizer_g", "optimizer_d", "rng")
    expected, found = flatten(straight.state_dict()), flatten(second.state_dict())
    for name, value in expected.items():
        if name.split(".")[1] in weights:
            other = found[name]
            same = torch.equal(value, other) if torch.is_tensor(value) else value == other
            assert same, name


@pytest.mark.timeout(240)
def test_a_killed_training_ends_in_the_same_bytes(
    make_place: MakePlace, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """After kill -9 in the middle and the same call again every output is the same."""
    whole, killed = make_place("whole"), make_place("killed")
    script = KILLED.format(threads=torch.get_num_threads(), root=str(killed.root))
    grid = killed.root / "scratch/grids/000004.png"

    process = subprocess.Popen([sys.executable, "-c", script], cwd=root, env=dict(os.environ))
    while not grid.exists():
        assert process.poll() is None, "ended before it could be killed"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert (killed.root / "scratch/state.pt").is_file()
    assert killed.outputs() == {}
    killed.train(tiny(iterations=6))
    resumed = capsys.readouterr().err
    whole.train(tiny(iterations=6))

    assert "resuming at iteration" in resumed
    assert "resuming" not in capsys.readouterr().err
    assert whole.outputs() == killed.outputs()
    assert not (killed.root / "scratch").exists()


def test_losses_fall_on_one_batch(make_place: MakePlace) -> None:
    """On four images that are shown again and again, the reconstruction gets better and better."""
    place = make_place("place")
    params = tiny(iterations=40, batch=4, flip=False, log_every=10, snapshot_every=1000, lr=0.002)
    state = new_state(params, 64, 4, 0, CPU)
    four = replace(place.material, reals=place.material.reals[:4])

    train(quiet_training(place.root / "s"), state, four, params, {})

    first, *_, last = (row["loss_reconstruction"] for row in state.rows)
    assert last < 0.7 * first
    assert state.rows[-1]["logit_real"] > state.rows[-1]["logit_fake"]


def test_another_seed_gives_another_generator(make_place: MakePlace, two_iterations: Place) -> None:
    """The seed decides: the same one gives the same bytes, another one others."""
    same, other = make_place("same"), make_place("other")

    same.train(tiny(iterations=2), seed=0)
    other.train(tiny(iterations=2), seed=1)

    a, b, c = (
        place.outputs()["checkpoints/generator.safetensors"]
        for place in (two_iterations, same, other)
    )
    assert a == b != c


def test_state_of_other_parameters_is_not_resumed(
    make_place: MakePlace, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A state left by a training with another learning rate is not used; a longer one is."""
    place = make_place("place")
    params = tiny(iterations=2)
    with monkeypatch.context() as patch:
        patch.setattr(training, "publish", lambda *_: None)  # as if killed at the end
        place.train(params)

    with monkeypatch.context() as patch:
        patch.setattr(training, "publish", lambda *_: None)
        place.train(params.model_copy(update={"lr": 0.001}))
    said = capsys.readouterr().err
    assert f"in {place.root / 'scratch'} belongs to other parameters: starting anew" in said
    assert "resuming" not in said
    place.train(params.model_copy(update={"lr": 0.001, "iterations": 3}))
    assert "resuming at iteration 2" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("code", "other code"),
        ("torch", f"torch {torch.__version__} (now 9.9.9)"),
        ("garbage", "state.pt is not the state of a training"),
    ],
)
def test_a_state_that_does_not_belong_starts_the_training_anew(
    make_place: MakePlace,
    two_iterations: Place,
    change_source: Callable[[str], None],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    change: str,
    reason: str,
) -> None:
    """Killed before, resumed after a change of code or torch, or a damaged file: as never begun."""
    whole, killed = two_iterations, make_place("killed")
    with monkeypatch.context() as patch:
        patch.setattr(training, "publish", lambda *_: None)  # as if killed at the end
        killed.train(tiny(iterations=2))
    (killed.root / "scratch/notes.txt").write_text("mine")

    match change:
        case "code":
            change_source("generators/fastgan/losses.py")
        case "torch":
            monkeypatch.setattr(torch, "__version__", "9.9.9")
            whole = make_place("whole")  # says which version made it
            whole.train(tiny(iterations=2))
        case "garbage":
            (killed.root / "scratch/state.pt").write_bytes(b"PK" + bytes(500))
    capsys.readouterr()
    killed.train(tiny(iterations=2))
    said = capsys.readouterr().err

    assert f"{reason}: starting anew" in said
    assert "resuming" not in said
    assert killed.outputs() == whole.outputs()
    assert [path.name for path in (killed.root / "scratch").iterdir()] == ["notes.txt"]


def test_inputs_are_refused_before_training(make_place: MakePlace) -> None:
    """Missing weights, too few images, wrong sizes and contradictions are named at once."""
    place = make_place("place")

    with pytest.raises(ValueError, match="18 training images, need at least a batch of 19"):
        place.train(tiny(batch=19))
    with pytest.raises(FileNotFoundError, match=r"vgg\.safetensors: no such file"):
        place.train(tiny(perceptual_net="vgg"))
    (place.root / "pretrained/vgg.safetensors").symlink_to("alex.safetensors")
    with pytest.raises(ValueError, match=r"vgg\.safetensors: holds the weights of alex"):
        place.train(tiny(perceptual_net="vgg"))
    assert place.outputs() == {}


def test_reference_refuses_what_the_original_is_not() -> None:
    """In `reference` mode other values than the original's are refused, each by its name."""
    with pytest.raises(ValueError, match=r"channels must be 3.*perceptual_net must be vgg"):
        tiny(reference=True)


REFERENCE = tiny(
    reference=True,
    channels=3,
    perceptual_net="vgg",
    batch=2,
    reconstruction_weight=2,
    tanh=False,
    ngf=8,
    ndf=8,
    iterations=1,
    snapshot_every=10,
)


def test_reference_mode_begins_at_256_px() -> None:
    """Smaller crops are refused in `reference` mode, and so is a squashed output."""
    with pytest.raises(ValueError, match="crops of 128 px; the original begins at 256 px"):
        training.check_inputs(REFERENCE, 8, 128, Path("cropped"))
    squashed = REFERENCE.model_copy(update={"tanh": True})
    with pytest.raises(ValueError, match="the original squashes at 1024 px only"):
        training.check_inputs(squashed, 8, 256, Path("cropped"))


def test_reference_mode_starts_without_power_steps_and_averages_without_ramp() -> None:
    """The original's average keeps 0.999 of its start at every step, the first included."""
    state = new_state(REFERENCE, 256, 4, 0, CPU)
    start = state.average.to_big.weight.detach().clone()
    reals = torch.randint(0, 256, (4, 1, 256, 256), dtype=torch.uint8)
    torch.manual_seed(0)

    # A small trunk: the reconstructions have no part in it.
    training.take_step(state, reals, LPIPS("alex"), REFERENCE)

    live = state.generator.to_big.weight.detach()
    torch.testing.assert_close(
        state.average.to_big.weight.detach(), 0.999 * start + 0.001 * live, rtol=1e-5, atol=1e-8
    )
    assert bool(torch.isfinite(state.window).all())


def rng_of(seed: int) -> torch.Generator:
    """A random generator."""
    return torch.Generator().manual_seed(seed)


def test_reals_reach_the_small_scale_by_averaging_or_by_decimation() -> None:
    """Ours averages blocks of pixels; the original keeps every other pixel."""
    x = torch.rand(2, 1, 256, 256, generator=rng_of(0)) * 2 - 1

    ours = augment_reals(x, rng_of(1), reference=False)
    original = augment_reals(x, rng_of(1), reference=True)

    torch.testing.assert_close(shrink(ours.big, 128), ours.small)
    assert torch.equal(original.big[:, :, ::2, ::2], original.small)


def test_scales_of_fakes_are_augmented_alike_or_apart() -> None:
    """Ours gives both scales the same augmentation; the original draws for each."""
    x = torch.rand(2, 1, 256, 256, generator=rng_of(0)) * 2 - 1
    fakes = training.Pair(x, shrink(x, 128))

    ours = augment_fakes(fakes, rng_of(1), reference=False)
    original = augment_fakes(fakes, rng_of(1), reference=True)

    torch.testing.assert_close(shrink(ours.big, 128), ours.small)
    assert float((shrink(original.big, 128) - original.small).abs().mean()) > 0.05


def test_targets_are_the_augmented_real_and_its_quadrant() -> None:
    """At 256 px the quadrant has the decoder's size already."""
    x = torch.rand(1, 1, 256, 256, generator=rng_of(0)) * 2 - 1
    pair = augment_reals(x, rng_of(1), reference=False)

    whole, part = targets(pair, 1, reference=False)

    assert torch.equal(whole, pair.small)
    assert torch.equal(part, pair.big[:, :, :128, 128:])
