"""What the local page does with the files of one submission."""

import json
import pickle
import shlex
from pathlib import Path

from semforensics.cli.screen import ScreenerOptions
from semforensics.screening.page_job import PageJob
from tests.screening.stand_in import StandIn, draw


def job_of(model: str | None = None) -> PageJob:
    """A job with the settings of the command line."""
    options = ScreenerOptions(model, prevalence=0.01, maps=False, threads=1)
    return PageJob(options.load, options.arguments())


def test_the_report_shows_the_names_of_the_owner(tmp_path: Path) -> None:
    """Stored names and the folder that they lie in occur nowhere in the three files."""
    stored = draw(tmp_path / "stored", [100, 180])
    names = dict(zip(stored, ["fig 1.png", "--out <b>.png"], strict=True))
    job = job_of()
    job._screener = StandIn()

    job(stored, tmp_path / "out", tmp_path / "scratch", names)

    written = json.loads((tmp_path / "out/report.json").read_text())
    assert [image["path"] for image in written["images"]] == ["fig 1.png", "--out <b>.png"]
    assert [image["panels"][0]["verdict"] for image in written["images"]] == [
        "consistent",
        "ai-suspected",
    ]
    for kind in ("html", "json", "csv"):
        assert str(tmp_path) not in (tmp_path / f"out/report.{kind}").read_text()
    assert not (tmp_path / "scratch").exists()


def test_the_command_in_the_report_can_be_pasted() -> None:
    """A shell takes the names back as they are, and none of them for an option."""
    names = ["a b.png", "--out", "$(reboot).tif", "it's.pdf"]

    words = shlex.split(job_of("models/mine.safetensors").command(names))

    assert words[:2] == ["semforensics", "screen"]
    assert words[words.index("--") + 1 :] == names
    options = words[2 : words.index("--")]
    assert options[options.index("--prevalence") + 1] == "0.01"
    assert options[options.index("--model") + 1] == "models/mine.safetensors"
    assert "--no-maps" in options


def test_a_job_goes_to_its_process_without_its_model() -> None:
    """What is pickled is the settings; the model is loaded over there."""
    job = job_of()

    again = pickle.loads(pickle.dumps(job))

    assert (again.arguments, again.load.__self__) == (job.arguments, job.load.__self__)
    assert len(pickle.dumps(job)) < 1000
