"""The report of a screening: one page, JSON and CSV."""

import copy
import csv
import dataclasses
import io
import json
import re
import tracemalloc
from collections.abc import Iterator
from html.parser import HTMLParser
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from tests.screening.samples import HEAD, composite, reuse

from semforensics.screening.records import WORDING, Box, Evidence, Refusal
from semforensics.screening.write import report
from semforensics.screening.write.fragment import picture_fragment
from semforensics.screening.write.report import COLUMNS, FULL_DETAIL, MOST_DETAILED, write_report

SCHEMA = json.loads(
    files("semforensics.screening.write").joinpath("report.schema.json").read_text(encoding="utf-8")
)
VOID = {"meta", "br", "img", "link", "hr", "input", "path", "circle", "rect", "image"}


class Page(HTMLParser):
    """A page taken apart: its tags, texts and attributes; every tag must be closed in its order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(page)
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.texts.append(data)

    @property
    def text(self) -> str:
        """All that a reader reads, in one line."""
        return " ".join(" ".join(self.texts).split())


def write(
    folder: Path, fragments: list[dict[str, Any]], head: dict[str, Any] = HEAD, **more: Any
) -> tuple[Page, dict[str, Any], list[dict[str, str]]]:
    """Write a report, and read all three files."""
    write_report(
        folder, head, lambda: iter(fragments), more.get("refusals", []), more.get("reuses", [])
    )
    with (folder / "report.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return (
        Page((folder / "report.html").read_text(encoding="utf-8")),
        json.loads((folder / "report.json").read_text(encoding="utf-8")),
        rows,
    )


@pytest.fixture(scope="module")
def fragments() -> list[dict[str, Any]]:
    """Three pictures with panels of all verdicts."""
    return [
        picture_fragment(composite("a.tif", ("ai-suspected", "consistent", "inconclusive"))),
        picture_fragment(composite("b.pdf", ("consistent",), first=4)),
        picture_fragment(composite("c.jpg", ("refused",), maps=False)),
    ]


REFUSALS = [Refusal("notes.docx", "", None, "not an image")]


def test_json_follows_its_schema(tmp_path: Path, fragments: list[dict[str, Any]]) -> None:
    """report.json is valid under the published schema, and holds no figures."""
    _, written, _ = write(tmp_path, fragments, refusals=REFUSALS, reuses=[reuse("a.tif", "a.tif")])

    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.validate(written, SCHEMA, jsonschema.Draft202012Validator)
    assert written["schema_version"] == "1.3"
    assert written["images"] == [
        {key: value for key, value in fragment.items() if key != "figures"}
        for fragment in fragments
    ]
    assert written["summary"] == {
        "n_pictures": 3, "n_reuses": 1, "n_ai_suspected": 1, "n_inconclusive": 1,
        "n_consistent": 2, "n_refused": 3, "n_ai_suspected_in_part": 0,
    }  # fmt: skip


def test_the_schema_refuses_another_verdict(
    tmp_path: Path, fragments: list[dict[str, Any]]
) -> None:
    """A verdict that is not one of the four, or a missing reason, is not a report."""
    _, written, _ = write(tmp_path, fragments)
    judge = jsonschema.Draft202012Validator(SCHEMA)

    other = copy.deepcopy(written)
    other["images"][0]["panels"][0]["verdict"] = "forged"
    silent = copy.deepcopy(written)
    del silent["images"][0]["panels"][0]["reason"]

    assert not judge.is_valid(other)
    assert not judge.is_valid(silent)


def test_csv_has_a_row_for_each_panel_and_refusal(
    tmp_path: Path, fragments: list[dict[str, Any]]
) -> None:
    """Panels come in order with their numbers, and what is refused says why."""
    _, _, rows = write(tmp_path, fragments, refusals=REFUSALS)

    assert tuple(rows[0]) == COLUMNS
    assert [(row["path"], row["panel"], row["verdict"]) for row in rows] == [
        ("a.tif", "a", "ai-suspected"),
        ("a.tif", "b", "consistent"),
        ("a.tif", "c", "inconclusive"),
        ("a.tif", "", "refused"),
        ("b.pdf", "", "consistent"),
        ("c.jpg", "", "refused"),
        ("notes.docx", "", "refused"),
    ]
    assert float(rows[0]["p_real"]) == fragments[0]["panels"][0]["p_real"]
    assert rows[-1]["reason"] == "not an image"


def test_page_says_all_and_no_word_too_much(
    tmp_path: Path, fragments: list[dict[str, Any]]
) -> None:
    """Verdicts stand in their defensible words; the page never speaks of a "fake"."""
    page, _, _ = write(tmp_path, fragments, refusals=REFUSALS, reuses=[reuse("a.tif", "a.tif")])

    for words in WORDING.values():
        assert words in page.text
    for words in (
        "No tag is not guilt", "notes.docx", "not an image", "mirrored", HEAD["command"],
        HEAD["version"], "palladium nanoparticles on carbon", *HEAD["model"]["limits"],
        "TIFF tag 34682 (FEI/Thermo)", "Adobe Photoshop 25.1", "at a prevalence of 0.5",
        "at the prevalence given, 0.01", "plain rule", fragments[0]["sha256"],
    ):  # fmt: skip
        assert words in page.text, words
    assert "fake" not in page.text.lower()
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(level - before <= 1 for before, level in pairwise(levels))


def test_page_fetches_nothing_and_runs_nothing(
    tmp_path: Path, fragments: list[dict[str, Any]]
) -> None:
    """Every address is inside the file, every figure has a text, and there is no script."""
    page, _, _ = write(tmp_path, fragments, reuses=[reuse("a.tif", "a.tif")])
    raw = (tmp_path / "report.html").read_text(encoding="utf-8")

    ids = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    for tag, attributes in page.tags:
        assert tag not in ("script", "link", "iframe", "object", "form")
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("src", "href"):
            value = attributes.get(name) or "data:image/"
            assert value.startswith("data:image/") or value[1:] in ids
        if tag == "img":
            assert attributes["alt"]
    assert "default-src 'none'" in raw
    assert "url(" not in raw
    assert "@import" not in raw


HOSTILE = "'\"><script>alert(1)</script>{{ 7 * 7 }}<img src=x onerror=alert(1)>.png"


def test_hostile_names_are_shown_as_text(tmp_path: Path) -> None:
    """HTML in names, tags, reasons and the command is escaped wherever it stands."""
    result = composite("x.png", ("ai-suspected", "inconclusive"))
    picture = dataclasses.replace(
        result.picture,
        path=HOSTILE,
        location=HOSTILE,
        notes=(HOSTILE,),
        provenance=dataclasses.replace(
            result.picture.provenance,
            instrument={HOSTILE: HOSTILE},
            instrument_source=HOSTILE,
            software={HOSTILE: HOSTILE},
            c2pa=HOSTILE,
        ),
    )
    first = result.panels[0]
    panel = dataclasses.replace(first.panel, name=HOSTILE, notes=(HOSTILE,))
    finding = dataclasses.replace(first.finding, reason=HOSTILE)
    evidence = dataclasses.replace(
        first.evidence,
        reencoded={HOSTILE: (1.0, "consistent")},
        nearest_real={HOSTILE: HOSTILE},
    )
    hostile = dataclasses.replace(
        result,
        picture=picture,
        panels=(dataclasses.replace(first, panel=panel, finding=finding, evidence=evidence),),
        refusals=(Refusal(HOSTILE, HOSTILE, None, HOSTILE),),
    )
    model = HEAD["model"] | {"name": HOSTILE, HOSTILE: [HOSTILE], "limits": [HOSTILE]}
    settings = HEAD["settings"] | {HOSTILE: HOSTILE, "reuse": f"not searched: {HOSTILE}"}
    head = {"created": HOSTILE, "version": HOSTILE, "command": HOSTILE}
    head |= {"settings": settings, "model": model}
    pair = dataclasses.replace(reuse(HOSTILE, HOSTILE), transform=HOSTILE)

    shown = [picture_fragment(hostile)] * 2
    page, _, _ = write(tmp_path, shown, head, refusals=hostile.refusals, reuses=[pair])

    tags = {tag for tag, _ in page.tags}
    assert "script" not in tags
    assert not [1 for _, attributes in page.tags if "onerror" in attributes]
    assert page.text.count(HOSTILE) > 20


def test_names_cannot_hide_or_turn_their_letters(tmp_path: Path) -> None:
    """Control characters, turned writing and bytes that are no text are shown by their numbers."""
    hidden = "a\u202egnp.exe\x00\udcff\n"

    page, written, rows = write(tmp_path, [], refusals=[Refusal(hidden, "", None, "reason")])

    assert "a\\u202egnp.exe\\u0000\\udcff" in page.text
    assert rows[0]["path"] == "a\\u202egnp.exe\\u0000\\udcff "
    assert written["refusals"][0]["path"] == hidden


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@sum(a1)"])
def test_a_spreadsheet_takes_no_name_for_a_formula(tmp_path: Path, name: str) -> None:
    """A cell that would begin as a formula begins with an apostrophe."""
    _, _, rows = write(tmp_path, [], refusals=[Refusal(name, "", None, name)])

    assert rows[0]["path"] == rows[0]["reason"] == f"'{name}"


@pytest.mark.parametrize(
    "says", [{"data": "simulated"}, {"training_domain": {"data": "simulated"}}]
)
def test_simulated_models_say_so_on_the_page(
    tmp_path: Path, fragments: list[dict[str, Any]], says: dict[str, Any]
) -> None:
    """A model trained on simulated micrographs puts a banner above everything."""
    head = HEAD | {"model": HEAD["model"] | says}

    page, _, _ = write(tmp_path / "simulated", fragments, head)
    other, _, _ = write(tmp_path / "real", fragments)

    words = "trained on simulated micrographs"
    assert page.text.index(words) < page.text.index("Screening report", 60)
    assert words not in other.text


def test_the_promise_names_what_it_rests_on(
    tmp_path: Path, fragments: list[dict[str, Any]]
) -> None:
    """The page counts images and areas of the calibration, and what false alarms were measured on.

    A calibration that counts crops promises nothing for other areas, one that counts areas does.
    """
    few, _, _ = write(tmp_path / "few", fragments)
    shares = {"counted by": "areas", "share for the whole": 0.9}
    many_areas = HEAD["model"]["calibration"] | {"groups": 22} | shares
    model = HEAD["model"] | {"calibration": many_areas, "false_alarms": []}
    enough, _, _ = write(tmp_path / "enough", fragments, HEAD | {"model": model})

    pooled = HEAD | {"settings": HEAD["settings"] | {"pooling": "max"}}
    largest, _, _ = write(tmp_path / "largest", fragments, pooled)

    for words in (
        "595 real images, but from only 9 areas", "would need 19 areas",
        "0 of 9 real panels suspected, of the same one (1 instrument, 7 other areas);",
        "2 of 27 real panels suspected, of another one (1 instrument, areas not recorded).",
    ):  # fmt: skip
        assert words in few.text, words
    assert "Measured at alpha 0.05, for whole panels:" in few.text
    assert "would need" not in enough.text
    assert "in areas like the 22 of the calibration, about 5 % or fewer end here" in enough.text
    assert "A tenth of these may be suspected in part" in enough.text
    assert "has not been measured." in enough.text
    assert "has not been measured with this pooling." in largest.text


def test_a_model_for_any_instrument_promises_by_collections(
    tmp_path: Path, fragments: list[dict[str, Any]]
) -> None:
    """Each collection and paper counts once; that parts are not searched for is said twice."""
    calibration = {
        "counted by": "collections and papers",
        "groups": 40,
        "parts": "not searched for",
    }
    model = HEAD["model"] | {"calibration": calibration | {"by what pixels tell": {"JPEG": "40"}}}

    page, _, _ = write(tmp_path, fragments, HEAD | {"model": model})

    for words in (
        "like those of the calibration (40 at most)",
        "each collection and each paper counts once",
        "Parts that disagree with the rest of a panel are not searched for.",
        "It does not look for generated parts",
        "whose pixels tell of the same processing",
    ):
        assert words in page.text, words
    assert "would need" not in page.text


def test_a_panel_suspected_in_part_says_so_and_has_a_box(tmp_path: Path) -> None:
    """The words of the verdict, a box inside of the panel, and both numbers in report.json."""
    result = composite("a.tif", ("ai-suspected",), maps=False)
    panel = result.panels[0]
    finding = dataclasses.replace(panel.finding, p_part=0.002, part_box=Box(10, 20, 74, 90))
    result = dataclasses.replace(result, panels=(dataclasses.replace(panel, finding=finding),))

    page, written, rows = write(tmp_path, [picture_fragment(result)])

    assert "1 of 1 panel is AI-suspected in part: ask for the instrument files." in page.text
    assert "at a glance AI-suspected in part a.tif " in page.text
    assert "only this part of the panel is suspected" in page.text
    box = panel.panel.box
    place = {"x": str(box.left + 20), "y": str(box.top + 10), "width": "70", "height": "64"}
    assert sum(tag == "rect" and place.items() <= found.items() for tag, found in page.tags) == 2
    (entry,) = written["images"][0]["panels"]
    assert entry["part_box"] == {"top": 10, "left": 20, "bottom": 74, "right": 90}
    assert entry["p_part"] == 0.002
    assert entry["in_part"]
    assert written["summary"]["n_ai_suspected_in_part"] == 1
    assert [row["in_part"] for row in rows] == ["True"]


def test_suspicions_of_both_kinds_are_counted_apart(tmp_path: Path) -> None:
    """Those of a part are counted among all, in the sentence, the counts and the thumbnails."""
    result = composite("a.tif", ("ai-suspected", "ai-suspected", "consistent"), maps=False)
    whole, panel, other = result.panels
    finding = dataclasses.replace(panel.finding, part_box=Box(10, 20, 74, 90))
    panels = (whole, dataclasses.replace(panel, finding=finding), other)
    result = dataclasses.replace(result, panels=panels)

    page, written, _ = write(tmp_path, [picture_fragment(result)])

    assert "2 of 3 panels are AI-suspected, 1 of them in part: ask for" in page.text
    assert "2 AI-suspected (1 in part) 0 inconclusive" in page.text
    assert "at a glance AI-suspected 2 of 3 panels, 1 in part a.tif " in page.text
    assert written["summary"]["n_ai_suspected"] == 2
    assert written["summary"]["n_ai_suspected_in_part"] == 1


def test_numbers_are_never_certainties(tmp_path: Path) -> None:
    """A share that rounds to 0 or 1 is given as a bound; what JSON has no number for is null."""
    result = composite("a.tif", ("ai-suspected",), maps=False)
    panel = result.panels[0]
    sure = dataclasses.replace(panel.finding, probability=0.99999, p_real=0.0, logit=np.inf)
    result = dataclasses.replace(result, panels=(dataclasses.replace(panel, finding=sure),))

    page, written, _ = write(tmp_path, [picture_fragment(result)])

    assert "> 0.999" in page.text
    assert "< 0.001" in page.text
    assert written["images"][0]["panels"][0]["logit"] is None


@pytest.mark.parametrize("key", ["model", "settings", "command", "version", "created"])
def test_a_head_that_lacks_something_is_refused(tmp_path: Path, key: str) -> None:
    """What is missing is named, and nothing is written."""
    head = {name: value for name, value in HEAD.items() if name != key}

    with pytest.raises(ValueError, match=f"no {key}"):
        write_report(tmp_path / "out", head, lambda: iter([]), [], [])

    assert not (tmp_path / "out").exists()


def test_an_unfinished_report_leaves_the_old_one(
    tmp_path: Path, fragments: list[dict[str, Any]]
) -> None:
    """When reading the pictures fails, all three files stay as they were."""
    write(tmp_path, fragments[:1])
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def broken() -> Iterator[dict[str, Any]]:
        yield fragments[1]
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        write_report(tmp_path, HEAD, broken, [], [])

    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_disk_that_fills_at_the_end_leaves_the_old_report(
    tmp_path: Path, fragments: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All three files are closed before the first gets its name."""
    write(tmp_path, fragments[:1])
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    opened = Path.open

    class Full(io.StringIO):
        def close(self) -> None:
            super().close()
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(
        Path, "open", lambda p, *a, **k: Full() if ".csv" in p.name else opened(p, *a, **k)
    )
    with pytest.raises(OSError, match="No space left"):
        write(tmp_path, fragments)
    monkeypatch.undo()

    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def many(count: int, every: int) -> Iterator[dict[str, Any]]:
    """Many pictures without evidence, each with figures of its own; one in `every` suspected."""
    quiet, loud = (
        picture_fragment(composite("", (verdict,), maps=False))
        for verdict in ("consistent", "ai-suspected")
    )
    for number in range(count):
        fragment = loud if number % every == 0 else quiet
        figures = {"thumbnail": f"data:image/png;base64,{number:06d}" * 1000, "panels": [{}]}
        figures["icon"] = f"data:image/jpeg;base64,{number:06d}" * 100
        yield fragment | {"path": f"{number:06d}.tif", "figures": figures}


def test_thousands_of_pictures_need_no_more_memory(tmp_path: Path) -> None:
    """Of 2000 pictures the suspected ones have figures, all have rows, and memory stays flat."""
    peaks = []
    for count in (200, 2000):
        tracemalloc.start()
        write_report(tmp_path / str(count), HEAD, lambda n=count: many(n, 50), [], [])
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()

    page = (tmp_path / "2000/report.html").read_text(encoding="utf-8")
    assert peaks[1] < peaks[0] + 300_000  # bytes; the fragments together hold 50 MB
    assert page.count('<article class="picture"') == 40
    assert page.count(".tif</td>") == 1960
    assert "1960 are" in page
    with (tmp_path / "2000/report.csv").open(encoding="utf-8") as file:
        assert sum(1 for _ in file) == 2001
    written = json.loads((tmp_path / "2000/report.json").read_text(encoding="utf-8"))
    assert len(written["images"]) == 2000


def test_a_large_submission_shows_the_suspected_first(tmp_path: Path) -> None:
    """Figures are bounded: beyond the bound even a suspected picture is a row, and counted."""
    count = MOST_DETAILED + 30

    page, written, _ = write(tmp_path, list(many(count, 1)))

    shown = [attributes for tag, attributes in page.tags if tag == "article"]
    assert len(shown) == MOST_DETAILED
    assert written["summary"]["n_ai_suspected"] == count
    assert len(set(re.findall(r"\d{6}\.tif", page.text))) == count


def test_a_small_submission_is_shown_whole(tmp_path: Path) -> None:
    """Up to `FULL_DETAIL` pictures, consistent ones have their figures too."""
    page, _, _ = write(tmp_path, list(many(FULL_DETAIL, 1000)))

    assert len([1 for tag, _ in page.tags if tag == "article"]) == FULL_DETAIL
    assert "Other pictures" not in page.text


def test_what_was_found_comes_first(tmp_path: Path) -> None:
    """Verdicts and thumbnails come first, suspected ones before others; words and model last."""
    results = [
        composite("q.tif", ("consistent",)),
        composite("folder/u.pdf", ("consistent", "inconclusive")),
        composite("x.jpg", ("refused",), maps=False),
        composite("s.tif", ("consistent", "ai-suspected", "ai-suspected")),
    ]

    page, _, _ = write(tmp_path, [picture_fragment(result) for result in results])

    titles = [attributes["id"] for tag, attributes in page.tags if tag == "h2"]
    assert titles == ["summary", "strip", "pictures", "refused", "about", "model", "method"]
    assert "2 of 6 panels are AI-suspected: ask for the instrument files." in page.text
    strip = page.text[page.text.index("at a glance") : page.text.index("Pictures s.tif")]
    assert strip == (
        "at a glance AI-suspected 2 of 3 panels s.tif inconclusive 1 of 2 panels u.pdf page 3 of 8"
        " consistent q.tif not judged x.jpg "
    )
    links = [a["href"] for _, a in page.tags if (a.get("href") or "").startswith("#picture-")]
    assert links == ["#picture-3", "#picture-1", "#picture-0", "#picture-2"]
    articles = [attributes["id"] for tag, attributes in page.tags if tag == "article"]
    assert [f"#{name}" for name in articles] == links


def test_a_strip_of_many_pictures_stays_small(tmp_path: Path) -> None:
    """Beyond `FULL_DETAIL` pictures it shows suspected ones alone; without any it is left out."""
    some, _, _ = write(tmp_path / "some", list(many(FULL_DETAIL + 20, 20)))
    none, _, _ = write(tmp_path / "none", list(many(FULL_DETAIL + 20, 1000))[1:])

    assert [tag for tag, _ in some.tags].count("img") == 3
    assert "Of 60 pictures only 3 with a suspected panel are shown here. 0 more" in some.text
    assert "at a glance" not in none.text
    assert "No panel is AI-suspected, of 59 judged." in none.text


def test_long_reasons_fold_but_for_suspicions(tmp_path: Path) -> None:
    """Of a picture with much to say, what is suspected keeps its reason in sight."""
    result = composite("a.tif", ("ai-suspected", "inconclusive", "consistent"))
    wordy = dataclasses.replace(result.panels[1].finding, reason="Many words. " * 120)
    panels = (result.panels[0], dataclasses.replace(result.panels[1], finding=wordy))

    page, _, _ = write(tmp_path, [picture_fragment(dataclasses.replace(result, panels=panels))])

    assert "Numbers and evidence of panel a" in page.text
    assert "Reason, numbers and evidence of panel b Many words." in page.text


def test_evidence_left_out_leaves_no_empty_headings(tmp_path: Path) -> None:
    """Without evidence a panel has its numbers alone."""
    result = composite("a.tif", ("consistent",))
    bare = dataclasses.replace(result.panels[0], evidence=Evidence())
    fragment = picture_fragment(dataclasses.replace(result, panels=(bare,)))

    page, _, _ = write(tmp_path, [fragment])

    assert fragment["figures"]["panels"] == [{}]
    assert "Evidence beside the verdict" not in page.text
    assert "Numbers of the whole picture" in page.text
    assert [attributes["alt"] for tag, attributes in page.tags if tag == "img"] == ["a.tif"]


def test_common_settings_are_shown_and_the_instruments_words_fold_open(tmp_path: Path) -> None:
    """Names of the instrument stay as they are, inside an element that needs no script."""
    result = composite("a.tif", ("consistent",), maps=False)
    settings = {"Pixel size": "7.3 nm", "n_fake": "4", "CM_MAG": "5000"}
    provenance = dataclasses.replace(
        result.picture.provenance, instrument=settings, instrument_source="TIFF tag 34118 (Zeiss)"
    )
    picture = dataclasses.replace(result.picture, provenance=provenance)
    fragment = picture_fragment(dataclasses.replace(result, picture=picture))

    page, written, _ = write(tmp_path, [fragment])

    assert "Instrument settings TIFF tag 34118 (Zeiss)" in page.text
    assert "in common names and units Pixel size 7.3 nm" in page.text
    assert "As the instrument wrote them: 2 n_fake 4 CM_MAG 5000" in page.text
    assert [tag for tag, _ in page.tags].count("details") == 3  # numbers, file, its own words
    assert written["images"][0]["provenance"]["instrument"] == settings


def test_a_fragment_survives_json() -> None:
    """What resuming reads back from disk is what was written."""
    fragment = picture_fragment(composite("a.tif", ("ai-suspected", "consistent")))

    assert json.loads(json.dumps(fragment, allow_nan=False)) == fragment
    assert set(fragment["figures"]["panels"][0]) == {
        "tile_map", "grad_cam", "residual", "spectrum"
    }  # fmt: skip


def test_what_json_cannot_hold_is_refused() -> None:
    """A value of another kind is named, not turned into words."""
    result = composite("a.tif", ("consistent",))
    panel = dataclasses.replace(result.panels[0], evidence=Evidence(nearest_real={"box": object()}))

    with pytest.raises(ValueError, match="cannot hold object"):
        picture_fragment(dataclasses.replace(result, panels=(panel,)))


def test_panels_that_were_not_compared_are_not_called_different(tmp_path: Path) -> None:
    """Where reuse was not searched the page says so, rather than that there is none."""
    head = HEAD | {"settings": HEAD["settings"] | {"reuse": "not searched: 9000 panels"}}

    searched, _, _ = write(tmp_path / "searched", [])
    skipped, _, _ = write(tmp_path / "skipped", [], head)

    assert "No two panels were found" in searched.text
    assert "No two panels were found" not in skipped.text
    assert "not searched: 9000 panels" in skipped.text


def test_the_schema_is_that_of_the_writer() -> None:
    """The version in the schema's name is the one that reports carry."""
    assert SCHEMA["$id"].endswith(report.SCHEMA_VERSION)


def test_reasons_are_given_once(tmp_path: Path, fragments: list[dict[str, Any]]) -> None:
    """Those of parts stand with their picture, those of inputs in a table, and both are counted."""
    inputs, _, _ = write(tmp_path, fragments, refusals=REFUSALS)
    none, _, _ = write(tmp_path, fragments[1:2])

    part = fragments[0]["refusals"][0]["reason"]
    assert "1 input and 2 pictures or parts." in inputs.text
    assert "The reason for 2 pictures or parts is given with the pictures above." in inputs.text
    assert inputs.text.count(part) == 1
    assert inputs.text.count("notes.docx") == 1
    assert "Not judged" not in none.text
