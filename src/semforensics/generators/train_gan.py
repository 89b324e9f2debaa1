"""The stage that trains a GAN."""

from pathlib import Path

from semforensics.core.training import Setup
from semforensics.generators.common.reals import RealCrops
from semforensics.params import FastGANParams, StyleGAN2Params


def train_gan(
    crops: RealCrops,
    pretrained: Path,
    checkpoints: Path,
    plots: Path,
    *,
    params: FastGANParams | StyleGAN2Params,
    setup: Setup,
) -> str:
    """Train the generator of these parameters; write average, curves, grids; return a summary.

    `checkpoints` holds `generator.safetensors`, the last; `best.safetensors`, the one nearest to
    the reals, if it is kept; and as many earlier snapshots as are kept. `plots` holds
    `losses.csv`, `snapshots.csv` and `grids/<iteration>.png`. `pretrained` is the folder with the
    weights of `params.perceptual_net`.

    Raises:
        InputError: The training images do not fit the networks, or the losses are no longer finite.
        FileNotFoundError: The weights of the perceptual net are missing.
    """
    match params:
        case FastGANParams():
            from semforensics.generators.fastgan.training import train_fastgan

            return train_fastgan(crops, pretrained, checkpoints, plots, params=params, setup=setup)
        case StyleGAN2Params():
            from semforensics.generators.stylegan2_ada.training import train_stylegan2_ada

            return train_stylegan2_ada(
                crops, pretrained, checkpoints, plots, params=params, setup=setup
            )
