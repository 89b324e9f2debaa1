"""A submission is screened whole: whatever breaks is named, whatever is killed goes on."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from semforensics.core.errors import InputError
from semforensics.micrographs.drawn import DrawnBox
from semforensics.screening import store
from semforensics.screening.records import Box, Panel, Picture, PictureResult
from semforensics.screening.submission import Options, Totals, repeating_command, screen_submission
from tests.screening.stand_in import (
    HANGS,
    KILLS,
    RAISES,
    OneThread,
    StandIn,
    Together,
    draw,
)


@pytest.fixture(autouse=True)
def _spawned_workers_import_the_stand_in(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(root)


def screen(
    paths: list[Path], folder: Path, workers: int = 1, **options: Any
) -> tuple[Totals, dict[str, Any]]:
    """Screen with the stand-in; give the totals and report.json."""
    totals = screen_submission(
        paths,
        folder / "report",
        options.pop("screener", StandIn()),
        Options(folder / "scratch", "semforensics screen", workers, **options),
    )
    return totals, json.loads((folder / "report/report.json").read_text())


def verdicts(report: dict[str, Any]) -> dict[str, str]:
    """File name → verdict of its panel."""
    return {Path(i["path"]).name: i["panels"][0]["verdict"] for i in report["images"]}


def test_workers_do_not_crowd_the_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has one thread, of whatever library; more would wait for each other."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)  # which the tests themselves run under
    draw(tmp_path / "in", [80, 80])

    _, report = screen([tmp_path / "in"], tmp_path, 2, screener=OneThread())

    assert report["refusals"] == []
    assert len(report["images"]) == 2


def test_pictures_of_one_input_are_judged_side_by_side(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three at a time, each on one thread; reported in their order, one that raises by name."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    files = draw(tmp_path / "in", [80, 200, 130, 80, 200, 90], first=None)
    files[3:3] = draw(tmp_path / "in", [80], first=RAISES)
    with zipfile.ZipFile(tmp_path / "seven.zip", "w") as archive:
        for number, file in enumerate(files):
            archive.write(file, f"{number}.png")
    together = Together(3)

    totals, report = screen([tmp_path / "seven.zip"], tmp_path, screener=together, threads=3)

    assert [Path(image["path"]).name for image in report["images"]] == [
        f"{number}.png" for number in (0, 1, 2, 4, 5, 6)
    ]
    found = [image["panels"][0]["verdict"] for image in report["images"]]
    assert found == [
        "consistent",
        "ai-suspected",
        "inconclusive",
        "consistent",
        "ai-suspected",
        "consistent",
    ]
    (refused,) = report["refusals"]
    assert "ZeroDivisionError" in refused["reason"]
    assert Path(refused["path"]).name == "3.png"
    assert totals.n_pictures == 6
    assert together.most == 3


@pytest.mark.parametrize("workers", [1, 2])
def test_all_inputs_are_judged_and_nothing_is_left(tmp_path: Path, workers: int) -> None:
    """Verdicts and totals are those of the screener, in order; the scratch folder is gone."""
    draw(tmp_path / "in", [80, 130, 200, 90])

    totals, report = screen([tmp_path / "in"], tmp_path, workers)

    assert verdicts(report) == {
        "000.png": "consistent",
        "001.png": "inconclusive",
        "002.png": "ai-suspected",
        "003.png": "consistent",
    }
    assert totals.verdicts == {"consistent": 2, "inconclusive": 1, "ai-suspected": 1, "refused": 0}
    assert (totals.n_inputs, totals.n_pictures, totals.n_reuses) == (4, 4, 0)
    assert sorted(p.name for p in (tmp_path / "report").iterdir()) == [
        "report.csv",
        "report.html",
        "report.json",
    ]
    assert not (tmp_path / "scratch").exists()


def test_a_picture_that_raises_is_refused_by_name(tmp_path: Path) -> None:
    """An unexpected error is told in the report; the other inputs are judged."""
    files = draw(tmp_path, [80, 80]) + draw(tmp_path, [80], first=RAISES)

    totals, report = screen(files, tmp_path)

    (refused,) = report["refusals"]
    assert Path(refused["path"]).name == "000_1.png"
    assert "ZeroDivisionError: division by zero" in refused["reason"]
    assert totals.verdicts["refused"] == 1
    assert len(report["images"]) == 2


def test_a_worker_that_dies_fails_its_input_alone(tmp_path: Path) -> None:
    """Inputs that kill or hang a process are refused; all others are judged."""
    files = draw(tmp_path, [80] * 4)
    files += draw(tmp_path, [80], first=KILLS) + draw(tmp_path, [80], first=HANGS)

    totals, report = screen(files, tmp_path, workers=2, timeout_s=6)

    reasons = {Path(r["path"]).name: r["reason"] for r in report["refusals"]}
    assert "died" in reasons["000_2.png"]
    assert "not done after 6 s" in reasons["000_3.png"]
    assert len(report["images"]) == 4
    assert totals.verdicts == {"consistent": 4, "refused": 2}


def test_what_is_no_picture_is_refused(tmp_path: Path) -> None:
    """A broken file among good ones is refused by name."""
    files = draw(tmp_path, [80])
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")

    totals, report = screen([*files, tmp_path / "broken.png"], tmp_path)

    assert totals.verdicts == {"consistent": 1, "refused": 1}
    assert report["refusals"][0]["path"] == str(tmp_path / "broken.png")


@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_run_goes_on_and_ends_with_the_same_report(
    tmp_path: Path, root: Path, workers: int
) -> None:
    """After SIGKILL in the midst, what was judged is kept, and the report is the same."""
    draw(tmp_path / "in", [60 + 10 * i for i in range(14)])
    log = tmp_path / "log"

    def start(seconds: float) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "tests.screening.stand_in", str(tmp_path / "in")]
        command += [str(tmp_path / "report"), str(tmp_path / "scratch"), str(workers), str(seconds)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), *sys.path])}
        return subprocess.Popen([*command, str(log)], cwd=root, env=environment)

    killed = start(0.2)
    deadline = time.monotonic() + 60
    while len([*(tmp_path / "scratch").glob("*/inputs/*.json")]) < 4:
        assert time.monotonic() < deadline, "nothing was judged"
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    time.sleep(0.6)  # its workers finish the picture that they are at, and end
    assert not (tmp_path / "report/report.json").exists()
    kept = len([*(tmp_path / "scratch").glob("*/inputs/*.json")])
    log.unlink()

    assert start(0).wait() == 0

    assert 4 <= kept < 14
    assert len(log.read_text().splitlines()) <= 14 - kept
    screen([tmp_path / "in"], tmp_path / "whole")
    for kind in ("json", "csv"):
        resumed, whole = (
            [
                line
                for line in (tmp_path / folder / f"report.{kind}").read_text().splitlines()
                if not line.startswith('"created"')
            ]
            for folder in ("report", "whole/report")
        )
        assert resumed == whole
    assert not (tmp_path / "scratch").exists()


def test_other_settings_judge_anew(tmp_path: Path) -> None:
    """What was kept belongs to its settings: another alpha takes nothing from it."""
    (file,) = draw(tmp_path / "in", [80])
    log = tmp_path / "log"

    for alpha in (0.05, 0.1):
        with pytest.raises(IsADirectoryError):  # the report fails, so the scratch folder stays
            (tmp_path / "report/report.json").mkdir(parents=True, exist_ok=True)
            screen([file], tmp_path, screener=StandIn(alpha=alpha, log=log))

    assert len(log.read_text().splitlines()) == 2
    (tmp_path / "report/report.json").rmdir()
    screen([file], tmp_path, screener=StandIn(alpha=0.05, log=log))
    assert len(log.read_text().splitlines()) == 2


def test_a_copy_is_listed_apart_from_the_verdicts(tmp_path: Path) -> None:
    """A mirrored copy of a panel is reported; the verdicts stay what they were."""
    first, _ = draw(tmp_path / "in", [80, 90])
    with Image.open(first) as image:
        image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(tmp_path / "in/copy.png")

    totals, report = screen([tmp_path / "in"], tmp_path)

    (reuse,) = report["reuse"]
    assert {Path(reuse[side]["path"]).name for side in ("first", "second")} == {
        "000.png",
        "copy.png",
    }
    assert reuse["transform"] == "mirrored"
    assert totals.n_reuses == 1
    assert set(verdicts(report).values()) == {"consistent"}
    assert report["settings"]["reuse"] == "3 panels compared"


def test_panels_are_not_compared_where_nobody_asks_for_it(tmp_path: Path) -> None:
    """The report, and the lines on the screen, say that nothing was searched."""
    first, _ = draw(tmp_path / "in", [80, 90])
    shutil.copy(first, tmp_path / "in/copy.png")

    totals, report = screen([tmp_path / "in"], tmp_path, reuse=False)

    assert report["reuse"] == []
    assert report["settings"]["reuse"] == "not searched (--no-reuse)"
    assert totals.lines()[-1] == "panels were not compared with each other"


def test_files_of_the_user_in_the_scratch_folder_stay(tmp_path: Path) -> None:
    """Only unfinished work is removed in the end."""
    (file,) = draw(tmp_path / "in", [80])
    (tmp_path / "scratch").mkdir()
    mine = [tmp_path / f"scratch/{name}/holiday.txt" for name in ("pictures", "panels", "inputs")]
    for one in mine:
        one.parent.mkdir()
        one.write_text("mine")

    screen([file], tmp_path)

    left = [p for p in (tmp_path / "scratch").rglob("*") if p.is_file()]
    assert sorted(left) == sorted(mine)


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs a file that fails to read")
def test_an_input_that_cannot_be_read_is_a_refusal(tmp_path: Path) -> None:
    """A failing disk under one file, or a pipe among them, stops neither the run nor the others."""
    (good,) = draw(tmp_path / "in", [80])
    bad, pipe = tmp_path / "in/bad.png", tmp_path / "in/pipe.png"
    bad.symlink_to("/proc/self/mem")  # its first byte is an error of input and output
    os.mkfifo(pipe)

    _, report = screen([good, bad, pipe], tmp_path)

    assert [image["path"] for image in report["images"]] == [str(good)]
    refused = {one["path"]: one["reason"] for one in report["refusals"]}
    assert "Input/output error" in refused[str(bad)]
    assert "not a file" in refused[str(pipe)]


def test_names_stand_in_the_place_of_paths(tmp_path: Path) -> None:
    """The report shows the name that was given for a file, in what it says of it, too."""
    (file,) = draw(tmp_path / "in", [80])
    (tmp_path / "in/broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    names = {file: "Figure 2.png", tmp_path / "in/broken.png": "Figure 3.png"}

    _, report = screen([tmp_path / "in"], tmp_path, names=names)

    assert report["images"][0]["path"] == "Figure 2.png"
    assert report["refusals"][0]["path"] == "Figure 3.png"
    assert str(tmp_path) not in json.dumps(report)


def test_an_input_given_twice_is_judged_once(tmp_path: Path) -> None:
    """A file that is named and lies in a named folder is one input."""
    (file,) = draw(tmp_path / "in", [80])

    totals, _ = screen([file, tmp_path / "in", file], tmp_path)

    assert (totals.n_inputs, totals.n_reuses) == (1, 0)


def test_a_report_is_not_screened(tmp_path: Path) -> None:
    """A report inside the folder that is screened is left out."""
    draw(tmp_path, [80])
    Image.fromarray(np.zeros((160, 160), np.uint8)).save(tmp_path / "x.png")
    screen([tmp_path], tmp_path)

    totals, _ = screen([tmp_path], tmp_path)

    assert totals.n_inputs == 2


def test_the_report_may_lie_beside_what_is_screened(tmp_path: Path) -> None:
    """Only the files of an older report are left out; what else lies there is screened."""
    (file,) = draw(tmp_path / "report", [80])

    for _ in range(2):
        totals, _ = screen([file.parent], tmp_path)
        assert totals.n_inputs == 1


def test_two_runs_do_not_share_a_folder(tmp_path: Path) -> None:
    """The second one is told so, and the first one's work stays."""
    (file,) = draw(tmp_path / "in", [80])

    with store.Store.open(tmp_path / "scratch", {}).locked() as first:
        with pytest.raises(ValueError, match="another screening is at work there"):
            screen([file], tmp_path)
        assert first.folder.is_dir()

    assert screen([file], tmp_path)[0].n_inputs == 1
    assert not first.folder.exists()


def test_the_lock_of_a_killed_run_is_free(tmp_path: Path) -> None:
    """The system frees it with the process, though the file stays."""
    hold = (
        "import sys, time; from pathlib import Path; from semforensics.screening.store import Store"
        "\nwith Store.open(Path(sys.argv[1]), {}).locked(): print('held', flush=True);"
        " time.sleep(60)"
    )
    folder = tmp_path / "scratch"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", hold, str(folder)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == "held\n"
        with pytest.raises(InputError, match="another"), store.Store.open(folder, {}).locked():
            pass
        run.kill()

    with store.Store.open(folder, {}).locked() as after:
        assert (after.folder / "lock").is_file()


def test_screening_needs_no_module_that_windows_lacks() -> None:
    """`screen` and `serve` can be imported where there is neither `fcntl` nor `resource`."""
    code = (
        "import sys; sys.modules.update(dict.fromkeys(['fcntl', 'resource', 'pwd', 'grp']))"
        "\nimport semforensics.cli.main, semforensics.screening.submission"
        "\nimport semforensics.screening.screener, semforensics.screening.page"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}

    subprocess.run([sys.executable, "-c", code], env=environment, check=True)


def test_nothing_to_screen_is_an_error(tmp_path: Path) -> None:
    """An empty folder, a path that does not exist and a negative number of workers are refused."""
    (tmp_path / "empty").mkdir()

    with pytest.raises(ValueError, match=r"nothing to screen in .*empty"):
        screen([tmp_path / "empty"], tmp_path)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        screen([tmp_path / "nowhere"], tmp_path)
    with pytest.raises(ValueError, match="workers: -1"):
        screen([tmp_path], tmp_path, workers=-1)


@pytest.mark.parametrize(
    ("found", "met"),
    [
        ("consistent", {"never": False, "ai-suspected": False, "refused": False}),
        ("ai-suspected", {"never": False, "ai-suspected": True, "inconclusive": True}),
        ("inconclusive", {"ai-suspected": False, "inconclusive": True, "refused": True}),
        ("refused", {"ai-suspected": False, "inconclusive": False, "refused": True}),
    ],
)
def test_a_condition_includes_those_before_it(found: str, met: dict[Any, bool]) -> None:
    """`refused` is the widest condition, `ai-suspected` the narrowest, `never` is never met."""
    totals = Totals(1, 1, Counter([found]), 0)

    assert {condition: totals.meets(condition) for condition in met} == met


def test_panels_suspected_in_part_are_counted() -> None:
    """The line of suspected panels says how many of them are suspected in part, if any are."""
    verdicts = Counter({"ai-suspected": 3})

    some, none = (Totals(1, 1, verdicts, 0, n).lines()[2] for n in (1, 0))

    assert some == "3 AI-suspected: ask for the instrument files (1 in part)"
    assert none == "3 AI-suspected: ask for the instrument files"


def test_the_command_survives_a_shell() -> None:
    """Names with spaces are quoted in the command that repeats a screening."""
    assert repeating_command(["screen", "a b.png"]) == "semforensics screen 'a b.png'"


class WithInset(StandIn):
    """Takes the middle of each picture for an inset."""

    def screen_picture(self, picture: Picture, info_bar: int | None = None) -> PictureResult:
        """Judge a picture as one panel with an inset, and the inset."""
        result = super().screen_picture(picture, info_bar)
        (whole,) = result.panels
        box = Box(100, 100, 250, 250)
        host = replace(whole.panel, name="a", drawn=(DrawnBox("inset", 100, 100, 250, 250),))
        inset = Panel("b", box, box.cut(picture.grey))
        return replace(result, panels=(replace(whole, panel=host), replace(whole, panel=inset)))


def test_an_inset_is_not_found_in_the_panel_that_it_lies_on(tmp_path: Path) -> None:
    """Its pixels are its own panel's; the same pixels elsewhere are listed."""
    levels = np.random.default_rng(0).integers(40, 220, (100, 100))
    own = np.kron(levels, np.ones((4, 4))).astype(np.uint8)
    copied = own.copy()
    copied[250:400, 250:400] = copied[100:250, 100:250]
    for name, grey in (("own", own), ("copied", copied)):
        (tmp_path / name).mkdir()
        Image.fromarray(grey).save(tmp_path / name / "a.png")

    (_, alone), (_, twice) = (
        screen([tmp_path / name], tmp_path / f"{name}_out", screener=WithInset())
        for name in ("own", "copied")
    )

    assert alone["reuse"] == []
    (pair,) = twice["reuse"]
    assert pair["overlap"] == {"top": 250, "left": 250, "bottom": 400, "right": 400}
