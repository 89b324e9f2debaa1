"""All methods that learned from one training split: the network, the baselines and their stack.

The baselines see the images that the network was trained on, and no others. Their thresholds come
from the validation split by the network's rule. The stack is a logistic regression on the scores of
the network's first seed and of the four baselines. It is fitted on the validation split, where none
of them was trained. That split then cannot calibrate it, so its threshold comes from scores that
are cross-fitted inside validation: every group is scored by a stack that did not see it.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Float32, Shaped

from semforensics.core.errors import InputError
from semforensics.detector.calibration import choose_threshold
from semforensics.detector.corpus import load_images
from semforensics.detector.networks import NPRNetwork
from semforensics.detector.npr import centre_crop
from semforensics.detector.scoring import score_images
from semforensics.trials.baselines import BASELINES, BaselineName, fit_features, measure_features
from semforensics.trials.intervals import labels_and_groups
from semforensics.trials.linear import LinearModel, fit_logistic, group_folds

METHODS = ("npr", *BASELINES, "stack")
Networks = Mapping[tuple[str, int], NPRNetwork]
"""By detector and number of the training, the first seed's is 0."""

_CHUNK_PX = 2**24  # pixels in memory at a time: 1024 images of 128 px, 64 of 512 px


@dataclass(frozen=True)
class Measured:
    """What the detectors need to know of images, whose pixels can then be forgotten."""

    paths: pd.Index
    features: Mapping[BaselineName, Float32[np.ndarray, "n features"]]
    logits: Mapping[tuple[str, int], Float32[np.ndarray, " n"]]

    def pick(self, paths: pd.Series) -> "Measured":
        """Return some of the images, in the order of `paths`; each must be among them."""
        index = self.paths.get_indexer(pd.Index(paths.map(str)))
        assert (index >= 0).all(), "an image was not measured"
        return Measured(
            self.paths[index],
            {name: values[index] for name, values in self.features.items()},
            {key: values[index] for key, values in self.logits.items()},
        )

    def join(self, other: "Measured") -> "Measured":
        """Return these images, then those of `other`."""
        return Measured(
            self.paths.append(other.paths),
            {n: np.concatenate([v, other.features[n]]) for n, v in self.features.items()},
            {k: np.concatenate([v, other.logits[k]]) for k, v in self.logits.items()},
        )


def measure_images(
    table: pd.DataFrame,
    networks: Networks,
    *,
    tile_px: int,
    size_px: tuple[int, int],
    phases: int,
    device: torch.device,
) -> Measured:
    """Measure the features of all baselines, and score the images with all networks, if any.

    Each `path` of the table is read once; images larger than `size_px`, height and width, are cut
    to their centre.

    Raises:
        InputError: An image is no crop, or the images of the table differ in size, or are smaller
            than `size_px`.
    """
    files = table.drop_duplicates("path")
    features: dict[BaselineName, list[Float32[np.ndarray, "n features"]]] = {
        name: [] for name in BASELINES
    }
    logits: dict[tuple[str, int], list[Float32[np.ndarray, " n"]]] = {key: [] for key in networks}
    shapes: set[tuple[int, ...]] = set()
    step = max(1, _CHUNK_PX // (size_px[0] * size_px[1]))
    for start in range(0, len(files), step):
        chunk = files.iloc[start : start + step]
        whole = load_images(chunk).images
        shapes.add(tuple(whole.shape[-2:]))
        if len(shapes) > 1:
            raise InputError(
                f"{chunk['path'].iloc[0]}: images of one size expected; found {shapes}"
            )
        height, width = whole.shape[-2:]
        if height < size_px[0] or width < size_px[1]:
            first, wanted = chunk["path"].iloc[0], f"{size_px[1]}x{size_px[0]} px"
            raise InputError(f"{first}: {width}x{height} px, expected {wanted}")
        images = centre_crop(whole, *size_px)
        for name, parts in features.items():
            parts.append(measure_features(name, images[:, 0].numpy(), tile_px))
        for key, network in networks.items():
            logits[key].append(score_images(network, images, phases=phases, device=device))
    return Measured(
        pd.Index(files["path"].map(str)),
        {name: np.concatenate(parts) for name, parts in features.items()},
        {key: np.concatenate(parts) for key, parts in logits.items()},
    )


@dataclass(frozen=True)
class Methods:
    """What learned from the images of one detector, and the thresholds of a fake."""

    name: str
    num_seeds: int
    baselines: Mapping[BaselineName, LinearModel]
    stack: LinearModel
    thresholds: Mapping[str, Float[np.ndarray, " models"]]
    """Of every method, above which it calls an image fake; the network has one per seed."""

    def score(self, images: Measured) -> dict[str, Float32[np.ndarray, "models n"]]:
        """Score images with every method; the network has one row per seed, the others one."""
        scores = _parts(self.name, self.num_seeds, self.baselines, images)
        return scores | {"stack": self.stack.score(_stacked(scores))[None]}


def fit_methods(
    name: str,
    network_thresholds: list[float],
    train: pd.DataFrame,
    validation: pd.DataFrame,
    train_images: Measured,
    validation_images: Measured,
    *,
    max_false_positive_rate: float,
) -> Methods:
    """Fit baselines and stack of a detector, and choose their thresholds.

    The tables list images as in `LabelledImages`; of the measured ones, those of the validation
    split have logits of the networks called `name`. `network_thresholds` has one per seed, as
    training stored them; the others are chosen on the validation split.
    """
    learned = train_images.pick(train["path"])
    is_fake, groups = labels_and_groups(train)
    baselines = {b: fit_features(b, learned.features[b], is_fake, groups) for b in BASELINES}

    held_out = validation_images.pick(validation["path"])
    is_fake, groups = labels_and_groups(validation)
    scores = _parts(name, len(network_thresholds), baselines, held_out)
    stack = fit_logistic(_stacked(scores), is_fake, groups)
    scores["stack"] = cross_fitted(_stacked(scores), is_fake, groups)[None]
    thresholds = {"npr": np.array(network_thresholds)}
    for method in (*BASELINES, "stack"):
        reals, fakes = scores[method][0][~is_fake], scores[method][0][is_fake]
        thresholds[method] = np.array([choose_threshold(reals, fakes, max_false_positive_rate)])
    return Methods(name, len(network_thresholds), baselines, stack, thresholds)


def cross_fitted(
    features: Float[np.ndarray, "n features"],
    is_fake: Bool[np.ndarray, " n"],
    groups: Shaped[np.ndarray, " n"],
) -> Float32[np.ndarray, " n"]:
    """Score every image by a logistic regression that was fitted without its group.

    With one group of either class there is nothing to leave out, and the scores are those of the
    fit itself.
    """
    folds = group_folds(is_fake, groups)
    if (folds < 0).all():
        return fit_logistic(features, is_fake, groups).score(features)
    scores = np.empty(len(features), dtype=np.float32)
    for fold in range(int(folds.max()) + 1):
        held_out = folds == fold
        model = fit_logistic(features[~held_out], is_fake[~held_out], groups[~held_out])
        scores[held_out] = model.score(features[held_out])
    return scores


def _parts(
    name: str, num_seeds: int, baselines: Mapping[BaselineName, LinearModel], images: Measured
) -> dict[str, Float32[np.ndarray, "models n"]]:
    """Score with the networks of a detector and with its baselines."""
    npr = np.stack([images.logits[name, seed] for seed in range(num_seeds)])
    scores: dict[str, Float32[np.ndarray, "models n"]] = {"npr": npr}
    for baseline, model in baselines.items():
        scores[baseline] = model.score(images.features[baseline])[None]
    return scores


def _stacked(
    scores: Mapping[str, Float32[np.ndarray, "models n"]],
) -> Float32[np.ndarray, "n methods"]:
    """Put the scores side by side, of the network those of its first seed."""
    return np.stack([scores[name][0] for name in ("npr", *BASELINES)], axis=1)
