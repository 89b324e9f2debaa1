"""What reruns when a parameter changes, read off the graph: no stage is run."""

import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from dvc.repo import Repo
from dvc.stage.serialize import to_single_stage_lockfile

from tests.pipeline.conftest import Run, runner, start_checkout


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose `checkout` has something in the place of every output, taken as the result."""
    root = tmp_path_factory.mktemp("finished")
    checkout = start_checkout(root)
    with contextlib.chdir(checkout), Repo() as repo:
        stages = [stage for stage in repo.index.stages if stage.cmd]
        for out in (checkout / out.def_path for stage in stages for out in stage.outs):
            file = out if out.suffix else out / "content.txt"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"stands for {out.name}")
        # As `dvc commit` does, which reads and writes the whole lock for each stage.
        with repo.lock:
            for stage in stages:
                stage.save()
                stage.commit()
        locked = {stage.addressing: to_single_stage_lockfile(stage) for stage in stages}
    lock = {"schema": "2.0", "stages": locked}
    (checkout / "dvc.lock").write_text(yaml.safe_dump(json.loads(json.dumps(lock))))
    return root


@pytest.fixture
def run(finished: Path) -> Run:
    """Run a command in the finished checkout."""
    return runner(finished)


@pytest.fixture
def checkout(finished: Path, run: Run) -> Iterator[Path]:
    """The finished checkout, whose parameters are put back afterwards."""
    yield finished / "checkout"
    run("git", "checkout", "-q", "--", "params.yaml")


def change(checkout: Path, key: str, value: object) -> None:
    """Set one parameter of the scratch checkout."""
    path = checkout / "params.yaml"
    params = yaml.safe_load(path.read_text())
    *parents, last = key.split(".")
    section = params
    for parent in parents:
        section = section[parent]
    assert section[last] != value
    section[last] = value
    path.write_text(yaml.safe_dump(params))


def stages_to_run(run: Run) -> set[str]:
    """Stages that `dvc repro` would run because their own parameters or files changed."""
    return set(re.findall(r"Running stage '([^']+)'", run("dvc", "repro", "--dry").stdout))


def test_nothing_reruns_when_nothing_changed(run: Run) -> None:
    """A complete lock file makes `dvc repro` do nothing."""
    assert stages_to_run(run) == set()


@pytest.mark.parametrize(
    ("key", "value", "reruns", "keeps"),
    [
        ("train_classifier.lr", 0.003, "train_classifier@fastgan", ["train_gan", "generate_fakes"]),
        ("evaluate_classifier.phases", 1, "evaluate_classifier@fastgan", ["train_classifier"]),
        ("generate_fakes.fastgan.num_images", 7, "generate_fakes@fastgan", ["train_gan"]),
        ("train_gan.fastgan.iterations", 3, "train_gan@fastgan", ["acquire", "crop", "split"]),
        ("train_gan.fastgan.lr", 0.1, "train_gan@fastgan", ["train_gan@stylegan2_ada"]),
        ("train_gan.stylegan2_ada.kimg", 3, "train_gan@stylegan2_ada", ["train_gan@fastgan"]),
        (
            *("generate_fakes.stylegan2_ada.truncation_psi", 0.7),
            *("generate_fakes@stylegan2_ada", ["train_gan", "generate_fakes@fastgan"]),
        ),
    ],
)
def test_a_parameter_reruns_its_stage_and_nothing_before_it(
    checkout: Path, run: Run, key: str, value: object, reruns: str, keeps: list[str]
) -> None:
    """A changed parameter reruns the stage that names it, and no stage before that one."""
    change(checkout, key, value)

    planned = stages_to_run(run)
    assert reruns in planned
    assert not [s for s in planned if s in keeps or s.split("@")[0] in keeps]


def test_the_thesis_preset_reruns_every_stage(checkout: Path, run: Run) -> None:
    """`make preset NAME=thesis` followed by `dvc repro --dry` lists every stage.

    Except those that are off in both presets, with the same parameters: that their inputs change
    shows only once the stages before them have run.
    """
    run("cp", "presets/thesis.yaml", "params.yaml")

    with Repo(str(checkout)) as repo:
        everything = {stage.name for stage in repo.index.stages if stage.cmd}
    off = {name for name in everything if name.startswith("resynthesise_published@")}
    assert stages_to_run(run) == everything - off
