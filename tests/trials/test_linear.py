"""Linear models are scikit-learn's, and their strength is chosen by whole groups."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression, Ridge
from tests.trials.test_baselines import groups_of

from semforensics.trials.linear import STRENGTHS, fit_logistic, fit_ridge, group_folds


@given(st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=1, max_size=60))
def test_folds_keep_groups_together(members):
    """No group is divided, and every fold and its rest hold both classes."""
    groups = np.array([f"g{group}" for group, _ in members])
    is_fake = np.array([fake for _, fake in members])

    folds = group_folds(is_fake, groups)

    for group in set(groups):
        assert len(set(folds[groups == group])) == 1
    with_reals, with_fakes = (len(set(groups[is_fake == fake])) for fake in (False, True))
    if min(with_reals, with_fakes) < 2:
        assert set(folds) == {-1}
    else:
        assert 2 <= len(set(folds)) <= 5
        assert min(folds) == 0


def test_folds_are_balanced():
    """Reals in equal groups and single fakes are dealt out evenly."""
    is_fake = np.repeat([False, True], 60)
    groups = np.array([f"g{i // 6}" for i in range(60)] + [f"f{i}" for i in range(60)])

    folds = group_folds(is_fake, groups)

    assert np.bincount(folds[~is_fake]).tolist() == [12] * 5
    assert np.bincount(folds[is_fake]).tolist() == [12] * 5


def overlapping(seed: int, n: int = 120, features: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """Two classes that a few of many features tell apart, not well."""
    rng = np.random.default_rng(seed)
    is_fake = np.arange(n) % 2 == 1
    values = rng.normal(0, 1, (n, features)) * rng.uniform(0.1, 5, features) + 3
    values[:, :4] += 1.2 * is_fake[:, None]
    return values.astype(np.float32), is_fake


def test_ridge_is_scikit_learns():
    """Weights and the choice of strength are those of fits one by one."""
    features, is_fake = overlapping(0)
    groups = groups_of(is_fake)

    model = fit_ridge(features, is_fake, groups)

    standard = (features - features.mean(axis=0)) / features.std(axis=0)
    target, folds = np.where(is_fake, 1.0, -1.0), group_folds(is_fake, groups)
    unit = standard.shape[1]  # the mean squared length of standardised features

    def error(strength: float) -> float:
        total = 0.0
        for fold in range(5):
            out = folds == fold
            inside, centre = standard[~out], target[~out].mean()
            ridge = Ridge(alpha=strength * unit, fit_intercept=False)
            ridge.fit(inside, target[~out] - centre)
            total += np.square(ridge.predict(standard[out]) + centre - target[out]).sum()
        return total

    assert model.strength == min(STRENGTHS, key=error)
    ridge = Ridge(alpha=model.strength * unit).fit(standard, target)
    np.testing.assert_allclose(model.score(features), ridge.predict(standard), atol=1e-4)


def test_logistic_regression_is_scikit_learns():
    """The choice of strength is that of fits one by one, and the score is the logit."""
    features, is_fake = overlapping(1, features=20)
    groups = groups_of(is_fake)

    model = fit_logistic(features, is_fake, groups)

    standard = (features - features.mean(axis=0)) / features.std(axis=0)
    folds = group_folds(is_fake, groups)

    def loss(strength: float) -> float:
        total = 0.0
        for fold in range(5):
            out = folds == fold
            fit = LogisticRegression(C=1 / strength, max_iter=1000).fit(
                standard[~out], is_fake[~out]
            )
            logits = fit.decision_function(standard[out])
            total += np.logaddexp(0, np.where(is_fake[out], -logits, logits)).sum()
        return total

    assert model.strength == min(STRENGTHS, key=loss)
    fit = LogisticRegression(C=1 / model.strength, max_iter=1000).fit(standard, is_fake)
    np.testing.assert_allclose(
        model.score(features), fit.decision_function(standard), atol=0.02, rtol=0.01
    )


def test_labels_of_chance_are_not_believed():
    """Where nothing generalises, a strong regularisation is chosen."""
    features, is_fake = overlapping(2)
    shuffled = np.random.default_rng(0).permutation(is_fake)

    model = fit_logistic(features, shuffled, np.arange(len(features)))

    assert model.strength >= 1e3


@pytest.mark.parametrize("fit", [fit_ridge, fit_logistic])
def test_one_group_and_one_class(fit):
    """One group of reals takes the strength 1; one class is refused."""
    features, is_fake = overlapping(3)
    groups = np.where(is_fake, np.arange(len(is_fake)).astype(str), "the only")

    assert fit(features, is_fake, groups).strength == 1
    with pytest.raises(ValueError, match="0 fakes of 60 images"):
        fit(features[~is_fake], is_fake[~is_fake], groups[~is_fake])
