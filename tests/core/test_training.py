"""An unfinished training is resumed by the training it belongs to only; others say why not."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.generators.conftest import setup_in

from semforensics.core.training import (
    EndlessPermutations,
    MeasuredState,
    Training,
    TrainingState,
    describe_difference,
    fingerprint,
    make_stamp,
)

CPU = torch.device("cpu")
MODULE = "semforensics.generators.fastgan.training"


@dataclass(kw_only=True)
class SmallState(MeasuredState):
    """Something of every kind that a state holds."""

    columns = ("loss",)
    network: torch.nn.Module
    optimizer: torch.optim.Optimizer
    rng: torch.Generator
    sampler: EndlessPermutations
    mean: torch.Tensor


def small_state(seed: int = 0) -> SmallState:
    """Fresh weights, and all that goes with them."""
    torch.manual_seed(seed)
    network = torch.nn.Linear(3, 1)
    rng = torch.Generator().manual_seed(seed)
    return SmallState(
        window=torch.zeros(2, 1),
        network=network,
        optimizer=torch.optim.Adam(network.parameters(), 0.1),
        rng=rng,
        sampler=EndlessPermutations(7, rng),
        mean=torch.zeros(()),
    )


def step(state: SmallState) -> None:
    """Change everything."""
    loss = (state.network(torch.randn(4, 3, generator=state.rng)) - state.sampler.take(3)[0]) ** 2
    state.optimizer.zero_grad()
    loss.mean().backward()
    state.optimizer.step()
    state.mean = state.mean.lerp(loss.mean().detach(), 0.1)
    state.iteration += 1
    state.measure({"loss": loss.mean()})
    if state.iteration % 2 == 0:
        state.log()


def training_in(scratch: Path, **stamp: str) -> Training:
    """The frame of a training with some parts of its stamp changed."""
    data = torch.zeros(2, dtype=torch.uint8)
    own = make_stamp(MODULE, {"lr": 1}, data, device=CPU)
    return Training("small", setup_in(scratch), own | stamp)


def resumed(training: Training, length: int = 100) -> TrainingState:
    """A fresh state after resuming."""
    state = small_state(seed=1)
    training.resume(state, length)
    return state


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A scratch folder with a state of three steps."""
    state = small_state()
    for _ in range(3):
        step(state)
    training_in(tmp_path / "scratch").save(state)
    return tmp_path / "scratch"


def test_a_resumed_state_goes_on_exactly(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Networks, optimizers, random states, tensors, numbers and lists come back bit for bit."""
    whole, parts = small_state(), resumed(training_in(saved))
    for _ in range(6):
        step(whole)
    for _ in range(3):
        step(parts)

    assert f"resuming at iteration 3 from {saved}" in capsys.readouterr().err
    torch.testing.assert_close(parts.state_dict(), whole.state_dict(), rtol=0, atol=0)
    assert len(whole.rows) == 3


def test_without_a_state_nothing_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A first run begins in silence."""
    assert resumed(training_in(tmp_path)).iteration == 0

    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("stamp", "reason"),
    [
        ({"code": "0"}, "other code"),
        ({"parameters": "0"}, "other parameters"),
        ({"data": "0"}, "other data"),
        ({"torch": "1.0"}, f"torch {torch.__version__} (now 1.0)"),
        ({"numpy": "1.0"}, f"numpy {np.__version__} (now 1.0)"),
        ({"threads": "99"}, f"threads {torch.get_num_threads()} (now 99)"),
        ({"processes": "2"}, "processes 1 (now 2)"),
        ({"device": "cuda"}, "device cpu (now cuda)"),
        ({"code": "0", "data": "0", "processes": "2"}, "other code, other data, processes 1 (now"),
    ],
)
def test_the_state_of_another_training_is_named_and_not_used(
    saved: Path, capsys: pytest.CaptureFixture[str], stamp: dict[str, str], reason: str
) -> None:
    """Whatever differs is said in one sentence; the state is removed and the training new."""
    assert resumed(training_in(saved, **stamp)).iteration == 0

    said = capsys.readouterr().err
    assert said.startswith(f"the unfinished training in {saved} belongs to {reason}")
    assert said.endswith(": starting anew\n")
    assert said.count("\n") == 1
    assert not saved.exists()


def test_a_longer_training_is_not_shortened(
    saved: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A state beyond the end is of another training."""
    assert resumed(training_in(saved), length=2).iteration == 0

    assert capsys.readouterr().err == (
        f"the unfinished training in {saved} is at iteration 3, beyond 2: starting anew\n"
    )


def no_stamp(path: Path) -> None:
    """Keep the state, drop the stamp."""
    torch.save({"state": torch.load(path, weights_only=True)["state"]}, path)


def old_stamp(path: Path) -> None:
    """A stamp that is a single hash."""
    torch.save(torch.load(path, weights_only=True) | {"stamp": "5e88"}, path)


DAMAGES: dict[str, Callable[[Path], Any]] = {
    "empty": lambda path: path.write_bytes(b""),
    "garbage": lambda path: path.write_bytes(bytes(range(256)) * 40),
    "text": lambda path: path.write_text("hello"),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-700]),
    "flipped": lambda path: path.write_bytes(
        path.read_bytes().replace(b"state", b"stamp", 3).replace(b"stamp", b"\xff\xfe\xfd\x80.", 2)
    ),
    "list": lambda path: torch.save([1, 2], path),
    "no stamp": no_stamp,
    "old stamp": old_stamp,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_no_state_is_named_and_not_used(
    saved: Path, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    """Damaged files and those of other programs end in one sentence, never in a traceback."""
    DAMAGES[damage](saved / "state.pt")

    assert resumed(training_in(saved)).iteration == 0

    assert capsys.readouterr().err == (
        f"{saved / 'state.pt'} is not the state of a training: starting anew\n"
    )


def test_a_file_that_cannot_be_read_is_an_error(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk's fault is no reason to throw a training away."""

    def fail(*_: object, **__: object) -> None:
        raise OSError("Input/output error")

    monkeypatch.setattr("torch.load", fail)
    with pytest.raises(OSError, match="Input/output"):
        resumed(training_in(saved))
    assert (saved / "state.pt").is_file()


@pytest.mark.parametrize("stamp", [{}, {"code": "0"}])
def test_files_of_others_stay(saved: Path, stamp: dict[str, str]) -> None:
    """Neither starting anew nor the end of a training removes what it has not written."""
    mine = [saved / name for name in ("notes.txt", "snapshots/best.txt", "grids/1/1.png")]
    own = [saved / name for name in (".state.17.part.pt", "snapshots/1.safetensors", "grids/1.png")]
    for path in mine:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine")
    own[1].parent.mkdir(exist_ok=True)
    (saved / "grids/1").rename(saved / "grids/one")
    mine[2] = saved / "grids/one/1.png"
    for path in own:
        path.write_text("left by a killed training")

    training = training_in(saved, **stamp)
    resumed(training)
    training.clear()

    assert all(path.read_text() == "mine" for path in mine)
    assert not any(path.exists() for path in own)
    assert not (saved / "state.pt").exists()


def test_a_state_of_a_gpu_is_read_on_a_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Tensors that were saved on a GPU come back on the CPU, where there is no GPU."""
    state = small_state()
    step(state)
    with monkeypatch.context() as patch:
        patch.setattr(torch.serialization, "location_tag", lambda _: "cuda:0")
        training_in(tmp_path).save(state)
    if not torch.cuda.is_available():
        with pytest.raises(RuntimeError, match="CUDA"):
            torch.load(tmp_path / "state.pt", weights_only=True)

    loaded = resumed(training_in(tmp_path))

    assert "resuming at iteration 1" in capsys.readouterr().err
    torch.testing.assert_close(loaded.state_dict(), state.state_dict(), rtol=0, atol=0)


def test_another_torch_is_another_training(
    saved: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The stamp holds the versions of the libraries that compute."""
    monkeypatch.setattr(torch, "__version__", "9.9.9")
    monkeypatch.setattr(np, "__version__", "8.8.8")

    assert resumed(training_in(saved)).iteration == 0

    assert "(now 9.9.9), numpy" in capsys.readouterr().err


def test_a_change_of_reachable_code_is_another_training(
    saved: Path, change_source: Callable[[str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    """A changed file counts where the training's module can import it, and only there."""
    stamp = training_in(saved).stamp

    for file, counts in (
        ("generators/stylegan2_ada/losses.py", False),
        ("params.py", False),
        ("perceptual/lpips.py", True),
    ):
        change_source(file)
        assert (training_in(saved).stamp != stamp) == counts, file
    resumed(training_in(saved))

    said = capsys.readouterr().err
    assert said == f"the unfinished training in {saved} belongs to other code: starting anew\n"


def test_saves_are_as_far_apart_as_asked_for(tmp_path: Path) -> None:
    """At the end always, before it after the time that was set."""
    state, path = small_state(), tmp_path / "state.pt"
    seldom = training_in(tmp_path)
    often = Training("", replace(seldom.setup, seconds_between_saves=0), seldom.stamp)

    seldom.save_if_due(state, done=False)
    assert not path.exists()
    often.save_if_due(state, done=False)
    assert path.exists()
    path.unlink()
    seldom.save_if_due(state, done=True)
    assert path.exists()


def test_fingerprint_tells_settings_and_data_apart() -> None:
    """Any changed setting, value, shape or type changes it; the order of settings does not."""
    data = torch.zeros(4, dtype=torch.uint8)
    stamps = {
        fingerprint({"lr": 1, "batch": 2}, data),
        fingerprint({"lr": 2, "batch": 2}, data),
        fingerprint({"lr": 1, "batch": 2}, data + 1),
        fingerprint({"lr": 1, "batch": 2}, data.view(2, 2)),
        fingerprint({"lr": 1, "batch": 2}, data.to(torch.int8)),
    }

    assert len(stamps) == 5
    same = fingerprint({"batch": 2, "lr": 1}, torch.zeros(4, dtype=torch.uint8))
    assert same == fingerprint({"lr": 1, "batch": 2}, data)


def test_equal_stamps_do_not_differ() -> None:
    """The same training made twice has the same stamp."""
    one, two = (make_stamp(MODULE, {"lr": 1}, device=CPU) for _ in range(2))

    assert describe_difference(one, two) == ""
