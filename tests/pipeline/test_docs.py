"""Pages of results say what the files of results say."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_the_page_of_the_demo_has_the_numbers_of_the_metrics() -> None:
    """`tools/demo_page.py` would write the page as it is."""
    if not (ROOT / "plots/table_4_3.md").is_file():
        pytest.skip("the results of the demo are not here: `dvc pull` gets them")

    done = subprocess.run([sys.executable, str(ROOT / "tools/demo_page.py"), "--check"])

    assert done.returncode == 0, "run `python tools/demo_page.py`"
