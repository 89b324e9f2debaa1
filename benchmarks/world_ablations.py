"""Train one fold of the detector for any instrument with one thing left out at a time.

    python benchmarks/world_ablations.py data --steps 800

`data` is the folder of a run of the preset `world`, up to `resynthesise_published`. Judged are
panels of the collections that the fold left out, and of every second published paper: the share of
pairs of a fake and a real in which the fake has the higher score (AUROC), a vote for each
collection and paper; fakes of the families that were left out, of those that were not, and of a
later snapshot of a GAN. Writes one row a training into benchmarks/results/world_ablations.csv, and
leaves out those that are there; then the table of docs/results/world.md.
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args
from unittest.mock import patch

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from semforensics.core.blocks import assemble
from semforensics.core.markdown import markdown_table
from semforensics.core.training import Setup
from semforensics.detector import histories, pairs, world, world_network
from semforensics.detector.networks import NPRTiny
from semforensics.detector.panels import GRID, panel_score
from semforensics.detector.world_calibration import largest_blocks, of_published, tile_logits
from semforensics.detector.world_data import Fold, WorldData, draw_images
from semforensics.params import Precision, TrainWorldParams, read_params

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"
PAGE = ROOT / "docs/results/world.md"
BEGIN, END = "<!-- ablations -->", "<!-- end of ablations -->"
CPU = torch.device("cpu")
TILE_PX = 128
LATER, FIRST_SEED = "stylegan2_ada", 9000  # the last snapshot; another one is learned from
JUDGED = ("native", "JPEG 75", "x0.75, JPEG 85", "x0.5, JPEG 85")
LINES = {
    "as it is": "",
    "fakes beside other reals": "pairs off",
    "no processing": "every pair as it is",
    "drawn pictures": "400 for each network, in 80 % of the pairs",
    "noise alike": "reals are not smoothed alone, fakes get no noise alone",
    "no published networks": "our encoder-decoders and the GANs are left",
    "no GANs": "",
    "weights drawn at random": "no published first weights",
    "no residuals": "the network sees the image alone",
    "no reference of its own": "what the shrunken image has is not subtracted",
    "npr_tiny": "the small network of the other detectors",
}


class Unpaired(pairs.PairSampler):
    """A fake stands beside another real, with another cut, turn and processing."""

    def pair(self, index: int) -> tuple[Any, Any]:
        """Take the real of one pair and the fake of another."""
        return super().pair(2 * index)[0], super().pair(2 * index + 1)[1]


class Tiny(NPRTiny):
    """The small network, as `train_fold` asks for one."""

    def __init__(self) -> None:
        super().__init__(channels=1)

    def evidence(self, images: Tensor) -> Tensor:
        """Score images; it has no reference."""
        scores: Tensor = self(images)
        return scores

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return all weights; they begin at random, and learn as fast as the other's logit."""
        return [{"params": list(self.parameters()), "factor": 4.0}]


def alone(logits: Tensor) -> Tensor:
    """Return the cross-entropy of a batch, without the differences of pairs."""
    reals, fakes = logits.chunk(2)
    return nn.functional.softplus(reals).mean() + nn.functional.softplus(-fakes).mean()


@contextmanager
def without(name: str) -> Iterator[dict[str, Any]]:
    """Leave one thing out; yields the parameters that change."""
    with ExitStack() as stack:

        def swap(module: object, attribute: str, value: object) -> None:
            stack.enter_context(patch.object(module, attribute, value))

        changes: dict[str, Any] = {}
        if name == "fakes beside other reals":
            swap(world, "PairSampler", Unpaired)
            swap(world, "pair_loss", alone)
        elif name == "no processing":
            swap(histories, "UNTOUCHED", 1.0)
            changes = {"smoothed_reals": 0.0, "noisy_fakes": 0.0}
        elif name == "drawn pictures":
            changes = {"drawn_pairs": 0.8}
        elif name == "noise alike":
            changes = {"smoothed_reals": 0.0, "noisy_fakes": 0.0}
        elif name == "no GANs":
            changes = {"generators": ()}
        elif name == "weights drawn at random":
            changes = {"published_trunk": False}
        elif name == "no residuals":
            swap(world_network, "_GAINS", (0.0, 0.0))
        elif name == "no reference of its own":
            swap(world_network, "CONTENT_SHARE", 0.0)
        elif name == "npr_tiny":
            swap(world, "WorldNetwork", Tiny)
            swap(world, "_first_network", lambda *_: Tiny())
        yield changes


class OwnOnly(WorldData):
    """Without the reconstructions by published networks, and by diffusion."""

    def families(self) -> dict[str, Path]:
        """Return our own."""
        own = ("decoders", "pseudo")
        return {name: path for name, path in super().families().items() if name in own}


def train(name: str, data: WorldData, fold: Fold, params: TrainWorldParams) -> nn.Module:
    """Train a network with one thing left out."""
    if name == "no published networks":
        data = OwnOnly(data.cropped, data.splits, data.reconstructed, data.pseudo, data.generators)
    with without(name) as changes, TemporaryDirectory() as scratch:
        changed = params.model_copy(update=changes)
        sources = world.load_sources(data, fold, changed.generators, changed.beside)
        setup = Setup(0, Path(scratch) / "state", CPU)
        return world.train_fold(sources, changed, setup).average


def judge(network: nn.Module, data: WorldData, fold: Fold, papers: Sequence[str]) -> pd.DataFrame:
    """Score panels after each history: columns unit, family (empty: real), history, score."""
    table, families = data.learned(), data.families()
    panels = [("", one.unit, one.image) for one in of_published(data, papers)]
    for unit, places in largest_blocks(data, table[table["collection"].isin(fold.collections)]):
        panels.append(("", unit, assemble(data.cropped, places)))
        panels += [(name, unit, assemble(path, places)) for name, path in families.items()]
    later = draw_images(data.generators, [LATER], FIRST_SEED, 40)
    panels += [(LATER, LATER, image) for image in later]
    rows = []
    for family, unit, image in panels:
        for history in JUDGED:
            changed = GRID[history].apply(image, seed=0)
            score = panel_score(tile_logits(network, changed, TILE_PX, CPU))  # type: ignore[arg-type]
            rows.append((unit, family, history, score))
    return pd.DataFrame(rows, columns=["unit", "family", "history", "score"])


def separation(rows: pd.DataFrame, families: Sequence[str]) -> float:
    """Return the AUROC of fakes of some families, each real's unit with one vote."""
    reals, fakes = rows[rows["family"] == ""], rows[rows["family"].isin(families)]
    votes = 1 / reals["unit"].map(reals["unit"].value_counts())
    both = pd.concat([reals, fakes])
    weights = np.concatenate([votes, np.ones(len(fakes))])
    return float(roc_auc_score(both["family"] != "", both["score"], sample_weight=weights))


def summarise(rows: pd.DataFrame, left_out: Sequence[str]) -> Mapping[str, float]:
    """Return AUROCs by history, of the families that were left out and of the others."""
    others = sorted({*rows["family"]} - {"", *left_out, LATER})
    of_gan = rows[(rows["history"] == "native") & rows["family"].isin(["", LATER])]
    found = {"later GAN, native": round(separation(of_gan, [LATER]), 3)}
    for history in JUDGED:
        of = rows[rows["history"] == history]
        found[f"new, {history}"] = round(separation(of, left_out), 3)
        found[f"known, {history}"] = round(separation(of, others), 3)
    return found


def main() -> None:
    """Train and judge what is not in the results yet, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument(
        "--precision", choices=get_args(Precision), help="In place of the preset's."
    )
    parser.add_argument("--only", nargs="*", choices=LINES, help="Some of the trainings.")
    parser.add_argument("--generators", type=Path, default=ROOT / "data/released/real_subset")
    args = parser.parse_args()
    torch.set_num_threads(1)
    data = WorldData(
        args.data / "cropped",
        args.data / "splits.csv",
        args.data / "reconstructed",
        args.data / "fakes/pseudo",
        args.generators,
    )
    preset = read_params(ROOT / "presets/world.yaml")
    precision = args.precision or preset.train_world.precision
    params = preset.train_world.model_copy(update={"steps": args.steps, "precision": precision})
    fold = data.folds()[-1]
    assert fold.families, "several families of reconstructions are needed"
    path = RESULTS / "world_ablations.csv"
    for name in args.only or LINES:
        if path.is_file() and name in set(pd.read_csv(path)["training"]):
            continue
        network = train(name, data, fold, params).eval()
        with without(name):
            rows = judge(network, data, fold, preset.calibrate_world.published)
        line = pd.DataFrame(
            [{"training": name, "steps": args.steps, **summarise(rows, fold.families)}]
        )
        known = [pd.read_csv(path)] if path.is_file() else []
        table = pd.concat([*known, line])
        table.to_csv(path, index=False)
        print(line.to_string(), flush=True)
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    text = f"{before}{BEGIN}\n\n{table_of(pd.read_csv(path))}\n\n{END}{after}"
    PAGE.write_text(text, encoding="utf-8")


def table_of(results: pd.DataFrame) -> str:
    """Write the results as a table of Markdown, AUROCs in two digits."""
    known = [name for name in results if name.startswith(("later", "new", "known"))]
    names = results["training"] + results["training"].map(
        lambda name: f": {LINES[name]}" if LINES[name] else ""
    )
    shown = results[known].map("{:.2f}".format)
    return markdown_table(
        ["training", *known],
        [[name, *row] for name, row in zip(names, shown.to_numpy(), strict=True)],
    ).strip()


if __name__ == "__main__":
    main()
