"""A model of one instrument: an NPR classifier, calibrated by crops or areas of native pixels.

What it knows of generated images does not survive JPEG or resampling, so "consistent" is doubted
wherever these are known or show.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, get_args

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from semforensics.core.errors import InputError
from semforensics.detector.conformal import calibration_groups, calibration_sizes
from semforensics.detector.detector import Detector
from semforensics.detector.domain import Domain
from semforensics.detector.inference import FoldedNetwork, window_logits
from semforensics.detector.networks import NetworkName, build_network, to_device
from semforensics.detector.scoring import score_images
from semforensics.detector.tiling import Pooling, Tiles, pool
from semforensics.screening.judge.parts import IN_PART, WINDOWS, Cells, PartRule, Windows
from semforensics.screening.judge.references import References
from semforensics.screening.judge.signs import why_not_native
from semforensics.screening.records import Grey, MapName, Panel

KIND = "semforensics screening model"

Images = UInt8[Tensor, "n 1 height width"]


@dataclass(frozen=True)
class NprModel:
    """What a model file of this kind holds."""

    detector: Detector
    references: References
    parts: PartRule | None
    """How generated parts are searched for; None: the file is older than that search."""
    about: dict[str, Any]
    """`name`, `data`, `training_domain`, `limits`."""
    sha256: str
    """Of the file."""

    poolings = get_args(Pooling)

    @classmethod
    def restore(
        cls,
        tensors: dict[str, dict[str, Tensor]],
        meta: dict[str, Any],
        sha256: str,
        device: torch.device,
    ) -> "NprModel":
        """Rebuild a model from the tensors of its file, by their first name, and its description.

        Raises:
            InputError, KeyError, TypeError, ValueError, ...: They do not fit together.
        """
        if meta["network"] not in get_args(NetworkName):
            raise InputError(f"network {meta['network']!r}: not a screening model of this version")
        network = build_network(meta["network"], meta["channels"])
        network.load_state_dict(tensors["network"], strict=True)
        domain = Domain.restore(tensors["domain"], meta["domain"])
        references = References.restore(tensors["references"], meta["references"])
        part_rule = PartRule.restore(meta["parts"]) if "parts" in meta else None
        placed = to_device(network, device).eval()
        detector = Detector(placed, meta, domain, int(meta["phases"]), device)
        about = {k: meta[k] for k in ("name", "data", "training_domain", "limits")}
        about["false_alarms"] = list(meta.get("false_alarms", []))
        model = cls(detector, references, part_rule, about, sha256)
        model.describe()
        _check_numbers(detector)
        return model

    @property
    def size_px(self) -> int:
        """Side of a tile."""
        return self.references.size_px

    @property
    def share_for_whole(self) -> float:
        """Share of alpha for the suspicion of a whole panel; the rest is for that of a part."""
        return 1.0 if self.parts is None else 1 - IN_PART

    @cached_property
    def _network(self) -> FoldedNetwork:
        return FoldedNetwork(self.detector.network)

    def check_alpha(self, alpha: float) -> None:
        """Refuse an error rate of whole panels that the calibration cannot resolve.

        Raises:
            InputError: It cannot; the message says what it would need.
        """
        self.detector.check_alpha(alpha)

    def score(self, tiles: Images) -> tuple[Float[np.ndarray, " n"], None]:
        """Score tiles: one logit each, positive for generated."""
        phases, device = self.detector.phases, self.detector.device
        return score_images(self._network, tiles, phases=phases, device=device), None

    def window_logits(self, panel: Grey, _tiles: Tiles, _cells: Cells | None, /) -> Windows:
        """Score windows that overlap by three quarters, in a pass over the panel."""
        return window_logits(
            self._network,
            panel,
            size_px=self.size_px,
            step_px=self.size_px // WINDOWS,
            phases=self.detector.phases,
            device=self.detector.device,
        )

    def is_inside(self, tiles: Images) -> Bool[np.ndarray, " n"]:
        """Say which tiles are inside the training domain."""
        return self.detector.domain.is_inside(tiles)

    def pool(
        self, logits: Float[np.ndarray, " n"], areas: Float[np.ndarray, " n"], pooling: str, /
    ) -> float:
        """Make one logit of those of a panel's tiles, by the area that each adds."""
        return pool(logits, pooling, areas)  # type: ignore[arg-type]  # one of `poolings`

    def read(self, panel: Panel, tiles: Tiles, known: str | None, _alpha: float, /) -> "NprReading":
        """Return the calibration, with what is known of a panel."""
        return NprReading(self, panel, tiles, known)

    def tile_maps(self, tiles: Images) -> tuple[MapName, Float[np.ndarray, "n side side"]]:
        """Return the Grad-CAM maps of tiles, towards generated."""
        # Imported here: a screening without maps needs none of it.
        from semforensics.detector.gradcam import SIGNS, explain_images

        network, device = self.detector.network, self.detector.device
        return "grad_cam", explain_images(network, tiles, SIGNS["fake"], device).numpy()

    def describe(self) -> dict[str, Any]:
        """Say what a report says of the model."""
        meta = self.detector.meta
        n_real, n_fake = calibration_sizes(self.detector.calibration)
        groups, least = calibration_groups(self.detector.calibration), 1 / (n_real + 1)
        return {
            **{k: self.about[k] for k in ("name", "data", "training_domain", "limits")},
            "sha256": self.sha256,
            "false_alarms": self.about["false_alarms"],
            "calibration": {
                "reals": len(self.detector.calibration["real"]),
                "generated": n_fake,
                "counted by": "crops" if groups is None else "areas",
                "share for the whole": self.share_for_whole,
                "groups": meta["n_validation_groups"],
                "benign processing": list(meta["params"]["calibrate_on"]),
                "least alpha": round(max(least / self.share_for_whole, 1 / (n_fake + 1)), 4),
            },
        }


@dataclass(frozen=True)
class NprReading:
    """How the logits of a panel are read: by the calibration of single tiles.

    A mean scatters less than a tile, so its false alarms are rarer than alpha promises; those of a
    maximum are more frequent.
    """

    model: NprModel
    panel: Panel
    tiles: Tiles
    known: str | None
    """Of processing on the way here."""

    history = None
    outside = None
    power = None
    comparison = ""

    def p_values(self, logit: float) -> tuple[float, float]:
        """Return p_real and p_fake of a pooled logit."""
        p_real, p_fake = self.model.detector.p_values(np.array([logit], dtype=np.float32))
        return float(p_real[0]), float(p_fake[0])

    p_values_of_tile = p_values

    def log_odds(self, logit: float) -> float:
        """Return the calibrated logit."""
        return logit / self.model.detector.temperature

    def doubt(self) -> str | None:
        """Say in a clause what is known, or shows, of processing."""
        sign = self.known or why_not_native(
            self.panel.grey, self.model.references, self.panel.mask, self.tiles
        )
        return sign and f"{sign}, and then generated images get such scores, too"


def _check_numbers(detector: Detector) -> None:
    """Refuse a header whose numbers would fail, or turn a probability round, on every panel.

    Raises:
        InputError: A number is not what it should be.
    """
    if not 0 < detector.temperature < math.inf:
        raise InputError(f"temperature {detector.temperature}, expected a positive number")
    if detector.phases not in (1, 4):
        raise InputError(f"phases {detector.phases}, expected 1 or 4")
    groups = detector.meta["n_validation_groups"]
    if type(groups) is not int or groups < 1:
        raise InputError(f"n_validation_groups {groups!r}, expected a number of areas")
    logits = detector.calibration
    every = [logits["real"], *logits["processed"].values(), *logits["generators"].values()]
    if not all(len(kind) and np.isfinite(np.array(kind, float)).all() for kind in every):
        raise InputError("calibration with logits that are missing or not finite")
    counts = {len(kind) for kind in every[: 1 + len(logits["processed"])]}
    if "groups" in logits and counts != {len(logits["groups"])}:
        raise InputError("calibration with areas that are not one for each real")
    detector.p_values(np.zeros(1, dtype=np.float32))
