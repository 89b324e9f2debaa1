"""Images from outside the trainings of the classifiers, one folder for each kind.

`pseudo`, made of all crops, is there to be learnt from; a reconstruction has the name, split and
group of its original. So is `decoders`, for the detector for any instrument: reconstructions by the
encoder-decoders that were drawn, one of them for each micrograph. The other folders are columns of
the cross-generator matrix, made of the crops of the test split under their names: reconstructions
by other decoders, and as negative controls denoised and resized reals. The simulator's frames are
cut into tiles of native pixels.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import UInt8

from semforensics.acquire.simulated import draw_area, simulate_view
from semforensics.acquire.simulated_info_bar import bar_rows
from semforensics.core.blocks import assemble, blocks_of, cut_of
from semforensics.core.errors import InputError
from semforensics.core.files import atomic_folder
from semforensics.core.images import read_crop, to_uint8, to_unit_range, write_grey_png
from semforensics.core.processing import non_local_means, resize_and_back
from semforensics.core.progress import track
from semforensics.core.tables import is_measured, read_splits
from semforensics.generators.autoencoders.networks import RECIPES, Autoencoder, load_autoencoder
from semforensics.generators.common.sampling import write_off
from semforensics.params import ResynthesiseParams, SimulatedParams

Grey = UInt8[np.ndarray, "height width"]

PSEUDO = "pseudo"
RECONSTRUCTED = tuple(name for name in RECIPES if name != PSEUDO)
PROCESSED = ("denoised", "resized")
SIMULATOR = "simulator"


@dataclass(frozen=True)
class Outputs:
    """The folders that `resynthesise` writes."""

    pseudo: Path
    decoders: Path
    unseen: Path


@dataclass(frozen=True)
class Simulator:
    """The simulator as a source of images that no classifier has learned from."""

    params: SimulatedParams
    source: str
    """Where the reals come from: where they are `simulated`, the simulator is no outsider."""
    seed: int

    def draw_tiles(self, count: int, size_px: int) -> list[Grey]:
        """Cut `count` tiles of native pixels out of simulated frames, without their info bars.

        As many frames as the set has are drawn, more where they do not hold enough, fewer where
        fewer tiles are asked for. Each yields as many tiles as the others, or one less, evenly
        spread over it.

        Raises:
            InputError: A frame is smaller than a tile.
        """
        simulated = self.params
        bar = bar_rows(simulated.height_px)
        room = ((simulated.height_px - bar) // size_px) * (simulated.width_px // size_px)
        if room == 0:
            raise InputError(
                f"simulated frames of {simulated.width_px}x{simulated.height_px} px with an info "
                f"bar of {bar} px are too small for tiles of {size_px} px"
            )
        magnifications = simulated.magnifications_k
        num_areas = max(simulated.num_areas, -(-count // (room * len(magnifications))))
        drawn = simulated.model_copy(update={"num_areas": num_areas})
        num_frames = min(count, num_areas * len(magnifications))
        tiles: list[Grey] = []
        for frame_index in range(num_frames):
            # Areas run fastest: the first frames are of different areas.
            area = draw_area(drawn, frame_index % num_areas, seed=self.seed)
            magnification_k = magnifications[frame_index // num_areas]
            frame = simulate_view(area, magnification_k, simulated.width_px, simulated.height_px)
            number = count // num_frames + (frame_index < count % num_frames)
            tiles += _spread_tiles(frame[: simulated.height_px - bar], size_px, number)
        return tiles


def resynthesise(
    cropped: Path,
    splits: Path,
    autoencoders: Path,
    folders: Outputs,
    *,
    params: ResynthesiseParams,
    simulator: Simulator,
    device: torch.device,
) -> str:
    """Write pseudo-fakes of all crops, and the columns of the test split; return how many.

    `pseudo` holds one PNG per crop under the crop's name, `decoders` too where there are any, or
    else `off.json` only; crops that are for measuring have none there. Of `unseen` the subfolders
    `autoencoder`, `nearest`, `bilinear`, `transposed`, `denoised`, `resized` and `simulator` are
    each written whole; others are left alone. `simulator` holds tiles named `000000.png` and so
    on, or `off.json` only.

    Raises:
        FileNotFoundError: A crop or an encoder-decoder is missing.
        InputError: A file holds something else, or crops do not fit.
    """
    table = read_splits(splits)
    everything = sorted(table["file"])
    test = sorted(table.loc[table["split"] == "test", "file"])
    paths = [autoencoders / f"{name}.safetensors" for name in RECIPES]
    drawn = sorted(autoencoders.glob("decoder_*.safetensors"))
    networks = {path.stem: load_autoencoder(path)[0].to(device) for path in (*paths, *drawn)}
    pseudo, unseen = folders.pseudo, folders.unseen
    tiles: list[Grey] = []
    if simulator.source != "simulated" and params.num_simulated > 0:
        size_px = read_crop(cropped / everything[0]).shape[0]
        tiles = simulator.draw_tiles(params.num_simulated, size_px)

    _write(cropped, everything, pseudo, _reconstructor(networks[PSEUDO]), PSEUDO)
    decoders = [networks[path.stem] for path in drawn]
    _write_by_micrograph(cropped, table[~is_measured(table)], folders.decoders, decoders)
    for name in RECONSTRUCTED:
        _write(cropped, test, unseen / name, _reconstructor(networks[name]), name)
    processes: tuple[Callable[[Grey], Grey], ...] = (
        lambda image: non_local_means(image, params.denoise_strength),
        lambda image: resize_and_back(image, params.resize_factor),
    )
    for name, process in zip(PROCESSED, processes, strict=True):
        _write(cropped, test, unseen / name, process, name)
    with atomic_folder(unseen / SIMULATOR) as folder:
        for index, tile in enumerate(tiles):
            write_grey_png(folder / f"{index:06d}.png", tile)
        if not tiles:
            simulated = simulator.source == "simulated"
            write_off(folder, "the reals are simulated" if simulated else "num_simulated is 0")
    return (
        f"{len(everything)} pseudo-fakes in {pseudo}; {len(test)} images of each of "
        f"{', '.join((*RECONSTRUCTED, *PROCESSED))}, and {len(tiles)} of the simulator, in {unseen}"
    )


@torch.inference_mode()
def reconstruct(network: Autoencoder, image: Grey) -> Grey:
    """Return what an encoder-decoder makes of an image, computed alone.

    Raises:
        InputError: A side cannot be halved as often as the network does.
    """
    device = next(network.parameters()).device
    x = to_unit_range(torch.from_numpy(image)).to(device)[None, None]
    return np.asarray(to_uint8(network(x).cpu())[0, 0].numpy())


def _reconstructor(network: Autoencoder) -> Callable[[Grey], Grey]:
    return lambda image: reconstruct(network, image)


def _write(
    cropped: Path, files: list[str], target: Path, process: Callable[[Grey], Grey], title: str
) -> None:
    """Write one image per crop, under the crop's name."""
    with atomic_folder(target) as folder:
        for file in track(files, title):
            write_grey_png(folder / file, process(read_crop(cropped / file)))


def _write_by_micrograph(
    cropped: Path, table: pd.DataFrame, target: Path, networks: Sequence[Autoencoder]
) -> None:
    """Write one image per crop: micrographs take turns with the networks.

    Neighbouring crops are reconstructed together, so no seam tells a fake.
    """
    with atomic_folder(target) as folder:
        if not networks:
            write_off(folder, "num_decoders is 0")
            return
        size_px = len(read_crop(cropped / table["file"].iloc[0]))
        for index, (_, crops) in enumerate(table.groupby("micrograph")):
            network = networks[index % len(networks)]
            for places in blocks_of(crops, size_px):
                fake = reconstruct(network, assemble(cropped, places))
                for place, file in places.items():
                    write_grey_png(folder / file, cut_of(fake, place, size_px).copy())


def _spread_tiles(image: Grey, size_px: int, number: int) -> Iterator[Grey]:
    """Return some of the tiles of a grid, evenly spread over it."""
    rows, columns = image.shape[0] // size_px, image.shape[1] // size_px
    for index in range(number):
        row, column = divmod((2 * index + 1) * rows * columns // (2 * number), columns)
        top, left = row * size_px, column * size_px
        yield image[top : top + size_px, left : left + size_px].copy()
