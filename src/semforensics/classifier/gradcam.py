"""Grad-CAM: where in an image the classifier finds its evidence.

Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
Localization", ICCV 2017, arXiv:1610.02391, equations 1 and 2. With one logit, +logit asks for
evidence of a fake and -logit for evidence of a real. Maps are kept as computed, so that they can be
compared on one scale.
"""

from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from torch import Tensor, nn

from semforensics.classifier.dataset import load_test_side
from semforensics.classifier.networks import NPRNetwork
from semforensics.classifier.npr import network_input
from semforensics.classifier.scoring import load_classifier
from semforensics.files import atomic_folder
from semforensics.images import to_unit_range
from semforensics.params import ExplainParams

ImageClass = Literal["real", "fake"]
SIGNS: dict[ImageClass, int] = {"real": -1, "fake": 1}
"""Of the logit, so that the map is evidence for the class."""

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
    """Give the Grad-CAM maps of images at the last convolution, as `grad_cam` does.

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
    device: torch.device,
) -> str:
    """Draw Grad-CAM maps of test reals and test fakes, each for its own class, on one scale.

    The images shown are spread evenly over the test side in the order of its names; the share of
    maps that are zero everywhere is taken over the whole test side.

    Args:
        row: Whose fakes the classifier learned from.
        classifier: Folder of the model.
        cropped: Holds the reals.
        splits: The table of crops with their sides.
        fakes: Holds one folder per generator.
        plots: Folder to write: real.png and fake.png.
        params: How many images.
        device: Where to compute.

    Returns:
        One line: how many maps are zero everywhere.

    Raises:
        ValueError: The model is another row's, or images changed sides since it was trained.
        FileNotFoundError: Images or model are missing.
    """
    network, meta = load_classifier(classifier, device)
    test = load_test_side(row, meta, cropped, splits, fakes)
    is_fake = test.is_fake
    images = {"real": test.images[~is_fake], "fake": test.images[is_fake]}
    maps = {c: explain_images(network, images[c], sign, device) for c, sign in SIGNS.items()}
    shown = {c: spread(len(images[c]), params.num_images) for c in SIGNS}
    scale_max = max(float(maps[c][shown[c]].max()) for c in SIGNS)

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
                f"{meta['network']}, row {row}, data: {meta['data']}; {count} everywhere",
            )
            figure.savefig(folder / f"{image_class}.png", dpi=100, metadata={"Software": None})
    return f"{row}: {', '.join(lines)} everywhere; grids in {plots}"


def spread(count: int, wanted: int) -> list[int]:
    """Give `wanted` indices spread evenly over `count`, or all if there are fewer."""
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
