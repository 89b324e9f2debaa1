"""The model for any instrument: panels are compared with those whose pixels tell of the same."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tests.screening.small_model import SIZE_PX, TEST, doubled, original
from torch import Tensor, nn

from semforensics.core.checkpoints import load_checkpoint, save_checkpoint
from semforensics.core.errors import InputError
from semforensics.core.processing import jpeg
from semforensics.detector.panels import LEAST_FAKES, Cell, Panel
from semforensics.detector.tiling import Tiles, cut_tiles
from semforensics.detector.traces import CELLS, cell_of, measure_traces
from semforensics.detector.world_domain import WorldDomain
from semforensics.screening.judge import world_model
from semforensics.screening.judge.model import load_model
from semforensics.screening.judge.npr_model import NprModel
from semforensics.screening.judge.parts import PartRule, Windows
from semforensics.screening.judge.world_model import KIND, WorldModel
from semforensics.screening.records import Grey
from semforensics.screening.screener import Screener

CPU = torch.device("cpu")
REAL, DOUBLED = original(TEST[0]), doubled(original(TEST[0]))
UNITS = 24
"""Collections of each cell; 22 resolve an alpha of 5 %, of which whole panels have nine tenths."""
OWN = cell_of(measure_traces(REAL))


class Doubling(nn.Module):
    """Scores pixels by how much more neighbours within pairs are alike than those between pairs."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor([scale]))

    def logit_map(self, images: Tensor) -> Tensor:
        """Return the logit of every cell of 16 px."""
        within = (images[..., 1::2] - images[..., ::2]).abs()
        between = F.pad(
            (images[..., 2::2] - images[..., 1:-1:2]).abs(), (0, 1, 0, 0), mode="replicate"
        )
        sums = (F.avg_pool2d(of, (16, 8))[:, 0] + 1e-3 for of in (within, between))
        first, second = sums
        return self.scale * (torch.log(second / first) - 0.5)


def network() -> Doubling:
    """The network of the tests."""
    return Doubling(6.0).eval()


def logits_of(grey: Grey) -> np.ndarray:
    """Logits of the tiles of a panel."""
    tiles = cut_tiles(grey, SIZE_PX).pixels.float() / 127.5 - 1
    with torch.inference_mode():
        return network().logit_map(tiles).mean(dim=(1, 2)).numpy()


def calibration(cell: str, real: np.ndarray, fake: np.ndarray, units: int) -> list[Panel]:
    """Panels of as many units and of two families, drawn from the logits of tiles.

    High logits are 0.6 to 1 times those of the tiles, another factor for each panel.
    """
    rng = np.random.default_rng([units, len(cell)])
    reals = [Panel(f"{cell} {i}", "", rng.choice(real, 35)) for i in range(units)]
    lower = 0.6 if fake.mean() > 0 else 1.0
    return reals + [
        Panel(f"{cell} {i}", family, rng.choice(fake, 35) * rng.uniform(lower, 1))
        for family in ("a", "b")
        for i in range(LEAST_FAKES + 5)
    ]


def windows(model: WorldModel, grey: Grey) -> Windows:
    """Logits of the windows of a panel."""
    tiles = cut_tiles(grey, SIZE_PX)
    return model.window_logits(grey, tiles, model.score(tiles.pixels)[1])


def composite(area: int, left: int = 128) -> Grey:
    """A real panel with a generated square in it."""
    grey = original(area).copy()
    grey[96:256, left : left + 160] = doubled(grey)[96:256, left : left + 160]
    return grey


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory, model: NprModel) -> Path:
    """A model file with three cells: one that tells, one of few collections, one without power."""
    reals, fakes = (
        np.concatenate([logits_of(of(original(area))) for area in range(4)])
        for of in (np.asarray, doubled)
    )
    other, weak = (name for name in list(CELLS)[-2:])
    assert OWN not in (other, weak)
    panels = [
        *((OWN, panel) for panel in calibration(OWN, reals, fakes, UNITS)),
        *((other, panel) for panel in calibration(other, reals, fakes, 5)),
        *((weak, panel) for panel in calibration(weak, reals, reals, UNITS)),
    ]
    greys = {
        f"{of.__name__} {n}": of(original(n)) for of in (np.asarray, doubled) for n in range(6)
    }
    tiles = {name: [cut_tiles(grey, SIZE_PX).pixels] for name, grey in greys.items()}
    # Simulated areas differ more than collections do, and the gate is tested elsewhere.
    domain = replace(WorldDomain.fit(tiles, np.random.default_rng(0)), limits=(3.0, 60.0))
    references = model.references
    state = {
        **{f"network.{name}": tensor for name, tensor in network().state_dict().items()},
        "calibration.logits": torch.tensor(np.concatenate([p.logits for _, p in panels])).float(),
        **{f"domain.{name}": tensor for name, tensor in domain.tensors().items()},
        **{f"references.{name}": tensor for name, tensor in references.tensors().items()},
    }
    meta = {
        "kind": KIND, "architecture": "doubling", "arguments": {"scale": 1.0}, "name": "small",
        "data": "simulated", "training_domain": {"data": "simulated"}, "limits": ["For tests."],
        "panels": [(cell, p.unit, p.family, p.shrunk, len(p.logits)) for cell, p in panels],
        "domain": domain.numbers(), "references": references.numbers(), "parts": None,
        "expected": [[0.0] * 8, [1.0] * 8, [0.0] * 9],
    }  # fmt: skip
    path = tmp_path_factory.mktemp("world") / "model.safetensors"
    save_checkpoint(path, state, meta)
    return path


@pytest.fixture(autouse=True)
def _as_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The network is known, and pixels of both classes tell of the same processing."""
    monkeypatch.setattr(world_model, "ARCHITECTURES", {"doubling": Doubling})
    in_cell(monkeypatch, OWN)


@pytest.fixture
def screener(file: Path) -> Screener:
    """A screener of whole panels: parts were not calibrated."""
    return Screener(load_model(file, CPU), evidence=False)


def in_cell(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Let pixels tell what they would tell of another cell."""
    monkeypatch.setattr(world_model, "cell_of", lambda _traces: name)


def test_panels_are_told_apart_and_the_reason_names_what_was_measured(screener: Screener) -> None:
    """With the cell in words, its collections, and how many generated panels it would suspect."""
    real, generated = screener.judge([REAL, DOUBLED])

    assert (real.verdict, generated.verdict) == ("consistent", "ai-suspected")
    assert real.history == CELLS[OWN]
    assert real.power > 0.8
    assert real.probability < 0.1 < 0.9 < generated.probability
    assert real.p_fake <= 0.05 < real.p_real
    for finding in (real, generated):
        cell = f"compared with panels of {UNITS} collections and papers"
        assert cell in finding.reason
        assert CELLS[OWN] in finding.reason
        assert (
            f"Of generated panels like it, {real.power:.0%} would be suspected." in finding.reason
        )


def test_a_panel_is_in_the_cell_of_its_pixels(
    screener: Screener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A strong JPEG is compared with strong JPEGs."""
    monkeypatch.setattr(world_model, "cell_of", cell_of)
    panels = [REAL, jpeg(REAL, 60)]

    found = screener.judge(panels)

    assert [f.history for f in found] == [CELLS[cell_of(measure_traces(p))] for p in panels]
    assert found[0].history != found[1].history


def test_a_file_with_loss_can_be_consistent(screener: Screener) -> None:
    """What a panel went through is in its pixels; what the file says changes nothing."""
    plain, lossy = (screener.judge([REAL], is_lossy=by, is_resampled=by)[0] for by in (False, True))

    assert plain == lossy


def test_a_cell_of_few_collections_gives_no_verdict(
    screener: Screener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the score; the reason counts them."""
    in_cell(monkeypatch, list(CELLS)[-2])

    for finding in screener.judge([REAL, DOUBLED]):
        assert finding.verdict == "inconclusive"
        assert "of 5 collections and papers" in finding.reason
        assert "too few for a verdict, which needs 19." in finding.reason


def test_an_empty_cell_gives_no_verdict(
    screener: Screener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing was ever compared with such panels."""
    name = list(CELLS)[-2]
    in_cell(monkeypatch, name)
    monkeypatch.setitem(screener.model.cells, name, Cell(()))

    (finding,) = screener.judge([REAL])

    assert (finding.verdict, finding.p_real, finding.p_fake) == ("inconclusive", 1, 1)
    assert (finding.probability, finding.power) == (0.5, 0)


def test_consistent_needs_power(screener: Screener, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where generated panels score like reals, an unusually low score is no evidence."""
    in_cell(monkeypatch, list(CELLS)[-1])
    low = screener.model.cells[list(CELLS)[-1]]
    monkeypatch.setattr(
        WorldModel, "pool", lambda *_: float(min(low.null(35).fakes["a"].min(), -99.0))
    )

    (finding,) = screener.judge([REAL])

    assert finding.p_fake <= 0.05 < finding.p_real
    assert finding.power < 0.5
    assert finding.verdict == "inconclusive"
    assert "too few generated panels like it would be suspected" in finding.reason


def test_what_is_unlike_the_training_images_is_inconclusive(screener: Screener) -> None:
    """Noise is no micrograph, and nothing is said of what it was compared with."""
    noise = np.random.default_rng(0).integers(0, 256, (192, 192), dtype=np.uint8)

    (finding,) = screener.judge([noise])

    assert finding.verdict == "inconclusive"
    assert finding.reason.endswith("so its score says nothing.")


def test_a_transmission_micrograph_is_inconclusive(
    screener: Screener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever its tiles are like: its ground is brighter than all else."""
    monkeypatch.setattr(world_model, "bright_field", lambda *_: 0.36)

    for finding in screener.judge([REAL, DOUBLED]):
        assert finding.verdict == "inconclusive"
        assert finding.share_inside > 0.5
        assert "transmission microscope" in finding.reason
        assert finding.reason.endswith("so its score says nothing.")


def test_alpha_is_resolved_by_units(file: Path) -> None:
    """Collections and papers of the largest cell, not panels or tiles."""
    with pytest.raises(InputError, match="needs 99 calibration collections and papers, found 24"):
        Screener(load_model(file, CPU), alpha=0.01)


def test_only_the_pooling_of_the_calibration_is_taken(file: Path) -> None:
    """Another one would be compared with what it is not."""
    with pytest.raises(InputError, match="pooling 'max': expected one of mean"):
        Screener(load_model(file, CPU), pooling="max")


def test_windows_at_a_tiles_place_have_its_logit(file: Path) -> None:
    """One pass serves both, and a window over what no tile holds is not judged."""
    model = load_model(file, CPU)
    tiles = cut_tiles(REAL, SIZE_PX)
    logits, cells = model.score(tiles.pixels)

    found = model.window_logits(REAL, tiles, cells)

    assert cells.shape == (35, 4, 4)
    assert found.shape == (17, 25)
    np.testing.assert_allclose(found[::4, ::4].ravel(), logits, atol=1e-5)
    few = Tiles(tiles.pixels[1:], tiles.corners[1:], tiles.areas[1:])
    assert np.isnan(model.window_logits(REAL, few, cells[1:])[0, :4]).all()


def test_a_generated_part_is_suspected(file: Path) -> None:
    """Where the search was calibrated, a square of four tiles is found and boxed."""
    model = load_model(file, CPU)
    reals = {
        "as it is": [windows(model, original(area)) for area in range(6)],
        "JPEG 85": [windows(model, jpeg(original(area), 85)) for area in range(6)],
    }
    places = [(area, left) for area in range(6) for left in (32, 64, 160, 192)]
    rule = PartRule.measure(reals, [windows(model, composite(*place)) for place in places])
    screener = Screener(replace(model, parts=rule), evidence=False)

    part, real = screener.judge([composite(TEST[1]), REAL])

    assert part.verdict == "ai-suspected"
    assert part.part_box is not None
    assert abs(part.part_box.top - 96) <= SIZE_PX // 2
    assert abs(part.part_box.left - 128) <= SIZE_PX // 2
    assert real.part_box is None
    assert (screener.model.share_for_whole, model.share_for_whole) == (0.9, 1)


def test_the_evidence_shows_cells_in_the_place_of_grad_cam(file: Path) -> None:
    """Their mean over a tile is its score."""
    evidence = Screener(load_model(file, CPU)).screen(DOUBLED).panels[0].evidence

    assert evidence.grad_cam is None
    assert evidence.logit_map.values.shape == (20, 28)
    mean = evidence.logit_map.values[:4, :4].mean()
    assert mean == pytest.approx(float(evidence.tiles.logits[0]), abs=1e-4)
    assert len(evidence.reencoded) == 4
    assert evidence.spectrum is not None


def test_the_model_says_what_it_was_calibrated_on(file: Path) -> None:
    """In values that JSON can hold, and that there is no search for parts."""
    about = load_model(file, CPU).describe()

    assert json.loads(json.dumps(about)) == about
    calibration = about["calibration"]
    assert calibration["counted by"] == "collections and papers"
    assert calibration["groups"] == UNITS
    assert calibration["parts"] == "not searched for"
    assert set(calibration["by what pixels tell"]) == {
        CELLS[name] for name in (OWN, *list(CELLS)[-2:])
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": "poem"}, "architecture 'poem', expected 'doubling'"),
        ({"arguments": {}}, "not the model it says it is"),
        ({"panels": []}, "missing or not finite"),
        ({"panels": [["native", "x", "", 1.0, 35]]}, "not the model it says it is"),
        ({"panels": [["native", "x", "", 1.0, 0]]}, "not the model it says it is"),
        ({"domain": {"features": [], "limits": [1, 1]}}, "not a domain of these statistics"),
        ({"limits": None}, "no 'limits' in it"),
        ({"parts": {"version": 9}}, "calibration of parts of version 9"),
    ],
    ids=str,
)
def test_a_damaged_model_is_refused(
    tmp_path: Path, file: Path, changes: Mapping[str, object], message: str
) -> None:
    """The message names the file and what is wrong with it."""
    state, meta = load_checkpoint(file)
    path = tmp_path / "model.safetensors"
    save_checkpoint(path, state, {k: v for k, v in (meta | dict(changes)).items() if v is not None})

    with pytest.raises(InputError, match=message) as raised:
        load_model(path, CPU)
    assert str(raised.value).startswith(f"{path}: ")


def test_nothing_in_a_cell_excludes_nothing() -> None:
    """Without reals or generated panels there is no power."""
    assert Cell(()).power(4, 0.05) == 0
