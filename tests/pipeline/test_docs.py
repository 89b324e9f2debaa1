"""Pages of results say what the files of results say."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINK = re.compile(r"(?:\]\(|<img [^>]*src=\")([^()\s\"]+)[)\"]")
CODE = re.compile(r"^```.*?^```|`[^`\n]*`", re.DOTALL | re.MULTILINE)


def test_the_page_of_the_demo_has_the_numbers_of_the_metrics() -> None:
    """`tools/demo_page.py` would write the page as it is."""
    if not (ROOT / "plots/table_4_3.md").is_file():
        pytest.skip("the results of the demo are not here: `dvc pull` gets them")

    assert_would_write_the_same("tools/demo_page.py")


def test_tables_of_pages_have_the_numbers_of_the_metrics() -> None:
    """`tools/results_tables.py` would write the pages as they are."""
    assert_would_write_the_same("tools/results_tables.py")


def assert_would_write_the_same(tool: str) -> None:
    """The tool finds its pages as it would write them."""
    done = subprocess.run([sys.executable, str(ROOT / tool), "--check"])

    assert done.returncode == 0, f"run `python {tool}`"


def test_links_between_pages_lead_somewhere() -> None:
    """Each relative link and picture of a page is a file of the repository, each anchor a title."""
    listed = subprocess.run(
        ["git", "ls-files", "*.md", ":!src"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    broken = [
        f"{page}: {link}"
        for page in listed.splitlines()
        for link in LINK.findall(CODE.sub("", (ROOT / page).read_text()))
        if not leads_somewhere(ROOT / page, link)
    ]

    assert not broken


def leads_somewhere(page: Path, link: str) -> bool:
    """Whether a link of a page is outside of the repository, or in it."""
    if re.match(r"[a-z]+:", link):
        return True
    name, _, anchor = link.partition("#")
    target = (page.parent / name).resolve() if name else page
    if not target.exists():
        return False
    titles = re.findall(r"^#+ +(.+)$", target.read_text(), re.MULTILINE) if anchor else []
    words = (re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles)
    return not anchor or anchor in words


def test_a_broken_link_is_seen(tmp_path: Path) -> None:
    """A missing file or title is; what is there, or elsewhere, is not."""
    page = tmp_path / "page.md"
    page.write_text("# What `alpha` promises")

    good = ("#what-alpha-promises", "page.md#what-alpha-promises", "page.md", "https://a.b/c.md")
    assert all(leads_somewhere(page, link) for link in good)
    assert not any(leads_somewhere(page, link) for link in ("#other", "page.md#x", "other.md"))
