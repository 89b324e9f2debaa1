"""Audit the detector for any instrument for shortcuts, by the gates of `trials.audit`.

    python benchmarks/world_audit.py data

`data` is the folder of a run of the preset `world`. Judged are panels of collections that the
scoring network has left out, as in the calibration, and for the controls the released model. The
third gate trains the three networks again, on labels without meaning: in half of the collections
reals and fakes change places. Writes `audit.json` beside the released model, and the table of
docs/results/world.md.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from semforensics.core.checkpoints import load_checkpoint
from semforensics.core.files import sha256_of, write_json
from semforensics.core.markdown import markdown_table
from semforensics.core.training import Setup
from semforensics.detector.corpus import LabelledImages
from semforensics.detector.domain import phase_randomised
from semforensics.detector.expected import Expectation
from semforensics.detector.pairs import Source
from semforensics.detector.panels import panel_score
from semforensics.detector.scoring import MODEL_FILE
from semforensics.detector.traces import measure_traces
from semforensics.detector.world import train_fold
from semforensics.detector.world_calibration import (
    CALIBRATION_FILE,
    Specimen,
    of_folds,
    tile_logits,
)
from semforensics.detector.world_data import WorldData
from semforensics.detector.world_network import WorldNetwork
from semforensics.params import TrainWorldParams, read_params
from semforensics.publish.world_model import load_ensembles
from semforensics.screening.screener import Screener
from semforensics.trials.audit import Gate, judged_by_chance, noise_like, processing_gate
from semforensics.trials.intervals import wilson_interval
from semforensics.trials.metrics import auroc

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/results/world.md"
RELEASED = ROOT / "data/released/world_model"
BEGIN, END = "<!-- audit -->", "<!-- end of audit -->"
CPU = torch.device("cpu")
SIDE_PX, TILE_PX = 256, 128
NUM_CONTROLS = 100
RESAMPLES, DRAWS = 2000, 2000

Grey = UInt8[np.ndarray, "height width"]
Scores = Float[np.ndarray, " n"]


def middle(image: Grey) -> Grey:
    """Cut out the middle."""
    top, left = ((side - SIDE_PX) // 2 for side in image.shape)
    return np.ascontiguousarray(image[top : top + SIDE_PX, left : left + SIDE_PX])


def one_sided(specimens: Sequence[Specimen], data: Path, seed: int) -> Gate:
    """Process one class alone, and both: as for the other detectors, on panels of 256 px.

    The score is what is compared with the calibration: that of a network which has not seen the
    collection, less what is expected of a real with such pixels.
    """
    _, known = load_checkpoint(data / "world_calibration" / CALIBRATION_FILE)
    ensembles = load_ensembles(data / "world", known["levels"])
    expectation = Expectation.restore(known["expected"])
    rows = [
        {"file": f"{i:06d}", "class": "fake" if one.family else "real", "group": one.unit}
        for i, one in enumerate(specimens)
    ]

    def score(images: Tensor) -> Scores:
        found = []
        for one, pixels in zip(specimens, images[:, 0].numpy(), strict=True):
            network: WorldNetwork = ensembles[one.part]  # type: ignore[assignment]
            logits = tile_logits(network, pixels, TILE_PX, CPU)
            found.append(panel_score(logits) - expectation.of(measure_traces(pixels)))
        return np.array(found)

    stack = torch.from_numpy(np.stack([one.image for one in specimens])[:, None])
    return processing_gate(score, LabelledImages(pd.DataFrame(rows), stack), RESAMPLES, seed)


def controls(specimens: Sequence[Specimen], model: Path, seed: int) -> Gate:
    """Ask the released model about noise, and about reals with random phases: nothing is said."""
    reals = [one.image for one in specimens if not one.family]
    chosen = [reals[i] for i in np.linspace(0, len(reals) - 1, NUM_CONTROLS).astype(int)]
    rng = np.random.default_rng(seed)
    noise = [noise_like(image, rng) for image in chosen]
    phases = phase_randomised(torch.from_numpy(np.stack(chosen)[:, None]), rng)[:, 0].numpy()
    screener = Screener.load(model, evidence=False)
    counts = {
        kind: sum(found.verdict == "inconclusive" for found in screener.judge(images, parts=False))
        for kind, images in (("noise", noise), ("random phases", list(phases)))
    }
    total = 2 * NUM_CONTROLS
    low, high = wilson_interval(sum(counts.values()), total)
    return Gate(
        name="controls_inconclusive",
        passed=sum(counts.values()) == total,
        value=sum(counts.values()) / total,
        low=low,
        high=high,
        bound=1.0,
        rule="all verdicts are inconclusive",
        remark=", ".join(f"{kind} {n} of {NUM_CONTROLS}" for kind, n in counts.items()),
    )


def permuted(specimens: Sequence[Specimen], params: TrainWorldParams, seed: int) -> Gate:
    """Train on collections of which half have real and fake exchanged; test on those left out.

    Each of the folds trains one network. Chance is exact: the same scores, other draws of which
    of the left-out collections are exchanged.
    """
    rng = np.random.default_rng(seed)
    values, chance = [], np.zeros(DRAWS)
    folds = sorted({one.part for one in specimens if one.part is not None})
    for number, fold in enumerate(folds):
        seen = [one for one in specimens if one.part != fold]
        flipped = exchanged(sorted({one.unit for one in seen}), rng)
        # A real and the fake that follows it are of one micrograph.
        pairs = zip(seen[::2], seen[1::2], strict=True)
        sources = [
            Source(real.unit, fake.image, (real.image,))
            if flipped[real.unit]
            else Source(real.unit, real.image, (fake.image,))
            for real, fake in pairs
        ]
        with TemporaryDirectory() as scratch:
            setup = Setup(seed + number, Path(scratch) / "world", CPU)
            network = train_fold(sources, params, setup).average.eval()
        left_out = [one for one in specimens if one.part == fold]
        scores = np.array(
            [panel_score(tile_logits(network, one.image, TILE_PX, CPU)) for one in left_out]
        )
        units = sorted({one.unit for one in left_out})
        values.append(auroc(scores, labels_of(left_out, exchanged(units, rng))))
        drawn = [labels_of(left_out, exchanged(units, rng)) for _ in range(DRAWS)]
        chance += np.array([auroc(scores, of) for of in drawn]) / len(folds)
    return judged_by_chance(values, chance, f"{len(folds)} trainings of {params.steps} steps")


def exchanged(units: Sequence[str], rng: np.random.Generator) -> dict[str, bool]:
    """Draw half of the collections; of an odd number half a one more or less."""
    first = int(rng.integers(2))
    return {unit: (i + first) % 2 == 0 for i, unit in enumerate(rng.permutation(list(units)))}


def labels_of(specimens: Sequence[Specimen], flipped: dict[str, bool]) -> Bool[np.ndarray, " n"]:
    """Return which are called fake."""
    return np.array([bool(one.family) != flipped[one.unit] for one in specimens])


def main() -> None:
    """Make the three gates, and write what they say."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", type=Path, default=RELEASED)
    parser.add_argument("--steps", type=int, default=300, help="Of a training on permuted labels.")
    args = parser.parse_args()
    torch.set_num_threads(1)
    data, params = args.data, read_params(args.data.parent / "params.yaml")
    learned = WorldData(
        data / "cropped",
        data / "splits.csv",
        data / "reconstructed",
        data / "fakes/pseudo",
        data / "released/real_subset",
    )
    everything = list(of_folds(learned, data / "world"))
    large = [
        Specimen(one.unit, one.family, middle(one.image), one.part)
        for one in everything
        if min(one.image.shape) >= SIDE_PX
    ]
    recipe = params.train_world.model_copy(
        update={"steps": args.steps, "generators": (), "precision": "float32"}
    )
    gates = []
    for gate in (
        lambda: one_sided(large, data, params.seed),
        lambda: controls(large, args.model, params.seed),
        lambda: permuted(large, recipe, params.seed),
    ):
        gates.append(gate())
        print(gates[-1], flush=True)
    numbers = ("passed", "value", "low", "high", "bound", "rule", "remark")
    collections = len({one.unit for one in large})
    found = {
        "passed": all(gate.passed for gate in gates),
        "model_sha256": sha256_of(args.model / MODEL_FILE),
        "panels": f"{len(large)} of {SIDE_PX} px, of {collections} collections",
        "gates": {gate.name: {key: getattr(gate, key) for key in numbers} for gate in gates},
    }
    write_json(args.model / "audit.json", found)
    columns = ["gate", "", "value (interval)", "bound", "rule", "remark"]
    body = [
        [
            gate.name,
            "passed" if gate.passed else "**RED**",
            f"{gate.value:.3f} ({gate.low:.3f}-{gate.high:.3f})",
            f"{gate.bound:g}",
            gate.rule,
            gate.remark,
        ]
        for gate in gates
    ]
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    table = markdown_table(columns, body).strip()
    PAGE.write_text(f"{before}{BEGIN}\n\n{table}\n\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
