"""Curves to watch: there when asked for, and without effect on what a training leaves."""

import csv
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.generators.conftest import Place, make_place, rows_of, tiny  # noqa: F401 - a fixture

from semforensics.core.live import FOLDER_VARIABLE, live_curves


def test_curves_follow_a_training_and_change_nothing(
    make_place: Callable[[str], Place],  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every row of the loss table is a point of the curves; the outputs are the same bytes."""
    quiet, watched = make_place("quiet"), make_place("watched")
    quiet.train(tiny())

    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "live"))
    watched.train(tiny(), scratch=watched.root / "train_gan/fastgan")

    assert watched.outputs() == quiet.outputs()
    folder = tmp_path / "live/train_gan/fastgan"
    with (folder / "plots/metrics/loss_g.tsv").open() as file:
        points = [
            (int(r["step"]), float(r["loss_g"])) for r in csv.DictReader(file, delimiter="\t")
        ]
    rows = rows_of(watched.root / "plots/losses.csv")
    assert [step for step, _ in points] == [row["iteration"] for row in rows]
    assert [value for _, value in points] == pytest.approx(
        [row["loss_g"] for row in rows], rel=1e-4
    )
    assert (folder / "report.html").is_file()


def test_a_resumed_training_goes_on_with_its_curves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was drawn before stays; a new training begins anew."""
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    table = tmp_path / "a/b/plots/metrics/loss.tsv"
    for resumed, step in ((False, 1), (True, 2)):
        with live_curves(Path("a/b"), resumed=resumed) as show:
            show(step, {"loss": 0.5})

    assert [line.split("\t")[0] for line in table.read_text().splitlines()] == ["step", "1", "2"]
    with live_curves(Path("a/b"), resumed=False) as show:
        show(7, {"loss": 0.5})
    assert [line.split("\t")[0] for line in table.read_text().splitlines()] == ["step", "7"]
