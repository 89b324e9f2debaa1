"""Encoder-decoders learn, keep detail, and survive an interruption."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from semforensics.core.checkpoints import load_checkpoint
from semforensics.core.images import read_crop, write_grey_png
from semforensics.generators.autoencoders import training
from semforensics.generators.autoencoders.networks import RECIPES, seed_of
from semforensics.generators.autoencoders.training import (
    differences,
    learning_rate,
    reconstruction_loss,
    train_autoencoder,
)
from semforensics.generators.common.reals import load_reals
from tests.generators.autoencoders.conftest import Place, files_in, tiny
from tests.generators.conftest import interrupted_after_saves, rows_of, setup_in


def test_the_loss_of_a_copy_is_zero() -> None:
    """Nothing else has none."""
    x = torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))

    assert float(reconstruction_loss(x, x)) == 0
    assert float(reconstruction_loss(x + 0.1, x)) == pytest.approx(0.1, abs=1e-5)


def test_smoothness_costs_more_than_other_noise_of_the_same_energy() -> None:
    """The energy term alone sees that detail is missing; it is told from detail that differs."""
    rng = torch.Generator().manual_seed(0)
    x = 0.1 * torch.randn(4, 1, 64, 64, generator=rng)
    other = 0.1 * torch.randn(4, 1, 64, 64, generator=rng)

    def energy_term(y: torch.Tensor) -> float:
        pairs = zip(differences(y), differences(x), strict=True)
        error = sum((a - b).abs().mean() for a, b in pairs) / 3
        return float(reconstruction_loss(y, x) - (y - x).abs().mean() - error)

    assert energy_term(0.5 * x) == pytest.approx(0.1 * math.log(4), rel=0.01)
    assert energy_term(other) < 0.1 * energy_term(0.5 * x)


def test_differences_are_those_of_neighbours() -> None:
    """Across columns, across rows, and across both."""
    x = torch.tensor([[1.0, 2.0], [4.0, 8.0]])[None, None]

    columns, rows, both = differences(x)

    assert columns.flatten().tolist() == [1, 4]
    assert rows.flatten().tolist() == [3, 6]
    assert both.flatten().tolist() == [3]


@pytest.mark.parametrize("name", RECIPES)
def test_losses_fall(place: Place, tmp_path: Path, name: str) -> None:
    """On a few discs, reconstruction gets much better."""
    reals = load_reals(sorted((place.root / "cropped").glob("*.png")))

    fresh = train_autoencoder(
        name, RECIPES[name], reals, tiny(steps=1, width=8), setup_in(tmp_path / "1")
    )
    state = train_autoencoder(
        name, RECIPES[name], reals, tiny(steps=80, width=8, lr=0.005), setup_in(tmp_path / "80")
    )

    assert len(state.rows) == 4
    assert state.rows[-1]["loss"] < 0.5 * fresh.rows[0]["loss"]
    assert state.psnr_db > 17


def test_outputs_are_the_promised_files(place: Place) -> None:
    """One file each, and their loss curves side by side."""
    summary = place.train(tiny(steps=25))

    folder = place.root / "autoencoders"
    assert set(files_in(folder)) == {"losses.csv", *(f"{name}.safetensors" for name in RECIPES)}
    rows = rows_of(folder / "losses.csv")
    assert [row["step"] for row in rows] == [20, 25]
    assert set(rows[0]) == {"step", *RECIPES}
    _, meta = load_checkpoint(folder / "nearest.safetensors")
    assert meta["n_real"] == 12
    assert meta["protocol"] == "clean"
    assert f"nearest {meta['psnr_db']:.1f}" in summary
    assert not (place.root / "s").exists()


def test_the_thesis_trains_on_all_reals(place: Place) -> None:
    """As its GANs do."""
    place.train(tiny(steps=1), protocol="thesis")

    _, meta = load_checkpoint(place.root / "autoencoders/pseudo.safetensors")
    assert meta["n_real"] == 16


@pytest.mark.parametrize("killed_at", [4, 5])
def test_an_interrupted_training_ends_in_the_same_bytes(
    make_place: Callable[[str], Place], capsys: pytest.CaptureFixture[str], killed_at: int
) -> None:
    """Killed in the second encoder-decoder, or at its end, it goes on; it writes nothing before."""
    whole, killed = make_place("whole"), make_place("killed")
    whole.train(tiny(steps=3))

    with interrupted_after_saves(killed_at + 1):
        killed.train(tiny(steps=3), seconds_between_saves=0)
    assert not (killed.root / "autoencoders").exists()
    killed.train(tiny(steps=3))

    assert [line.split(" from ")[0] for line in capsys.readouterr().err.splitlines()] == [
        "resuming at step 3", f"resuming at step {killed_at - 2}"
    ]  # fmt: skip
    assert files_in(whole.root / "autoencoders") == files_in(killed.root / "autoencoders")
    assert not (killed.root / "s").exists()


def test_state_of_other_parameters_is_not_taken_over(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another length or seed is another training."""
    # as if killed at the end
    monkeypatch.setattr(training, "clear_scratch", lambda _: None)
    place.train()

    place.train(tiny(steps=2))
    place.train(tiny(steps=2), seed=1)
    said = capsys.readouterr().err
    assert "resuming" not in said
    assert said.count("belongs to other parameters: starting anew") == 2 * len(RECIPES)
    place.train(tiny(steps=2), seed=1)
    assert "resuming at step 2" in capsys.readouterr().err


def test_seeds_differ_by_name_and_seed() -> None:
    """No two encoder-decoders begin alike."""
    seeds = {seed_of(name, seed) for name in RECIPES for seed in (0, 1)}

    assert len(seeds) == 2 * len(RECIPES)


def test_the_learning_rate_falls_to_nothing() -> None:
    """From `lr` along half a cosine."""
    params = tiny(steps=100, lr=0.01)

    rates = [learning_rate(params, step) for step in (1, 51, 100)]

    assert rates == pytest.approx([0.01, 0.005, 0.0], abs=1e-5)


def test_crops_that_cannot_be_halved_are_refused(place: Place) -> None:
    """Before anything is trained."""
    for path in (place.root / "cropped").glob("*.png"):
        write_grey_png(path, read_crop(path)[:28, :28].copy())

    with pytest.raises(ValueError, match="crops of 28 px, expected a multiple of 8"):
        place.train()
