"""One seed, one fake."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from semforensics.core.checkpoints import save_checkpoint
from semforensics.core.images import read_crop
from semforensics.generators.common import ema
from semforensics.generators.common.sampling import draw_inputs, generate, generate_grey
from semforensics.generators.fastgan.networks import Generator, initialise
from semforensics.generators.generate_fakes import generate_fakes, load_generator
from semforensics.params import GenerateParams

CPU = torch.device("cpu")


def write_generator(path: Path, channels: int = 1) -> Generator:
    """Write a small generator with measured statistics."""
    torch.manual_seed(0)
    generator = Generator(size_px=64, channels=channels, ngf=4, nz=8, tanh=True)
    initialise(generator, power_steps=15)
    for name, parameter in generator.named_parameters():
        if parameter.shape == (1,):  # noise strengths: 0 would hide the noise
            torch.nn.init.constant_(parameter, 0.5)
        assert parameter.isfinite().all(), name
    rng = torch.Generator().manual_seed(0)
    ema.measure_statistics(generator, [draw_inputs(generator, 16, rng) for _ in range(4)])
    meta = {"architecture": "fastgan", "arguments": generator.arguments}
    save_checkpoint(path, generator.state_dict(), meta, half=True)
    return generator


@pytest.fixture
def checkpoints(tmp_path: Path) -> Path:
    """A folder with a generator."""
    write_generator(tmp_path / "checkpoints/generator.safetensors")
    return tmp_path / "checkpoints"


def test_exactly_the_seeds_are_written(checkpoints: Path, tmp_path: Path) -> None:
    """N images, named after their seeds in six digits, grey PNGs at the network's size."""
    params = GenerateParams(num_images=5, first_seed=42, snapshot="last")

    said = generate_fakes(checkpoints, tmp_path / "fakes", params, device=CPU)

    assert said == f"5 fakes in {tmp_path / 'fakes'}"
    files = sorted((tmp_path / "fakes").iterdir())
    assert [f.name for f in files] == [f"{seed:06d}.png" for seed in range(42, 47)]
    images = [read_crop(f) for f in files]
    assert all(image.shape == (64, 64) for image in images)
    assert all(b"tEXt" not in f.read_bytes() for f in files)
    assert len({image.tobytes() for image in images}) == 5


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_a_fake_depends_on_its_seed_alone(checkpoints: Path, tmp_path: Path, batch: int) -> None:
    """In batches of any size, forwards or backwards, each seed gives the same bytes."""
    alone = {}
    for seed in range(8):
        one = GenerateParams(num_images=1, first_seed=seed, snapshot="last")
        generate_fakes(checkpoints, tmp_path / f"one{seed}", one, device=CPU)
        alone[seed] = read_crop(tmp_path / f"one{seed}/{seed:06d}.png")
    generator = load_generator(checkpoints)

    backwards = list(range(8))[::-1]
    found = {}
    for start in range(0, 8, batch):
        seeds = backwards[start : start + batch]
        found |= dict(zip(seeds, generate_grey(generator, seeds).numpy(), strict=True))

    for seed in range(8):
        np.testing.assert_array_equal(found[seed], alone[seed])


def test_fakes_vary_with_latent_and_noise(checkpoints: Path) -> None:
    """Two seeds give two images; the noise alone changes one as well."""
    generator = load_generator(checkpoints)

    z, noises = draw_inputs(generator, 1, torch.Generator().manual_seed(3))
    with torch.no_grad():
        first = generator(z, noises).big[0]
        other_noise = generator(z, [torch.flip(n, (3,)) for n in noises]).big[0]

    torch.testing.assert_close(generate(generator, 3), first)
    assert not torch.allclose(first, other_noise)
    assert not torch.allclose(first, generate(generator, 4))


def test_three_channels_become_grey_as_the_canonicaliser_does(tmp_path: Path) -> None:
    """An RGB generator's fakes are its 8-bit colours through Pillow's luma."""
    write_generator(tmp_path / "generator.safetensors", channels=3)
    generator = load_generator(tmp_path)

    grey = generate_grey(generator, [7])[0].numpy()

    colour = ((generate(generator, 7) + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    expected = np.asarray(Image.fromarray(colour.permute(1, 2, 0).numpy()).convert("L"))
    np.testing.assert_array_equal(grey, expected)


def test_a_released_file_is_enough(checkpoints: Path) -> None:
    """The network is rebuilt from the file alone, whatever its name, and has its weights."""
    file = checkpoints / "generator.safetensors"
    moved = file.rename(checkpoints / "released.safetensors")

    generator = load_generator(moved)

    original = write_generator(file)
    assert not generator.training
    for name, tensor in original.state_dict().items():
        half = tensor.half().float() if tensor.ndim >= 2 else tensor
        assert torch.equal(generator.state_dict()[name], half), name


def test_other_files_are_refused(tmp_path: Path) -> None:
    """No file, another architecture and weights that do not fit are told apart."""
    path = tmp_path / "generator.safetensors"

    with pytest.raises(FileNotFoundError, match="no such file"):
        load_generator(tmp_path)
    save_checkpoint(path, {"w": torch.zeros(2)}, {"architecture": "npr_tiny"})
    with pytest.raises(
        ValueError, match="architecture 'npr_tiny', expected 'fastgan' or 'stylegan2_ada'"
    ):
        load_generator(path)
    arguments = {"size_px": 64, "channels": 1, "ngf": 4, "nz": 8, "tanh": True}
    save_checkpoint(
        path, {"w": torch.zeros(2)}, {"architecture": "fastgan", "arguments": arguments}
    )
    with pytest.raises(ValueError, match="not the weights it says it holds"):
        load_generator(path)


def test_nothing_is_left_when_generation_fails(tmp_path: Path) -> None:
    """Without a generator no folder of fakes appears."""
    (tmp_path / "checkpoints").mkdir()

    with pytest.raises(FileNotFoundError):
        generate_fakes(
            tmp_path / "checkpoints",
            tmp_path / "fakes",
            GenerateParams(num_images=2, first_seed=0, snapshot="last"),
            device=CPU,
        )

    assert [path.name for path in tmp_path.iterdir()] == ["checkpoints"]
