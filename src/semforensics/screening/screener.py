"""One picture from outside, from its pixels to its verdicts: read, split, judge."""

import contextlib
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image

from semforensics.core.errors import InputError
from semforensics.core.greys import to_8_bit
from semforensics.detector.tiling import Tiles, cut_tiles
from semforensics.screening.judge.model import (
    ENVIRONMENT,
    SECOND,
    find_model,
    find_released,
    load_model,
)
from semforensics.screening.judge.parts import IN_PART, WINDOWS, Cells, Part
from semforensics.screening.judge.second import MOST_TILES, is_asked, join
from semforensics.screening.judge.signs import looks_denoised
from semforensics.screening.judge.verdict import Rule
from semforensics.screening.judge.world_model import WorldModel
from semforensics.screening.read.apart import read_inputs
from semforensics.screening.read.intake import LOSSY, hidden_pixels, to_grey
from semforensics.screening.records import (
    Evidence,
    Finding,
    GreyOfAnySize,
    Limits,
    Panel,
    PanelResult,
    Picture,
    PictureResult,
    Provenance,
    Refusal,
)
from semforensics.screening.split.panels import split_panels


@dataclass(eq=False)
class Screener(Rule):
    """A model with the settings of a screening; can be pickled.

    screener = Screener.load()
    for panel in screener.screen("figure.png").panels:
        print(panel.finding.verdict, panel.finding.reason)
    """

    evidence: bool = True
    """Whether to collect what is shown beside a verdict, which takes most of the time."""
    second: "Screener | None" = None
    """Asked about some panels (`judge.second`); it searches for no parts."""
    most_tiles: int | None = None
    """Of a panel that are judged; None: all."""

    @cached_property
    def size_px(self) -> int:
        """Side of a tile, and the least of a panel."""
        return self.model.size_px

    @classmethod
    def load(
        cls,
        model: str | Path | None = None,
        *,
        device: str | torch.device = "cpu",
        **settings: Any,
    ) -> "Screener":
        """Load a model.

        Args:
            model: As `find_model` takes it. None: the released one, and as the second the released
                one for any instrument, unless alpha is finer than its calibration resolves.
            device: Where to score.
            settings: alpha, prevalence, pooling, evidence.

        Raises:
            InputError: The model and the settings do not go together, or the file is no screening
                model.
            FileNotFoundError: There is no such model.
        """
        on = torch.device(device)
        first = cls(load_model(find_model(model), on), **settings)
        if model is None and ENVIRONMENT not in os.environ:
            of_second = {name: settings[name] for name in settings if name != "pooling"}
            second = load_model(find_released(SECOND), on)
            assert isinstance(second, WorldModel)
            second = replace(second, parts=None)  # so that all of alpha is for whole panels
            with contextlib.suppress(InputError):
                first.second = cls(second, most_tiles=MOST_TILES, **of_second)
        return first

    def describe(self) -> dict[str, Any]:
        """Return what a report says of the model, and of the second as `second`."""
        second = {} if self.second is None else {"second": self.second.describe()}
        return self.model.describe() | second

    def screen(self, image: str | Path | GreyOfAnySize | Image.Image) -> PictureResult:
        """Judge one image.

        Args:
            image: A file that holds one picture, an array of grey levels (8 or 16 bits), or a
                Pillow image.

        Raises:
            InputError: It cannot be read, or holds several pictures.
            FileNotFoundError: There is no such file.
        """
        if not isinstance(image, str | Path):
            return self.screen_picture(_picture_of(image))
        found = list(read_inputs([Path(image)], Limits()))
        if len(found) != 1:
            raise InputError(
                f"{image}: {len(found)} pictures, expected one; `semforensics screen` takes all"
            )
        if isinstance(found[0], Refusal):
            raise InputError(f"{image}: {found[0].reason}")
        return self.screen_picture(found[0])

    def screen_picture(self, picture: Picture, info_bar: int | None = None) -> PictureResult:
        """Judge the panels of a picture.

        Args:
            picture: As intake reads it.
            info_bar: Rows to cut off the bottom of each panel; None finds the bar.
        """
        panels, refusals = split_panels(picture, self.size_px, info_bar)
        findings = self.judge(
            panels,
            is_lossy=picture.is_lossy,
            is_resampled=picture.is_resampled,
        )
        results = tuple(
            PanelResult(panel, finding, self._evidence_by(panel, finding, picture.is_lossy))
            for panel, finding in zip(panels, findings, strict=True)
        )
        return PictureResult(picture, results, tuple(refusals))

    def judge(
        self,
        panels: Sequence[Panel | GreyOfAnySize],
        *,
        is_lossy: bool = False,
        is_resampled: bool = False,
        parts: bool = True,
        alone: bool = False,
    ) -> list[Finding]:
        """Judge panels, each by itself.

        Args:
            panels: Or their grey levels without info bar. One smaller than a tile is refused.
            is_lossy: They are known to have gone through a lossy codec.
            is_resampled: They are known to have been brought to another size.
            parts: Whether to search for parts that disagree with the rest.
            alone: Without the second model.
        """
        given = [panel if isinstance(panel, Panel) else Panel.of(panel) for panel in panels]
        large = {i: p for i, p in enumerate(given) if min(p.grey.shape) >= self.size_px}
        tiles = {i: cut_tiles(p.grey, self.size_px, p.mask) for i, p in large.items()}
        if self.most_tiles is not None:
            tiles = {i: of_panel.some(self.most_tiles) for i, of_panel in tiles.items()}
        findings = [self._refusal(panel.grey) for panel in given]
        if tiles:
            stack = torch.cat([part.pixels for part in tiles.values()])
            ends = np.cumsum([len(part) for part in tiles.values()])[:-1]
            logits, cells = self._score(stack)
            scores = np.split(logits, ends)
            of_panels = [None] * len(tiles) if cells is None else np.split(cells, ends)
            inside = np.split(self.model.is_inside(stack), ends)
            for i, of_tiles, its_cells, is_inside in zip(
                tiles, scores, of_panels, inside, strict=True
            ):
                # A panel that is mostly unknown gets no verdict, whatever its parts are like.
                known = len(is_inside) and np.average(is_inside, weights=tiles[i].areas) > 0.5
                part = self._part_of(given[i], tiles[i], its_cells) if parts and known else None
                findings[i] = self.decide(
                    given[i],
                    tiles[i],
                    of_tiles,
                    is_inside,
                    part,
                    is_lossy=is_lossy,
                    is_resampled=is_resampled,
                )
        asked = [i for i, finding in enumerate(findings) if is_asked(finding)]
        if self.second is not None and asked and not alone:
            others = self.second.judge(
                [given[i] for i in asked],
                is_lossy=is_lossy,
                is_resampled=is_resampled,
                parts=False,
            )
            for i, other in zip(asked, others, strict=True):
                denoised = other.verdict == "ai-suspected" and looks_denoised(given[i])
                findings[i] = join(findings[i], other, denoised=denoised)
        return findings

    def tile_logits(self, tiles: torch.Tensor) -> Float[np.ndarray, " tiles"]:
        """Score tiles: uint8 [n, 1, size, size] → one logit each, positive for generated."""
        return self._score(tiles)[0]

    def _score(self, tiles: torch.Tensor) -> tuple[Float[np.ndarray, " tiles"], Cells | None]:
        """Score tiles, of which there may be none."""
        return self.model.score(tiles) if len(tiles) else (np.empty(0, dtype=np.float32), None)

    def _part_of(self, panel: Panel, tiles: Tiles, cells: Cells | None) -> Part | None:
        """Find the part of a panel that disagrees most with the rest."""
        rule, size = self.model.parts, self.size_px
        if rule is None or min(panel.grey.shape) < size:
            return None
        windows = self.model.window_logits(panel.grey, tiles, cells)
        corners = np.moveaxis(np.indices(windows.shape), 0, -1) * (size // WINDOWS)
        if panel.drawn:
            mask = panel.mask
            held = [mask[y : y + size, x : x + size].any() for y, x in corners.reshape(-1, 2)]
            windows[np.reshape(held, windows.shape)] = np.nan
        part = rule.find(windows, size)
        if part is None or part.p_real > IN_PART * self.alpha:
            return part  # it will not be suspected, and nothing else asks for more
        cut = [panel.grey[y : y + size, x : x + size] for y, x in corners[part.windows]]
        pixels = torch.from_numpy(np.stack(cut))[:, None]
        # As tiles, since the calibration of tiles reads it: a window sees its neighbours.
        highest = float(self.tile_logits(pixels).max())
        inside = float(self.model.is_inside(pixels).mean())
        return replace(part, logit=highest, share_inside=inside)

    def _refusal(self, panel: GreyOfAnySize) -> Finding:
        height, width = panel.shape
        return Finding(
            "refused",
            f"It is too small: {width}x{height} px, need at least {self.size_px}x{self.size_px}.",
        )

    def _evidence_by(self, panel: Panel, finding: Finding, is_lossy: bool) -> Evidence:
        """Collect the evidence of the model that judged."""
        judge = self.second if finding.by_second and self.second is not None else self
        return judge._evidence_of(panel, finding, is_lossy)

    def _evidence_of(self, panel: Panel, finding: Finding, is_lossy: bool) -> Evidence:
        if not self.evidence or not finding.n_tiles:
            return Evidence()
        # Imported here: drawing Grad-CAM needs modules that a screening without maps does not.
        from semforensics.screening.judge.evidence import collect_evidence, processed_copies

        copies = {
            name: self.judge(
                [copy],
                is_lossy=lossy,
                is_resampled=resampled,
                parts=False,
                alone=not finding.is_known,  # whose copies are hardly known either
            )[0]
            for name, copy, lossy, resampled in processed_copies(panel, is_lossy)
        }
        tiles = cut_tiles(panel.grey, self.size_px, panel.mask)
        logits = self.tile_logits(tiles.pixels)
        return collect_evidence(self.model, panel.grey, tiles, logits, copies)


def _picture_of(image: Any) -> Picture:
    """Wrap pixels that came from no file."""
    if isinstance(image, Image.Image):
        grey, notes = to_grey(image)
        kind = image.format or "Pillow image"
        digest = hashlib.sha256(grey.tobytes()).hexdigest()
        provenance = Provenance(kind)
        known = (provenance, kind in LOSSY, False, tuple(notes), hidden_pixels(image))
        return Picture("array", "", digest, grey, *known)
    image = np.asarray(image)
    if image.ndim == 3 and image.dtype == np.uint8 and image.shape[2] in (3, 4) and image.size:
        return replace(_picture_of(Image.fromarray(image)), provenance=Provenance("array"))
    if image.ndim != 2 or image.dtype not in (np.uint8, np.uint16) or image.size == 0:
        raise InputError(
            f"array of shape {image.shape} and type {image.dtype}, expected grey levels [height, "
            "width] of 8 or 16 bits, or 8-bit colours [height, width, 3]"
        )
    digest = hashlib.sha256(np.ascontiguousarray(image).tobytes()).hexdigest()
    return Picture("array", "", digest, to_8_bit(image), Provenance("array"), False, False)
