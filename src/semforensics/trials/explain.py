"""Grad-CAM: where in an image the classifier finds its evidence.

Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
Localization", ICCV 2017, arXiv:1610.02391, equations 1 and 2. With one logit, +logit asks for
evidence of a fake and -logit for evidence of a real. Maps are kept as computed, so that they can be
compared on one scale.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from torch import Tensor, nn

from semforensics.core.files import atomic_folder
from semforensics.core.images import to_unit_range
from semforensics.detector.corpus import load_test_side
from semforensics.detector.networks import NetworkName, NPRNetwork
from semforensics.detector.npr import network_input
from semforensics.detector.scoring import load_classifier
from semforensics.figures.explanations import compactness_distributions, randomised_maps
from semforensics.figures.style import save_figure
from semforensics.params import ExplainParams
from semforensics.trials.gradcam_controls import (
    MAX_CORRELATION,
    STEPS,
    ClaimVerdict,
    half_mass_share,
    interval_of,
    join_verdicts,
    judge_claim,
    mean_resamples,
    randomised,
    rank_correlation,
)
from semforensics.trials.metrics import Interval

ImageClass = Literal["real", "fake"]
SIGNS: dict[ImageClass, int] = {"real": -1, "fake": 1}
"""Of the logit, so that the map is evidence for the class."""

_DRAWS = 5  # of fresh weights; one draw may by chance agree with the trained ones
_BATCH_PX = 2**19  # pixels explained at a time; gradients take more memory than scores
_COLUMNS = 4  # pairs of image and overlay in one row of a figure
_PIXELS = {"cmap": "gray", "vmin": 0, "vmax": 255}
_COLORMAP = "turbo"  # jet, as is usual, with an even lightness
_CELL_INCHES = 1.5


def grad_cam(
    network: NPRNetwork,
    layer: nn.Module,
    residuals: Float[Tensor, "n c h w"],
    sign: int,
) -> Float[Tensor, "n map_height map_width"]:
    """Explain scores at one layer.

    Args:
        network: In eval mode, so that images do not depend on each other.
        layer: A module of the network whose output is a map: `network.last_conv` or
            `network.last_block`.
        residuals: What `network_input` gives.
        sign: 1: evidence for a fake, -1: for a real.

    Returns:
        Maps at the layer's own resolution, in units of the logit, 0 or more; all zero where nothing
        speaks for the class.
    """
    outputs: list[Tensor] = []
    hook = layer.register_forward_hook(lambda _module, _inputs, output: outputs.append(output))
    try:
        logits = network.score_residuals(residuals)
    finally:
        hook.remove()
    (activations,) = outputs  # [n, k, map_height, map_width]
    # The gradient of the logit, not of the probability or the loss, which vanish for sure scores.
    (gradients,) = torch.autograd.grad(sign * logits.sum(), activations)
    weights = gradients.mean(dim=(2, 3), keepdim=True)  # eq. 1
    return F.relu((weights * activations).sum(dim=1)).detach()  # eq. 2


def upsample(
    maps: Float[Tensor, "n map_height map_width"], height: int, width: int
) -> Float[Tensor, "n height width"]:
    """Bring maps to the size of the image, bilinearly with half-pixel centres."""
    larger = F.interpolate(maps[:, None], size=(height, width), mode="bilinear")
    return larger[:, 0]


def explain_images(
    network: NPRNetwork,
    images: UInt8[Tensor, "n 1 height width"],
    sign: int,
    device: torch.device,
) -> Float[Tensor, "n map_height map_width"]:
    """Return the Grad-CAM maps of images at the last convolution, as `grad_cam` does.

    Args:
        network: In eval mode, on `device`.
        images: Grey levels 0 … 255, of even size.
        sign: 1: evidence for a fake, -1: for a real.
        device: Where the network is.
    """
    batch_size = max(1, _BATCH_PX // (images.shape[-2] * images.shape[-1]))
    maps = []
    for batch in torch.split(images, batch_size):
        residuals = network_input(to_unit_range(batch.to(device)), network.channels)
        maps.append(grad_cam(network, network.last_conv, residuals, sign).cpu())
    return torch.cat(maps)


def explain_row(
    row: str,
    classifier: Path,
    cropped: Path,
    splits: Path,
    fakes: Path,
    plots: Path,
    *,
    params: ExplainParams,
    resamples: int,
    seed: int,
    device: torch.device,
) -> str:
    """Draw Grad-CAM maps of test reals and test fakes on one scale, and put them to the test.

    The images shown are spread evenly over the test side in the order of its names, and so are
    those of the control with fresh weights. Zero maps and compactness are taken over the whole test
    side.

    Args:
        row: Whose fakes the classifier learned from.
        classifier: Folder of the model.
        cropped: Holds the reals.
        splits: The table of crops with their sides.
        fakes: Holds one folder per generator.
        plots: Folder to write: real.png and fake.png (each class for itself), compactness.csv (one
            row per image and direction of evidence), compactness.png, randomised.png and
            summary.json.
        params: How many images.
        resamples: Of the bootstrap.
        seed: Of the bootstrap and of the fresh weights.
        device: Where to compute.

    Returns:
        One line: how many maps are zero everywhere, what becomes of the claim that reals are
        compact and fakes broad, and whether the maps depend on the weights.

    Raises:
        InputError: The model is another row's, or images changed sides since it was trained.
        FileNotFoundError: Images or model are missing.
    """
    network, meta = load_classifier(classifier, device)
    test = load_test_side(row, meta, cropped, splits, fakes)
    is_fake = test.is_fake
    images: dict[ImageClass, Tensor] = {
        "real": test.images[~is_fake],
        "fake": test.images[is_fake],
    }
    groups = {c: test.table.loc[test.table["class"] == c, "group"].tolist() for c in SIGNS}
    maps = {c: explain_images(network, images[c], sign, device) for c, sign in SIGNS.items()}
    towards_fake = explain_images(network, images["real"], SIGNS["fake"], device)
    compared: dict[str, dict[ImageClass, Tensor]] = {
        "own_class": maps,
        "towards_fake": {"real": towards_fake, "fake": maps["fake"]},
    }
    shares = {
        direction: {c: half_mass_share(of_class[c]) for c in SIGNS}
        for direction, of_class in compared.items()
    }
    compactness = {
        direction: compare_compactness(shares[direction], groups, resamples, seed)
        for direction in shares
    }
    verdicts: list[ClaimVerdict] = [numbers["verdict"] for numbers in compactness.values()]
    shown = {c: spread(len(images[c]), params.num_images) for c in SIGNS}
    control = randomisation_control(
        network,
        meta["network"],
        {c: images[c][shown[c]] for c in SIGNS},
        {c: [groups[c][i] for i in shown[c]] for c in SIGNS},
        resamples,
        seed,
        device,
    )
    summary = {
        "row": row,
        "network": meta["network"],
        "protocol": meta["protocol"],
        "data": meta["data"],
        "n_real": len(images["real"]),
        "n_fake": len(images["fake"]),
        "n_groups": test.num_groups,
        "map_px": list(towards_fake.shape[-2:]),
        "claim": "half of a map's mass lies in fewer pixels for reals than for fakes",
        "verdict": join_verdicts(verdicts),
        **compactness,
        "randomised": {
            "images_per_class": params.num_images,
            "rank_correlation_max": MAX_CORRELATION,
            "passed": control.passed,
            "steps": control.steps,
        },
    }

    scale_max = max(float(maps[c][shown[c]].max()) for c in SIGNS)
    source = f"{meta['network']}, row {row}, data: {meta['data']}"
    lines = []
    with atomic_folder(plots) as folder:
        for image_class in SIGNS:
            zero = (maps[image_class].amax(dim=(1, 2)) == 0).sum()
            count = f"{int(zero)} of {len(maps[image_class])} {image_class} maps are zero"
            lines.append(count)
            pick = shown[image_class]
            pixels = images[image_class][pick, 0]
            figure = draw_maps(
                pixels.numpy(),
                upsample(maps[image_class][pick], *pixels.shape[-2:]).numpy(),
                image_class,
                scale_max,
                f"{source}; {count} everywhere",
            )
            save_figure(figure, folder / f"{image_class}.png", dpi=100, dither=True)
        _compactness_table(test.table, shares).to_csv(
            folder / "compactness.csv", index=False, lineterminator="\n", float_format="%.6f"
        )
        save_figure(
            compactness_distributions(shares, compactness, source=source),
            folder / "compactness.png",
        )
        save_figure(
            randomised_maps(
                {c: images[c][shown[c][0], 0].numpy() for c in SIGNS},
                control.examples,
                control.steps,
                limit=MAX_CORRELATION,
                source=source,
            ),
            folder / "randomised.png",
        )
        (folder / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    passed = "do" if control.passed else "DO NOT"
    return (
        f"{row}: {', '.join(lines)} everywhere; reals compact, fakes broad: {summary['verdict']}; "
        f"maps {passed} depend on the weights; in {plots}"
    )


def compare_compactness(
    shares: dict[ImageClass, Float[np.ndarray, " _"]],
    groups: dict[ImageClass, list[str]],
    resamples: int,
    seed: int,
) -> dict[str, Any]:
    """Compare how compact the maps of two classes are.

    Args:
        shares: What `half_mass_share` gives for each class.
        groups: What each image belongs to; classes are resampled one by one, by group.
        resamples: Of the bootstrap.
        seed: Of the bootstrap.

    Returns:
        Mean share of each class and the difference real - fake, each with its 95 % interval (null
        where a class has no map with mass), counts of zero maps, and the verdict on the claim that
        reals are compact and fakes broad.
    """
    rng = np.random.default_rng(seed)
    drawn = {c: mean_resamples(shares[c], groups[c], resamples, rng) for c in SIGNS}
    numbers: dict[str, Any] = {}
    for image_class, (mean, resampled) in drawn.items():
        numbers |= _with_interval(image_class, mean, interval_of(resampled))
        numbers[f"zero_{image_class}"] = int(np.isnan(shares[image_class]).sum())
    interval = interval_of(drawn["real"][1] - drawn["fake"][1])
    numbers |= _with_interval("difference", drawn["real"][0] - drawn["fake"][0], interval)
    return numbers | {"verdict": judge_claim(interval)}


def _with_interval(name: str, value: float, interval: Interval) -> dict[str, float | None]:
    numbers = {name: value, f"{name}_low": interval[0], f"{name}_high": interval[1]}
    # JSON knows no NaN.
    return {key: None if math.isnan(number) else number for key, number in numbers.items()}


@dataclass(frozen=True)
class Control:
    """What became of maps when weights were drawn anew."""

    steps: list[dict[str, Any]]
    """Per lowest part drawn anew: the mean rank correlation of both classes, with intervals."""
    passed: bool
    """The correlation of both classes is clearly low once all weights are fresh."""
    examples: dict[ImageClass, Float[Tensor, "steps map_height map_width"]]
    """Of the first image of each class: the trained map, then one per step of the first draw."""


def randomisation_control(
    network: NPRNetwork,
    name: NetworkName,
    images: dict[ImageClass, UInt8[Tensor, "_ 1 height width"]],
    groups: dict[ImageClass, list[str]],
    resamples: int,
    seed: int,
    device: torch.device,
) -> Control:
    """Draw the weights anew from the logit down, and compare each class's own maps.

    A map that was zero before is left out, one that is zero afterwards counts as uncorrelated.

    Args:
        network: In eval mode, on `device`.
        name: Of its architecture.
        images: Some of each class, grey levels.
        groups: What each of them belongs to.
        resamples: Of the bootstrap.
        seed: Of the weights and the bootstrap.
        device: Where to compute.
    """
    trained = {c: explain_images(network, images[c], SIGNS[c], device) for c in SIGNS}
    examples = {c: [maps[0]] for c, maps in trained.items()}
    steps = []
    highest: list[float] = []
    for step in STEPS:
        numbers: dict[str, Any] = {"fresh_from_logit_to": step}
        fresh = [randomised(network, name, step, seed + draw) for draw in range(_DRAWS)]
        rng = np.random.default_rng(seed)
        highest = []
        for c, sign in SIGNS.items():
            maps = [explain_images(other, images[c], sign, device) for other in fresh]
            examples[c].append(maps[0][0])
            per_image = np.mean([rank_correlation(trained[c], changed) for changed in maps], axis=0)
            mean, resampled = mean_resamples(per_image, groups[c], resamples, rng)
            interval = interval_of(resampled)
            numbers |= _with_interval(c, mean, interval)
            highest.append(interval[1])
        steps.append(numbers)
    # A class without any map says nothing, which is no pass.
    passed = all(high < MAX_CORRELATION for high in highest)
    return Control(steps, passed, {c: torch.stack(maps) for c, maps in examples.items()})


def _compactness_table(
    table: pd.DataFrame, shares: dict[str, dict[ImageClass, Float[np.ndarray, " _"]]]
) -> pd.DataFrame:
    """List every test image once per direction of evidence; empty: its map is zero everywhere."""
    parts = [
        table.loc[table["class"] == c, ["file", "class", "generator", "group"]].assign(
            evidence=direction, half_mass_share=of_class[c]
        )
        for direction, of_class in shares.items()
        for c in SIGNS
    ]
    return pd.concat(parts, ignore_index=True)


def spread(count: int, wanted: int) -> list[int]:
    """Return `wanted` indices spread evenly over `count`, or all if there are fewer."""
    return sorted({int(i) for i in np.linspace(0, count - 1, min(count, wanted)).round()})


def draw_maps(
    images: UInt8[np.ndarray, "n height width"],
    maps: Float[np.ndarray, "n height width"],
    image_class: ImageClass,
    scale_max: float,
    note: str,
) -> Figure:
    """Draw images beside their overlays: half the image, half the map in colour.

    Args:
        images: Grey levels.
        maps: Grad-CAM maps of the same size.
        image_class: Of all images; the maps are evidence for it.
        scale_max: Upper end of the colour scale, to be shared by figures that are compared.
        note: Second line of the title.
    """
    rows = -(-len(images) // _COLUMNS)
    size = (2 * _CELL_INCHES * _COLUMNS + 1, _CELL_INCHES * rows + 0.7)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(rows, 2 * _COLUMNS, squeeze=False)
    norm = Normalize(0, scale_max or 1)
    for axis in axes.flat:
        axis.set_axis_off()
    for index, (image, heat) in enumerate(zip(images, maps, strict=True)):
        row, column = divmod(index, _COLUMNS)
        plain, overlay = axes[row, 2 * column : 2 * column + 2]
        plain.imshow(image, **_PIXELS)
        overlay.imshow(image, **_PIXELS)
        overlay.imshow(heat, cmap=_COLORMAP, norm=norm, alpha=0.5)
    figure.colorbar(
        ScalarMappable(norm, _COLORMAP),
        ax=axes,
        label=f"evidence for {image_class}, in logits",
    )
    sign = {"real": "-logit", "fake": "+logit"}[image_class]
    figure.suptitle(
        f"Grad-CAM of the last convolution, {image_class} test images, {sign}\n{note}", fontsize=10
    )
    return figure
