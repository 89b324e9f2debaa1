"""Weights files: safetensors with a description, never a pickle."""

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from semforensics.core.checkpoints import load_checkpoint, save_checkpoint


def test_a_checkpoint_comes_back_exactly(tmp_path: Path) -> None:
    """Tensors, shared ones too, and the description survive the round trip."""
    weight = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    state = {"weight": weight, "view": weight[:, 1], "count": torch.tensor(7)}
    meta = {"architecture": "test", "step": 3, "params": {"lr": 0.1}}

    save_checkpoint(tmp_path / "model.safetensors", state, meta)
    loaded, described = load_checkpoint(tmp_path / "model.safetensors")

    assert described == meta
    assert loaded.keys() == state.keys()
    assert all(torch.equal(loaded[name], state[name]) for name in state)


def test_half_keeps_vectors_in_full(tmp_path: Path) -> None:
    """Matrices are rounded to 16 bit, normalisation statistics are not."""
    state = {"weight": torch.full((2, 2), 0.1), "running_mean": torch.tensor([0.1, 1e-7])}

    save_checkpoint(tmp_path / "model.safetensors", state, {}, half=True)
    loaded, _ = load_checkpoint(tmp_path / "model.safetensors")

    assert torch.equal(loaded["weight"], state["weight"].half().float())
    assert torch.equal(loaded["running_mean"], state["running_mean"])


@pytest.mark.parametrize("value", [1e6, float("nan"), float("inf")])
def test_half_refuses_what_does_not_fit(tmp_path: Path, value: float) -> None:
    """A weight outside the 16-bit range is an error, and nothing is written."""
    with pytest.raises(ValueError, match="weight does not fit"):
        save_checkpoint(
            tmp_path / "model.safetensors", {"weight": torch.full((2, 2), value)}, {}, half=True
        )

    assert not list(tmp_path.iterdir())


def test_foreign_files_are_refused(tmp_path: Path) -> None:
    """A pickle and a safetensors file without our description are clear errors."""
    (tmp_path / "pickle.safetensors").write_bytes(pickle.dumps({"weight": 1}))
    save_file({"weight": torch.zeros(1)}, tmp_path / "bare.safetensors")

    with pytest.raises(ValueError, match=r"pickle\.safetensors: not a safetensors file"):
        load_checkpoint(tmp_path / "pickle.safetensors")
    with pytest.raises(ValueError, match=r"bare\.safetensors: no description"):
        load_checkpoint(tmp_path / "bare.safetensors")
