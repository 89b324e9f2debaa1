"""The Grad-CAM stage: maps of test images drawn on one scale, and what the maps are worth."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from semforensics.core.files import atomic_folder, write_json
from semforensics.detector.corpus import Corpus, LabelledImages
from semforensics.detector.gradcam import SIGNS, ImageClass, explain_images, upsample
from semforensics.detector.networks import NPRNetwork
from semforensics.detector.scoring import load_classifier
from semforensics.figures import explanations
from semforensics.figures.style import save_figure
from semforensics.params import ExplainParams
from semforensics.trials import gradcam_controls as controls

DIRECTIONS = ("own_class", "towards_fake")
"""Evidence for the class of the image, and evidence for a fake in both classes."""


@dataclass(frozen=True)
class Explained:
    """All test images of one class, with their maps."""

    images: UInt8[Tensor, "n 1 height width"]
    groups: list[str]
    maps: dict[str, Float[Tensor, "n map_height map_width"]]
    """By direction of evidence."""
    shown: list[int]

    def note(self, image_class: ImageClass) -> str:
        """Count the maps of the image's own class that are zero everywhere."""
        maps = self.maps["own_class"]
        zero = int((maps.amax(dim=(1, 2)) == 0).sum())
        return f"{zero} of {len(maps)} {image_class} maps are zero"


def explain(
    name: str,
    classifier: Path,
    corpus: Corpus,
    plots: Path,
    *,
    params: ExplainParams,
    resamples: int,
    device: torch.device,
) -> str:
    """Draw Grad-CAM maps of test reals and test fakes on one scale, and test what they show.

    The images drawn are spread evenly over the test split in the order of its names; the control
    with random weights uses the same ones. Zero maps and compactness are taken over the whole test
    split. Written to the folder `plots`: real.png and fake.png (the maps of each class),
    compactness.csv (one row per image and direction of evidence), compactness.png, randomised.png
    and summary.json. The seed of the corpus is that of the bootstrap and of the random weights.

    Returns:
        One line: how many maps are zero everywhere, whether reals are compact and fakes broad, and
        whether the maps depend on the weights.

    Raises:
        InputError: The model is another detector's, or images changed splits since it was trained.
        FileNotFoundError: Images or model are missing.
    """
    network, meta = load_classifier(classifier, device)
    seed = corpus.seed
    test = corpus.load_test_split(meta, name)
    classes = explain_classes(network, test, params.num_images, device)
    shares: dict[str, controls.Shares] = {
        direction: {
            c: controls.half_mass_share(found.maps[direction]) for c, found in classes.items()
        }
        for direction in DIRECTIONS
    }
    groups = {c: found.groups for c, found in classes.items()}
    compactness = {
        direction: controls.compare_compactness(shares[direction], groups, resamples, seed)
        for direction in DIRECTIONS
    }
    control = controls.randomisation_control(
        network,
        meta["network"],
        {c: found.images[found.shown] for c, found in classes.items()},
        {c: [found.groups[i] for i in found.shown] for c, found in classes.items()},
        resamples,
        seed,
        device,
    )
    summary = {
        "detector": name,
        "network": meta["network"],
        "protocol": meta["protocol"],
        "data": meta["data"],
        "n_real": len(classes["real"].images),
        "n_fake": len(classes["fake"].images),
        "n_groups": test.num_groups,
        **_findings(classes, compactness, control, params.num_images),
    }
    source = f"{meta['network']}, detector {name}, data: {meta['data']}"
    with atomic_folder(plots) as folder:
        _compactness_table(test.table, shares).to_csv(
            folder / "compactness.csv", index=False, lineterminator="\n", float_format="%.6f"
        )
        write_json(folder / "summary.json", summary)
        figure = explanations.compactness_distributions(shares, compactness, source=source)
        save_figure(figure, folder / "compactness.png")
        _save_maps(classes, folder, source)
        _save_control(classes, control, folder, source)
    passed = "do" if control.passed else "DO NOT"
    zero = ", ".join(found.note(c) for c, found in classes.items())
    return (
        f"{name}: {zero} everywhere; reals compact, fakes broad: {summary['verdict']}; "
        f"maps {passed} depend on the weights; in {plots}"
    )


def explain_classes(
    network: NPRNetwork, test: LabelledImages, num_shown: int, device: torch.device
) -> dict[ImageClass, Explained]:
    """Compute the maps of all test images, class by class, in both directions of evidence."""
    classes: dict[ImageClass, Explained] = {}
    for image_class, sign in SIGNS.items():
        is_fake = image_class == "fake"
        images = test.images[test.is_fake == is_fake]
        own = explain_images(network, images, sign, device)
        towards_fake = own if is_fake else explain_images(network, images, SIGNS["fake"], device)
        classes[image_class] = Explained(
            images,
            test.table.loc[test.table["class"] == image_class, "group"].tolist(),
            {"own_class": own, "towards_fake": towards_fake},
            spread(len(images), num_shown),
        )
    return classes


def _findings(
    classes: dict[ImageClass, Explained],
    compactness: dict[str, dict[str, Any]],
    control: controls.Control,
    num_images: int,
) -> dict[str, Any]:
    """Return the numbers of the summary, and whether the claim holds in both directions."""
    return {
        "map_px": list(classes["real"].maps["own_class"].shape[-2:]),
        "claim": "half of a map's mass lies in fewer pixels for reals than for fakes",
        "verdict": controls.join_results([numbers["verdict"] for numbers in compactness.values()]),
        **compactness,
        "randomised": {
            "images_per_class": num_images,
            "rank_correlation_max": controls.MAX_CORRELATION,
            "passed": control.passed,
            "steps": control.steps,
        },
    }


def spread(count: int, wanted: int) -> list[int]:
    """Return `wanted` indices spread evenly over `count`, or all if there are fewer."""
    return sorted({int(i) for i in np.linspace(0, count - 1, min(count, wanted)).round()})


def _compactness_table(table: pd.DataFrame, shares: dict[str, controls.Shares]) -> pd.DataFrame:
    """List every test image once per direction of evidence; empty: its map is zero everywhere."""
    parts = [
        table.loc[table["class"] == c, ["file", "class", "generator", "group"]].assign(
            evidence=direction, half_mass_share=of_class[c]
        )
        for direction, of_class in shares.items()
        for c in SIGNS
    ]
    return pd.concat(parts, ignore_index=True)


def _save_maps(classes: dict[ImageClass, Explained], folder: Path, source: str) -> None:
    """Draw the chosen maps of each class, all on one scale."""
    chosen = {c: found.maps["own_class"][found.shown] for c, found in classes.items()}
    scale_max = max(float(maps.max()) for maps in chosen.values())
    for image_class, found in classes.items():
        pixels = found.images[found.shown, 0]
        figure = explanations.overlaid_maps(
            pixels.numpy(),
            upsample(chosen[image_class], *pixels.shape[-2:]).numpy(),
            image_class=image_class,
            scale_max=scale_max,
            note=f"{source}; {found.note(image_class)} everywhere",
        )
        save_figure(figure, folder / f"{image_class}.png", dpi=100, dither=True)


def _save_control(
    classes: dict[ImageClass, Explained], control: controls.Control, folder: Path, source: str
) -> None:
    """Draw the maps of the first image of each class while weights become random."""
    first: dict[str, Any] = {
        c: found.images[found.shown[0], 0].numpy() for c, found in classes.items()
    }
    figure = explanations.randomised_maps(
        first, control.examples, control.steps, limit=controls.MAX_CORRELATION, source=source
    )
    save_figure(figure, folder / "randomised.png")
