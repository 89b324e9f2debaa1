"""The diffusion model learns, resumes to the same bytes, and draws one fake per seed."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
from tests.generators.autoencoders.conftest import CPU, Place, files_in, place_in, tiny_diffusion
from tests.generators.conftest import interrupted_after_saves, quiet_training, rows_of

from semforensics.core.checkpoints import load_checkpoint, save_checkpoint
from semforensics.core.images import read_crop, to_uint8
from semforensics.generators.common.reals import load_reals
from semforensics.generators.diffusion.generate import generate_diffusion
from semforensics.generators.diffusion.networks import Denoiser, load_denoiser
from semforensics.generators.diffusion.refine import refine
from semforensics.generators.diffusion.sampling import sample, scheduler
from semforensics.generators.diffusion.training import draw_times, new_state, train
from semforensics.params import GenerateDiffusionParams


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of a model after 25 steps, and what its training said."""
    place = place_in(tmp_path_factory.mktemp("trained"))
    return place.root / "diffusion", place.diffuse(tiny_diffusion(steps=25))


def draw(place: Place, **changes: object) -> str:
    """Draw fakes into the folder `fakes` of a place."""
    values = {
        "num_images": 3,
        "first_seed": 7,
        "sampling_steps": 5,
        "under_trained": True,
        "refine": True,
    }
    params = GenerateDiffusionParams.model_validate(values | changes)
    return generate_diffusion(
        place.root / "diffusion",
        place.root / "cropped",
        place.root / "splits.csv",
        place.root / "fakes",
        place.root / "refined",
        params=params,
        seed=0,
        device=CPU,
    )


def test_outputs_are_the_promised_files(trained: tuple[Path, str]) -> None:
    """Weights in 16 bit, the loss curve, and a grid of the first seeds' fakes."""
    folder, summary = trained

    assert set(files_in(folder)) == {"denoiser.safetensors", "losses.csv", "samples.png"}
    assert [row["step"] for row in rows_of(folder / "losses.csv")] == [20, 25]
    assert "after 25 steps of 4 on 12 reals" in summary
    network, meta = load_denoiser(folder)
    assert meta["step"] == 25
    assert meta["arguments"] == {"size_px": 32, "widths": [8, 16]}
    grid = read_crop(folder / "samples.png")
    fifth = to_uint8(sample(network, 5, timesteps=10, sampling_steps=10))
    np.testing.assert_array_equal(grid[32:64, 32:64], fifth[0].numpy())
    parameters = sum(p.numel() for p in network.parameters())
    assert (folder / "denoiser.safetensors").stat().st_size < 2.5 * parameters + 20_000
    assert not (folder.parent / "s").exists()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_two_steps_and_two_more_are_four(place: Place, tmp_path: Path, precision: str) -> None:
    """Saved, loaded into fresh networks and continued, a training ends bit for bit the same."""
    params = tiny_diffusion(precision=precision)
    reals = load_reals(sorted((place.root / "cropped").glob("*.png")))
    straight, first, second = (new_state(params, len(reals), 0, CPU) for _ in range(3))

    train(quiet_training(tmp_path), straight, reals, params)
    train(quiet_training(tmp_path), first, reals, params.model_copy(update={"steps": 2}))
    torch.save(first.state_dict(), tmp_path / "two.pt")
    second.load_state_dict(torch.load(tmp_path / "two.pt", weights_only=True))
    train(quiet_training(tmp_path), second, reals, params)

    for name in ("network", "average"):
        expected, found = straight.state_dict()[name], second.state_dict()[name]
        assert all(torch.equal(expected[key], found[key]) for key in expected)
    assert torch.equal(straight.rng.get_state(), second.rng.get_state())


def test_an_interrupted_training_ends_in_the_same_bytes(
    make_place: Callable[[str], Place], capsys: pytest.CaptureFixture[str]
) -> None:
    """Interrupted in the middle, and called again as before, it leaves the same outputs."""
    whole, killed = make_place("whole"), make_place("killed")

    with interrupted_after_saves(3):
        killed.diffuse(tiny_diffusion(steps=6), seconds_between_saves=0)
    assert not (killed.root / "diffusion").exists()
    killed.diffuse(tiny_diffusion(steps=6))
    assert "resuming at step 3 " in capsys.readouterr().err
    whole.diffuse(tiny_diffusion(steps=6))

    assert "resuming" not in capsys.readouterr().err
    assert files_in(whole.root / "diffusion") == files_in(killed.root / "diffusion")


def test_losses_fall(place: Place) -> None:
    """Discs are soon told from noise."""
    place.diffuse(tiny_diffusion(steps=140, batch=8, lr=0.004, widths=(8, 8, 16)))

    losses = [row["loss"] for row in rows_of(place.root / "diffusion/losses.csv")]
    assert losses[0] > 0.5
    assert np.mean(losses[-3:]) < 0.4 * losses[0]


def test_every_weight_is_trained(place: Place) -> None:
    """A gradient reaches each of them, and the average follows."""
    params = tiny_diffusion(widths=(8, 16, 24))
    network = Denoiser(size_px=32, widths=[8, 16, 24])

    network(torch.randn(2, 1, 32, 32), torch.tensor([3, 9])).square().sum().backward()

    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.abs().sum() > 0), name
    state = new_state(params, 16, 0, CPU)
    before = {name: p.clone() for name, p in state.average.named_parameters()}
    reals = load_reals(sorted((place.root / "cropped").glob("*.png")))
    train(quiet_training(place.root / "s"), state, reals, params)
    assert all(not torch.equal(before[n], p) for n, p in state.average.named_parameters())


def test_a_perfect_network_gives_its_image_back() -> None:
    """Sampling inverts the noising: from the true velocity of an image comes the image."""
    image = torch.rand(1, 1, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    noising = scheduler(1000)

    class Knowing(Denoiser):
        def forward(self, noisy: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
            share = noising.alphas_cumprod[times].view(-1, 1, 1, 1)
            noise = (noisy - share.sqrt() * image) / (1 - share).sqrt()
            return share.sqrt() * noise - (1 - share).sqrt() * image

    knowing = Knowing(size_px=32, widths=[8, 8])

    for steps in (1, 10):
        found = sample(knowing, 3, timesteps=1000, sampling_steps=steps)
        assert torch.allclose(found, image[0], atol=1e-3)


def test_the_schedule_is_a_cosine() -> None:
    """The share of signal left follows Nichol and Dhariwal's eq. 17 and ends in pure noise."""
    share = scheduler(1000).alphas_cumprod

    def f(t: float) -> float:
        return math.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2

    for index in (0, 250, 500, 900):
        assert float(share[index]) == pytest.approx(f((index + 1) / 1000) / f(0), rel=1e-3)
    assert float(share[-1]) < 1e-6


def test_times_are_spread_evenly() -> None:
    """One time in each part of the process, all of them reached, none beyond."""
    rng = torch.Generator().manual_seed(0)

    drawn = torch.stack([draw_times(8, 16, rng) for _ in range(200)])

    assert torch.equal(drawn.sort(dim=1).values // 2, torch.arange(8).expand(200, -1))
    assert set(drawn.flatten().tolist()) == set(range(16))


def test_one_seed_is_one_fake(place: Place, trained: tuple[Path, str]) -> None:
    """A fake depends on its seed, never on how many are drawn, and is named after it."""
    (place.root / "diffusion").symlink_to(trained[0])

    summary = draw(place)
    three = files_in(place.root / "fakes")
    draw(place, num_images=1, first_seed=8)

    assert set(three) == {"000007.png", "000008.png", "000009.png"}
    assert len(set(three.values())) == 3
    assert files_in(place.root / "fakes") == {"000008.png": three["000008.png"]}
    assert read_crop(place.root / "fakes/000008.png").shape == (32, 32)
    assert "3 fakes" in summary
    assert "(under-trained)" in summary


def test_no_steps_switch_it_off(place: Place) -> None:
    """Both folders say why they hold nothing else; not even crops are needed."""
    (place.root / "splits.csv").unlink()

    summaries = [place.diffuse(tiny_diffusion(steps=0)), draw(place)]

    reason = {"reason": "the diffusion model is off: train_diffusion.steps is 0"}
    for folder in ("diffusion", "fakes"):
        files = files_in(place.root / folder)
        assert {name: json.loads(text) for name, text in files.items()} == {"off.json": reason}
    assert all("is off" in summary for summary in summaries)


def test_what_the_network_cannot_take_is_refused(place: Place) -> None:
    """With the parameter's name."""
    for changes, message in (
        ({"widths": (8, 12)}, r"widths: \[8, 12\], expected multiples of 8"),
        ({"size_px": 40, "widths": (8,) * 5}, "size_px: 40 cannot be halved 4 times"),
        ({"size_px": 64}, "crops of 32 px, train_diffusion.size_px is 64"),
    ):
        with pytest.raises(ValueError, match=message):
            place.diffuse(tiny_diffusion(**changes))


def test_a_diverged_training_stops(place: Place) -> None:
    """A loss that is no number is told at once."""
    with pytest.raises(ValueError, match="diverged before step"):
        place.diffuse(tiny_diffusion(lr=1e30))


def test_another_file_is_refused(tmp_path: Path, trained: tuple[Path, str]) -> None:
    """What is no diffusion model, and what is not the one it says it is."""
    path = tmp_path / "denoiser.safetensors"
    state, meta = load_checkpoint(trained[0] / path.name)

    with pytest.raises(ValueError, match="6 sampling steps, more than 5"):
        sample(load_denoiser(trained[0])[0], 0, timesteps=5, sampling_steps=6)
    save_checkpoint(path, state, meta | {"arguments": {"size_px": 32, "widths": [8, 24]}})
    with pytest.raises(ValueError, match="not the weights"):
        load_denoiser(path.parent)
    save_checkpoint(path, state, meta | {"architecture": "fastgan"})
    with pytest.raises(ValueError, match="'fastgan', expected 'ddpm'"):
        load_denoiser(path.parent)
    path.unlink()
    with pytest.raises(FileNotFoundError, match="train-diffusion"):
        load_denoiser(tmp_path)


def test_crops_are_refined_under_their_names(place: Place) -> None:
    """Each has a fake of its size, near to it, the same each time; none where it is off."""
    place.diffuse(tiny_diffusion(steps=25))
    draw(place)
    first = files_in(place.root / "refined")
    draw(place)

    assert set(first) == set(files_in(place.root / "cropped"))
    assert files_in(place.root / "refined") == first
    name = min(first)
    fake, crop = (read_crop(place.root / of / name) for of in ("refined", "cropped"))
    assert 0 < np.abs(fake.astype(float) - crop).mean() < 60
    draw(place, refine=False)
    assert list(files_in(place.root / "refined")) == ["off.json"]
    place.diffuse(tiny_diffusion(steps=0))
    draw(place)
    assert list(files_in(place.root / "refined")) == ["off.json"]


def test_a_later_start_changes_more() -> None:
    """Any size; by a model that tells the velocity of a black image, the way back is exact."""
    network = Denoiser(size_px=32, widths=[8, 16])
    noising = scheduler(100)

    def of_black(noisy: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        share = noising.alphas_cumprod[times]
        noise = (noisy + share.sqrt()) / (1 - share).sqrt()
        return share.sqrt() * noise + (1 - share).sqrt()

    black, image = np.zeros((45, 30), np.uint8), np.full((45, 30), 40, np.uint8)
    with patch.object(network, "forward", of_black):
        assert not refine(network, black, start=0.5, timesteps=100, seed=0).any()
        changed = [
            np.abs(refine(network, image, start=start, timesteps=100, seed=0) - 40.0).mean()
            for start in (0.05, 0.5)
        ]
    assert refine(network, image, start=0.1, timesteps=100, seed=0).shape == image.shape
    assert changed[0] <= changed[1]
