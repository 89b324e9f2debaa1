"""A logistic head on frozen statistics (`semforensics.detector.frozen`), trained on pairs.

Trained on photographs alone the statistics know content best; trained on pairs that share their
content, the head must use what is left. It outlives resampling and JPEG where the finest residuals
are gone.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from semforensics.core.errors import InputError
from semforensics.core.images import to_unit_range
from semforensics.detector.frozen import FrozenTrunk
from semforensics.detector.pairs import PairSampler

Statistics = Float[np.ndarray, "n f"]

_BATCH = 32
_LEAST_SPREAD = 1e-3
_ITERATIONS = 300
HEAD_TENSORS = ("mean", "spread", "weight", "bias")


@dataclass(frozen=True)
class Head:
    """Standardises statistics and weighs them."""

    mean: Float[np.ndarray, " f"]
    spread: Float[np.ndarray, " f"]
    weight: Float[np.ndarray, " f"]
    bias: Float[np.ndarray, ""]

    @classmethod
    def fit(cls, reals: Statistics, fakes: Statistics, strength: float) -> "Head":
        """Learn from the statistics of reals and of as many fakes.

        Args:
            reals: As `statistics_of` gives them.
            fakes: Likewise.
            strength: Inverse of the regularisation, `C` of scikit-learn.

        Raises:
            InputError: There are none, or one is not finite.
        """
        from sklearn.linear_model import LogisticRegression  # of the pipeline alone

        both = np.concatenate([reals, fakes]).astype(np.float64)
        if not len(reals) or not len(fakes) or not np.isfinite(both).all():
            raise InputError(
                f"statistics of {len(reals)} reals and {len(fakes)} fakes: none, or not finite"
            )
        mean, spread = both.mean(axis=0), both.std(axis=0) + _LEAST_SPREAD
        is_fake = np.repeat([0, 1], [len(reals), len(fakes)])
        model = LogisticRegression(C=strength, max_iter=_ITERATIONS, tol=1e-3)
        model.fit((both - mean) / spread, is_fake)
        return cls(mean, spread, model.coef_[0], np.asarray(model.intercept_[0]))

    def logits(self, statistics: Statistics) -> Float[np.ndarray, " n"]:
        """Score images by their statistics; positive means fake."""
        standard = (statistics - self.mean) / self.spread
        return np.asarray(standard @ self.weight + self.bias)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the tensors of a file."""
        return {name: torch.from_numpy(np.asarray(getattr(self, name))) for name in HEAD_TENSORS}


def statistics_of(
    trunk: FrozenTrunk, images: UInt8[Tensor, "n 1 height width"], device: torch.device
) -> Statistics:
    """Describe images by the signed square roots of the trunk's statistics.

    Roots bring the long tails of activations in, which a linear head would follow.

    Args:
        trunk: On the device.
        images: Grey levels 0 … 255.
        device: Where to compute.
    """
    parts = []
    for batch in torch.split(images, _BATCH):
        x = to_unit_range(batch.to(device)).contiguous(memory_format=torch.channels_last)
        found = trunk(x)
        parts.append((found.sign() * found.abs().sqrt()).cpu())
    return torch.cat(parts).double().numpy()


def fit_on_pairs(
    trunk: FrozenTrunk, sampler: PairSampler, number: int, strength: float, device: torch.device
) -> Head:
    """Fit a head on so many pairs, each processed in its own way."""
    reals, fakes = [], []
    for first in range(0, number, _BATCH):
        images = sampler.batch(first, min(_BATCH, number - first))
        found = statistics_of(trunk, images, device)
        half = len(found) // 2
        reals.append(found[:half])
        fakes.append(found[half:])
    return Head.fit(np.concatenate(reals), np.concatenate(fakes), strength)
