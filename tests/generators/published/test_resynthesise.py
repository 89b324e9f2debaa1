"""Published autoencoders: their files, what they make of crops, and what is refused."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from semforensics.core.errors import InputError
from semforensics.core.files import sha256_of
from semforensics.core.images import read_crop
from semforensics.generators.published import fetch, resynthesise
from semforensics.generators.published.drawn import SIDE_PX, read_drawn
from semforensics.generators.published.fetch import SHA256, fetch_published
from semforensics.generators.published.networks import (
    LATENT_CHANNELS,
    TinyAutoencoder,
    load_published,
)
from semforensics.generators.published.resynthesise import (
    Variation,
    draw_variation,
    resynthesise_published,
)
from semforensics.generators.published.resynthesise import resynthesise as resynthesise_image
from semforensics.params import ResynthesisePublishedParams
from tests.generators.conftest import write_blobs

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of weights as they are published, random ones, in 16 bits."""
    folder = tmp_path_factory.mktemp("weights")
    for name, channels in LATENT_CHANNELS.items():
        torch.manual_seed(channels)
        network = TinyAutoencoder(channels)
        for half in ("encoder", "decoder"):
            state = {k: v.bfloat16() for k, v in getattr(network, half).state_dict().items()}
            save_file(state, folder / f"{name}_{half}.safetensors")
    return folder


@pytest.fixture
def _pinned(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pin these weights in the place of the published ones."""
    hashes = {path.stem: sha256_of(path) for path in weights.iterdir()}
    monkeypatch.setattr(fetch, "SHA256", hashes)


@pytest.fixture
def network(weights: Path) -> TinyAutoencoder:
    """One of them."""
    return load_published(weights, "taesd")


def params(weights: Path, **changes: object) -> ResynthesisePublishedParams:
    """Parameters of two autoencoders and all kinds of changes."""
    kept = {
        "networks": ("taesd", "taesd3"),
        "source": str(weights),
        "changes": {"none": 1.0, "scale": 1.0, "noise": 1.0, "mix": 1.0},
        "drawn": 0,
        "precision": "float32",
    }
    return ResynthesisePublishedParams.model_validate(kept | changes)


def grey(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A random image."""
    return np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)


@pytest.mark.usefixtures("_pinned")
def test_weights_come_from_a_folder_and_are_kept(weights: Path, tmp_path: Path) -> None:
    """Files of the right hash are copied; a second run needs no source."""
    fetch_published(["taesd"], str(weights), tmp_path / "kept")
    fetch_published(["taesd"], str(tmp_path / "nowhere"), tmp_path / "kept")

    names = sorted(path.name for path in (tmp_path / "kept").iterdir())
    assert names == ["taesd_decoder.safetensors", "taesd_encoder.safetensors"]


def test_other_weights_are_refused(weights: Path, tmp_path: Path) -> None:
    """A file of another hash, one that is missing, and an unknown name."""
    with pytest.raises(InputError, match="expected a file of sha256 a6b8c0fd"):
        fetch_published(["taesd"], str(weights), tmp_path / "a")
    assert not (tmp_path / "a/taesd_encoder.safetensors").exists()
    with pytest.raises(FileNotFoundError, match="cannot be fetched"):
        fetch_published(["taesd"], str(tmp_path / "no"), tmp_path / "a")
    with pytest.raises(InputError, match="taef2: expected some of taesd"):
        fetch_published(["taef2"], str(weights), tmp_path / "a")


def test_a_file_of_another_network_is_refused(weights: Path, tmp_path: Path) -> None:
    """A decoder in the place of an encoder, and bytes that are no weights."""
    for half in ("encoder", "decoder"):
        data = (weights / "taesd3_decoder.safetensors").read_bytes()
        (tmp_path / f"taesd_{half}.safetensors").write_bytes(data)
    with pytest.raises(InputError, match="not the encoder of taesd"):
        load_published(tmp_path, "taesd")

    (tmp_path / "taesd_encoder.safetensors").write_bytes(b"something")
    with pytest.raises(InputError, match="not a safetensors file"):
        load_published(tmp_path, "taesd")


@pytest.mark.parametrize("name", LATENT_CHANNELS)
def test_published_weights_give_the_image_back(shared: Path, name: str) -> None:
    """With the published weights the reconstruction of a smooth image is close to it."""
    folder = shared / "weights/taesd"
    if not folder.is_dir():
        pytest.skip("no published weights beside the micrographs")
    assert all(sha256_of(path) == SHA256[path.stem] for path in folder.glob("*.safetensors"))
    y, x = np.mgrid[:64, :64]
    image = (127.5 + 100 * np.sin(x / 9) * np.cos(y / 7)).astype(np.uint8)

    found = resynthesise_image(
        load_published(folder, name), image, Variation(), np.random.default_rng(0)
    )

    assert not np.array_equal(found, image)
    assert np.abs(found.astype(float) - image).mean() < 8


def test_a_fake_has_the_size_of_its_original(network: TinyAutoencoder) -> None:
    """Sides need not be multiples of 8, at no scale."""
    image = grey(45, 62)

    for variation in (Variation(), Variation(scale=0.7), Variation(scale=1.3, noise=0.2)):
        found = resynthesise_image(network, image, variation, np.random.default_rng(0))
        assert found.shape == image.shape
        assert found.dtype == np.uint8


def test_each_change_changes_the_fake(network: TinyAutoencoder) -> None:
    """Noise, scale and another image's latent each give another fake; nothing gives the same."""
    image, other = grey(32, 32), grey(40, 40, seed=1)

    def fake(variation: Variation) -> bytes:
        rng = np.random.default_rng(0)
        return resynthesise_image(network, image, variation, rng, other).tobytes()

    plain = fake(Variation())
    assert fake(Variation()) == plain
    changed = {
        fake(variation)
        for variation in (Variation(noise=0.3), Variation(scale=0.6), Variation(mix=0.5))
    }
    assert len(changed | {plain}) == 4


def test_changes_stay_in_their_ranges() -> None:
    """Scale 0.6 to 1.6, noise 5 to 30 %, mix 20 to 50 %, one of them at a time."""
    rng = np.random.default_rng(0)

    drawn = {kind: [draw_variation(kind, rng) for _ in range(200)] for kind in ("scale", "noise")}

    assert draw_variation("none", rng) == Variation()
    assert all(0.6 <= v.scale <= 1.6 and v.noise == v.mix == 0 for v in drawn["scale"])
    assert all(0.05 <= v.noise <= 0.3 and v.scale == 1 for v in drawn["noise"])
    assert 0.2 <= draw_variation("mix", rng).mix <= 0.5


@pytest.mark.usefixtures("_pinned")
def test_every_crop_gets_a_fake(weights: Path, tmp_path: Path) -> None:
    """Fakes have the crops' names and sizes; the same again gives the same bytes."""
    write_blobs(tmp_path / "cropped", tmp_path / "splits.csv", 8, size_px=16)

    summary = run(tmp_path, weights, "one")
    run(tmp_path, weights, "two")

    assert summary.startswith("8 fakes of taesd")
    names = {path.name for path in (tmp_path / "cropped").iterdir()}
    assert {path.name for path in (tmp_path / "one").iterdir()} == names
    for file in names:
        assert read_crop(tmp_path / "one" / file).shape == (16, 16)
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
    run(tmp_path, weights, "off", networks=("taesd3",))
    assert [path.name for path in (tmp_path / "off").iterdir()] == ["off.json"]


@pytest.mark.usefixtures("_pinned")
def test_crops_for_measuring_have_no_fakes(weights: Path, tmp_path: Path) -> None:
    """No training may see them, so nothing is made of them."""
    write_blobs(tmp_path / "cropped", tmp_path / "splits.csv", 8, size_px=16)
    table = pd.read_csv(tmp_path / "splits.csv").assign(use="")
    table.loc[2, "use"] = "measure"
    table.to_csv(tmp_path / "splits.csv", index=False)

    run(tmp_path, weights, "one")

    made = {path.name for path in (tmp_path / "one").iterdir()}
    assert made == set(table["file"]) - {table["file"][2]}


def run(root: Path, weights: Path, folder: str, **changes: object) -> str:
    """Make fakes by one autoencoder."""
    return resynthesise_published(
        "taesd",
        root / "cropped",
        root / "splits.csv",
        root / folder,
        params=params(weights, **changes),
        seed=3,
        scratch=root / "scratch",
        device=CPU,
    )


@pytest.mark.usefixtures("_pinned")
def test_drawn_pictures_stand_beside_the_crops(weights: Path, tmp_path: Path) -> None:
    """As many as wanted, of scenes and of what may be learned from, each with a fake."""
    write_blobs(tmp_path / "cropped", tmp_path / "splits.csv", 8, size_px=128)
    table = pd.read_csv(tmp_path / "splits.csv").assign(collection="a", use="")
    places = [("a.tif", 0, 0), ("a.tif", 0, 128), ("a.tif", 128, 0), ("a.tif", 128, 128)]
    places += [("b.tif", *place[1:]) for place in places]
    table[["micrograph", "top_px", "left_px"]] = places
    table.loc[4:, ["collection", "use"]] = ["b", "measure"]
    table.to_csv(tmp_path / "splits.csv", index=False)

    run(tmp_path, weights, "one", drawn=6, changes={"none": 1.0})
    run(tmp_path, weights, "two", drawn=6, changes={"none": 1.0})

    drawn = list(read_drawn(tmp_path / "one"))
    assert len(drawn) == 6
    assert {one.collection for one in drawn} == {"", "a"}
    assert all((one.content == "micrograph") == (one.collection == "a") for one in drawn)
    network, rng = load_published(weights, "taesd"), np.random.default_rng(0)
    for one, again in zip(drawn, read_drawn(tmp_path / "two"), strict=True):
        assert one.real.shape == one.fake.shape == (SIDE_PX, SIDE_PX)
        np.testing.assert_array_equal(
            one.fake, resynthesise_image(network, one.real, Variation(), rng)
        )
        np.testing.assert_array_equal(one.real, again.real)
    assert len({one.real.tobytes() for one in drawn}) == 6


@pytest.mark.usefixtures("_pinned")
def test_neighbours_are_reconstructed_together(weights: Path, tmp_path: Path) -> None:
    """The fakes of two crops side by side are the halves of one reconstruction."""
    write_blobs(tmp_path / "cropped", tmp_path / "splits.csv", 8, size_px=16)
    table = pd.read_csv(tmp_path / "splits.csv")
    table.loc[1, ["micrograph", "group", "left_px"]] = ["m0.tif", "g0", 16]
    table.to_csv(tmp_path / "splits.csv", index=False)

    run(tmp_path, weights, "fakes", changes={"none": 1.0})

    reals, fakes = (
        np.hstack([read_crop(tmp_path / folder / f"{i:03d}.png") for i in (0, 1)])
        for folder in ("cropped", "fakes")
    )
    network, rng = load_published(weights, "taesd"), np.random.default_rng(0)
    np.testing.assert_array_equal(fakes, resynthesise_image(network, reals, Variation(), rng))


def test_a_fake_does_not_depend_on_the_other_crops() -> None:
    """Draws go by autoencoder and file name."""
    first = resynthesise.rng_of_file(0, "taesd", "a.png").random()

    assert first == resynthesise.rng_of_file(0, "taesd", "a.png").random()
    assert first != resynthesise.rng_of_file(0, "taesdxl", "a.png").random()
    assert first != resynthesise.rng_of_file(1, "taesd", "a.png").random()
