"""The original's training configurations, and what a parameter file changes of them.

Karras et al., "Training Generative Adversarial Networks with Limited Data", NeurIPS 2020,
arXiv:2006.06676, and the table of the public program. Ours differs: where the batch is changed,
what `auto` derives from it (R1 weight, half-life of the average, group size) follows the batch that
is used.
"""

from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from semforensics.core.errors import InputError
from semforensics.params import StyleGAN2Params


@dataclass(frozen=True)
class Configuration:
    """All numbers of a training that depend on the configuration."""

    kimg: float
    """Thousands of real images shown."""
    batch: int
    mbstd_group: int
    """Images that share one minibatch standard deviation."""
    channel_base: int
    lr: float
    r1_gamma: float
    ema_kimg: float
    """Half-life of the averaged weights, in thousands of images."""
    ema_rampup: float
    """Largest half-life as a share of the images shown so far; 0: no such bound."""
    mapping_layers: int
    path_length_weight: float = 2.0
    style_mixing: float = 0.9
    """Probability that a batch mixes two styles."""
    architecture: Literal["resnet", "orig"] = "resnet"
    """Of the discriminator."""

    @property
    def iterations(self) -> int:
        """Steps of one batch each, enough to show `kimg` thousand images."""
        return -(-round(self.kimg * 1000) // self.batch)


_FULL_WIDTH = 32768
"""Channels of a level times its side, below the maximum, where `fmaps` is 1."""

_TABLE = {
    "stylegan2": Configuration(25e3, 32, 4, _FULL_WIDTH, 0.002, 10.0, 10.0, 0.0, 8),
    "paper256": Configuration(25e3, 64, 8, _FULL_WIDTH // 2, 0.0025, 1.0, 20.0, 0.0, 8),
    "paper512": Configuration(25e3, 64, 8, _FULL_WIDTH, 0.0025, 0.5, 20.0, 0.0, 8),
    "paper1024": Configuration(25e3, 32, 4, _FULL_WIDTH, 0.002, 2.0, 10.0, 0.0, 8),
    "cifar": Configuration(
        *(100e3, 64, 32, _FULL_WIDTH, 0.0025, 0.01, 500.0, 0.05, 2),
        path_length_weight=0.0,
        style_mixing=0.0,
        architecture="orig",
    ),
}


def configuration(
    name: str, size_px: int, *, batch: int | None = None, devices: int = 1
) -> Configuration:
    """Return a row of the table: `auto`, or by its name.

    `batch` counts images over all devices; None is the row's own.

    Raises:
        InputError: There is no such row.
    """
    if name == "auto":
        return _auto(size_px, batch, devices)
    if name not in _TABLE:
        raise InputError(f"configuration {name!r}: expected auto or one of {', '.join(_TABLE)}")
    row = _TABLE[name]
    return row if batch is None else replace(row, batch=batch)


def _auto(size_px: int, batch: int | None, devices: int) -> Configuration:
    if batch is None:
        batch = max(min(devices * min(4096 // size_px, 32), 64), devices)
    return Configuration(
        kimg=25e3,
        batch=batch,
        mbstd_group=min(batch // devices, 4),
        channel_base=_FULL_WIDTH if size_px >= 512 else _FULL_WIDTH // 2,
        lr=0.002 if size_px >= 1024 else 0.0025,
        r1_gamma=0.0002 * size_px**2 / batch,
        ema_kimg=batch * 10 / 32,
        ema_rampup=0.05,
        mapping_layers=2,
    )


def resolve(params: StyleGAN2Params, size_px: int) -> Configuration:
    """Return the configuration of a parameter file: the named row, changed where it says so.

    Raises:
        InputError: The group of the minibatch standard deviation does not divide the batch.
    """
    row = configuration(params.configuration, size_px, batch=params.batch)
    given: dict[str, Any] = params.model_dump()
    names = [field.name for field in fields(Configuration) if given.get(field.name) is not None]
    resolved = replace(row, **{name: given[name] for name in names})
    if resolved.batch % min(resolved.mbstd_group, resolved.batch):
        raise InputError(
            f"train_gan.stylegan2_ada: groups of {resolved.mbstd_group} do not divide a batch of "
            f"{resolved.batch}"
        )
    return resolved
