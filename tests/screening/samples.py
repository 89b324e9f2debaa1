"""Results of screenings, made up of simulated micrographs and given numbers, to report on."""

from functools import cache
from typing import Any

import numpy as np

from semforensics.acquire.simulated import draw_area, simulate_view
from semforensics.distances.spectra import radial_power_spectra
from semforensics.params import SimulatedParams
from semforensics.screening.records import (
    Box,
    Evidence,
    Finding,
    Grey,
    Map,
    Panel,
    PanelResult,
    Picture,
    PictureResult,
    Provenance,
    Refusal,
    Reuse,
    TileScores,
    Verdict,
)

HEAD: dict[str, Any] = {
    "model": {
        "name": "both",
        "sha256": "5d" * 32,
        "data": "boiko",
        "training_domain": {
            "material": "palladium nanoparticles on carbon",
            "instrument": "Hitachi SU8000 and Regulus8230",
            "pixel_sizes_nm": [0.99, 1.98],
            "tile_px": 128,
            "n_images": 2976,
            "n_groups": 21,
            "attribution": "Boiko et al. 2020, CC BY 4.0",
        },
        "calibration": {"reals": 595, "generated": 1190, "groups": 9, "least alpha": 0.0017},
        "false_alarms": [
            {
                "of": "the same one",
                "panels": 9,
                "areas": 7,
                "instruments": 1,
                "suspected": 0,
            },
            {"of": "another one", "panels": 27, "areas": None, "instruments": 1, "suspected": 2},
        ],
        "limits": [
            "Judges native pixels only: after JPEG or resampling it cannot tell.",
            "Has seen two generators; of others it knows nothing.",
        ],
    },
    "settings": {"alpha": 0.05, "prevalence": 0.01, "pooling": "mean", "maps": True},
    "command": "semforensics screen 'submission 7/' --out report --prevalence 0.01",
    "version": "0.1.0 (da2876f)",
    "created": "2026-11-25 22:30 UTC",
}

REASONS: dict[Verdict, str] = {
    "consistent": "Its score is usual for real micrographs (p = 0.412) and unusual for generated"
    " ones (p = 0.004).",
    "inconclusive": "Half of its tiles are unlike the images that the model was trained on.",
    "ai-suspected": "Its score is unusual for real micrographs (p = 0.002) and usual for generated"
    " ones (p = 0.630).",
    "refused": "Its pixels are constant.",
}
_LOGITS: dict[Verdict, float] = {
    "consistent": -5.2,
    "inconclusive": 0.7,
    "ai-suspected": 6.4,
    "refused": 0.0,
}


@cache
def micrograph(index: int, width_px: int = 448, height_px: int = 368) -> Grey:
    """A simulated micrograph with its info bar; another index shows another area."""
    params = SimulatedParams(
        num_areas=12,
        magnifications_k=(100,),
        width_px=width_px,
        height_px=height_px,
        ordered_share=0.75,
        compression="none",
    )
    return simulate_view(draw_area(params, index % 12, seed=7), 100, width_px, height_px)


def finding(verdict: Verdict) -> Finding:
    """Numbers that go with a verdict."""
    logit = _LOGITS[verdict]
    if verdict == "refused":
        return Finding(verdict, REASONS[verdict])
    return Finding(
        verdict,
        REASONS[verdict],
        n_tiles=6,
        logit=logit,
        probability=1 / (1 + np.exp(-logit / 1.9)),
        predictive_value=1 / (1 + np.exp(-logit / 1.9 + np.log(99))),
        p_real={"consistent": 0.412, "inconclusive": 0.09}.get(verdict, 0.0017),
        p_fake={"consistent": 0.0042, "inconclusive": 0.02}.get(verdict, 0.63),
        share_inside=0.5 if verdict == "inconclusive" else 1.0,
        share_judged=0.97,
    )


def evidence(grey: Grey, verdict: Verdict, *, near: bool = False) -> Evidence:
    """Evidence of every kind about a panel: true to its pixels where that is cheap."""
    height, width = grey.shape
    rng = np.random.default_rng(height * width)
    rows, columns = max(1, height // 64), max(1, width // 64)
    corners = 64 * np.argwhere(np.ones((rows, columns)))[1:]  # of the first tile there is no score
    logits = _LOGITS[verdict] + rng.normal(0, 1.5, len(corners))
    whole = Box(0, 0, height, width)
    y, x = np.mgrid[: height // 4, : width // 4] / 4
    heat = np.exp(-((y - height / 32) ** 2 + (x - width / 24) ** 2) / 90)
    side = min(height, width, 256) // 2 * 2
    frequency, power = radial_power_spectra(grey[None, :side, :side])
    panel = 10 * np.log10(power[0] + 1 / 12)
    middle = np.convolve(np.pad(panel, 6, mode="edge"), np.ones(13) / 13, mode="valid")
    tile = grey[:64, :64].astype(int)
    residual = np.clip(128 + tile - tile[::2, ::2].repeat(2, 0).repeat(2, 1), 0, 255)
    return Evidence(
        reencoded={
            "JPEG 95": (_LOGITS[verdict] - 3.1, "inconclusive"),
            "JPEG 75": (_LOGITS[verdict] - 9.8, "consistent"),
            "resized to 0.75": (_LOGITS[verdict] - 7.2, "consistent"),
            "resized to 1.25": (_LOGITS[verdict] + 0.4, verdict),
        },
        tiles=TileScores(corners, 64, logits),
        grad_cam=Map(heat, whole, "relative"),
        residual=residual.astype(np.uint8),
        spectrum={
            "frequency": frequency.tolist(),
            "panel": panel.tolist(),
            "p05": (middle - 6).tolist(),
            "p50": middle.tolist(),
            "p95": (middle + 6).tolist(),
        },
        nearest_real={
            "distance": 41,
            "threshold": 62,
            "crop": "12-S3-A1-100k-ordered_y0_x128.png",
            "transform": "mirrored",
            "box": Box(16, 32, 144, 160),
        }
        if near
        else None,
    )


def composite(
    path: str, verdicts: tuple[Verdict, ...], *, maps: bool = True, first: int = 0
) -> PictureResult:
    """A figure of panels side by side with white gutters, one for each verdict."""
    gap, width, height = 12, 448, 320
    views = [micrograph(first + index)[:height] for index in range(len(verdicts))]
    gutter = np.full((height, gap), 255, np.uint8)
    grey = np.hstack([part for view in views for part in (gutter, view)] + [gutter])
    panels = []
    for index, (verdict, view) in enumerate(zip(verdicts, views, strict=True)):
        left = gap + index * (width + gap)
        name = "" if len(verdicts) == 1 else "abcdefgh"[index]
        notes = () if name else ("info bar of 48 rows cut off",)
        panel = Panel(name, Box(0, left, height, left + width), view, notes)
        shown = evidence(view, verdict, near=verdict == "ai-suspected") if maps else Evidence()
        panels.append(PanelResult(panel, finding(verdict), shown))
    picture = Picture(
        path=path,
        location="page 3 of 8" if path.endswith(".pdf") else "",
        sha256=f"{len(path) % 16:x}7" * 32,
        grey=grey,
        provenance=Provenance(
            file_format="TIFF",
            instrument={"Beam.HV": "10000", "Scan.PixelWidth": "1.98e-09"} if first else {},
            instrument_source="TIFF tag 34682 (FEI/Thermo)" if first else None,
            software={"Software": "Adobe Photoshop 25.1 (Windows)"},
            c2pa="none",
        ),
        is_lossy=path.endswith(".jpg"),
        is_resampled=False,
        notes=("16 bits became 8 by the top 8",) if first else (),
    )
    refusals = (
        Refusal(path, "panel h", picture.sha256, "60 x 44 px; the model's tile is 128 x 128 px"),
    )
    return PictureResult(picture, tuple(panels), refusals if len(verdicts) > 1 else ())


def reuse(first: str, second: str) -> Reuse:
    """Panel a of one picture, mirrored in panel b of another."""
    return Reuse((first, "", "a"), (second, "", "b"), "mirrored", 0.8, Box(10, 20, 200, 300), 0.973)
