"""A model for any instrument: panels are compared with those whose pixels tell of the same history.

What a panel went through is measured on its pixels (`detector.traces`), which name a cell of the
calibration. Panels of many collections and papers are in each cell, put there by the same function,
so no history has to be known: its p-values hold whatever it was (Mondrian conformal prediction).
Where few of a cell's generated panels would be suspected, nothing is called consistent.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor, nn

from semforensics.core.errors import InputError
from semforensics.detector.cells import cell_logits, fold, window_means
from semforensics.detector.expected import Expectation
from semforensics.detector.panels import LEAST_POWER, Cell, panel_score, restore_cells
from semforensics.detector.tiling import Tiles
from semforensics.detector.traces import CELLS, cell_of, measure_traces
from semforensics.detector.world_domain import BRIGHT_FIELD_LIMIT, WorldDomain, bright_field
from semforensics.detector.world_network import ARCHITECTURE, WorldEnsemble
from semforensics.screening.judge.parts import IN_PART, WINDOWS, Cells, PartRule, Windows
from semforensics.screening.judge.references import References
from semforensics.screening.records import Grey, MapName, Panel

KIND = "semforensics world model"
ARCHITECTURES: Mapping[str, type[nn.Module]] = {ARCHITECTURE: WorldEnsemble}
"""Networks with a `logit_map`, by what a model file calls them."""

Images = UInt8[Tensor, "n 1 height width"]

_TILE_COUNTS = (1, 4, 16)  # of the panels whose power a report lists
_POWER_ALPHA = 0.05


@dataclass(frozen=True)
class WorldModel:
    """What a model file of this kind holds."""

    network: nn.Module
    cells: Mapping[str, Cell]
    """The calibration, by what pixels tell."""
    expectation: Expectation
    """The score of reals, by what pixels tell: the calibration is of what exceeds it."""
    domain: WorldDomain
    references: References
    parts: PartRule | None
    """How generated parts are searched for; None: that was not calibrated."""
    about: dict[str, Any]
    """`name`, `data`, `training_domain`, `limits`, `false_alarms`."""
    sha256: str
    """Of the file."""
    device: torch.device

    poolings = ("mean",)
    """The mean of the middle tiles, which the calibration has, too."""

    @classmethod
    def restore(
        cls,
        tensors: dict[str, dict[str, Tensor]],
        meta: dict[str, Any],
        sha256: str,
        device: torch.device,
    ) -> "WorldModel":
        """Rebuild a model from the tensors of its file, by their first name, and its description.

        Raises:
            InputError, KeyError, TypeError, ValueError, ...: They do not fit together.
        """
        if meta["architecture"] not in ARCHITECTURES:
            expected = " or ".join(map(repr, ARCHITECTURES))
            raise InputError(f"architecture {meta['architecture']!r}, expected {expected}")
        network = ARCHITECTURES[meta["architecture"]](**meta["arguments"])
        network.load_state_dict(tensors["network"], strict=True)
        about = {k: meta[k] for k in ("name", "data", "training_domain", "limits")}
        about["false_alarms"] = list(meta.get("false_alarms", []))
        return cls(
            fold(network.eval()).to(device),
            restore_cells(tensors["calibration"]["logits"], meta["panels"]),
            Expectation.restore(meta["expected"]),
            WorldDomain.restore(tensors["domain"], meta["domain"]),
            References.restore(tensors["references"], meta["references"]),
            PartRule.restore(meta["parts"]) if meta.get("parts") is not None else None,
            about,
            sha256,
            device,
        )

    @property
    def size_px(self) -> int:
        """Side of a tile."""
        return self.references.size_px

    @property
    def share_for_whole(self) -> float:
        """Share of alpha for the suspicion of a whole panel; the rest is for that of a part."""
        return 1.0 if self.parts is None else 1 - IN_PART

    def check_alpha(self, alpha: float) -> None:
        """Refuse an error rate of whole panels that no cell resolves.

        Raises:
            InputError: The message says how many collections and papers it needs.
        """
        needed = _units_for(alpha)
        if self._most_units < needed:
            raise InputError(
                f"alpha {alpha:g} needs {needed} calibration collections and papers, found "
                f"{self._most_units}"
            )

    @property
    def _most_units(self) -> int:
        return max((cell.num_units for cell in self.cells.values()), default=0)

    def score(self, tiles: Images) -> tuple[Float[np.ndarray, " n"], Cells]:
        """Score tiles, positive for generated, and their cells."""
        cells = cell_logits(self.network, tiles, self.device)  # type: ignore[arg-type]
        return cells.mean(axis=(1, 2)), cells

    def window_logits(self, panel: Grey, tiles: Tiles, cells: Cells | None, /) -> Windows:
        """Score windows that overlap by three quarters, from the cells of tiles."""
        assert cells is not None, "as `score` returns them"
        step = cells.shape[-1] // WINDOWS
        return window_means(cells, tiles.corners, panel.shape, self.size_px, step)

    def is_inside(self, tiles: Images) -> Bool[np.ndarray, " n"]:
        """Say which tiles are inside the training domain."""
        return self.domain.is_inside(tiles)

    def pool(
        self, logits: Float[np.ndarray, " n"], _areas: Float[np.ndarray, " n"], _pooling: str, /
    ) -> float:
        """Return the trimmed mean of tiles, each counted alike, as in the calibration."""
        return panel_score(logits)

    def read(
        self, panel: Panel, tiles: Tiles, _known: str | None, alpha: float, /
    ) -> "WorldReading":
        """Return the calibration of panels with such pixels; what a file tells changes nothing."""
        traces = measure_traces(panel.grey, panel.mask)
        name, expected = cell_of(traces), self.expectation.of(traces)
        is_bright = bright_field(panel.grey, panel.mask) > BRIGHT_FIELD_LIMIT
        return WorldReading(CELLS[name], self.cells[name], expected, len(tiles), alpha, is_bright)

    def tile_maps(self, tiles: Images) -> tuple[MapName, Float[np.ndarray, "n side side"]]:
        """Return the logits of the cells of tiles."""
        return "logit_map", self.score(tiles)[1]

    def describe(self) -> dict[str, Any]:
        """Say what a report says of the model."""
        units, alpha = self._most_units, _POWER_ALPHA * self.share_for_whole
        no_parts = [] if self.parts is not None else ["Here it searches for no parts of a panel."]
        return {
            **{k: self.about[k] for k in ("name", "data", "training_domain")},
            "limits": [*self.about["limits"], *no_parts],
            "sha256": self.sha256,
            "false_alarms": self.about["false_alarms"],
            "calibration": {
                "counted by": "collections and papers",
                "groups": units,
                "share for the whole": self.share_for_whole,
                "least alpha": round(1 / (units + 1) / self.share_for_whole, 4),
                "parts": "searched for" if self.parts is not None else "not searched for",
                "by what pixels tell": {
                    CELLS[name]: _describe(cell, alpha)
                    for name, cell in self.cells.items()
                    if cell.panels
                },
            },
        }


def _describe(cell: Cell, alpha: float) -> str:
    """Say in numbers what is known of a cell."""
    power = [cell.power(count, alpha) for count in _TILE_COUNTS]
    shown = ", ".join(f"{p:.0%} of {n}" for p, n in zip(power, _TILE_COUNTS, strict=True))
    return (
        f"{cell.num_units} collections and papers, {len(cell.families)} generators; of generated"
        f" panels would be suspected, by tiles: {shown}"
    )


@dataclass(frozen=True)
class WorldReading:
    """How the score of a panel is read: by panels whose pixels tell of the same processing."""

    history: str
    cell: Cell
    expected: float
    """The score of a real with such pixels."""
    num_tiles: int
    alpha: float
    is_bright: bool
    """Its ground is brighter than all else, as in few scanning micrographs."""

    @property
    def outside(self) -> str | None:
        """Why the panel as a whole is outside the training domain."""
        if not self.is_bright:
            return None
        return (
            "Its ground is bright and even, as in micrographs of a transmission microscope, which"
            " the model does not know"
        )

    @property
    def power(self) -> float:
        """Share of generated panels like it that would be suspected."""
        return self.cell.power(self.num_tiles, self.alpha)

    @property
    def comparison(self) -> str:
        """A sentence on what the panel was compared with, and how much that can tell."""
        needed = _units_for(self.alpha)
        compared = (
            f"It was compared with panels of {self.cell.num_units} collections and papers whose"
            f" pixels tell of the same processing: {self.history}."
        )
        if self.cell.num_units < needed:
            return f"{compared} These are too few for a verdict, which needs {needed}."
        if not self.cell.families:
            return f"{compared} No generator has enough panels among them for a verdict."
        return f"{compared} Of generated panels like it, {self.power:.0%} would be suspected."

    def p_values(self, logit: float) -> tuple[float, float]:
        """Return p_real and p_fake of a panel score."""
        return self._p_values(logit, self.num_tiles)

    def p_values_of_tile(self, logit: float) -> tuple[float, float]:
        """Return them for one tile."""
        return self._p_values(logit, 1)

    def log_odds(self, logit: float) -> float:
        """Return the logarithm of the odds by a curve through the scores of these panels."""
        if self._is_empty:
            return 0.0
        return self.cell.null(self.num_tiles).log_odds(logit - self.expected)

    def doubt(self) -> str | None:
        """Say in a clause that too few generated panels would have another score."""
        if self.power >= LEAST_POWER:
            return None
        return "too few generated panels like it would be suspected for that to say anything"

    @property
    def _is_empty(self) -> bool:
        return not (self.cell.num_units and self.cell.families)

    def _p_values(self, logit: float, num_tiles: int) -> tuple[float, float]:
        """Return 1, which excludes nothing, where there is nothing to compare with."""
        if self._is_empty:
            return 1.0, 1.0
        p_real, p_fake = self.cell.p_values(np.array([logit - self.expected]), num_tiles)
        return float(p_real[0]), float(p_fake[0])


def _units_for(alpha: float) -> int:
    """Return how many collections and papers resolve an alpha."""
    return math.ceil(1 / alpha - 1 - 1e-9)  # 1 / alpha may come out just above a whole number
