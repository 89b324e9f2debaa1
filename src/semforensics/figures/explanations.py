"""Grad-CAM maps over their images, how compact they are, and how they depend on the weights."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure, SubFigure
from torch import Tensor

from semforensics.figures.style import FAKE, NEUTRAL, REAL, add_source, styled

_COLORMAP = "turbo"  # jet, as is usual, with an even lightness
_COLUMNS = 4  # pairs of image and overlay in one row of a figure
_CELL_INCHES = 1.5
_COLOURS = {"real": REAL, "fake": FAKE}
_SIGNS = {"real": "-logit", "fake": "+logit"}
_TITLES = {
    "own_class": "Evidence for the image's own class",
    "towards_fake": "Evidence for a fake, in both classes",
}
_STEP_NAMES = {
    "fc1": "logit",
    "layer2": "+ stage 2",
    "layer1": "+ stage 1",
    "stem": "+ stem: all",
}


def overlaid_maps(
    images: UInt8[np.ndarray, "n height width"],
    maps: Float[np.ndarray, "n height width"],
    *,
    image_class: str,
    scale_max: float,
    note: str,
) -> Figure:
    """Draw images beside their overlays: half the image, half the map in colour.

    The maps are evidence for the class of all images, real or fake. `scale_max` ends the colour
    scale, to be shared by figures that are compared; `note` is the second line of the title.
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
        for axis in (plain, overlay):
            axis.imshow(image, cmap="gray", vmin=0, vmax=255)
        overlay.imshow(heat, cmap=_COLORMAP, norm=norm, alpha=0.5)
    label = f"evidence for {image_class}, in logits"
    figure.colorbar(ScalarMappable(norm, _COLORMAP), ax=axes, label=label)
    title = f"Grad-CAM of the last convolution, {image_class} test images, {_SIGNS[image_class]}"
    figure.suptitle(f"{title}\n{note}", fontsize=10)
    return figure


@styled
def compactness_distributions(
    shares: Mapping[str, Mapping[Any, Float[np.ndarray, " _"]]],
    numbers: Mapping[str, Mapping[str, Any]],
    *,
    source: str,
) -> Figure:
    """Draw how the share of pixels that holds half of a map's mass is distributed.

    Per direction of evidence: the shares of each class, 0 … 0.5, where NaN is left out, and the
    means with intervals and whether they support the claim.
    """
    figure = Figure(figsize=(8, 2.6 * len(shares)), layout="constrained")
    axes_of = figure.subplots(len(shares), sharex=True, squeeze=False)[:, 0]
    for axes, (direction, of_class) in zip(axes_of, shares.items(), strict=True):
        found = numbers[direction]
        for image_class, values in of_class.items():
            _draw_shares(axes, image_class, values, found)
        claim = f"reals compact, fakes broad: {found['verdict']}"
        axes.set_title(f"{_TITLES[direction]} · {claim}", loc="left")
        axes.set_ylabel("Maps of the class, %")
        axes.set_ylim(top=1.2 * axes.get_ylim()[1])  # room for the legend above the bars
        axes.legend(fontsize=8, loc="upper center", ncols=2)
    axes_of[-1].set_xlabel("Share of the map's pixels that holds half of its mass (left: compact)")
    axes_of[-1].set_xlim(0, 0.5)
    add_source(figure, source)
    return figure


def _draw_shares(
    axes: Axes, image_class: str, values: Float[np.ndarray, " _"], found: Mapping[str, Any]
) -> None:
    """Draw the histogram and the mean of one class, if it has any map with mass."""
    known = values[~np.isnan(values)]
    if len(known) == 0:
        return
    label = f"{image_class}: {found[image_class]:.3f}"
    if not np.isnan(found[f"{image_class}_low"]):
        label += f" ({found[f'{image_class}_low']:.3f}-{found[f'{image_class}_high']:.3f})"
    label += f", {len(known)} maps, {found[f'zero_{image_class}']} zero ones left out"
    colour = _COLOURS[image_class]
    weights = np.full(len(known), 100 / len(known))
    axes.hist(
        known, bins=50, range=(0, 0.5), weights=weights, color=colour, alpha=0.45, label=label
    )
    axes.axvline(found[image_class], color=colour)


@styled
def randomised_maps(
    images: Mapping[Any, UInt8[np.ndarray, "height width"]],
    maps: Mapping[Any, Float[Tensor, "steps map_height map_width"]],
    steps: Sequence[Mapping[str, Any]],
    *,
    limit: float,
    source: str,
) -> Figure:
    """Draw maps while weights are replaced by random ones, and how well their order is kept.

    Of one image of each class: the trained map, then one per step, each on its own scale, since
    random weights have another unit. A step has its name and the rank correlation of each class
    with its interval; `limit` is the highest mean that passes once all weights are random.
    """
    names = [_STEP_NAMES[step["fresh_from_logit_to"]] for step in steps]
    figure = Figure(figsize=(8, 6.2), layout="constrained")
    upper, lower = figure.subfigures(2, 1, squeeze=False, height_ratios=[3, 2])[:, 0]
    _draw_map_rows(upper, images, maps, ["image", "trained", *names])
    _draw_correlations(lower.subplots(), steps, ["trained", *names], limit)
    add_source(figure, source)
    return figure


def _draw_map_rows(
    figure: SubFigure,
    images: Mapping[Any, UInt8[np.ndarray, "height width"]],
    maps: Mapping[Any, Float[Tensor, "steps map_height map_width"]],
    titles: Sequence[str],
) -> None:
    """Draw one row per class: the image, then its maps."""
    grid = figure.subplots(len(images), len(titles), squeeze=False)
    for row, (image_class, image) in zip(grid, images.items(), strict=True):
        row[0].imshow(image, cmap="gray", vmin=0, vmax=255)
        row[0].set_ylabel(image_class, color=_COLOURS[image_class], weight="bold")
        for axes, heat in zip(row[1:], maps[image_class].numpy(), strict=True):
            axes.imshow(heat, cmap=_COLORMAP, vmin=0, vmax=heat.max() or 1)
        for axes in row:
            axes.set(xticks=[], yticks=[])
            axes.grid(visible=False)
    for axes, title in zip(grid[0], titles, strict=True):
        axes.set_title(title, size=9)
    figure.suptitle("Fresh weights, from the logit down; each map on its own scale", size=10)


def _draw_correlations(
    axes: Axes, steps: Sequence[Mapping[str, Any]], names: Sequence[str], limit: float
) -> None:
    """Draw the rank correlation of both classes, with its interval, after every step."""
    for image_class, colour in _COLOURS.items():
        known = [(i, s) for i, s in enumerate(steps, start=1) if not np.isnan(s[image_class])]
        x = [0, *(i for i, _ in known)]
        middle, low, high = (
            [1, *(s[f"{image_class}{end}"] for _, s in known)] for end in ("", "_low", "_high")
        )
        axes.plot(x, middle, "o-", color=colour)
        axes.fill_between(x, low, high, color=colour, alpha=0.2, label=f"{image_class} images")
    axes.axhline(limit, color=NEUTRAL, linestyle="--", linewidth=1)
    axes.annotate(
        "limit once all are fresh", (0, limit), (2, 3), textcoords="offset points", size=8
    )
    axes.set_xticks(range(len(names)), names)
    axes.set_xlabel("Drawn anew")
    axes.set_ylabel("Rank correlation\nwith the trained map")
    axes.set_ylim(min(-0.2, axes.dataLim.ymin), 1.05)
    axes.legend(fontsize=8)
