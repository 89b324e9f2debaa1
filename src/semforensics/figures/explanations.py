"""How compact Grad-CAM maps are, and what becomes of them without the trained weights."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from matplotlib.figure import Figure
from torch import Tensor

from semforensics.figures.style import FAKE, NEUTRAL, REAL, add_source, styled

_COLOURS = {"real": REAL, "fake": FAKE}
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


@styled
def compactness_distributions(
    shares: Mapping[str, Mapping[Any, Float[np.ndarray, " _"]]],
    numbers: Mapping[str, Mapping[str, Any]],
    *,
    source: str,
) -> Figure:
    """Draw how the share of pixels that holds half of a map's mass is distributed.

    Args:
        shares: Per direction of evidence and class: one share per image, 0 … 0.5; NaN is left out.
        numbers: Per direction: the means with intervals, and the verdict on the claim.
        source: Line that says what the figure shows.
    """
    figure = Figure(figsize=(8, 2.6 * len(shares)), layout="constrained")
    axes_of = figure.subplots(len(shares), sharex=True, squeeze=False)[:, 0]
    bins = np.linspace(0, 0.5, 51)
    for axes, (direction, of_class) in zip(axes_of, shares.items(), strict=True):
        found = numbers[direction]
        for image_class, values in of_class.items():
            known = values[~np.isnan(values)]
            if len(known) == 0:
                continue
            label = f"{image_class}: {found[image_class]:.3f}"
            if found[f"{image_class}_low"] is not None:
                label += f" ({found[f'{image_class}_low']:.3f}-{found[f'{image_class}_high']:.3f})"
            label += f", {len(known)} maps, {found[f'zero_{image_class}']} zero ones left out"
            colour = _COLOURS[image_class]
            weights = np.full(len(known), 100 / len(known))
            axes.hist(known, bins=bins, weights=weights, color=colour, alpha=0.45, label=label)
            axes.axvline(found[image_class], color=colour)
        verdict = f"reals compact, fakes broad: {found['verdict']}"
        axes.set_title(f"{_TITLES[direction]} · {verdict}", loc="left")
        axes.set_ylabel("Maps of the class, %")
        axes.set_ylim(top=1.2 * axes.get_ylim()[1])  # room for the legend above the bars
        axes.legend(fontsize=8, loc="upper center", ncols=2)
    axes_of[-1].set_xlabel("Share of the map's pixels that holds half of its mass (left: compact)")
    axes_of[-1].set_xlim(0, 0.5)
    add_source(figure, source)
    return figure


@styled
def randomised_maps(
    images: Mapping[Any, UInt8[np.ndarray, "height width"]],
    maps: Mapping[Any, Float[Tensor, "steps map_height map_width"]],
    steps: Sequence[Mapping[str, Any]],
    *,
    limit: float,
    source: str,
) -> Figure:
    """Draw maps while weights are drawn anew, and how much of their order is left.

    Args:
        images: One of each class, grey levels.
        maps: Of these images: the trained map, then one per step. Each is drawn on a scale of its
            own, since fresh weights have another unit.
        steps: Per step its name and the rank correlation of each class with its interval.
        limit: Highest mean correlation that passes once all weights are fresh.
        source: Line that says what the figure shows.
    """
    names = [_STEP_NAMES[step["fresh_from_logit_to"]] for step in steps]
    figure = Figure(figsize=(8, 6.2), layout="constrained")
    upper, lower = figure.subfigures(2, 1, squeeze=False, height_ratios=[3, 2])[:, 0]
    grid = upper.subplots(len(images), len(names) + 2, squeeze=False)
    for row, (image_class, image) in zip(grid, images.items(), strict=True):
        row[0].imshow(image, cmap="gray", vmin=0, vmax=255)
        row[0].set_ylabel(image_class, color=_COLOURS[image_class], weight="bold")
        for axes, heat in zip(row[1:], maps[image_class].numpy(), strict=True):
            axes.imshow(heat, cmap="turbo", vmin=0, vmax=heat.max() or 1)
        for axes in row:
            axes.set(xticks=[], yticks=[])
            axes.grid(visible=False)
    for axes, title in zip(grid[0], ["image", "trained", *names], strict=True):
        axes.set_title(title, size=9)
    upper.suptitle("Fresh weights, from the logit down; each map on its own scale", size=10)

    axes = lower.subplots()
    for image_class, colour in _COLOURS.items():
        known = [(i, s) for i, s in enumerate(steps, start=1) if s[image_class] is not None]
        x = [0, *(i for i, _ in known)]
        axes.plot(x, [1, *(s[image_class] for _, s in known)], "o-", color=colour)
        low, high = (
            [1, *(s[f"{image_class}{end}"] for _, s in known)] for end in ("_low", "_high")
        )
        axes.fill_between(x, low, high, color=colour, alpha=0.2, label=f"{image_class} images")
    axes.axhline(limit, color=NEUTRAL, linestyle="--", linewidth=1)
    axes.annotate(
        "limit once all are fresh", (0, limit), (2, 3), textcoords="offset points", size=8
    )
    axes.set_xticks(range(len(names) + 1), ["trained", *names])
    axes.set_xlabel("Drawn anew")
    axes.set_ylabel("Rank correlation\nwith the trained map")
    axes.set_ylim(min(-0.2, axes.dataLim.ymin), 1.05)
    axes.legend(fontsize=8)
    add_source(figure, source)
    return figure
