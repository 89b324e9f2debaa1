"""Traces of encoding and processing in the pixels, and how well they tell fakes from reals.

If one of them does, the two classes may have had different histories, and a detector might have
learned those.
"""

import numpy as np
import pandas as pd
from jaxtyping import Shaped, UInt8
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold

from semforensics.core.errors import InputError
from semforensics.detector.calibration import Labels, Scores
from semforensics.trials.intervals import stratified_resamples, with_interval
from semforensics.trials.metrics import aurocs

Groups = Shaped[np.ndarray, " n"]

_MAX_FOLDS = 5
_BLOCK_PX = 8  # of JPEG
_LEAST_STEP = 1e-3  # grey levels; keeps the logarithm finite where neighbours are all equal


def pixel_features(grey: UInt8[np.ndarray, "height width"], size_bytes: int) -> dict[str, float]:
    """Measure traces of encoding and processing in the pixels, and how far they compress.

    `size_bytes` is that of the losslessly compressed file.

    Returns:
        `bits_per_pixel` of the file, `grey_levels` in use, `comb`: how ragged the histogram is
        (0: smooth; stretched grey levels leave gaps), `mean`, `spread` (standard deviation),
        `blockiness`: the mean step across the edges of 8x8 blocks over that elsewhere, as
        logarithm, and `border`: the same for the outermost rows and columns.
    """
    histogram = np.bincount(grey.ravel(), minlength=256).astype(float)
    neighbours = (histogram[:-2] + histogram[2:]) / 2
    return {
        "bits_per_pixel": 8 * size_bytes / grey.size,
        "grey_levels": int((histogram > 0).sum()),
        "comb": float(np.square(histogram[1:-1] - neighbours).sum() / np.square(histogram).sum()),
        "mean": float(grey.mean()),
        "spread": float(grey.std()),
        **_steps(grey),
    }


def _steps(grey: UInt8[np.ndarray, "height width"]) -> dict[str, float]:
    """Compare steps between neighbours at block edges and at the border with all others."""
    at_edges, at_border, elsewhere = [], [], []
    for image in (grey, grey.T):
        steps = np.abs(np.diff(image.astype(np.int16), axis=0)).mean(axis=1)  # [rows - 1]
        row = np.arange(1, len(steps) + 1)
        edge, border = row % _BLOCK_PX == 0, (row == 1) | (row == len(steps))
        at_edges.append(steps[edge & ~border])
        at_border.append(steps[border])
        elsewhere.append(steps[~edge & ~border])
    edges, border_steps, others = (
        np.log(np.concatenate(parts).mean() + _LEAST_STEP)
        for parts in (at_edges, at_border, elsewhere)
    )
    return {"blockiness": float(edges - others), "border": float(border_steps - others)}


def feature_table(
    features: pd.DataFrame, is_fake: Labels, groups: Groups, resamples: int, seed: int
) -> pd.DataFrame:
    """Measure how well all features together, and each by itself, tell fakes from reals.

    `features` has a row of numbers per image; the bootstrap is by group.

    Returns:
        The first row is of all features. Columns: feature; auroc, cross-validated over groups (0.5
        is chance), with the 95 % interval auroc_low and auroc_high; real and fake: the mean of each
        class.

    Raises:
        InputError: A class has fewer than two groups.
    """
    weights = stratified_resamples(groups, is_fake, resamples, np.random.default_rng(seed))
    rows = []
    for name in ("all", *features.columns):
        chosen = features if name == "all" else features[[name]]
        scores = cross_validated_scores(chosen, is_fake, groups, seed)
        numbers = with_interval(aurocs, scores, is_fake, weights)
        means = ["", ""]
        if name != "all":
            means = [f"{chosen.loc[fake, name].mean():.4g}" for fake in (~is_fake, is_fake)]
        rows.append([name, *numbers, *means])
    columns = ["feature", "auroc", "auroc_low", "auroc_high", "real", "fake"]
    return pd.DataFrame(rows, columns=columns)


def cross_validated_scores(
    features: pd.DataFrame, is_fake: Labels, groups: Groups, seed: int
) -> Scores:
    """Score every image by a logistic regression that learned from other groups.

    There are at most five folds of whole groups, with about equal shares of fakes. Numbers are
    standardised, constants are dropped. Of each model only the direction counts: intercept and
    length differ from fold to fold by chance, and would order images of different folds that are
    alike. So every image has the same score if no feature varies.

    Raises:
        InputError: A class has fewer than two groups.
    """
    fewest = min(len(np.unique(groups[is_fake == fake])) for fake in (True, False))
    if fewest < 2:
        raise InputError("images of a single group in a class, need two to validate across groups")
    columns = features.to_numpy(dtype=float)
    spread = columns.std(axis=0)
    varying = spread > 0
    standard = (columns[:, varying] - columns[:, varying].mean(axis=0)) / spread[varying]
    scores = np.zeros(len(is_fake))
    if not varying.any():
        return scores
    folds = StratifiedGroupKFold(min(_MAX_FOLDS, fewest), shuffle=True, random_state=seed)
    for learn, rest in folds.split(standard, is_fake, groups):
        model = LogisticRegression(class_weight="balanced", max_iter=1000)
        model.fit(standard[learn], is_fake[learn])
        direction = model.coef_[0] / (np.linalg.norm(model.coef_[0]) or 1)
        # Rounded: images that are alike shall tie, also those of different folds.
        scores[rest] = (standard[rest] @ direction).round(9)
    return scores
