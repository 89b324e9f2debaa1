"""The figures of one GAN, from what the stages before have written."""

from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from semforensics.core.files import atomic_folder
from semforensics.core.images import stack_crops
from semforensics.core.tables import read_table
from semforensics.distances.spectra import radial_power_spectra
from semforensics.figures.gallery import nearest_gallery, suspicious_gallery
from semforensics.figures.grids import fakes_beside_reals, grid_shape, image_grid
from semforensics.figures.histograms import memorisation_histograms, nearest_histograms
from semforensics.figures.losses import COLUMNS, loss_curves
from semforensics.figures.spectra import power_spectra
from semforensics.figures.style import save_figure, source_line

_NAMES = ("mse", "lpips")
_NEAREST_COLUMNS = ("file", *(f"{name}_{what}" for name in _NAMES for what in ("min", "nearest")))
_TWIN_COLUMNS = ("file", *(f"{name}{end}" for name in _NAMES for end in ("", "_nearest", "_flip")))


def plot(
    gan: str,
    cropped: Path,
    fakes: Path,
    training: Path,
    distances: Path,
    figures: Path,
    *,
    data: str,
) -> int:
    """Draw the figures of one GAN into a folder, as PNG files; return how many.

    `fakes.png`, `losses.png`, `spectra.png`, `distances_mse.png`, `distances_lpips.png` and
    `memorisation.png` show nothing but generated images and numbers. `reals.png` (fakes beside
    reals), `nearest_pairs_mse.png`, `nearest_pairs_lpips.png` and `suspicious.png` hold pixels of
    the reals, whose licence decides who may see them. They are those that the GAN was trained on.

    `training` holds `losses.csv`, `distances` the tables of `measure_distances`. Every figure says
    from `data` where the reals come from.

    Raises:
        InputError: A table lacks a column.
    """
    per_real = read_table(distances / f"{gan}_per_real.csv", _NEAREST_COLUMNS)
    per_fake = read_table(distances / f"{gan}_per_fake.csv", _NEAREST_COLUMNS)
    twins = read_table(distances / f"{gan}_memorisation.csv", ("kind", *_TWIN_COLUMNS))
    suspicious = read_table(distances / f"{gan}_suspicious.csv", ("by", *_TWIN_COLUMNS))
    losses = read_table(training / "losses.csv", COLUMNS)
    source = source_line(gan, data)
    real_images = stack_crops(cropped / file for file in per_real["file"])
    fake_images = stack_crops(fakes / file for file in per_fake["file"])

    frequency, real_spectra = radial_power_spectra(real_images)
    _, fake_spectra = radial_power_spectra(fake_images)
    drawn = {
        "fakes": image_grid(_some(fake_images), source=source),
        "reals": fakes_beside_reals(_some(fake_images), _some(real_images), source=source),
        "losses": loss_curves(losses, source=source),
        "spectra": power_spectra(frequency, real_spectra, fake_spectra, source=source),
        "memorisation": memorisation_histograms(twins, source=source),
    }
    by_name = [
        dict(zip(table["file"], images, strict=True))
        for table, images in ((per_fake, fake_images), (per_real, real_images))
    ]
    drawn["suspicious"] = suspicious_gallery(suspicious, *by_name, source=source)
    for name in _NAMES:
        drawn[f"distances_{name}"] = nearest_histograms(
            *(table[f"{name}_min"].to_numpy() for table in (per_real, per_fake)),
            name=name,
            source=source,
        )
        drawn[f"nearest_pairs_{name}"] = nearest_gallery(per_fake, *by_name, by=name, source=source)
    with atomic_folder(figures) as folder:
        for name, figure in drawn.items():
            save_figure(figure, folder / f"{name}.png")
    return len(drawn)


def _some(images: UInt8[np.ndarray, "n height width"]) -> UInt8[np.ndarray, "n height width"]:
    """Take as many images as a grid holds, evenly from first to last: neighbours are alike."""
    rows, columns = grid_shape(images.shape[-1])
    count = min(len(images), rows * columns)
    return np.asarray(images[np.linspace(0, len(images) - 1, count).astype(int)])
