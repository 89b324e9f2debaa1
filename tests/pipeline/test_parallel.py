"""`tools/repro.py` runs a small pipeline of shell commands."""

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest
import yaml

ROOT = Path(__file__).parents[2]
STAGES = {
    # `left` and `right` end only if they run at the same time.
    "left": {
        "cmd": "touch l; until test -e r; do sleep 0.1; done; echo 1 > left", "outs": ["left"],
    },
    "right": {
        "cmd": "touch r; until test -e l; do sleep 0.1; done; echo 2 > right", "outs": ["right"],
    },
    "last": {"cmd": "cat left right > last", "deps": ["left", "right"], "outs": ["last"]},
}  # fmt: skip


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A DVC project without Git."""
    subprocess.run(
        [sys.executable, "-m", "dvc", "init", "--no-scm", "-q"], cwd=tmp_path, check=True
    )
    write(tmp_path, STAGES)
    return tmp_path


def write(project: Path, stages: dict[str, dict[str, object]]) -> None:
    """Write dvc.yaml."""
    (project / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}, sort_keys=False))


def start(project: Path, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    """Start a run."""
    return subprocess.Popen(
        [sys.executable, str(ROOT / "tools/repro.py"), "--jobs", "2", *arguments],
        cwd=project,
        env=os.environ
        | {"DVC_SITE_CACHE_DIR": str(project / "site"), "DVC_NO_ANALYTICS": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def run(project: Path, *arguments: str, **environment: str) -> tuple[int, str]:
    """Run to the end; return the exit code and what was printed."""
    process = start(project, *arguments, **environment)
    printed = process.communicate(timeout=60)[0]
    return process.returncode, printed


def runs(pid: int) -> bool:
    """Whether a process runs; one that ended and waits for its parent does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_independent_stages_run_at_the_same_time(project: Path) -> None:
    """Stages that do not depend on each other run side by side, and what is done stays done."""
    code, printed = run(project, "--jobs", "2")

    assert code == 0, printed
    assert (project / "last").read_text() == "1\n2\n"
    assert list(yaml.safe_load((project / "dvc.lock").read_text())["stages"]) == list(STAGES)
    assert "done last" in printed
    assert run(project) == (0, "Data and pipelines are up to date.\n")
    assert set(json.loads((project / ".scratch/repro/seconds.json").read_text())) == set(STAGES)


def test_a_failure_stops_the_others(project: Path) -> None:
    """If a stage fails, the others are stopped, and its output and exit code are shown."""
    slow = {"cmd": "touch slow; exec sleep 50", "outs": ["slow"]}
    bad = {"cmd": "until test -e slow; do sleep 0.1; done; echo no room; exit 7", "outs": ["bad"]}
    write(project, {"slow": slow, "bad": bad})
    began = time.monotonic()

    code, printed = run(project, "--jobs", "2")

    assert code not in (0, 2)
    assert "no room" in printed
    assert "FAILED bad" in printed
    assert time.monotonic() - began < 40


@pytest.mark.parametrize(("sign", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_a_stopped_run_stops_its_stages(project: Path, sign: signal.Signals, code: int) -> None:
    """Ctrl-C and `kill -9` end the stages too; the next run does what is left."""
    write(project, {"left": {"cmd": "echo $$ > pid; test -e go || exec sleep 50; echo 1 > left",
                             "outs": ["left"]}})  # fmt: skip
    process = start(project)
    while not ((project / "pid").is_file() and (project / "pid").read_text()):
        time.sleep(0.1)

    process.send_signal(sign)

    process.communicate(timeout=40)
    assert process.returncode == code
    pid = int((project / "pid").read_text())
    deadline = time.monotonic() + 10
    while runs(pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not runs(pid)
    (project / "go").touch()
    again, printed = run(project)
    assert again == 0, printed


def test_a_second_run_says_that_there_is_one(project: Path) -> None:
    """It ends with code 2 and harms nothing."""
    write(project, {"left": {"cmd": "touch l; until test -e go; do sleep 0.1; done; touch left",
                             "outs": ["left"]}})  # fmt: skip
    first = start(project)
    while not (project / "l").is_file():
        time.sleep(0.1)

    code, printed = run(project)

    (project / "go").touch()
    assert code == 2, printed
    assert printed.startswith("another run is at work here: ")
    printed = first.communicate(timeout=40)[0]
    assert first.returncode == 0, printed


def test_targets_leave_the_rest(project: Path) -> None:
    """Only the named stages and what they depend on run; an unknown name ends with code 2."""
    assert run(project, "right", "left")[0] == 0
    assert not (project / "last").exists()
    code, printed = run(project, "nothing")
    assert code == 2
    assert "nothing: no such stage" in printed


def test_the_name_of_a_matrix_stands_for_all_of_it(project: Path) -> None:
    """As it does for `dvc repro`."""
    each = {"matrix": {"of": ["a", "b"]}, "cmd": "echo 1 > ${item.of}", "outs": ["${item.of}"]}
    write(project, {"each": each, "other": {"cmd": "echo 1 > other", "outs": ["other"]}})

    assert run(project, "each")[0] == 0

    assert {name for name in ("a", "b", "other") if (project / name).exists()} == {"a", "b"}


def start_of_stage(project: Path, **environment: str) -> dict[str, object]:
    """Run a stage by `src/stage.py`; return what its script found at its start."""
    script = """
        import json, os, sys
        from own import name  # beside it
        found = {
            "name": __name__, "own": name, "arguments": sys.argv, "stage": os.environ["DVC_STAGE"],
            "libraries": sorted({"numpy", "torch"} & sys.modules.keys()),
        }
        open(sys.argv[1], "w").write(json.dumps(found))
        sys.exit(int(sys.argv[2]))
    """
    (project / "src").mkdir(exist_ok=True)
    (project / "src/stage.py").write_text(textwrap.dedent(script))
    (project / "src/own.py").write_text("name = 'ours'")
    write(project, {"one": {"cmd": "python src/stage.py 'a b' 0", "outs": ["a b"]}})
    code, printed = run(project, **environment)
    assert code == 0, printed
    found: dict[str, object] = json.loads((project / "a b").read_text())
    return found


def test_a_stage_starts_as_python_would_start_it(project: Path) -> None:
    """With its own modules and arguments; heavy libraries are there already, if they may be."""
    warm = start_of_stage(project)
    (project / "a b").unlink()
    cold = start_of_stage(project, SEMFORENSICS_PORTABLE="1")

    assert warm.pop("libraries") == ["numpy", "torch"]
    assert cold.pop("libraries") == []
    assert warm == cold
    assert warm == {
        "name": "__main__",
        "own": "ours",
        "arguments": ["src/stage.py", "a b", "0"],
        "stage": "one",
    }


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("sys.exit('no room')", "no room"),
        ("os.kill(os.getpid(), 9)", "exited with -9"),
    ],
)
def test_a_stage_that_fails_ends_the_run(project: Path, line: str, says: str) -> None:
    """By itself or by a signal; what it printed is shown."""
    (project / "src").mkdir()
    (project / "src/stage.py").write_text(f"import os, sys\nprint('begins')\n{line}\n")
    write(project, {"one": {"cmd": "python src/stage.py", "outs": ["a"]}})

    code, printed = run(project)

    assert code not in (0, 2)
    assert "begins" in printed
    assert says in printed


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of DVC's own packages
def test_released_generators_are_pulled_before_all_else(project: Path) -> None:
    """Where `train_world` names finished generators and has none, they are pulled, or it stops."""
    from dvc.repo import Repo

    folder = project / "data/released/real_subset"
    folder.mkdir(parents=True)
    (folder / "gan").write_text("weights")
    with (project / ".dvc/config").open("a") as config:
        config.write("remote = s\n['remote \"s\"']\nurl = ../store\n")
    with Repo(str(project)) as repo:
        repo.add([str(folder)])
        repo.push()
    shutil.rmtree(folder)
    shutil.rmtree(project / ".dvc/cache")
    write(project, {"train_world": {"cmd": f"cat {folder}/gan > found", "outs": ["found"]}})
    (project / "params.yaml").write_text("train_world: {steps: 1, generators: [gan]}")
    (project / "store").rename(project / "away")

    code, printed = run(project)

    assert code == 2
    assert "data/released/real_subset: no such folder" in printed
    assert not (project / "found").exists()
    (project / "away").rename(project / "store")
    code, printed = run(project)
    assert code == 0, printed
    assert (project / "found").read_text() == "weights"
