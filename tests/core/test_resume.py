"""Training state is found again, by the training it belongs to only."""

from pathlib import Path

import torch

from semforensics.core.resume import fingerprint, load_state, save_state


def test_state_comes_back(tmp_path: Path) -> None:
    """What was saved is loaded, tensors bit for bit."""
    state = {"weights": torch.randn(3), "rows": [{"iteration": 1, "loss": 0.5}], "iteration": 1}

    save_state(tmp_path / "state.pt", "stamp", state)
    loaded = load_state(tmp_path / "state.pt", "stamp")

    assert loaded is not None
    assert torch.equal(loaded["weights"], state["weights"])
    assert loaded["rows"] == state["rows"]


def test_foreign_state_is_not_taken(tmp_path: Path) -> None:
    """A state with another stamp, or no state, gives None."""
    save_state(tmp_path / "state.pt", "stamp", {"iteration": 1})

    assert load_state(tmp_path / "state.pt", "another") is None
    assert load_state(tmp_path / "none.pt", "stamp") is None


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
