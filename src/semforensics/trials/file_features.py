"""What files give away besides their content: the header, and traces of encoding in the pixels.

Nothing here is learned by the detector, which sees canonical pixels only. If one of these tells
reals from fakes, the two classes had different histories, and a detector might have learned those.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Int, Shaped, UInt8
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold

from semforensics.core.errors import InputError
from semforensics.core.images import read_grey
from semforensics.detector.calibration import Labels, Scores
from semforensics.trials.metrics import auroc, aurocs, percentile_interval, stratified_resamples

Groups = Shaped[np.ndarray, " n"]

_MAX_FOLDS = 5
_BLOCK_PX = 8  # of JPEG
_LEAST_STEP = 1e-3  # grey levels; images without any step between pixels have logarithms too


def header_features(path: Path) -> dict[str, Any]:
    """Describe a file without its content: what can differ although the picture is the same.

    Returns:
        `suffix`, `format`, `mode`, `width_px`, `height_px`, `metadata` (how many entries, EXIF
        tags included) and `channel_difference` (the largest between two channels of a pixel, in
        grey levels; 0 for grey files).

    Raises:
        InputError: The file is no image.
    """
    try:
        with Image.open(path) as image:
            width, height = image.size
            return {
                "suffix": path.suffix,
                "format": image.format,
                "mode": image.mode,
                "width_px": width,
                "height_px": height,
                "metadata": len(image.info) + len(image.getexif()),
                "channel_difference": _channel_difference(image),
            }
    except OSError as error:
        raise InputError(f"{path}: not an image: {error}") from error


def _channel_difference(image: Image.Image) -> int:
    if len(image.getbands()) < 3 and image.mode != "P":
        return 0
    colours = np.asarray(image.convert("RGB")).astype(np.int16)
    return int(np.ptp(colours, axis=2).max())


def pixel_features(path: Path) -> dict[str, float]:
    """Measure traces of encoding and processing in the pixels, and how far they compress.

    Returns:
        `bits_per_pixel` of the file, `grey_levels` in use, `comb`: how ragged the histogram is
        (0: smooth; stretched grey levels leave gaps), `mean`, `spread` (standard deviation),
        `blockiness`: the mean step across the edges of 8x8 blocks over that elsewhere, as
        logarithm, and `border`: the same for the outermost rows and columns.
    """
    grey = read_grey(path)
    histogram = np.bincount(grey.ravel(), minlength=256).astype(float)
    neighbours = (histogram[:-2] + histogram[2:]) / 2
    return {
        "bits_per_pixel": 8 * path.stat().st_size / grey.size,
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


def group_folds(is_fake: Labels, groups: Groups, seed: int) -> Int[np.ndarray, " n"]:
    """Divide files into at most five folds, whole groups each, of about equal shares of fakes.

    Raises:
        InputError: A class has fewer than two groups.
    """
    fewest = min(len(np.unique(groups[is_fake == fake])) for fake in (True, False))
    if fewest < 2:
        raise InputError("files of a single group in a class, need two to validate across groups")
    divide = StratifiedGroupKFold(min(_MAX_FOLDS, fewest), shuffle=True, random_state=seed)
    folds = np.empty(len(groups), dtype=int)
    for fold, (_, rest) in enumerate(divide.split(folds, is_fake, groups)):
        folds[rest] = fold
    return folds


def cross_validated_scores(
    features: pd.DataFrame, is_fake: Labels, folds: Int[np.ndarray, " n"]
) -> Scores:
    """Score every file by a logistic regression that saw no file of its fold.

    Words become one column per value, numbers are standardised, constants are dropped. Of each
    model only the direction counts: intercept and length differ from fold to fold by chance, and
    would order files of different folds that are alike. So features that never vary give every file
    the same score.

    Args:
        features: One row per file.
        is_fake: One per file.
        folds: Of each file.
    """
    columns = pd.get_dummies(features, dtype=float).to_numpy(dtype=float)
    spread = columns.std(axis=0)
    varying = spread > 0
    standard = (columns[:, varying] - columns[:, varying].mean(axis=0)) / spread[varying]
    scores = np.zeros(len(is_fake))
    if not varying.any():
        return scores
    for fold in np.unique(folds):
        learn, rest = folds != fold, folds == fold
        model = LogisticRegression(class_weight="balanced", max_iter=1000)
        model.fit(standard[learn], is_fake[learn])
        direction = model.coef_[0] / (np.linalg.norm(model.coef_[0]) or 1)
        # Rounded: files that are alike shall tie, also those of different folds.
        scores[rest] = (standard[rest] @ direction).round(9)
    return scores


def feature_table(
    features: pd.DataFrame, is_fake: Labels, groups: Groups, resamples: int, seed: int
) -> pd.DataFrame:
    """Say how well each feature by itself tells fakes from reals, and all together.

    Args:
        features: One row per file.
        is_fake: One per file.
        groups: Of each file.
        resamples: Of the cluster bootstrap.
        seed: Of folds and bootstrap.

    Returns:
        The first row is of all features. Columns: feature; auroc, cross-validated over groups, with
        the 95 % interval auroc_low and auroc_high, 0.5 is not at all; real and fake: the mean of a
        number, the commonest value of a word.

    Raises:
        InputError: A class has fewer than two groups.
    """
    folds = group_folds(is_fake, groups, seed)
    weights = stratified_resamples(groups, is_fake, resamples, np.random.default_rng(seed))
    rows = []
    for name in ("all", *features.columns):
        chosen = features if name == "all" else features[[name]]
        scores = cross_validated_scores(chosen, is_fake, folds)
        low, high = percentile_interval(aurocs(scores, is_fake, weights))
        typical = ["", ""]
        if name != "all":
            typical = [_typical(chosen.loc[fake, name]) for fake in (~is_fake, is_fake)]
        rows.append([name, auroc(scores, is_fake), low, high, *typical])
    return pd.DataFrame(
        rows, columns=["feature", "auroc", "auroc_low", "auroc_high", "real", "fake"]
    )


def _typical(values: pd.Series) -> str:
    if pd.api.types.is_numeric_dtype(values):
        return f"{values.mean():.4g}"
    return str(values.mode().iloc[0])
