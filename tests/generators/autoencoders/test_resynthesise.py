"""Pseudo-fakes and columns are images of the crops' names and sizes."""

import json

import numpy as np
import pytest

from semforensics.acquire.simulated import draw_area, simulate_view
from semforensics.core.images import read_crop
from semforensics.core.processing import non_local_means, resize_and_back
from semforensics.core.tables import read_splits
from semforensics.generators.autoencoders.networks import load_autoencoder
from semforensics.generators.autoencoders.resynthesise import Simulator, reconstruct
from tests.generators.autoencoders.conftest import SIMULATED, Place, files_in, tiny

COLUMNS = ("autoencoder", "nearest", "bilinear", "transposed", "denoised", "resized")


def test_every_folder_holds_what_it_should(place: Place) -> None:
    """Pseudo-fakes of all crops, columns of the test side under the crops' names, tiles."""
    place.train()

    summary = place.resynthesise()

    table = read_splits(place.root / "splits.csv")
    everything, test = set(table["file"]), set(table.loc[table["split"] == "test", "file"])
    assert set(files_in(place.root / "fakes/pseudo")) == everything
    for column in COLUMNS:
        assert set(files_in(place.root / "unseen" / column)) == test, column
    simulator = {f"{index:06d}.png" for index in range(4)}
    assert set(files_in(place.root / "unseen/simulator")) == simulator
    images = [read_crop(path) for path in place.root.glob("unseen/*/*.png")]
    assert {image.shape for image in images} == {(32, 32)}
    assert "16 pseudo-fakes" in summary
    assert "4 of the simulator" in summary


def test_drawn_decoders_take_turns_over_micrographs(place: Place) -> None:
    """Each crop that may be learned from has a reconstruction by one of them; off without any."""
    place.train(tiny(num_decoders=2))
    place.resynthesise()
    table = read_splits(place.root / "splits.csv")
    folder = place.root / "reconstructed/decoders"
    names = [f"decoder_{index}" for index in range(2)]
    networks = [load_autoencoder(place.root / f"autoencoders/{n}.safetensors")[0] for n in names]

    assert set(files_in(folder)) == set(table["file"])
    used = set()
    for name in table["file"]:
        crop, found = (read_crop(of / name) for of in (place.root / "cropped", folder))
        made = [np.array_equal(found, reconstruct(network, crop)) for network in networks]
        used |= {made.index(True)}
    assert used == {0, 1}
    place.train()
    place.resynthesise()
    assert list(files_in(folder)) == ["off.json"]


def test_images_are_those_of_their_networks_and_processes(place: Place) -> None:
    """Each image is a function of its crop alone."""
    place.train()
    place.resynthesise()
    table = read_splits(place.root / "splits.csv")
    name = sorted(table.loc[table["split"] == "test", "file"])[0]
    crop = read_crop(place.root / "cropped" / name)

    for column in ("autoencoder", "nearest", "bilinear", "transposed"):
        network, _ = load_autoencoder(place.root / f"autoencoders/{column}.safetensors")
        found = read_crop(place.root / "unseen" / column / name)
        np.testing.assert_array_equal(found, reconstruct(network, crop))
    for column, expected in (
        ("denoised", non_local_means(crop, 0.8)),
        ("resized", resize_and_back(crop, 0.75)),
    ):
        np.testing.assert_array_equal(read_crop(place.root / "unseen" / column / name), expected)


def test_the_same_again_gives_the_same_bytes_and_leaves_other_columns_alone(place: Place) -> None:
    """A second run replaces its own folders whole, and no others."""
    place.train()
    place.resynthesise()
    first = files_in(place.root / "unseen") | files_in(place.root / "fakes")
    diffusion = place.root / "unseen/diffusion/000000.png"
    diffusion.parent.mkdir()
    diffusion.write_bytes(b"mine")
    (place.root / "unseen/nearest/old.png").write_bytes(b"old")

    place.resynthesise()

    assert diffusion.read_bytes() == b"mine"
    second = files_in(place.root / "unseen") | files_in(place.root / "fakes")
    assert second == first | {"diffusion/000000.png": b"mine"}


@pytest.mark.parametrize(
    ("source", "count", "reason"),
    [("simulated", 4, "the reals are simulated"), ("folder", 0, "num_simulated is 0")],
)
def test_no_simulator_where_it_makes_no_sense(
    place: Place, source: str, count: int, reason: str
) -> None:
    """Its folder says why it holds no images."""
    place.train()

    place.resynthesise(source=source, num_simulated=count)

    (file,) = (place.root / "unseen/simulator").iterdir()
    assert json.loads(file.read_text()) == {"reason": reason}


def test_a_missing_network_is_found_before_anything_is_written(place: Place) -> None:
    """The message names the file."""
    place.train()
    (place.root / "autoencoders/transposed.safetensors").unlink()

    with pytest.raises(FileNotFoundError, match=r"transposed\.safetensors"):
        place.resynthesise()

    assert not (place.root / "unseen").exists()
    assert not (place.root / "fakes").exists()


@pytest.mark.parametrize("count", [1, 3, 7, 9, 14])
def test_tiles_are_native_and_none_comes_twice(count: int) -> None:
    """Every tile is found in a frame at a place of the grid; more areas are drawn when needed."""
    tiles = Simulator(SIMULATED, "folder", 0).draw_tiles(count, 48)

    assert len(tiles) == count
    assert len({tile.tobytes() for tile in tiles}) == count
    frame = simulate_view(draw_area(SIMULATED, 0, seed=0), 100, 128, 128)
    places = [frame[y : y + 48, x : x + 48] for y in (0, 48) for x in (0, 48)]
    if count <= 12:  # more than 12 tiles need a fourth area
        assert any(np.array_equal(tiles[0], place) for place in places)


def test_tiles_hold_nothing_of_the_info_bar() -> None:
    """Text and scale bar would give the simulator away."""
    tiles = Simulator(SIMULATED, "folder", 0).draw_tiles(3, 110)

    frame = simulate_view(draw_area(SIMULATED, 0, seed=0), 100, 128, 128)
    np.testing.assert_array_equal(tiles[0], frame[:110, :110])
    with pytest.raises(ValueError, match="info bar of 17 px are too small for tiles of 112 px"):
        Simulator(SIMULATED, "folder", 0).draw_tiles(3, 112)
