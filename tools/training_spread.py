"""Train the demo's networks again from other seeds, and store what each training measures.

    python tools/training_spread.py --trainings 3 --retrain classifier   # minutes
    python tools/training_spread.py --trainings 3 --retrain all          # the GANs too: an hour

writes data/training_spread.csv, from which the pull-request report widens the intervals of results
(`semforensics.trials.spread`). The results of `dvc repro` or `dvc pull` must be there. Images,
splits and the seeds of fakes stay as they are; weights, draws and batches are another training's.
The stages run one after the other in folders of their own below `.scratch/spread`, on one thread;
their outputs stay out of DVC. A run that was ended continues where it was: a training whose numbers
are in the CSV is not run again. After a change of the code or of the parameters, that changes what
is trained, remove the file and run both commands again.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from semforensics.core.files import atomic_file
from semforensics.params import read_params
from semforensics.trials.spread import COLUMNS, RETRAINED, SPREAD_FILE

ROOT = Path(__file__).parents[1]
GANS = ("fastgan", "stylegan2_ada")
DETECTOR = "both"
SEEDS_APART = 100
"""So that the several seeds of a classifier are no other training's."""
NO_RESULT = ("_low", "_high", "_sd", "_floor")
"""Ends of names that are no results of a training."""


def run_stage(command: str, *arguments: Path | str, params: Path, scratch: Path) -> None:
    """Run a stage's command, and end where it fails."""
    environment = os.environ | {
        "SEMFORENSICS_THREADS": "1",
        "SEMFORENSICS_SCRATCH": str(scratch),
    }
    line = [sys.executable, str(ROOT / "src/stage.py"), command, *map(str, arguments)]
    subprocess.run([*line, "--params", str(params)], cwd=ROOT, env=environment, check=True)


def train_again(folder: Path, seed: int, retrained: str) -> dict[str, dict[str, Any]]:
    """Train from another seed in a folder; return the metrics files by their names."""
    data, scratch = ROOT / "data", folder / "scratch"
    folder.mkdir(parents=True, exist_ok=True)
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["seed"] = seed
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    trained = {"params": folder / "params.yaml", "scratch": scratch}
    measured = {"params": ROOT / "params.yaml", "scratch": scratch}
    reals = (data / "cropped", data / "splits.csv")
    fakes, metrics = data / "fakes", {}
    if retrained == "all":
        fakes = folder / "fakes"
        for gan in GANS:
            checkpoints, out = folder / f"checkpoints/{gan}", folder / f"distances/{gan}.json"
            plots = folder / f"plots/{gan}"
            if not checkpoints.is_dir():
                run_stage(
                    "train-gan", gan, *reals, data / "pretrained", checkpoints, plots, **trained
                )
            run_stage("generate-fakes", gan, checkpoints, fakes / gan, **measured)
            out.parent.mkdir(exist_ok=True)
            run_stage(
                "measure-distances",
                *(gan, *reals, fakes / gan, data / "pretrained", out, folder / "plots/distances"),
                **measured,
            )
            metrics[f"metrics/distances/{gan}.json"] = json.loads(out.read_text())
        if not (fakes / "pseudo").exists():
            (fakes / "pseudo").symlink_to(data / "fakes/pseudo")
    classifier, out = folder / "classifier", folder / "classifier.json"
    run_stage("train-classifier", DETECTOR, *reals, fakes, classifier, **trained)
    run_stage(
        "evaluate-classifier",
        *(DETECTOR, classifier, *reals, fakes, out, folder / "plots/classifier"),
        **measured,
    )
    metrics[f"metrics/classifier/{DETECTOR}.json"] = json.loads(out.read_text())
    return metrics


def numbers(metrics: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """Return the numbers of a metrics file by their keys, with dots; ends of intervals left out."""
    found: dict[str, float] = {}
    for key, value in metrics.items():
        if isinstance(value, Mapping):
            found |= numbers(value, f"{prefix}{key}.")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            is_result = not key.endswith(NO_RESULT) and not key.startswith(("n_", "num_"))
            found |= {f"{prefix}{key}": float(value)} if is_result else {}
    return found


def main() -> int:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trainings", type=int, default=3)
    parser.add_argument("--retrain", choices=RETRAINED, default="classifier")
    parser.add_argument("--out", type=Path, default=ROOT / SPREAD_FILE)
    parser.add_argument("--scratch", type=Path, default=ROOT / ".scratch/spread")
    arguments = parser.parse_args()
    rows: list[dict[str, str]] = []
    if arguments.out.is_file():
        with arguments.out.open() as file:
            rows = list(csv.DictReader(file))
    first = read_params(ROOT / "params.yaml").seed
    for index in range(1, arguments.trainings + 1):
        seed = first + SEEDS_APART * index
        own = {"retrained": arguments.retrain, "seed": str(seed)}
        if any(own.items() <= row.items() for row in rows):
            continue
        folder = arguments.scratch / f"{arguments.retrain}_{seed}"
        for file_name, metrics in train_again(folder, seed, arguments.retrain).items():
            for key, value in numbers(metrics).items():
                rows.append({"file": file_name, "key": key, **own, "value": f"{value:.6g}"})
        rows.sort(key=lambda row: (row["file"], row["key"], row["retrained"], int(row["seed"])))
        with atomic_file(arguments.out) as temporary, temporary.open("w", newline="") as out:
            writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        print(f"{arguments.retrain}, seed {seed}: {len(rows)} numbers in {arguments.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
