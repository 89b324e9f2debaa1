"""The card of a published dataset: what is in it, where it comes from, what it is fit for."""

import pandas as pd

from semforensics.params import PackageDatasetParams


def dataset_card(params: PackageDatasetParams, manifest: pd.DataFrame) -> str:
    """Write the card, in Markdown.

    Args:
        params: Title, attribution and the like.
        manifest: The rows of `manifest.csv`.
    """
    reals, fakes = (manifest[manifest["class"] == kind] for kind in ("real", "fake"))
    is_simulated = set(reals["source"]) == {"simulated"}
    sides = zip(manifest["width_px"], manifest["height_px"], strict=True)
    sizes = sorted({f"{width}x{height}" for width, height in sides})
    lines = [
        f"# {params.name}",
        "",
        params.description,
        "",
        *(
            [
                "**The reals are simulated micrographs, not taken by any microscope.** What is "
                "learned from them says nothing about microscopes.",
                "",
            ]
            if is_simulated
            else []
        ),
        "| | reals | fakes |",
        "| --- | --- | --- |",
        f"| images | {len(reals)} | {len(fakes)} |",
        f"| with pixels | {_with_pixels(reals)} | {_with_pixels(fakes)} |",
        f"| groups | {reals['group'].nunique()} sample areas | each its own |",
        *(
            f"| {split} | {int((reals['split'] == split).sum())} "
            f"| {int((fakes['split'] == split).sum())} |"
            for split in ("train", "test", "validation")
        ),
        f"| licence | {', '.join(sorted(set(reals['licence'])))} "
        f"| {', '.join(sorted(set(fakes['licence'])))} |",
        "",
        f"8-bit grey PNG of {', '.join(sizes)} px. Fakes: "
        + ", ".join(f"{count} of {name}" for name, count in _counts(fakes).items())
        + ".",
        "",
        "`manifest.csv` has one line per image: hash, split, group, generator, seed, checkpoint, "
        "micrograph, source, licence. `croissant.json` describes the same for tools. Names are "
        "numbers in random order, so that they tell nothing.",
        "",
        "## Attribution",
        "",
        params.attribution,
        "",
        "## Uses",
        "",
        "For research on detectors of generated micrographs. Split by `group`, or use `split`: "
        "crops of one area show the same particles. Not for judging a published figure.",
        "",
        "## Made by",
        "",
        f"{params.creator}, version {params.version}, {params.url}",
    ]
    return "\n".join(lines) + "\n"


def _with_pixels(part: pd.DataFrame) -> int:
    return int((part["file"] != "").sum())


def _counts(fakes: pd.DataFrame) -> dict[str, int]:
    return {str(k): int(v) for k, v in fakes["generator"].value_counts().sort_index().items()}
