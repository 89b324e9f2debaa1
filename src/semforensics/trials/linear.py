"""Linear models of features: logistic regression and ridge regression, by scikit-learn.

Features are standardised by the training images. The strength of regularisation is the one of least
error in a cross-validation by group among the training images; nothing else is chosen by data.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, Int, Shaped
from sklearn.base import clone
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold

from semforensics.core.errors import InputError
from semforensics.detector.calibration import Labels, log_loss_terms

Features = Float[np.ndarray, "n features"]
Groups = Shaped[np.ndarray, " n"]
Scores = Float32[np.ndarray, " n"]

FOLDS = 5
STRENGTHS = (1e4, 1e3, 1e2, 1e1, 1.0, 1e-1, 1e-2, 1e-3)
"""Of the regularisation: of logistic regression in its own units, of the ridge in units of the mean
squared length of the features. Where one group of reals leaves nothing to hold out, 1."""

_MAX_STEPS = 10_000  # of the optimiser; some hundreds are usual


@dataclass(frozen=True)
class LinearModel:
    """A linear score of standardised features, positive for fakes."""

    mean: Float[np.ndarray, " features"]
    scale: Float[np.ndarray, " features"]
    weights: Float[np.ndarray, " features"]
    bias: float
    strength: float

    def score(self, features: Features) -> Scores:
        """Score images by their features."""
        standard = (features.astype(np.float64) - self.mean) / self.scale
        return np.asarray(standard @ self.weights + self.bias, dtype=np.float32)


def fit_logistic(features: Features, is_fake: Labels, groups: Groups) -> LinearModel:
    """Fit a logistic regression whose strength has the least cross-validated log loss.

    Raises:
        InputError: A class is empty.
    """
    mean, scale, standard = _standardised(features, is_fake)
    regression = LogisticRegression(max_iter=_MAX_STEPS, tol=1e-3, warm_start=True)

    def losses(held_out: Labels) -> Iterator[float]:
        model = clone(regression)
        for strength in STRENGTHS:  # from the easy to the hard, each starting from the last
            model.set_params(C=1 / strength).fit(standard[~held_out], is_fake[~held_out])
            logits = model.decision_function(standard[held_out])
            yield log_loss_terms(logits, is_fake[held_out]).sum()

    strength = _least(losses, group_folds(is_fake, groups))
    model = clone(regression).set_params(C=1 / strength).fit(standard, is_fake)
    return LinearModel(mean, scale, model.coef_[0], float(model.intercept_[0]), strength)


def fit_ridge(features: Features, is_fake: Labels, groups: Groups) -> LinearModel:
    """Fit a ridge regression of the class, -1 or 1, with the least cross-validated squared error.

    Solved among images instead of features, which are more.

    Raises:
        InputError: A class is empty.
    """
    mean, scale, standard = _standardised(features, is_fake)
    products = standard @ standard.T
    unit = float(np.trace(products)) / len(products)
    target = np.where(is_fake, 1.0, -1.0)

    def fit(learned: Labels, strength: float) -> KernelRidge:
        model = KernelRidge(alpha=strength * unit, kernel="precomputed")
        return model.fit(
            products[np.ix_(learned, learned)], target[learned] - target[learned].mean()
        )

    def losses(held_out: Labels) -> Iterator[float]:
        across = products[np.ix_(held_out, ~held_out)]
        for strength in STRENGTHS:
            predicted = fit(~held_out, strength).predict(across) + target[~held_out].mean()
            yield np.square(predicted - target[held_out]).sum()

    strength = _least(losses, group_folds(is_fake, groups))
    weights = standard.T @ fit(np.ones_like(is_fake), strength).dual_coef_
    return LinearModel(mean, scale, weights, float(target.mean()), strength)


def _standardised(
    features: Features, is_fake: Labels
) -> tuple[Float[np.ndarray, " features"], Float[np.ndarray, " features"], Features]:
    """Return the features' means and deviations (1 for a constant), and the standardised features.

    Raises:
        InputError: A class is empty.
    """
    if is_fake.all() or not is_fake.any():
        raise InputError(f"{is_fake.sum()} fakes of {len(is_fake)} images, both classes are needed")
    mean, deviation = (
        features.mean(axis=0, dtype=np.float64),
        features.std(axis=0, dtype=np.float64),
    )
    scale = np.where(deviation > 1e-9, deviation, 1.0)
    return mean, scale, (features.astype(np.float64) - mean) / scale


def _least(losses: Callable[[Labels], Iterator[float]], folds: Int[np.ndarray, " n"]) -> float:
    """Choose the strength of least loss, summed over the folds; the stronger of two."""
    if (folds < 0).all():
        return 1.0
    total = sum(np.array([*losses(folds == fold)]) for fold in np.unique(folds))
    return STRENGTHS[int(np.argmin(total))]


def group_folds(is_fake: Labels, groups: Groups) -> Int[np.ndarray, " n"]:
    """Divide images into folds, every group whole, with about equal shares of both classes.

    Returns:
        The fold of each image, at most 5 and at most as many as groups of either class; -1 for all
        where that is less than two.
    """
    folds = np.full(len(groups), -1)
    count = min(FOLDS, *(len(np.unique(groups[is_fake == fake])) for fake in (False, True)))
    if count >= 2:
        for fold, (_, rest) in enumerate(StratifiedGroupKFold(count).split(folds, is_fake, groups)):
            folds[rest] = fold
    return folds
