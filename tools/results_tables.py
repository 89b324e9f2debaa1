"""Write tables of pages from the metrics files that lie beside them in docs/results.

Run `python tools/results_tables.py` after one of these files changed. With `--check` nothing is
written, and the exit code is 1 where a table does not say what its file says.
"""

import json
import sys
from pathlib import Path

from semforensics.core.markdown import markdown_table, with_interval

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs/results"
BEGIN = "<!-- Written by `python tools/results_tables.py`. -->\n"
END = "<!-- End of the table. -->\n"
WORDS = {"light": "no JPEG, or a light one", "medium": "medium JPEG", "strong": "strong JPEG"}
NAMES = {"fastgan": "FastGAN", "stylegan2_ada": "StyleGAN2-ADA"}
COLUMNS = {
    "accuracy": "accuracy",
    "average_precision": "average precision",
    "decided_real": "reals decided",
    "decided_fake": "fakes decided",
    "false_alarms_of_decided": "false alarms among decided reals",
    "misses_of_decided": "misses among decided fakes",
}


def table_of_the_readme(metrics: Path) -> str:
    """Return the table of the released classifier: a row per GAN, per cent with 95 % intervals."""
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


def table_of_the_protocol(metrics: Path) -> str:
    """Return the tables of the protocol `world`: AUROC of each method, and shares of verdicts."""
    found = json.loads(metrics.read_text())
    methods = next(iter(found["auroc"].values()))
    rows = []
    for history, by in found["auroc"].items():
        cells = [with_interval(by["network"], "auroc")]
        for name in list(methods)[1:]:
            gap = "{difference:+.2f}, {low:+.2f} to {high:+.2f}".format(**by[name])
            cells.append(f"{by[name]['auroc']:.3f} ({gap})")
        rows.append([history, *cells])
    shares = [
        [WORDS[name], *(f"{100 * of[key]:.1f}" for key in ("false_alarms", "suspected"))]
        for name, of in found["verdicts"].items()
    ]
    families = ", ".join(f"{name} {count}" for name, count in found["families"].items())
    return "\n".join(
        [
            f"{found['n_real']} real panels of {found['n_units']} collections; generated panels: "
            f"{families}. AUROC of the network with its interval; of the others AUROC, and in "
            "brackets what the network has above it, with the interval of the difference. Of "
            f"{found['compared']} such differences {found['network_wins']} are above 0 with all "
            f"their interval, {found['baseline_wins']} below.\n",
            markdown_table(["history", *methods], rows),
            "Per cent of panels that would be suspected; reals by the calibration without their "
            "own collection or paper, fakes without their own family:\n",
            markdown_table(["pixels tell", "reals", "fakes"], shares),
        ]
    )


TABLES = (
    (ROOT / "README.md", RESULTS / "real_subset/classifier_both.json", table_of_the_readme),
    (RESULTS / "world.md", RESULTS / "world/protocol.json", table_of_the_protocol),
)


def main() -> int:
    """Write the tables into their pages, or check them."""
    stale = False
    for path, metrics, table in TABLES:
        old = path.read_text(encoding="utf-8")
        before, _, rest = old.partition(BEGIN)
        page = f"{before}{BEGIN}\n{table(metrics)}\n{END}{rest.partition(END)[2]}"
        stale |= page != old
        if "--check" not in sys.argv:
            path.write_text(page, encoding="utf-8")
    return int(stale and "--check" in sys.argv)


if __name__ == "__main__":
    sys.exit(main())
