"""Write the results table of README.md from docs/results/real_subset/classifier_both.json.

Run `python tools/readme_table.py` after that file changed. With `--check` nothing is written, and
the exit code is 1 where the table does not say what the file says.
"""

import json
import sys
from pathlib import Path

from semforensics.core.markdown import markdown_table, with_interval

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "README.md"
METRICS = ROOT / "docs/results/real_subset/classifier_both.json"
BEGIN = "<!-- Written by `python tools/readme_table.py`. -->\n"
END = "<!-- End of the table. -->\n"
NAMES = {"fastgan": "FastGAN", "stylegan2_ada": "StyleGAN2-ADA"}
COLUMNS = {
    "accuracy": "accuracy",
    "average_precision": "average precision",
    "decided_real": "reals decided",
    "decided_fake": "fakes decided",
    "false_alarms_of_decided": "false alarms among decided reals",
    "misses_of_decided": "misses among decided fakes",
}


def table(metrics: Path) -> str:
    """Return the table: a row per GAN, per cent with 95 % intervals."""
    tested = json.loads(metrics.read_text())
    rows = [
        [name, *(with_interval(tested[gan], key, percent=True) for key in COLUMNS)]
        for gan, name in NAMES.items()
    ]
    one = tested[next(iter(NAMES))]
    head = (
        f"Per cent, with 95 % intervals. {one['n_real']} real test crops of {one['n_groups']} "
        f"specimen areas, {one['n_fake']} fakes of each GAN."
    )
    return f"{head}\n\n{markdown_table(['fakes of', *COLUMNS.values()], rows)}"


def main() -> int:
    """Write the table into the page, or check it."""
    old = PAGE.read_text()
    before, _, rest = old.partition(BEGIN)
    page = f"{before}{BEGIN}\n{table(METRICS)}\n{END}{rest.partition(END)[2]}"
    if "--check" in sys.argv:
        return int(page != old)
    PAGE.write_text(page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
