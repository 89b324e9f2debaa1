"""Judging pictures from outside, with a small model."""

import json
import pickle
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from scipy import special

from semforensics.core.processing import jpeg, median
from semforensics.detector.perturbations import resize
from semforensics.detector.tiling import cut_tiles
from semforensics.micrographs.drawn import DrawnBox
from semforensics.screening.judge.evidence import RESIDUAL_GAIN, residual
from semforensics.screening.judge.npr_model import NprModel
from semforensics.screening.judge.parts import Part
from semforensics.screening.judge.verdict import LEAST_JUDGED, Rule
from semforensics.screening.records import Box, Grey, Panel, Picture, Provenance
from semforensics.screening.screener import Screener
from semforensics.screening.submission import Options, screen_submission
from tests.screening.small_model import SIZE_PX, TEST, doubled, original

REAL = original(TEST[0])
DOUBLED = doubled(REAL)


def picture_of(grey: Grey, *, is_lossy: bool = False, is_resampled: bool = False) -> Picture:
    """A picture without a file."""
    return Picture("x", "", "0" * 64, grey, Provenance("PNG"), is_lossy, is_resampled)


@pytest.mark.parametrize("area", TEST)
def test_native_panels_are_told_apart(screener: Screener, area: int) -> None:
    """A micrograph of a new area is consistent with a real one, a doubled one is suspected."""
    real, generated = screener.judge([original(area), doubled(original(area))])

    assert (real.verdict, generated.verdict) == ("consistent", "ai-suspected")
    assert real.n_tiles == generated.n_tiles == 35
    assert real.probability < 0.9 < generated.probability
    assert generated.p_real <= 0.1 < generated.p_fake
    assert "unusual for real micrographs (p = 0.0" in generated.reason


PART = Part(Box(0, 0, 64, 64), np.ones((1, 1), bool), 9.0, 0.001, 0.001, 0.5, 1.0)
"""Of a high score, as those of composites, inside the training domain."""


@pytest.mark.parametrize(
    ("part", "verdict", "words"),
    [
        (PART, "ai-suspected", "unusual for real micrographs and not those of the rest"),
        (replace(PART, share_inside=0.3), "inconclusive", "disagrees with the rest"),
        (replace(PART, logit=-9.0), "inconclusive", "disagrees with the rest"),
        (replace(PART, p_real=0.03, p_native=0.002), "inconclusive", "disagrees with the rest"),
        (replace(PART, p_real=0.9, p_native=0.9, p_composite=0.01), "consistent", "usual for real"),
        (replace(PART, p_real=0.9, p_native=0.9), "inconclusive", "disagrees with the rest"),
    ],
)
def test_what_a_part_changes(screener: Screener, part: Part, verdict: str, words: str) -> None:
    """A part is suspected that reals rarely have, inside the domain; a weaker one is doubted."""
    tiles = cut_tiles(REAL, SIZE_PX)
    logits, inside = screener.tile_logits(tiles.pixels), np.ones(len(tiles), bool)

    found = screener.decide(
        Panel.of(REAL), tiles, logits, inside, part, is_lossy=False, is_resampled=False
    )

    assert found.verdict == verdict
    assert words in found.reason
    assert (found.part_box == part.box) == (verdict != "consistent")


def test_a_part_suspected_at_a_low_prevalence_warns(screener: Screener) -> None:
    """If fewer panels are generated than reals suspected by chance, most suspected are real."""
    tiles = cut_tiles(REAL, SIZE_PX)
    logits, inside = screener.tile_logits(tiles.pixels), np.ones(len(tiles), bool)
    rare = replace(screener, prevalence=0.001)

    found = rare.decide(
        Panel.of(REAL), tiles, logits, inside, PART, is_lossy=False, is_resampled=False
    )

    assert "most panels that are suspected in part are real" in found.reason


@pytest.mark.parametrize(("prevalence", "warns"), [(0.9, False), (1e-6, True)])
def test_a_suspicion_that_is_more_likely_wrong_says_so(
    screener: Screener, prevalence: float, warns: bool
) -> None:
    """Below a predictive value of one half the reason warns; the verdict stays."""
    (finding,) = replace(screener, prevalence=prevalence).judge([doubled(original(TEST[0]))])

    assert finding.verdict == "ai-suspected"
    assert (finding.predictive_value < 0.5) == warns
    assert ("most suspected panels with such a score are real" in finding.reason) == warns


@pytest.mark.parametrize(
    ("panel", "clause"),
    [
        (jpeg(REAL, 90), "steps of JPEG"),
        (resize(REAL, 0.9, "bicubic"), "pattern of interpolation"),
        (median(REAL, 3), "repeat their neighbours"),
        (jpeg(doubled(original(2)), 75), "steps of JPEG"),
    ],
    ids=["JPEG", "resampled", "median", "doubled, then JPEG"],
)
def test_consistent_is_not_said_of_processed_pixels(
    screener: Screener, panel: Grey, clause: str
) -> None:
    """Whatever they were before: they are inconclusive, and the sentence says why."""
    (finding,) = screener.judge([panel])

    assert finding.verdict == "inconclusive"
    assert clause in finding.reason
    assert finding.p_fake <= screener.alpha < finding.p_real


@pytest.mark.parametrize(
    ("history", "clause"),
    [({"is_lossy": True}, "stored with loss"), ({"is_resampled": True}, "another size")],
    ids=["lossy", "resampled"],
)
def test_a_known_history_counts_like_one_that_shows(
    screener: Screener, history: dict[str, bool], clause: str
) -> None:
    """It takes "consistent" away, and leaves "AI-suspected" as it is."""
    real = screener.screen_picture(picture_of(REAL, **history)).panels[0].finding
    generated = screener.screen_picture(picture_of(DOUBLED, **history)).panels[0].finding

    assert real.verdict == "inconclusive"
    assert clause in real.reason
    assert generated.verdict == "ai-suspected"


def test_panels_outside_the_training_domain_are_inconclusive(screener: Screener) -> None:
    """Noise and gradients get scores, too; they mean nothing."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (192, 192), dtype=np.uint8)
    gradient = np.tile(np.arange(192, dtype=np.uint8), (192, 1))

    for finding in screener.judge([noise, gradient]):
        assert finding.verdict == "inconclusive"
        assert finding.share_inside == 0
        assert finding.reason.startswith("9 of its 9 tiles are unlike the images")


def test_half_of_the_tiles_outside_is_outside(screener: Screener) -> None:
    """More than half must be inside."""
    noise = np.random.default_rng(0).integers(0, 256, (SIZE_PX, SIZE_PX), dtype=np.uint8)
    inside = original(0)[:SIZE_PX, :SIZE_PX]

    half, more = screener.judge([np.hstack([noise, inside]), np.hstack([noise, inside, inside])])

    assert (half.share_inside, half.verdict) == (0.5, "inconclusive")
    assert "1 of its 2 tiles are unlike" in half.reason
    assert more.share_inside > 0.5
    assert "unlike" not in more.reason


def drawn_on(grey: Grey, left: int = 16) -> Panel:
    """A panel with a white plate over the right part of its lower half."""
    plate = DrawnBox("text", grey.shape[0] // 2, left, grey.shape[0] - 4, grey.shape[1] - 4)
    grey = grey.copy()
    grey[plate.top : plate.bottom, plate.left : plate.right] = 255
    return replace(Panel.of(grey), drawn=(plate,))


def test_what_is_drawn_over_a_panel_is_not_judged(screener: Screener) -> None:
    """Its tiles hold none of it, and the score is that of the rest."""
    panel = drawn_on(REAL, left=330)
    (masked,) = screener.judge([panel])
    (beside,) = screener.judge([REAL[:, :320]])

    assert masked.verdict == beside.verdict == "consistent"
    assert masked.share_judged >= LEAST_JUDGED
    assert masked.logit == pytest.approx(beside.logit, abs=0.5)
    assert screener.judge([panel.grey])[0] != masked


def test_consistent_is_said_of_what_was_looked_at(screener: Screener) -> None:
    """Below 90 % of the area it is inconclusive, with the share; a suspicion stays."""
    whole, half, suspected = screener.judge(
        [
            REAL,
            replace(Panel.of(REAL), drawn=(DrawnBox("bar", 192, 0, 320, 448),)),
            drawn_on(DOUBLED),
        ]
    )

    assert (whole.verdict, whole.share_judged) == ("consistent", 1)
    assert (half.verdict, half.share_judged) == ("inconclusive", pytest.approx(0.6, abs=0.01))
    assert "only 60% of its area could be judged" in half.reason
    assert suspected.verdict == "ai-suspected"


def test_a_panel_that_may_be_composite_is_never_consistent(screener: Screener) -> None:
    """One score says nothing of several pictures; a suspicion stays."""
    real, suspected = screener.judge(
        [replace(Panel.of(grey), may_be_composite=True) for grey in (REAL, DOUBLED)]
    )

    assert (real.verdict, suspected.verdict) == ("inconclusive", "ai-suspected")
    assert "it may be a composite of several pictures" in real.reason


def test_a_panel_without_a_free_square_is_inconclusive(screener: Screener) -> None:
    """It has no score."""
    (finding,) = screener.judge(
        [replace(Panel.of(REAL), drawn=(DrawnBox("bar", 40, 0, 320, 448),))]
    )

    assert (finding.verdict, finding.n_tiles, finding.logit) == ("inconclusive", 0, None)
    assert finding.share_judged == 0
    assert "no square of 64 px free" in finding.reason


def test_a_panel_smaller_than_a_tile_is_refused(screener: Screener) -> None:
    """It is named in its place among the others."""
    findings = screener.judge([REAL, REAL[:60, :90], DOUBLED])

    assert [f.verdict for f in findings] == ["consistent", "refused", "ai-suspected"]
    assert findings[1].reason == "It is too small: 90x60 px, need at least 64x64."
    assert findings[1].logit is None
    assert screener.judge([]) == []


def test_companions_do_not_change_a_finding(screener: Screener) -> None:
    """A panel judged alone gets what it gets among others, but for rounding."""
    alone = [screener.judge([panel])[0] for panel in (REAL, DOUBLED)]
    together = screener.judge([REAL, DOUBLED])

    for one, other in zip(alone, together, strict=True):
        assert one.logit == pytest.approx(other.logit, abs=1e-4)
        assert replace(one, logit=0, probability=0, predictive_value=0) == replace(
            other, logit=0, probability=0, predictive_value=0
        )


def test_scores_are_those_of_the_detector(screener: Screener) -> None:
    """The folded network gives the logits of the network that was trained."""
    tiles = torch.from_numpy(REAL[:64, :320].reshape(64, 5, 64).swapaxes(0, 1).copy())[:, None]

    logits = screener.tile_logits(tiles)

    np.testing.assert_allclose(logits, screener.model.detector.logits(tiles), atol=1e-4)


def test_the_rule_of_pooling_is_the_one_asked_for(model: NprModel) -> None:
    """One doubled tile among real ones moves the maximum, not the median."""
    panel = original(0).copy()
    panel[:64, :64] = DOUBLED[:64, :64]

    logits = {
        rule: Screener(model, pooling=rule, evidence=False).judge([panel])[0].logit
        for rule in ("mean", "median", "max")
    }
    untouched = Screener(model, pooling="median", evidence=False).judge([original(0)])[0].logit

    assert logits["max"] > logits["mean"] > logits["median"] - 3
    assert logits["max"] > 5
    assert logits["median"] == pytest.approx(untouched, abs=1.5)


@pytest.mark.parametrize("logit", [-700.0, -40.0, 40.0, 700.0])
def test_probabilities_of_extreme_logits_keep_their_digits(model: NprModel, logit: float) -> None:
    """A probability far below a rounding error of 1 is no 0, and nothing overflows."""
    panel = Panel.of(REAL[:SIZE_PX, :SIZE_PX])
    tiles, inside = cut_tiles(panel.grey, SIZE_PX), np.ones(1, dtype=bool)

    found = Rule(model, alpha=0.1).decide(
        panel, tiles, np.array([logit]), inside, is_lossy=False, is_resampled=False
    )

    calibrated = logit / model.detector.temperature
    assert found.probability == pytest.approx(special.expit(calibrated), rel=1e-12)
    assert found.probability > 0


@pytest.mark.parametrize(
    ("logit", "verdict"), [(0.45, "inconclusive"), (0.05, "consistent"), (-1.0, "consistent")]
)
def test_consistent_asks_that_hardly_a_generated_panel_scores_so(
    model: NprModel, logit: float, verdict: str
) -> None:
    """Of 100 images of the generator a fiftieth may, where alpha alone would allow a tenth."""
    detector = model.detector
    known: dict[str, Any] = {
        "generators": {"doubler": [0.1, 0.2, 0.3, 0.4, 0.4, *range(1, 96)]},
        "real": [-9.0] * 100 + [0.5] * 20,
        "processed": {},
    }
    calibration = {**detector.calibration, **known}
    meta = {**detector.meta, "calibration": {str(detector.phases): calibration}}
    calibrated = replace(detector, meta=meta)
    panel = Panel.of(REAL[:SIZE_PX, :SIZE_PX])
    tiles, inside = cut_tiles(panel.grey, SIZE_PX), np.ones(1, dtype=bool)

    found = Rule(replace(model, detector=calibrated), alpha=0.1).decide(
        panel, tiles, np.array([logit]), inside, is_lossy=False, is_resampled=False
    )

    assert found.p_fake is not None
    assert found.p_fake <= 0.1
    assert found.verdict == verdict
    assert ("also that of some images" in found.reason) == (verdict == "inconclusive")


def test_the_prevalence_moves_the_predictive_value_alone(model: NprModel) -> None:
    """Where few panels are generated, a suspicion is less likely right."""
    rare = Screener(model, alpha=0.1, prevalence=0.01, evidence=False).judge([DOUBLED])[0]
    even = Screener(model, alpha=0.1, prevalence=0.5, evidence=False).judge([DOUBLED])[0]

    assert rare.predictive_value < even.predictive_value == even.probability
    assert replace(rare, predictive_value=0, reason="") == replace(
        even, predictive_value=0, reason=""
    )


def test_a_file_an_array_and_a_pillow_image_get_the_same(
    screener: Screener, tmp_path: Path
) -> None:
    """The same pixels get the same finding, wherever they come from."""
    path = tmp_path / "x.png"
    Image.fromarray(REAL).save(path)

    results = [
        screener.screen(image)
        for image in (path, str(path), REAL, Image.fromarray(REAL), np.dstack([REAL] * 3))
    ]

    findings = [result.panels[0].finding for result in results]
    assert all(finding == findings[0] for finding in findings)
    assert results[0].picture.path == str(path)


def test_16_bits_become_8(screener: Screener, tmp_path: Path) -> None:
    """A 16-bit file and a 16-bit array are read alike."""
    wide = REAL.astype(np.uint16) * 257
    tifffile.imwrite(tmp_path / "x.tif", wide)

    of_file, of_array = (
        screener.screen(x).panels[0].panel.grey for x in (tmp_path / "x.tif", wide)
    )

    np.testing.assert_array_equal(of_file, of_array)


@pytest.mark.parametrize("shape", [(64,), (64, 64, 7), (0, 64)], ids=str)
def test_other_arrays_are_refused(screener: Screener, shape: tuple[int, ...]) -> None:
    """The message names shape and type."""
    with pytest.raises(ValueError, match=re.escape(f"array of shape {shape} and type uint8")):
        screener.screen(np.zeros(shape, dtype=np.uint8))


def test_files_without_exactly_one_picture_are_refused(screener: Screener, tmp_path: Path) -> None:
    """Text, two frames, nothing."""
    (tmp_path / "x.png").write_text("a poem")
    frames = [Image.fromarray(REAL), Image.fromarray(DOUBLED)]
    frames[0].save(tmp_path / "two.tif", save_all=True, append_images=frames[1:])

    with pytest.raises(ValueError, match="not a PNG"):
        screener.screen(tmp_path / "x.png")
    with pytest.raises(ValueError, match="2 pictures, expected one"):
        screener.screen(tmp_path / "two.tif")
    with pytest.raises(FileNotFoundError):
        screener.screen(tmp_path / "none.png")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"alpha": 0.0}, "alpha 0.0"),
        ({"alpha": 1.0}, "alpha 1.0"),
        ({"alpha": 0.001}, "alpha 0.001, for whole panels alpha 0.0009 needs 1111"),
        ({"prevalence": 1.0}, "prevalence 1.0"),
        ({"pooling": "sum"}, "pooling 'sum': expected one of mean, median, max"),
    ],
    ids=str,
)
def test_settings_out_of_range_are_refused(
    model_file: Path, settings: dict[str, object], message: str
) -> None:
    """Before anything is judged."""
    with pytest.raises(ValueError, match=re.escape(message)):
        Screener.load(model_file, **settings)


def test_a_screener_travels_to_other_processes(screener: Screener) -> None:
    """A copy judges the same."""
    again = pickle.loads(pickle.dumps(screener))

    assert again.judge([REAL]) == screener.judge([REAL])


@pytest.mark.parametrize("mode", ["LA", "RGB", "RGBA", "P", "I;16", "1"])
def test_pillow_images_of_any_mode_are_read_as_files_are(
    screener: Screener, tmp_path: Path, mode: str
) -> None:
    """The same panel as from a file of the image."""
    deep = Image.fromarray(REAL.astype(np.uint16) * 16)
    image = deep if mode == "I;16" else Image.fromarray(REAL).convert(mode)
    image.save(tmp_path / "image.png")

    given, stored = (screener.screen(one) for one in (image, tmp_path / "image.png"))

    assert np.array_equal(given.picture.grey, stored.picture.grey)
    assert given.picture.notes == stored.picture.notes


def test_pillow_images_of_wide_numbers_are_refused(screener: Screener) -> None:
    """32 bits are not cut off at 255 without a word."""
    with pytest.raises(ValueError, match="samples of mode I, expected 8 or 16 bits"):
        screener.screen(Image.fromarray(REAL.astype(np.int32) * 1000))


def test_evidence_stands_beside_the_verdict(model: NprModel, screener: Screener) -> None:
    """All kinds of it, in the sizes that the report draws; the finding is the same without."""
    full = Screener(model, alpha=0.1).screen(DOUBLED).panels[0]
    plain = screener.screen(DOUBLED).panels[0]

    evidence = full.evidence
    assert full.finding == plain.finding
    assert plain.evidence.spectrum is None
    assert len(evidence.tiles.corners) == len(evidence.tiles.logits) == 35
    assert float(evidence.tiles.logits.mean()) == pytest.approx(full.finding.logit, abs=1e-3)
    assert evidence.grad_cam.values.shape[1] / evidence.grad_cam.values.shape[0] == 7 / 5
    assert evidence.grad_cam.values.min() >= 0
    assert evidence.grad_cam.box.size_px == (320, 448)
    assert evidence.residual.shape == (64, 64)
    lengths = {name: len(values) for name, values in evidence.spectrum.items()}
    assert set(lengths) == {"frequency", "panel", "p05", "p50", "p95"}
    assert len(set(lengths.values())) == 1
    assert evidence.nearest_real is None
    assert list(evidence.reencoded) == ["JPEG 95", "JPEG 75", "resized x0.75", "resized x1.25"]
    assert all(verdict != "consistent" for _, verdict in evidence.reencoded.values())


def test_the_scores_after_processing_are_those_of_the_processed_panel(
    model: NprModel, screener: Screener
) -> None:
    """What the table says of JPEG 75 is what the JPEG itself would get."""
    evidence = Screener(model, alpha=0.1).screen(REAL).panels[0].evidence
    (itself,) = screener.judge([jpeg(REAL, 75)], is_lossy=True)

    assert evidence.reencoded["JPEG 75"] == (itself.logit, itself.verdict)


def test_copies_smaller_than_a_tile_are_left_out(model: NprModel) -> None:
    """A panel of one tile cannot be judged at three quarters of its size."""
    evidence = Screener(model).screen(REAL[:70, :70]).panels[0].evidence

    assert list(evidence.reencoded) == ["JPEG 95", "JPEG 75", "resized x1.25"]


def test_a_training_real_is_named(model: NprModel) -> None:
    """A panel that holds one says which, where and how it lies."""
    found = Screener(model).screen(np.rot90(original(2)).copy()).panels[0].evidence.nearest_real

    assert found["crop"].startswith("2_y")
    assert found["transform"] == "turned by 90 degrees counter-clockwise"
    assert found["distance"] == 0


def test_the_residual_is_grey_where_neighbours_are_alike() -> None:
    """128 is no difference; differences are drawn with a gain and clipped."""
    tile = np.full((4, 4), 100, dtype=np.uint8)
    tile[0, 1], tile[1, 0], tile[3, 3] = 103, 98, 255

    drawn = residual(tile)

    assert drawn[0, 1] == 128 + 3 * RESIDUAL_GAIN
    assert drawn[1, 0] == 128 - 2 * RESIDUAL_GAIN
    assert drawn[3, 3] == 255
    assert (drawn == 128).sum() == 13


def test_no_sentence_says_fake(screener: Screener) -> None:
    """Whatever is found, the words can be defended."""
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    panels = [REAL, DOUBLED, jpeg(REAL, 75), jpeg(DOUBLED, 75), noise, noise[:9], original(4)]

    for finding in screener.judge([*panels, *(resize(p, 1.25, "bicubic") for p in panels[:4])]):
        assert finding.reason.endswith(".")
        assert not re.search("fake|fraud|forged|proof|manipulated", finding.reason, re.IGNORECASE)


def test_a_report_of_this_model_warns_of_simulated_training(
    model: NprModel, tmp_path: Path
) -> None:
    """From files to the report: verdicts, reasons, and what the model was trained on."""
    folder = tmp_path / "submission"
    folder.mkdir()
    Image.fromarray(REAL).save(folder / "a.png")
    Image.fromarray(DOUBLED).save(folder / "b.png")

    totals = screen_submission(
        [folder],
        tmp_path / "report",
        Screener(model, alpha=0.1),
        Options(tmp_path / "scratch", "semforensics screen submission"),
    )

    assert (totals.verdicts["consistent"], totals.verdicts["ai-suspected"]) == (1, 1)
    report = json.loads((tmp_path / "report/report.json").read_text())
    assert report["model"]["training_domain"]["data"] == "simulated"
    assert "simulated micrographs" in (tmp_path / "report/report.html").read_text()


def test_screening_starts_without_heavy_modules() -> None:
    """Loading the screener imports neither diffusers nor torchvision, lpips, sklearn or plots."""
    code = (
        "import sys; import semforensics.screening.screener; "
        "heavy = {'diffusers', 'torchvision', 'lpips', 'sklearn', 'matplotlib', 'skimage'}; "
        "print(sorted(heavy & set(sys.modules)))"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


def test_the_released_model_knows_its_domain(root: Path, shared: Path) -> None:
    """A held-out real micrograph is consistent, its JPEG inconclusive; the model names its data."""
    path = root / "data/released/screening_model/model.safetensors"
    if not path.is_file():
        pytest.skip("the released model is not pulled: dvc pull data/released/screening_model.dvc")
    screener = Screener.load(path, evidence=False)
    folder = shared / "sem/boiko-pdc-partial/cropped_890/disordered"
    grey = np.asarray(Image.open(folder / "25-S4-A75-100k-disordered.tif"))  # of its test side

    native, compressed = screener.judge([grey, jpeg(grey, 90)])

    assert native.verdict == "consistent"
    assert compressed.verdict == "inconclusive"
    assert screener.describe()["training_domain"]["data"] == "folder"


def test_the_released_models_work_together(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both are loaded by default; a finer alpha than the second resolves leaves it out."""
    monkeypatch.delenv("SEMFORENSICS_MODEL", raising=False)
    released = root / "data/released"
    if not all((released / name).is_dir() for name in ("screening_model", "world_model")):
        pytest.skip("the released models are not pulled: dvc pull data/released/*.dvc")

    both = Screener.load(evidence=False, pooling="median")

    assert both.second is not None
    assert (both.pooling, both.second.pooling) == ("median", "mean")
    assert both.describe()["second"]["calibration"]["parts"] == "not searched for"
    assert both.second.alpha_of_whole == both.alpha
    assert Screener.load(evidence=False, alpha=0.01).second is None
    assert Screener.load(released / "screening_model").second is None
    copy = pickle.loads(pickle.dumps(both))
    assert copy.judge([REAL]) == both.judge([REAL])
