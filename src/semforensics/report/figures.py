"""The figures of one GAN, from what the stages before have written."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import UInt8
from matplotlib.figure import Figure

from semforensics.files import atomic_folder
from semforensics.images import read_crop
from semforensics.report.grids import fakes_beside_reals, grid_shape, image_grid, nearest_pairs
from semforensics.report.histograms import nearest_histograms
from semforensics.report.losses import COLUMNS, loss_curves
from semforensics.report.spectra import power_spectra, radial_power_spectra
from semforensics.report.style import save_figure, source_line

_NUM_PAIRS = 12
_DISTANCE_COLUMNS = ("file", "mse_min", "nearest")


def plot_gan(
    gan: str,
    cropped: Path,
    fakes: Path,
    training: Path,
    distances: Path,
    figures: Path,
    *,
    data: str,
) -> int:
    """Draw the figures of one GAN into a folder, as PNG files.

    `fakes.png`, `losses.png`, `spectra.png` and `distances.png` show nothing but generated images
    and numbers. `reals.png` (fakes beside reals) and `nearest_pairs.png` hold pixels of the reals,
    whose licence decides who may see them.

    Args:
        gan: Name of the generator.
        cropped: The reals. Those that the GAN was trained on are shown: the table of distances
            lists them.
        fakes: The generated images.
        training: Holds `losses.csv`.
        distances: Holds `<gan>_per_real.csv` and `<gan>_per_fake.csv`.
        figures: Folder to write.
        data: Where the reals come from; stands in every figure.

    Returns:
        The number of figures.

    Raises:
        ValueError: A table lacks a column.
    """
    per_real = _read_table(distances / f"{gan}_per_real.csv", _DISTANCE_COLUMNS)
    per_fake = _read_table(distances / f"{gan}_per_fake.csv", _DISTANCE_COLUMNS)
    losses = _read_table(training / "losses.csv", COLUMNS)
    source = source_line(gan, data)
    real_images = _read_images(cropped, per_real["file"])
    fake_images = _read_images(fakes, per_fake["file"])

    frequency, real_spectra = radial_power_spectra(real_images)
    _, fake_spectra = radial_power_spectra(fake_images)
    drawn = {
        "fakes": image_grid(_some(fake_images), source=source),
        "reals": fakes_beside_reals(_some(fake_images), _some(real_images), source=source),
        "losses": loss_curves(losses, source=source),
        "spectra": power_spectra(frequency, real_spectra, fake_spectra, source=source),
        "distances": nearest_histograms(
            per_real["mse_min"].to_numpy(), per_fake["mse_min"].to_numpy(), source=source
        ),
        "nearest_pairs": _nearest_pairs(per_real, per_fake, real_images, fake_images, source),
    }
    with atomic_folder(figures) as folder:
        for name, figure in drawn.items():
            save_figure(figure, folder / f"{name}.png")
    return len(drawn)


def _nearest_pairs(
    per_real: pd.DataFrame,
    per_fake: pd.DataFrame,
    reals: UInt8[np.ndarray, "n_real height width"],
    fakes: UInt8[np.ndarray, "n_fake height width"],
    source: str,
) -> Figure:
    """Draw the fakes that are nearest to any real, the nearest first."""
    pairs = per_fake.sort_values("mse_min", kind="stable").head(_NUM_PAIRS)
    row_of = {file: row for row, file in enumerate(per_real["file"])}
    captions = [
        f"{Path(file).stem}, MSE {mse:.1f}\n{Path(real).stem}"
        for file, mse, real in zip(pairs["file"], pairs["mse_min"], pairs["nearest"], strict=True)
    ]
    twins = reals[[row_of[file] for file in pairs["nearest"]]]
    return nearest_pairs(fakes[pairs.index], twins, captions, source=source)


def _some(images: UInt8[np.ndarray, "n height width"]) -> UInt8[np.ndarray, "n height width"]:
    """Take as many images as a grid holds, evenly from first to last: neighbours are alike."""
    rows, columns = grid_shape(images.shape[-1])
    count = min(len(images), rows * columns)
    chosen: UInt8[np.ndarray, "n height width"] = images[
        np.linspace(0, len(images) - 1, count).astype(int)
    ]
    return chosen


def _read_table(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    table = pd.read_csv(path)
    missing = [column for column in columns if column not in table.columns]
    if missing:
        raise ValueError(
            f"{path}: no column {', '.join(missing)}; found {', '.join(table.columns)}"
        )
    return table


def _read_images(folder: Path, files: pd.Series) -> UInt8[np.ndarray, "n height width"]:
    return np.stack([read_crop(folder / file) for file in files])
