"""The local page in a real browser, by keyboard alone, and what it asks of the network."""

import io
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

from semforensics.screening.page import Page
from semforensics.screening.upload import PageLimits
from semforensics.screening.write.fragment import picture_fragment
from semforensics.screening.write.report import write_report
from tests.screening.jobs import screen
from tests.screening.samples import HEAD, composite, micrograph

CHROMIUM = Path("/usr/bin/chromium")
ARGUMENTS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Debian's chromium; the tests skip where it is absent."""
    if not CHROMIUM.exists():
        pytest.skip(f"no browser at {CHROMIUM}")
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def server(pytestconfig: pytest.Config) -> Iterator[Page]:
    """A page that takes four files of a megabyte."""
    limits = PageLimits(max_files=4, max_file_mb=1, max_total_mb=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(pytestconfig.rootpath)
        with Page(screen, limits=limits, notice="A <notice>") as server:
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            yield server
            server.shutdown()
            thread.join()


class Tab:
    """A tab, all that it requests, and all that it complains about."""

    def __init__(self, context: Any, url: str) -> None:
        self.requests: list[str] = []
        self.complaints: list[str] = []
        context.on("request", lambda request: self.requests.append(request.url))
        self.page = context.new_page()
        self.page.on("console", lambda message: self.complaints.append(message.text))
        # Listening from the start: the browser may not hear in time that a chooser is expected.
        self.page.on("filechooser", lambda _: None)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto(url)

    def hosts(self) -> set[str]:
        """Where requests over the network went."""
        addresses = [urlsplit(url) for url in self.requests]
        return {a.netloc for a in addresses if a.scheme not in ("data", "blob", "about")}

    def focus(self) -> str:
        """The element that has the focus."""
        return str(
            self.page.evaluate("document.activeElement.id || document.activeElement.tagName")
        )


@pytest.fixture
def tab(browser: Any, server: Page) -> Iterator[Tab]:
    """A fresh tab at the page."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(30_000)
    yield Tab(context, server.url)
    context.close()


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    """Two files to screen, one with a name that would be a tag."""
    paths = [tmp_path / "figure_1.png", tmp_path / "<b>2<b>.tif"]
    for path in paths:
        Image.fromarray(micrograph(0)).save(path)
    return paths


def choose_by_keyboard(tab: Tab, key: str, paths: list[Path]) -> None:
    """Walk to the file button with the tabulator, press a key, choose files."""
    for _ in range(4):
        tab.page.keyboard.press("Tab")
        if tab.focus() == "files":
            break
    with tab.page.expect_file_chooser() as chooser:
        tab.page.keyboard.press(key)
    chooser.value.set_files(paths)


@pytest.mark.parametrize("key", ["Enter", "Space"])
def test_two_files_are_judged_by_keyboard_alone(
    tab: Tab, server: Page, pictures: list[Path], tmp_path: Path, key: str
) -> None:
    """The report of both files appears, its heading has the focus, and nothing leaves this host."""
    choose_by_keyboard(tab, key, pictures)
    report = tab.page.frame_locator("#report")
    report.get_by_text("Method, and how to repeat it").wait_for()

    tab.page.screenshot(path=tmp_path / "page.png", full_page=True)
    assert tab.focus() == "result-title"
    titles = report.locator("article h3").all_inner_texts()
    assert titles == ["figure_1.png", "<b>2<b>.tif"]
    assert report.get_by_text("AI-suspected: ask for the instrument files").count() >= 4
    tab.page.wait_for_function("document.getElementById('report').offsetHeight > 1500")
    with Image.open(tmp_path / "page.png") as image:
        assert image.height > 1500
        assert np.asarray(image.convert("L")).std() > 10
    assert tab.hosts() == {f"127.0.0.1:{server.port}"}
    assert tab.complaints == []
    assert not list(server.folder.iterdir())


def test_the_file_button_shows_where_the_focus_is(tab: Tab) -> None:
    """Below what has to be known first, the label has a ring when the input has the focus."""
    ring = "getComputedStyle(document.querySelector('label.button')).outlineStyle"
    before = tab.page.evaluate(ring)

    tab.page.keyboard.press("Tab")

    assert tab.page.get_by_role("note").inner_text() == "A <notice>"
    assert before == "none"
    assert tab.page.evaluate(ring) == "solid"
    assert tab.page.get_by_label("Choose files").count() == 1


DROP = """([name, text]) => {
  const transfer = new DataTransfer();
  transfer.items.add(new File([Uint8Array.from(atob(text), (c) => c.charCodeAt(0))], name));
  for (const kind of ["dragenter", "dragover", "drop"])
    document.getElementById("zone").dispatchEvent(
      new DragEvent(kind, { bubbles: true, cancelable: true, dataTransfer: transfer }));
}"""


def test_dropped_files_are_judged_and_the_reports_can_be_saved(tab: Tab, server: Page) -> None:
    """A dropped file gives the same report; the links save what was shown."""
    import base64

    buffer = io.BytesIO()
    Image.fromarray(micrograph(1)).save(buffer, "PNG")

    tab.page.evaluate(DROP, ["dropped.png", base64.b64encode(buffer.getvalue()).decode()])
    report = tab.page.frame_locator("#report")
    report.get_by_text("Method, and how to repeat it").wait_for()
    with tab.page.expect_download() as saved:
        tab.page.get_by_text("Save as JSON").click()

    assert saved.value.suggested_filename == "report.json"
    written = json.loads(Path(saved.value.path()).read_text())
    assert [image["path"] for image in written["images"]] == ["dropped.png"]
    assert tab.hosts() == {f"127.0.0.1:{server.port}"}
    assert tab.complaints == []


@pytest.mark.parametrize(
    ("sizes", "message"),
    [([10] * 5, "5 files at once; at most 4"), ([1_000_001], "too large; at most 1 MB")],
)
def test_too_much_is_said_before_anything_is_sent(
    tab: Tab, tmp_path: Path, sizes: list[int], message: str
) -> None:
    """The page knows the limits, names them, and puts the focus back on the button."""
    paths = [tmp_path / f"{number}.png" for number in range(len(sizes))]
    for path, size in zip(paths, sizes, strict=True):
        path.write_bytes(bytes(size))

    choose_by_keyboard(tab, "Enter", paths)
    tab.page.get_by_role("alert").wait_for()

    assert message in tab.page.get_by_role("alert").inner_text()
    assert tab.focus() == "files"
    assert not [url for url in tab.requests if url.endswith("/screen")]


def test_what_the_judge_refuses_is_shown(tab: Tab, tmp_path: Path) -> None:
    """An error of the server is read out with the name of the file, and another try is possible."""
    bad = tmp_path / "bad.tif"
    bad.write_bytes(b"do refuse")

    choose_by_keyboard(tab, "Enter", [bad])
    tab.page.get_by_role("alert").wait_for()

    assert tab.page.get_by_role("alert").inner_text() == "bad.tif: not a picture"
    assert tab.page.locator("#files").is_enabled()


@pytest.fixture(scope="module")
def saved_report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report on disk, of a model trained on simulated micrographs."""
    folder = tmp_path_factory.mktemp("report")
    head = HEAD | {"model": HEAD["model"] | {"data": "simulated"}}
    results = (
        composite("a.tif", ("ai-suspected", "inconclusive")),
        composite("b.tif", ("consistent",)),
    )
    fragments = [picture_fragment(result) for result in results]
    write_report(folder, head, lambda: iter(fragments), [], [])
    return folder / "report.html"


@pytest.mark.parametrize("width", [375, 1280])
def test_a_saved_report_fits_its_screen(browser: Any, saved_report: Path, width: int) -> None:
    """On a telephone as on a desktop nothing is scrolled sideways, and nothing is fetched."""
    context = browser.new_context(viewport={"width": width, "height": 800})
    tab = Tab(context, saved_report.as_uri())

    wide = tab.page.evaluate("document.documentElement.scrollWidth")
    context.close()

    assert wide == width
    assert [url for url in tab.requests if not url.startswith("data:")] == [saved_report.as_uri()]
    assert tab.complaints == []


def test_a_picture_and_its_panels_fit_one_screen(browser: Any, tmp_path: Path) -> None:
    """Folded, up to eight panels, of whatever verdict; links on top lead to them; details open."""
    verdicts: list[Any] = ["ai-suspected", "inconclusive", "consistent"]
    counts = (1, 2, 3, 6, 8)
    results = [composite(f"{n}.tif", tuple(verdicts[i % 3] for i in range(n))) for n in counts]
    fragments = [picture_fragment(result) for result in results]
    write_report(tmp_path, HEAD, lambda: iter(fragments), [], [])
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    page = Tab(context, (tmp_path / "report.html").as_uri()).page

    heights = page.evaluate(
        "[...document.querySelectorAll('article')].map(a => a.getBoundingClientRect().height)"
    )
    page.locator(".strip a").nth(2).click()
    top = page.evaluate("document.querySelectorAll('article')[2].getBoundingClientRect().top")
    table = page.locator("article").nth(2).get_by_text("JPEG 95").first
    was_folded = not table.is_visible()
    page.locator("article").nth(2).get_by_text("Numbers and evidence").first.click()

    assert len(heights) == len(counts)
    assert max(heights) <= 800
    assert 0 <= top < 10
    assert was_folded
    assert table.is_visible()
    context.close()


def test_a_printed_report_warns_on_every_page_and_splits_no_panel(
    browser: Any, saved_report: Path, tmp_path: Path
) -> None:
    """Each A4 page has the banner of a simulated model, and a panel is whole on one page."""
    import pypdfium2

    context = browser.new_context()
    tab = Tab(context, saved_report.as_uri())
    tab.page.pdf(path=tmp_path / "report.pdf", prefer_css_page_size=True)
    context.close()

    with pypdfium2.PdfDocument(tmp_path / "report.pdf") as document:
        sizes = [page.get_size() for page in document]
        texts = [page.get_textpage().get_text_bounded() for page in document]
    assert len(texts) >= 3
    assert all(size == pytest.approx((595, 842), abs=2) for size in sizes)
    assert all("trained on simulated micrographs" in text for text in texts)
    for name in ("Panel a · ", "Panel b · ", "The whole picture · "):
        (text,) = [text for text in texts if name in text]
        after = text[text.index(name) :]
        assert "resized to 1.25" in after  # the last line of its last table
