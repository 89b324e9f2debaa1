"""What the trainings of both GANs leave, and how they end."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from semforensics.core.checkpoints import load_checkpoint
from semforensics.core.images import read_crop
from semforensics.generators.common.sampling import generate_grey
from semforensics.generators.fastgan import training as fastgan
from semforensics.generators.generate_fakes import generate_fakes, load_generator
from semforensics.generators.stylegan2_ada import training as stylegan2_ada
from semforensics.params import (
    FastGANParams,
    GenerateParams,
    GenerateStyleGAN2Params,
    StyleGAN2Params,
)
from tests.generators.conftest import (
    CPU,
    Place,
    place_in,
    rows_of,
    tiny,
    tiny_style,
)

MakePlace = Callable[[str], Place]
MODULES = {"fastgan": fastgan, "stylegan2_ada": stylegan2_ada}


@pytest.fixture(scope="module", params=MODULES)
def gan(request: pytest.FixtureRequest) -> str:
    """Which of the two."""
    return str(request.param)


@pytest.fixture(scope="module")
def module(gan: str) -> ModuleType:
    """The module of its training."""
    return MODULES[gan]


def params_of(gan: str, iterations: int, **changes: Any) -> FastGANParams | StyleGAN2Params:
    """The parameters of a training of so many iterations of 4 images."""
    if gan == "fastgan":
        return tiny(iterations=iterations, **changes)
    return tiny_style(kimg=iterations * 0.004, **changes)


@pytest.fixture(scope="module")
def finished(gan: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Place, str]:
    """What a training of five iterations leaves, and the line that it returns."""
    place = place_in(tmp_path_factory.mktemp(gan))
    precision = {"fastgan": "float32", "stylegan2_ada": "bfloat16"}[gan]
    return place, place.train(params_of(gan, 5, precision=precision))


def test_outputs_are_the_promised_files(gan: str, finished: tuple[Place, str]) -> None:
    """The last and the best generator, kept snapshots, loss curves and one grid per snapshot."""
    place, summary = finished

    assert set(place.outputs()) == {
        "checkpoints/generator.safetensors",
        "checkpoints/best.safetensors",
        "checkpoints/snapshot_000004.safetensors",
        "plots/losses.csv",
        "plots/snapshots.csv",
        *(f"plots/grids/{i:06d}.png" for i in (2, 4, 5)),
    }
    losses = rows_of(place.root / "plots/losses.csv")
    assert [row["iteration"] for row in losses] == [2, 4, 5]
    state, meta = load_checkpoint(place.root / "checkpoints/generator.safetensors")
    assert meta["architecture"] == gan
    assert meta["step"] == 5
    assert meta["threads"] == torch.get_num_threads()
    assert {"device", "versions", "params", "seed", "diversity"} <= set(meta)
    assert not any(name.startswith(("down", "rf_", "b4.")) for name in state)
    match gan:
        case "fastgan":
            assert "after 5 iterations on 18 reals" in summary
            assert all(np.isfinite(list(row.values())).all() for row in losses)
            assert all(r["loss_g"] == pytest.approx(-r["logit_fake"], abs=2) for r in losses)
            sizes = {"size_px": 64, "channels": 1, "ngf": 4, "nz": 8, "tanh": True}
            assert meta["arguments"] == sizes
        case "stylegan2_ada":
            assert "after 0.02 kimg (5 iterations) on 18 reals" in summary
            assert [row["kimg"] for row in losses] == [0.008, 0.016, 0.02]
            columns = {"p", "r_t", "diversity", *stylegan2_ada.LOSS_COLUMNS}
            assert columns <= set(losses[0])
            # Penalties are lazy: the last row's single step measured the path length, not R1.
            assert np.isfinite([losses[0][name] for name in columns]).all()
            assert meta["configuration"]["r1_gamma"] == pytest.approx(0.0002 * 64**2 / 4)
    snapshots = rows_of(place.root / "plots/snapshots.csv")
    _, best = load_checkpoint(place.root / "checkpoints/best.safetensors")
    assert best["frechet"] == pytest.approx(min(r["frechet"] for r in snapshots), rel=1e-5)


def test_the_grid_shows_the_fakes_of_seeds_0_and_up(
    gan: str, finished: tuple[Place, str], tmp_path: Path
) -> None:
    """Grid, released file and folder of fakes show the same images, pixel for pixel."""
    place, _ = finished

    grid = np.asarray(Image.open(place.root / "plots/grids/000005.png"))
    expected = generate_grey(load_generator(place.root / "checkpoints"), range(9))
    how = {"num_images": 2, "first_seed": 7, "snapshot": "last"}
    params = (
        GenerateParams.model_validate(how)
        if gan == "fastgan"
        else GenerateStyleGAN2Params.model_validate(how | {"truncation_psi": 1})
    )
    generate_fakes(place.root / "checkpoints", tmp_path / "fakes", params, device=CPU)

    assert grid.shape == (512, 512)
    np.testing.assert_array_equal(grid[:64, 448:], expected[7].numpy())
    np.testing.assert_array_equal(grid[64:128, :64], expected[8].numpy())
    np.testing.assert_array_equal(read_crop(tmp_path / "fakes/000008.png"), expected[8].numpy())


def test_collapse_is_reported(
    gan: str,
    module: ModuleType,
    make_place: MakePlace,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A generator that repeats one picture is called collapsed, in words and in the table."""
    place = make_place("place")
    same = torch.zeros(module.NUM_WATCHED, 64, 64, dtype=torch.uint8)
    monkeypatch.setattr(module, "generate_grey", lambda *_: same)

    place.train(params_of(gan, 2))

    assert "collapsed" in capsys.readouterr().err
    (row,) = rows_of(place.root / "plots/snapshots.csv")
    assert row["collapsed"] == 1
    assert row["diversity"] == pytest.approx(0, abs=1e-3)


def test_divergence_ends_the_training(gan: str, make_place: MakePlace) -> None:
    """Losses that are no longer finite end in an error, and nothing is written."""
    place = make_place("place")

    with pytest.raises(ValueError, match=r"training diverged before iteration|not a number"):
        place.train(params_of(gan, 20, lr=1e30))

    assert place.outputs() == {}


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_gpu_takes_the_steps_of_a_cpu(
    gan: str, precision: str, make_place: MakePlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first losses are the CPU's but for rounding, and a CPU draws from what it trained."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    params = params_of(gan, 5, precision=precision, log_every=1)

    places = {device: make_place(device) for device in ("cpu", "cuda")}
    first = {}
    for device, place in places.items():
        place.train(params, device=torch.device(device))
        first[device] = rows_of(place.root / "plots/losses.csv")[0]

    # The first step alone: Adam makes a step of the same size of every gradient, rounding too.
    rel = 1e-3 if precision == "float32" else 0.1
    assert first["cuda"] == pytest.approx(first["cpu"], rel=rel, abs=rel, nan_ok=True)
    generator = load_generator(places["cuda"].root / "checkpoints")
    on_cpu = generate_grey(generator, [3]).int()
    on_gpu = generate_grey(generator.to("cuda"), [3]).int()
    assert int((on_cpu - on_gpu).abs().max()) <= 2
