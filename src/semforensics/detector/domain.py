"""The training domain: is an image enough like those of the training for a verdict?

Conformal p-values promise something only of images that are exchangeable with the calibration set.
Two distances in the space of classical image statistics catch those that clearly are not:

- Unlikeness: the Mahalanobis distance from the training images of both classes.
- Lack of structure: how far an image lies towards surrogates of the training images (Theiler et
  al., "Testing for nonlinearity in time series: the method of surrogate data", Physica D 58, 1992).
  One kind has the same spectrum and random phases, the other the same pixels in random order;
  neither shows an object. The direction is Fisher's linear discriminant between training images
  and surrogates.

The limits are quantiles of the validation split, the second no higher than its nearest surrogate:
an image that shows no more than noise gets no verdict. No pixel of a training image is stored.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from semforensics.core.checkpoints import load_checkpoint, save_checkpoint
from semforensics.core.errors import InputError
from semforensics.core.portable import square_root

DOMAIN_FILE = "domain.safetensors"
DOMAIN_ARRAYS = ("mean", "spread", "whitening", "direction")
"""What a file keeps of a `Domain`, beside its limits."""

Features = Float[np.ndarray, "n f"]

_LEVELS = 3  # the image, its half and its quarter
_SHRINKAGE = 0.02  # share of the identity in the covariance: 42 features of some hundred images
_LEAST_SPREAD = 0.01  # of a feature, so that one that never varied is not infinitely strict
_KEPT = 0.9  # share of the validation split that stays inside however near the surrogates come
_BATCH_PX = 2**20
_GREY = 0.05  # grey levels squared: what quantisation leaves, so that flat images have logarithms


def domain_features(images: UInt8[Tensor, "n 1 height width"]) -> Features:
    """Describe images by 42 statistics that neither know their content nor hold it.

    Of the grey levels: moments and the shares of black and white. Of neighbouring differences at
    three scales: spread, kurtosis, correlation; how unevenly their energy lies over the image, how
    it goes with brightness and with the energy of the next scale. Spectrum and noise level are in
    the spreads; the rest is about the same as in noise for an image without structure.

    Args:
        images: Grey levels 0 … 255, at least 16 px high and wide.
    """
    batch_size = max(1, _BATCH_PX // (images.shape[-2] * images.shape[-1]))
    parts = [_features(batch.float()) for batch in torch.split(images, batch_size)]
    return torch.cat(parts).double().numpy()


def feature_names() -> list[str]:
    """Name the statistics of `domain_features`, in their order."""
    names = ["mean", "spread", "skewness", "kurtosis", "black", "white"]
    for level in range(_LEVELS):
        for kind in ("rows", "columns", "both"):
            names += [f"{kind}_spread_{level}", f"{kind}_kurtosis_{level}"]
        names += [f"unevenness_{level}", f"with_brightness_{level}"]
        if level > 0:
            names += [f"with_finer_energy_{level}"]
        if level < 2:
            for kind in ("rows", "columns"):
                names += [f"{kind}_peakedness_{level}", f"{kind}_correlation_{level}"]
                names += [f"{kind}_flat_{level}"] * (level == 0)
    return names


def _features(x: Float[Tensor, "n 1 height width"]) -> Float[Tensor, "n f"]:
    mean, variance, skewness, kurtosis = _moments(x)
    found = [mean, torch.log(variance + _GREY), skewness, kurtosis]
    found += [torch.log((x == grey).float().mean(dim=(1, 2, 3)) + 0.001) for grey in (0, 255)]
    finer = None
    for level in range(_LEVELS):
        x = F.avg_pool2d(x, 2) if level else x
        rows, columns = x[..., 1:] - x[..., :-1], x[..., 1:, :] - x[..., :-1, :]
        for difference in (rows, columns, rows[..., 1:, :] - rows[..., :-1, :]):
            _, variance, _, kurtosis = _moments(difference)
            found += [torch.log(variance + _GREY), kurtosis]

        # Where the differences are: their energy in cells of 4x4.
        cell = min(4, *(side - 1 for side in x.shape[-2:]))
        energy = F.avg_pool2d(rows[..., 1:, :] ** 2 + columns[..., 1:] ** 2, cell)
        average, variance, _, _ = _moments(energy)
        found += [torch.log(variance / (average**2 + 0.001) + 0.001)]
        coarse = torch.log(energy + _GREY)
        found += [_correlation(coarse, F.avg_pool2d(x[..., 1:, 1:], cell))]
        if finer is not None:
            height, width = energy.shape[-2:]
            halved = F.avg_pool2d(finer, 2, ceil_mode=True)[..., :height, :width]
            found += [_correlation(torch.log(halved + _GREY), coarse)]
        finer = energy

        # How often neighbours are alike, which denoising changes first.
        if level < 2:
            for steps in (rows, columns.mT):
                size = steps.abs().mean(dim=(1, 2, 3))
                rms = square_root((steps**2).mean(dim=(1, 2, 3)))
                found += [torch.log((size + _GREY) / (rms + _GREY))]
                found += [_correlation(steps[..., 1:], steps[..., :-1])]
                if level == 0:
                    found += [torch.log((steps == 0).float().mean(dim=(1, 2, 3)) + 0.01)]
    return torch.stack(found, dim=1)


def _moments(x: Float[Tensor, "n 1 h w"]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return mean, variance, skewness and the logarithm of the kurtosis of each image."""
    flat = x.flatten(1)
    mean = flat.mean(dim=1)
    centred = flat - mean[:, None]
    squares = centred**2
    variance = squares.mean(dim=1)
    scale = variance.clamp_min(1e-6)
    skewness = (squares * centred).mean(dim=1) / scale**1.5
    kurtosis = (squares**2).mean(dim=1) / scale**2
    return mean, variance, skewness, torch.log(kurtosis.clamp_min(0.5))


def _correlation(a: Float[Tensor, "n 1 h w"], b: Float[Tensor, "n 1 h w"]) -> Float[Tensor, " n"]:
    """Correlate two maps of each image, as Fisher's z; 0 where one is flat."""
    a, b = (x.flatten(1) - x.flatten(1).mean(dim=1, keepdim=True) for x in (a, b))
    spread = square_root((a**2).mean(dim=1) * (b**2).mean(dim=1))
    return torch.atanh(0.98 * (a * b).mean(dim=1) / spread.clamp_min(1e-6))


def shuffled(
    images: UInt8[Tensor, "n 1 height width"], rng: np.random.Generator
) -> UInt8[Tensor, "n 1 height width"]:
    """Return the pixels of each image in random order: white noise with the same histogram."""
    pixels = rng.permuted(images.flatten(1).numpy(), axis=1)
    return torch.from_numpy(pixels).view(images.shape)


def phase_randomised(
    images: UInt8[Tensor, "n 1 height width"], rng: np.random.Generator
) -> UInt8[Tensor, "n 1 height width"]:
    """Return images of the same spectra and mean grey whose phases are those of white noise.

    Rounded and clipped to grey levels 0 … 255 like any image, so spectra are the same but for that.
    """
    copies = torch.empty_like(images)
    for copy, image in zip(copies, images, strict=True):
        spectrum = np.fft.fft2(image[0].numpy())
        noise = np.fft.fft2(rng.standard_normal(spectrum.shape))
        phases = noise / np.abs(noise)
        phases[0, 0] = 1  # the mean stays
        grey = np.fft.ifft2(np.abs(spectrum) * phases).real
        copy[0] = torch.from_numpy(np.rint(grey.clip(0, 255)).astype(np.uint8))
    return copies


@dataclass(frozen=True)
class Domain:
    """What the training images are like, by their statistics."""

    mean: Float[np.ndarray, " f"]
    spread: Float[np.ndarray, " f"]
    """Standard deviations of the statistics over the training images."""
    whitening: Float[np.ndarray, "f f"]
    """Turns standardised statistics into independent ones; the mean square of them over the
    training images is one."""
    direction: Float[np.ndarray, " f"]
    """Along it the training images lie around 0, their surrogates around 1."""
    limits: tuple[float, float]
    """Of the unlikeness and of the lack of structure."""

    @classmethod
    def fit(
        cls,
        train: UInt8[Tensor, "n 1 height width"],
        validation: UInt8[Tensor, "n_validation 1 height width"],
        quantile: float,
        rng: np.random.Generator,
    ) -> "Domain":
        """Learn what training images are like, and how far validation images lie from them.

        Args:
            train: Of both classes.
            validation: Of both classes, from other groups.
            quantile: At least this share of the validation images is inside, but for those that
                are no farther from noise than the nearest surrogate; at most a tenth.
            rng: Of the surrogates.
        """
        own = domain_features(train)
        mean, spread = _float32(own.mean(axis=0)), _float32(own.std(axis=0) + _LEAST_SPREAD)
        own = (own - mean) / spread
        surrogates = torch.cat([phase_randomised(train, rng), shuffled(train, rng)])
        theirs = (domain_features(surrogates) - mean) / spread

        covariance = _shrunk(np.cov(own.T), _SHRINKAGE)
        # triu: beside the triangle `inv` leaves roundings that change from run to run.
        whitening = np.triu(np.linalg.inv(np.linalg.cholesky(covariance)).T) / math.sqrt(len(mean))
        within = _shrunk((np.cov(own.T) + np.cov(theirs.T)) / 2, _SHRINKAGE)
        direction = np.linalg.solve(within, theirs.mean(axis=0))
        direction /= theirs.mean(axis=0) @ direction

        domain = cls(mean, spread, _float32(whitening), _float32(direction), (1.0, 1.0))
        # Each of the two leaves out half of what may be left out.
        tail = 0.5 * (1 + quantile)
        unlike, flat = domain._both(validation)
        noise = torch.cat([phase_randomised(validation, rng), shuffled(validation, rng)])
        nearest = float(domain._both(noise)[1].min())
        kept, usual = (_quantile(flat, share) for share in (min(_KEPT, tail), tail))
        return replace(domain, limits=(_quantile(unlike, tail), min(usual, max(kept, nearest))))

    def distances(self, images: UInt8[Tensor, "n 1 height width"]) -> Float[np.ndarray, " n"]:
        """Return the larger of both distances of each image, in units of its limit: 1 is on it."""
        unlike, flat = self._both(images)
        scale = max(self.limits[1], _LEAST_SPREAD)  # a limit near 0 is not a unit
        return np.maximum(unlike / self.limits[0], 1 + (flat - self.limits[1]) / scale)

    def is_inside(self, images: UInt8[Tensor, "n 1 height width"]) -> Bool[np.ndarray, " n"]:
        """Say which images are within both limits."""
        return self.distances(images) <= 1

    def _both(
        self, images: UInt8[Tensor, "n 1 height width"]
    ) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
        """Return unlikeness and lack of structure, both without a limit."""
        own = (domain_features(images) - self.mean) / self.spread
        return np.linalg.norm(own @ self.whitening, axis=1), own @ self.direction

    def tensors(self) -> dict[str, Tensor]:
        """Return the arrays, for a file."""
        return {name: torch.from_numpy(getattr(self, name)).float() for name in DOMAIN_ARRAYS}

    def numbers(self) -> dict[str, Any]:
        """Return the rest, for the header of a file."""
        return {"features": feature_names(), "limits": self.limits}

    @classmethod
    def restore(cls, tensors: Mapping[str, Tensor], numbers: Mapping[str, Any]) -> "Domain":
        """Rebuild from `tensors` and `numbers`.

        Raises:
            InputError: They are of other statistics.
            KeyError, TypeError, ValueError: They are something else.
        """
        if numbers["features"] != feature_names():
            raise InputError("a training domain of other statistics; package it again")
        arrays = {name: tensors[name].double().numpy() for name in DOMAIN_ARRAYS}
        low, high = numbers["limits"]
        return cls(**arrays, limits=(float(low), float(high)))

    def save(self, path: Path) -> None:
        """Write the statistics of the statistics; no image can be made out of them."""
        save_checkpoint(path, self.tensors(), self.numbers())

    @classmethod
    def load(cls, path: Path) -> "Domain":
        """Read what `save` wrote.

        Raises:
            InputError: The file is no training domain, or one of other statistics.
            FileNotFoundError: There is no such file.
        """
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such training domain")
        state, meta = load_checkpoint(path)
        if meta.get("features") != feature_names():
            raise InputError(f"{path}: not a training domain of these statistics")
        try:
            return cls.restore(state, meta)
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{path}: not a whole training domain: {error}") from error


def _quantile(values: Float[np.ndarray, " n"], share: float) -> float:
    """Return a value such that at least this share of the values is not above it."""
    return float(np.quantile(values, share, method="higher"))


def _float32(values: Float[np.ndarray, "*any"]) -> Float[np.ndarray, "*any"]:
    """Round to what a file keeps, so that a stored domain has the limits it was fitted with."""
    # order="C": the layout of a matrix changes the last digit of a product with it.
    return values.astype(np.float32, order="C").astype(np.float64)


def _shrunk(covariance: Float[np.ndarray, "f f"], share: float) -> Float[np.ndarray, "f f"]:
    return (1 - share) * covariance + share * np.eye(len(covariance))
