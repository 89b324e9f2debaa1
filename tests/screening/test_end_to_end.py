"""Real and generated panels in one figure, and in a PDF, judged by the released model."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from semforensics.core.images import read_grey
from semforensics.generators.common.sampling import generate_grey
from semforensics.generators.generate_fakes import load_generator
from semforensics.screening.records import Grey
from semforensics.screening.screener import Screener
from tests.screening.documents import encoded, figure, pdf_with

GENERATORS = ("fastgan", "stylegan2_ada_best")  # whose fakes the model has learned
FIRST_SEED, NUM_FAKES = 100_000, 4  # no classifier has seen a fake of these
REAL_PX = 384, 512


@pytest.fixture
def panels(root: Path, shared: Path) -> list[Grey]:
    """Two parts of held-out micrographs, and fakes of each generator."""
    reals = sorted((shared / "sem/boiko-pdc-partial").rglob("*.tif"))
    released = root / "data/released"
    if not reals:
        pytest.skip(f"{shared}/sem: the real micrographs are not there")
    if not (released / "screening_model/model.safetensors").is_file():
        pytest.skip(f"{released}: not pulled (dvc pull)")
    held_out = _test_groups(released / "real_subset/splits.csv")
    chosen = [path for path in reals if any(group in path.name for group in held_out)]
    height, width = REAL_PX
    parts = np.s_[100 : 100 + height, 200 : 200 + width]
    found = [read_grey(path)[parts] for path in (chosen[0], chosen[-1])]
    for name in GENERATORS:
        generator = load_generator(released / f"real_subset/{name}.safetensors")
        fakes = generate_grey(generator, range(FIRST_SEED, FIRST_SEED + NUM_FAKES))
        found += [fake.numpy() for fake in fakes]
    return found


def _test_groups(splits: Path) -> set[str]:
    lines = [line.split(",") for line in splits.read_text().splitlines()]
    group, split = lines[0].index("group"), lines[0].index("split")
    return {line[group] for line in lines[1:] if line[split] == "test"}


def screen(file: Path, out: Path, root: Path) -> list[dict[str, Any]]:
    """Run the command with the released model; give the images of its report."""
    subprocess.run(
        [sys.executable, root / "src/stage.py", "screen", file, "--out", out],
        check=True, capture_output=True, cwd=root, timeout=100,
    )  # fmt: skip
    images: list[dict[str, Any]] = json.loads((out / "report.json").read_text())["images"]
    return images


def check(images: list[dict[str, Any]]) -> None:
    """Both reals are consistent; of eight fakes, all are found and at least six are suspected.

    A fake is no larger than the least panel: one with a flat edge, taken for a margin, is refused.
    """
    panels = [panel for image in images for panel in image["panels"]]
    sides = [panel["box"]["bottom"] - panel["box"]["top"] for panel in panels]
    reals = [p["verdict"] for p, side in zip(panels, sides, strict=True) if side == REAL_PX[0]]
    fakes = [p["verdict"] for p, side in zip(panels, sides, strict=True) if side != REAL_PX[0]]
    refused = [refusal["reason"] for image in images for refusal in image["refusals"]]
    assert reals == ["consistent", "consistent"]
    assert len(fakes) + len(refused) == NUM_FAKES * len(GENERATORS)
    assert all(reason.startswith("too small") for reason in refused)
    assert fakes.count("ai-suspected") >= 6, fakes


@pytest.mark.timeout(150)
def test_a_composite_figure_is_judged_panel_by_panel(
    panels: list[Grey], tmp_path: Path, root: Path
) -> None:
    """Ten panels of two sizes between white gutters are found, each with its own verdict."""
    path = tmp_path / "Figure 1.png"
    path.write_bytes(encoded(figure([panels[:2], panels[2:]]), "PNG"))

    images = screen(path, tmp_path / "report", root)

    assert len(images) == 1
    check(images)


@pytest.mark.timeout(150)
def test_a_document_is_judged_picture_by_picture(
    panels: list[Grey], tmp_path: Path, root: Path
) -> None:
    """The embedded pictures of a manuscript are read as they are stored, and judged alone."""
    path = tmp_path / "manuscript.pdf"
    path.write_bytes(pdf_with(*panels))

    images = screen(path, tmp_path / "report", root)

    assert len(images) == len(panels)
    check(images)


@pytest.mark.parametrize("first", [2, 2 + NUM_FAKES], ids=GENERATORS)
def test_a_generated_part_of_a_real_micrograph_is_boxed(
    panels: list[Grey], root: Path, shared: Path, first: int
) -> None:
    """With four fakes laid edge to edge a held-out micrograph is suspected in part, else not."""
    screener = Screener.load(root / "data/released/screening_model", evidence=False)
    (path,) = (shared / "sem/boiko-pdc-partial/cropped_890").rglob("13-S4-A50*.tif")
    real, tiles = read_grey(path), panels[first : first + NUM_FAKES]
    composite = real.copy()
    composite[90:346, 150:406] = np.block([tiles[:2], tiles[2:]])

    before, after = screener.judge([real, composite])

    assert before.verdict == "consistent"
    assert before.part_box is None
    assert after.verdict == "ai-suspected"
    box = after.part_box
    found = np.array([box.top, box.left, box.bottom, box.right])
    assert np.abs(found - [90, 150, 346, 406]).max() <= 64
    assert f"A part of it (rows {box.top} to {box.bottom}" in after.reason
