"""Figures of compactness and of fresh weights show their numbers."""

import numpy as np
import torch

from semforensics.figures.explanations import (
    compactness_distributions,
    overlaid_maps,
    randomised_maps,
)
from semforensics.trials.gradcam_controls import compare_compactness


def test_distributions_show_both_classes_with_means_and_verdict() -> None:
    """A panel per direction; zero maps are counted in the legend, not drawn."""
    rng = np.random.default_rng(0)
    shares = {"real": rng.uniform(0.1, 0.2, 30), "fake": rng.uniform(0.3, 0.4, 30)}
    shares["real"][:5] = np.nan
    groups = {c: [str(i) for i in range(30)] for c in shares}
    numbers = compare_compactness(shares, groups, 200, 0)
    directions = {"own_class": shares, "towards_fake": shares}

    figure = compactness_distributions(
        directions, dict.fromkeys(directions, numbers), source="npr_tiny"
    )

    assert len(figure.axes) == 2
    for axes in figure.axes:
        assert "reals compact, fakes broad: supported" in axes.get_title(loc="left")
        legend = [text.get_text() for text in axes.get_legend().get_texts()]
        assert "25 maps, 5 zero ones left out" in legend[0]
        means = [line.get_xdata()[0] for line in axes.lines]
        assert means == [numbers["real"], numbers["fake"]]
        heights = sum(patch.get_height() for patch in axes.patches)
        assert np.isclose(heights, 200)  # per cent of two classes


def test_maps_and_correlations_of_every_step_are_drawn() -> None:
    """One image per class with its trained map and four others; a step without maps has no dot."""
    step = {"real": 0.5, "real_low": 0.4, "real_high": 0.6}
    empty = dict.fromkeys(("fake", "fake_low", "fake_high"), np.nan)
    steps = [
        step | empty | {"fresh_from_logit_to": name} for name in ("fc1", "layer2", "layer1", "stem")
    ]
    images = {c: np.full((32, 32), 90, dtype=np.uint8) for c in ("real", "fake")}
    maps = {c: torch.rand(5, 4, 4) for c in ("real", "fake")}

    figure = randomised_maps(images, maps, steps, limit=0.5, source="npr_tiny")

    shown = [image for axes in figure.axes for image in axes.get_images()]
    assert len(shown) == 2 * 6
    curves = figure.axes[-1].lines
    assert curves[0].get_ydata().tolist() == [1, 0.5, 0.5, 0.5, 0.5]
    assert curves[1].get_ydata().tolist() == [1]


def test_figures_show_each_image_beside_its_overlay_on_the_given_scale() -> None:
    """Every map is drawn from 0 to the shared maximum, beside its image, under a labelled bar."""
    images = np.full((5, 8, 8), 100, dtype=np.uint8)
    maps = np.linspace(0, 1, 5 * 64, dtype=np.float32).reshape(5, 8, 8)

    figure = overlaid_maps(
        images, maps, image_class="real", scale_max=4.0, note="note with 2 of 5 zero"
    )

    drawn = [image for axis in figure.axes for image in axis.get_images()]
    heats = [image for image in drawn if image.get_alpha()]
    assert len(drawn) == 15
    assert [image.get_clim() for image in heats] == [(0, 4.0)] * 5
    assert figure.axes[-1].get_ylabel() == "evidence for real, in logits"
    title = figure.get_suptitle()
    assert "-logit" in title
    assert "2 of 5 zero" in title
