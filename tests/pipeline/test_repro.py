"""The whole pipeline on a tiny configuration, through `dvc repro` and `dvc exp run`."""

import json
import re
import shutil
from pathlib import Path
from typing import get_args

import pytest
import yaml
from PIL import Image

from semforensics.params import PublishedNetwork
from tests.pipeline.conftest import ROOT, Run

GANS = ("fastgan", "stylegan2_ada")
ROWS = (*GANS, "both", "both_pseudo")
FAMILIES = (*get_args(PublishedNetwork), "decoders", "diffusion")
UNSEEN = ("autoencoder", "nearest", "bilinear", "transposed", "denoised", "resized")
TINY = {
    "train_world.steps": 2,
    "train_world.published_trunk": False,  # a download
    "acquire.simulated.num_areas": 5,
    "acquire.simulated.magnifications_k": [100],
    "acquire.simulated.width_px": 256,
    "acquire.simulated.height_px": 208,
    "train_gan.fastgan.ngf": 4,
    "train_gan.fastgan.ndf": 4,
    "train_gan.fastgan.nz": 8,
    "train_gan.fastgan.iterations": 4,
    "train_gan.fastgan.batch": 4,
    "train_gan.fastgan.precise_bn_images": 16,
    "train_gan.fastgan.log_every": 1,
    "train_gan.fastgan.snapshot_every": 4,
    "train_gan.stylegan2_ada.channel_base": 256,
    "train_gan.stylegan2_ada.channel_max": 8,
    "train_gan.stylegan2_ada.z_dim": 8,
    "train_gan.stylegan2_ada.w_dim": 8,
    "train_gan.stylegan2_ada.kimg": 0.016,
    "train_gan.stylegan2_ada.batch": 4,
    "train_gan.stylegan2_ada.log_every": 1,
    "train_gan.stylegan2_ada.snapshot_every": 4,
    "generate_fakes.fastgan.num_images": 40,
    "generate_fakes.stylegan2_ada.num_images": 40,
    "train_classifier.epochs": 2,
    "train_classifier.batch": 16,
    "train_classifier.calibrate_on": ["noise normal 10"],
    "evaluate_classifier.bootstrap_resamples": 100,
    "evaluate_classifier.alpha": 0.4,
    "train_autoencoders.steps": 2,
    "train_autoencoders.width": 4,
    "compare_detectors.max_images": 12,
    "compare_detectors.bootstrap_resamples": 100,
    "measure_robustness.max_images": 4,
    "audit_shortcuts.permuted_epochs": 1,
    "audit_shortcuts.num_controls": 4,
    "audit_shortcuts.max_images": 8,
    "audit_shortcuts.bootstrap_resamples": 100,
    "explain.num_images": 2,
}


def set_parameters(path: Path, values: dict[str, object]) -> None:
    """Set parameters by their dotted names."""
    params = yaml.safe_load(path.read_text())
    for key, value in values.items():
        *parents, last = key.split(".")
        section = params
        for parent in parents:
            section = section[parent]
        assert last in section, key
        section[last] = value
    path.write_text(yaml.safe_dump(params, sort_keys=False))


def outputs_of_gan(gan: str) -> set[str]:
    """The files that one generator's stages leave, besides fakes and figures."""
    return {
        f"data/checkpoints/{gan}/generator.safetensors",
        f"metrics/distances/{gan}.json",
        *(f"plots/training/{gan}/{n}" for n in ("losses.csv", "snapshots.csv", "grids/000004.png")),
        *(f"plots/distances/{gan}_{n}.csv" for n in ("per_real", "per_fake")),
        *(f"plots/distances/{gan}_{n}.csv" for n in ("memorisation", "suspicious")),
    }


def outputs_of_row(row: str) -> set[str]:
    """The files that one classifier's stages leave."""
    return {
        f"data/classifiers/{row}/model.safetensors",
        f"data/classifiers/{row}/losses.csv",
        f"metrics/classifier/{row}.json",
        f"data/classifiers/{row}/domain.safetensors",
        f"data/classifiers/{row}/losses_seeds.csv",
        f"data/classifiers/{row}/seed_1.safetensors",
        *(f"plots/classifier/{row}/{n}.csv" for n in ("roc", "pr", "confusion", "scores")),
        *(f"plots/classifier/{row}/{n}.csv" for n in ("numbers", "seeds", "reliability")),
        *(f"plots/classifier/{row}/{n}.csv" for n in ("best_of", "predictive_values")),
        *(f"plots/gradcam/{row}/{n}.png" for n in ("real", "fake", "compactness", "randomised")),
        f"plots/gradcam/{row}/compactness.csv",
        f"plots/gradcam/{row}/summary.json",
    }


def outputs_of_trials() -> set[str]:
    """The files that the detector's trials leave."""
    names = {
        "detectors": "cells.csv differences.csv table.md matrix.png leave_one_out.png",
        "robustness": "grid.csv two_sided.png one_sided.png",
        "false_alarms": "false_alarms.csv images.csv false_alarms.png",
        "audit": "gates.csv pixel_features.csv gates.png gates.md",
    }
    return {
        *(f"metrics/{trial}.json" for trial in (*names, "world")),
        *(f"plots/{trial}/{file}" for trial, files in names.items() for file in files.split()),
        "data/autoencoders/losses.csv",
        *(f"data/autoencoders/{n}.safetensors" for n in ("pseudo", *UNSEEN[:4])),
        *(f"data/{n}/off.json" for n in ("diffusion", "unseen/diffusion", "unseen/simulator")),
        *(f"data/reconstructed/{name}/off.json" for name in FAMILIES),
        *(f"data/world/{n}/losses.csv" for n in ("fold_0", "fold_1", "fold_2")),
        *(f"data/world/{n}/model.safetensors" for n in ("fold_0", "fold_1", "fold_2")),
        *(f"data/world_calibration/{n}" for n in ("calibration.safetensors", "power.csv")),
        *(f"data/screening_world/{n}" for n in ("README.md", "model.safetensors")),
    }


def files_below(folder: Path) -> set[str]:
    """All files below a folder that stages write, as posix paths."""
    return {
        path.relative_to(folder).as_posix()
        for top in ("data", "metrics", "plots")
        for path in (folder / top).rglob("*")
        if path.is_file() and path.name != ".gitignore"
    }


def header(path: Path) -> tuple[object, ...]:
    """What an image file says besides its pixels: format, mode, size, metadata and EXIF tags."""
    with Image.open(path) as image:
        return image.format, image.mode, image.size, len(image.info), len(image.getexif())


@pytest.fixture
def tiny(checkout: Path, run: Run) -> Path:
    """A scratch checkout with tiny parameters, and the trunks from the published result.

    Fetching them is tested by itself (tests/perceptual), against servers of its own: no test
    needs a network.
    """
    set_parameters(checkout / "params.yaml", TINY)
    # What is released has no part in the pipeline, and its data are not in a scratch checkout.
    shutil.rmtree(checkout / "data/released", ignore_errors=True)
    lock = yaml.safe_load((ROOT / "dvc.lock").read_text())
    lock["stages"] = {"fetch_backbones": lock["stages"]["fetch_backbones"]}
    (checkout / "dvc.lock").write_text(yaml.safe_dump(lock, sort_keys=False))
    run("git", "add", "-A")
    run("git", "commit", "-qm", "Make it tiny")
    run("dvc", "remote", "modify", "--local", "store", "url", str(ROOT / "store"))
    run("dvc", "pull", "-q", "fetch_backbones")
    return checkout


@pytest.mark.timeout(900)
def test_the_pipeline_rebuilds_compares_and_queues(tiny: Path, run: Run) -> None:
    """A run leaves exactly the promised files, and experiments run their own code.

    Crops and fakes are files of one kind, so that no header tells one class from the other.
    """
    run("python", "tools/repro.py", "--jobs", "2")
    stored = {"data/folder_listing.csv", "data/benign_listing.csv", "data/training_spread.csv"}
    after = files_below(tiny) - stored

    folders = {
        "data/raw",
        "data/cropped",
        "data/published",
        *(f"data/fakes/{gan}" for gan in (*GANS, "pseudo")),
    }
    folders |= {f"data/unseen/{column}" for column in UNSEEN}
    loose = {f for f in after if not any(f.startswith(d + "/") for d in folders)}
    assert loose == {
        "data/catalogue.csv",
        "data/crops.csv",
        "data/left_out.csv",
        "data/splits.csv",
        "data/pretrained/alex.safetensors",
        "data/screening/model.safetensors",
        "metrics/headline.json",
        "metrics/trials.json",
        "plots/table_4_3.md",
        "data/checkpoints/stylegan2_ada/best.safetensors",
        *(f for gan in GANS for f in outputs_of_gan(gan)),
        *(f for row in ROWS for f in outputs_of_row(row)),
        *outputs_of_trials(),
        *(f for f in loose if re.fullmatch(r"plots/figures/(fastgan|stylegan2_ada)/\w+\.png", f)),
    }
    assert {f"data/fakes/{gan}/{seed:06d}.png" for gan in GANS for seed in range(40)} == {
        f for f in after if f.startswith("data/fakes/") and "/pseudo/" not in f
    }
    crops = {Path(f).name for f in after if f.startswith("data/cropped/")}
    assert {Path(f).name for f in after if f.startswith("data/fakes/pseudo/")} == crops
    files = [tiny / f for f in after if f.startswith(("data/cropped/", "data/fakes/"))]
    assert {header(path) for path in files} == {("PNG", "L", (64, 64), 0, 0)}
    plots = yaml.safe_load((tiny / "dvc.yaml").read_text())["plots"]
    plotted = tuple(f"{plot}/" for plot in plots if isinstance(plot, str))
    assert {Path(f).suffix for f in after if f.startswith(plotted)} == {".png"}
    both = json.loads((tiny / "metrics/classifier/both.json").read_text())
    assert both["data"] == "simulated"
    assert set(GANS) <= set(both)
    run("git", "add", "-A")
    run("git", "commit", "-qm", "Run the pipeline")

    assert "Running stage" not in run("dvc", "repro").stdout
    shown = json.loads(run("dvc", "metrics", "show", "--json").stdout)[""]["data"]
    assert set(shown) == {"metrics/headline.json", "metrics/trials.json"}
    run("dvc", "plots", "show")

    # Only as far as needed: what lies behind takes minutes.
    target = "evaluate_classifier@fastgan"
    done = run("dvc", "exp", "run", "-n", "faster", "-S", "train_classifier.lr=0.01", target)
    assert "Running stage 'train_classifier@fastgan'" in done.stdout
    assert "Running stage 'train_gan" not in done.stdout
    assert "Running stage 'measure_robustness" not in done.stdout
    changes = json.loads(run("dvc", "params", "diff", "--json").stdout)
    assert changes["params.yaml"]["train_classifier.lr"]["new"] == 0.01
    metrics = ("--json", "--targets", "metrics/classifier/fastgan.json", "--", "HEAD")
    assert json.loads(run("dvc", "metrics", "diff", *metrics).stdout)

    # A queued run takes the code as it stands when it is queued, not the installed package.
    run("git", "checkout", "-q", "--", ".")
    run("dvc", "checkout", "-q")
    commands = tiny / "src/semforensics/cli/pipeline.py"
    marker = "queued code ran"
    line = '    """Draw fakes, one per seed."""\n'
    assert line in commands.read_text()
    told = f'{line}    typer.echo("{marker}")\n'
    commands.write_text(commands.read_text().replace(line, told))
    fewer = "generate_fakes.fastgan.num_images=38"
    target = "generate_fakes@fastgan"
    run("dvc", "exp", "run", "--queue", "-n", "queued", "-S", fewer, target)
    run("git", "checkout", "-q", "--", "src")
    run("dvc", "queue", "start")
    log = run("dvc", "queue", "logs", "-f", "queued").stdout
    assert marker in log
    assert "Running stage 'train_gan" not in log
