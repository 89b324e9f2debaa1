"""Write the tables of docs/results/demo.md from the files that `make repro` left.

Run `python tools/demo_page.py` after it. With `--check` nothing is written, and the exit code is 1
where the page does not say what the files say.
"""

import json
import sys
from pathlib import Path
from typing import Any

from semforensics.core.markdown import markdown_table

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/results/demo.md"
BEGIN = "<!-- From here on written by `python tools/demo_page.py`. -->\n"
NAMES = {"fastgan": "FastGAN", "stylegan2_ada": "StyleGAN2-ADA"}
DISTANCES = (
    ("smallest MSE of any pair, grey levels squared", "mse_min", ".1f"),
    ("mean over the reals of the smallest MSE", "mse_mean_of_minima", ".1f"),
    ("smallest LPIPS (AlexNet) of any pair", "lpips_min", ".3f"),
    ("mean over the reals of the smallest LPIPS", "lpips_mean_of_minima", ".3f"),
    ("median LPIPS to the nearest real, flips included", "memorisation_lpips_median_fakes", ".3f"),
    ("KID, features `alex_conv5_mean`", "kid_alex_conv5_mean", ".3f"),
    ("precision, same features", "precision_alex_conv5_mean", ".2f"),
    ("recall, same features", "recall_alex_conv5_mean", ".2f"),
    ("distance of the radial spectra, dB", "spectrum_distance_db", ".1f"),
    ("suspiciously near fakes", "suspicious_fakes", "d"),
)
"""What a row says, the key of metrics/distances/<gan>.json, and its format."""


def tables(root: Path) -> str:
    """Return the part of the page that is made from files, of a checkout with results."""

    def read(name: str) -> Any:
        return json.loads((root / f"metrics/{name}.json").read_text())

    distances = {gan: read(f"distances/{gan}") for gan in NAMES}
    first = next(iter(distances.values()))
    rows = []
    for what, key, form in DISTANCES:
        floor = first.get(key.replace("fakes", "held_out") if "memor" in key else f"{key}_floor")
        values = [f"{one[key]:{form}}" for one in distances.values()]
        rows.append([what, *values, "" if floor is None else f"{floor:{form}}"])
    of_reals = f"{first['n_real']} reals, {first['n_fake']} fakes of each GAN"
    trials, headline, robustness = read("trials"), read("headline"), read("robustness")
    alarms, audit, detectors = read("false_alarms"), read("audit"), read("detectors")
    processed = [alarms[f"processed_{kind}"]["n_kinds"] for kind in ("calibrated", "others")]
    own = alarms["original"]
    results = [
        [
            "one GAN left out: mean AUROC of both directions",
            f"{trials['auroc_leave_one_out']:.3f}; the best baseline "
            f"({detectors['best_baseline']}) {trials['auroc_leave_one_out_best_baseline']:.3f}",
        ],
        [
            "decided by the detector `both` at alpha 0.05",
            f"{headline['decided_real']:.0%} of the reals, {headline['decided_fake']:.0%} of the "
            "fakes of the GAN that is decided least",
        ],
        [
            f"false alarms of the verdict on reals, and after the worst of {sum(processed)} kinds "
            "of benign processing",
            f"{own['false_alarms']:.1%}, {trials['false_alarms_processed_worst']:.1%} of "
            f"{own['n']} crops of {own['n_groups']} groups",
        ],
        [
            "kinds of processing that cost more than the bound of "
            "[robustness.md](../reproduce/robustness.md)",
            f"{robustness['n_fragile']} of {robustness['n_cells']}; biased "
            f"{robustness['n_biased']}",
        ],
        [
            "red gates of the shortcut audit",
            f"{trials['red_gates']} of {len(audit['gates'])}",
        ],
    ]
    return "\n".join(
        [
            "`plots/table_4_3.md`, the thesis's Table 4.3 on simulated data:\n",
            (root / "plots/table_4_3.md").read_text(),
            f"`metrics/distances/<gan>.json`, {of_reals}:\n",
            markdown_table(["distance", *NAMES.values(), "other reals (floor)"], rows),
            "`metrics/trials.json` and the files that it is taken from:\n",
            markdown_table(["trial", "result"], results),
        ]
    )


def main() -> int:
    """Write the page, or check it."""
    head = PAGE.read_text().partition(BEGIN)[0]
    page = f"{head}{BEGIN}\n{tables(ROOT)}".rstrip() + "\n"
    if "--check" in sys.argv:
        return int(page != PAGE.read_text())
    PAGE.write_text(page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
