"""False alarms on honest micrographs: processed as authors do, and from other sources.

All images are real, of two kinds. Held-out reals of the test split after each benign processing of
the grid; and sets of whole micrographs from outside, which go through the same canonicaliser as the
training images. Rates are of single tiles and of whole micrographs, whose tiles' logits are pooled
by each rule, so that the rules can be compared.

A verdict on a pooled logit uses the calibration of single tiles. A mean or median of tiles scatters
less than a tile, so its false alarms are rarer than alpha promises; a maximum's are more frequent.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
import torch

from semforensics.acquire.names import describe_name
from semforensics.core.errors import InputError
from semforensics.core.files import atomic_folder, write_json
from semforensics.core.progress import track
from semforensics.core.tables import read_splits, write_table
from semforensics.detector.perturbations import AS_IT_IS, GRID
from semforensics.detector.tiling import Pooling, pool
from semforensics.detector.verdict import decide
from semforensics.figures.heatmaps import false_alarm_heatmap
from semforensics.figures.style import save_figure, source_line
from semforensics.micrographs.crop import cut_micrograph
from semforensics.params import CropParams, FalseAlarmsParams
from semforensics.trials.benign import read_benign_listing
from semforensics.trials.robustness import classify, process, rate
from semforensics.trials.under_test import DetectorUnderTest

_NEW, _KNOWN = "new", "known"
"""Whether images of a group were in the classifier's training or validation split."""

_SHARES = ("flagged", "false_alarms", "false_alarms_of_decided")
_REFUSED = ["set", "file", "group", "reason"]


def count_false_alarms(
    tested: DetectorUnderTest,
    listing: Path,
    folder: Path | None,
    metrics: Path,
    plots: Path,
    *,
    params: FalseAlarmsParams,
    crop: CropParams,
) -> str:
    """Count false alarms on processed held-out reals and on foreign micrographs.

    The numbers of groups that the classifier never saw go to the JSON file `metrics`;
    false_alarms.csv (a row per set and way of counting), images.csv (a row per micrograph) and
    false_alarms.png go to the folder `plots`. The foreign micrographs lie in `folder` as `listing`
    says, which `list_benign` writes; without a folder there must not be any. The seed of the corpus
    is that of noise. The summary has a line on processed reals and one per foreign set, if any.

    Raises:
        InputError: The detector's tiles have another size, or the foreign files are not as listed.
        FileNotFoundError: Images are missing.
    """
    size_px = tested.meta["size_px"]
    if size_px != [crop.size_px, crop.size_px]:
        raise InputError(f"{tested.folder}: trained on {size_px} px, crops have {crop.size_px} px")
    foreign = read_benign_listing(listing, folder, params.sets)
    tiles, refused = processed_tiles(tested), pd.DataFrame(columns=_REFUSED)
    if foreign:
        assert folder is not None
        found, refused = foreign_tiles(tested, folder, foreign, crop)
        tiles = pd.concat([tiles, found], ignore_index=True)
    known = known_groups(tested.corpus.splits)
    for table in (tiles, refused):
        table["groups"] = np.where(table["group"].isin(known), _KNOWN, _NEW)
    images = pool_images(tested, tiles)
    counted = count(tiles, images, refused, tested.detector.threshold)
    calibrated = {name.replace(" ", ": ", 1) for name in tested.meta["params"]["calibrate_on"]}
    counted.insert(2, "calibrated", counted["set"].isin(calibrated))

    own = tiles[tiles["set"] == tiles["set"].iloc[0]]
    held_out = f"{len(own)} held-out reals of {own['file'].nunique()} micrographs"
    source = f"{source_line(f'Detector {tested.name}', tested.meta['data'])} · {held_out}"
    with atomic_folder(plots) as temporary:
        write_table(counted, temporary / "false_alarms.csv")
        write_table(pd.concat([images, refused], ignore_index=True), temporary / "images.csv")
        figure = false_alarm_heatmap(counted[counted["groups"] == _NEW], source=source)
        save_figure(figure, temporary / "false_alarms.png")
    write_json(metrics, summarise(counted, tested, params.pooling))
    return "\n".join(_lines(counted, params.pooling)) + tested.note


def processed_tiles(tested: DetectorUnderTest) -> pd.DataFrame:
    """Score the reals of the test split as they are and after every benign processing.

    Returns:
        One row per image and processing: kind, set, file (its micrograph), group, logit, verdict,
        is_inside.
    """
    is_real = ~tested.test.is_fake
    table = tested.test.table[is_real.numpy()]
    images, files = tested.test.images[is_real], table["file"].tolist()
    micrographs = read_splits(tested.corpus.splits).set_index("file")["micrograph"]
    about = {"file": micrographs[files].to_numpy(), "group": table["group"].to_numpy()}
    parts = []
    cells = [AS_IT_IS, *(cell for cell in GRID if cell.benign)]
    for cell in track(cells, "processed"):
        changed = process(cell, images, files, tested.corpus.seed)
        name = f"{cell.axis}: {cell.level}"
        parts.append(classify(tested, changed).assign(kind="processed", set=name, **about))
    return pd.concat(parts, ignore_index=True)


def foreign_tiles(
    tested: DetectorUnderTest, folder: Path, files: Sequence[tuple[str, str]], crop: CropParams
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Score the tiles of foreign micrographs.

    Returns:
        Rows as of `processed_tiles`, one per tile; and the micrographs that the canonicaliser
        refuses, with its reason.

    Raises:
        InputError: It refuses all of a set.
    """
    parts: list[pd.DataFrame] = []
    refused: list[dict[str, str]] = []
    for name, file in track(files, "foreign"):
        about = {"set": name, "file": file, "group": describe_name(file)["group"]}
        try:
            cuts = [tile.grey for tile in cut_micrograph(folder / file, crop)[0]]
        except InputError as error:
            refused.append(about | {"reason": str(error).removeprefix(f"{folder / file}: ")})
            continue
        tiles = torch.from_numpy(np.stack(cuts)[:, None])
        parts.append(classify(tested, tiles).assign(kind="foreign", **about))
    table = pd.DataFrame(refused, columns=_REFUSED)
    for name in sorted({name for name, _ in files} - {part["set"].iloc[0] for part in parts}):
        reasons = table.loc[table["set"] == name, "reason"]
        raise InputError(
            f"{name}: none of its {len(reasons)} micrographs can be read, the first: "
            f"{reasons.iloc[0]}"
        )
    return pd.concat(parts, ignore_index=True), table


def known_groups(splits: Path) -> set[str]:
    """Return the groups of which a crop is in the training or validation split."""
    table = read_splits(splits)
    return set(table.loc[table["split"] != "test", "group"])


def pool_images(tested: DetectorUnderTest, tiles: pd.DataFrame) -> pd.DataFrame:
    """Make one row of all tiles of a micrograph, for every rule of pooling.

    A micrograph is inside the training domain when more than half of its tiles are.

    Returns:
        kind, set, file, group, groups, pooling, num_tiles, logit, verdict, is_inside.
    """
    rows: list[dict[str, Any]] = []
    keys = ["kind", "set", "file", "group", "groups"]
    for names, part in tiles.groupby(keys, sort=False):
        for pooling in get_args(Pooling):
            rows.append(
                {
                    **dict(zip(keys, names, strict=True)),
                    "pooling": pooling,
                    "num_tiles": len(part),
                    "logit": pool(part["logit"].to_numpy(), pooling),
                    "is_inside": bool(part["is_inside"].mean() > 0.5),
                }
            )
    images = pd.DataFrame(rows)
    p_values = tested.detector.p_values(images["logit"].to_numpy())
    images["verdict"] = decide(*p_values, tested.alpha, images["is_inside"].to_numpy(dtype=bool))
    return images


def count(
    tiles: pd.DataFrame, images: pd.DataFrame, refused: pd.DataFrame, threshold: float
) -> pd.DataFrame:
    """Count alarms by set, known and new groups, tiles and pooled images.

    Returns:
        `flagged`: share above the threshold. `false_alarms`: share with the verdict
        "ai-suspected". `false_alarms_of_decided`: the same of those with any verdict but
        "inconclusive". Each with Wilson's 95 % interval, which takes images as independent; the
        number of groups is given beside it for that reason.
    """
    rows = []
    single = tiles.assign(pooling="", level="tile")
    whole = images.assign(level="image")
    keys = ["kind", "set", "groups", "level", "pooling"]
    for names, part in pd.concat([single, whole]).groupby(keys, sort=False):
        suspected = (part["verdict"] == "ai-suspected").to_numpy()
        decided = (part["verdict"] != "inconclusive").to_numpy()
        _, name, groups, *_ = names
        missing = (refused["set"] == name) & (refused["groups"] == groups)
        rows.append(
            {
                **dict(zip(keys, names, strict=True)),
                "n": len(part),
                "n_images": part["file"].nunique(),
                "n_groups": part["group"].nunique(),
                "n_refused": int(missing.sum()),
                **rate("flagged", (part["logit"] > threshold).to_numpy()),
                "inside": part["is_inside"].mean(),
                "decided": decided.mean(),
                **rate("false_alarms", suspected),
                **rate("false_alarms_of_decided", suspected[decided]),
            }
        )
    return pd.DataFrame(rows)


def _of_new_groups(counted: pd.DataFrame, pooling: Pooling) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the rows of processed tiles, the originals first, and those of foreign images."""
    new = counted[counted["groups"] == _NEW]
    tiles = new[(new["kind"] == "processed") & (new["level"] == "tile")]
    return tiles, new[(new["kind"] == "foreign") & (new["pooling"] == pooling)]


def summarise(counted: pd.DataFrame, tested: DetectorUnderTest, pooling: Pooling) -> dict[str, Any]:
    """Return the numbers of new groups: of processed tiles, and of foreign images."""
    tiles, foreign = _of_new_groups(counted, pooling)
    changed = tiles.iloc[1:]
    return {
        **tested.about,
        "pooling": pooling,
        "original": _numbers(tiles.iloc[0]) if len(tiles) else {},
        # The calibration promises a rate for the kinds that it knows; the others are measured.
        "processed_calibrated": _over_kinds(changed[changed["calibrated"]]) if len(tiles) else {},
        "processed_others": _over_kinds(changed[~changed["calibrated"]]) if len(tiles) else {},
        "foreign": {part["set"]: _numbers(part) for _, part in foreign.iterrows()},
        "panels": _panels(counted, foreign, pooling),
    }


def _panels(
    counted: pd.DataFrame, foreign: pd.DataFrame, pooling: Pooling
) -> list[dict[str, str | int | None]]:
    """Count whole micrographs of new groups, and the suspected ones, as a report states them.

    Where every micrograph is a group of its own, its area is not known.
    """
    own = counted[
        (counted["groups"] == _NEW)
        & (counted["kind"] == "processed")
        & (counted["set"] == counted["set"].iloc[0])
        & (counted["pooling"] == pooling)
    ]
    return [
        {
            "of": f"the set {part['set']!r}" if part["kind"] == "foreign" else "the test split",
            "panels": int(part["n"]),
            "areas": int(part["n_groups"]) if part["n_groups"] < part["n"] else None,
            "instruments": 1,
            "suspected": round(part["false_alarms"] * part["n"]),
        }
        for _, part in pd.concat([own, foreign]).iterrows()
    ]


def _numbers(part: "pd.Series[Any]") -> dict[str, float | int]:
    shares = [f"{name}{end}" for name in _SHARES for end in ("", "_low", "_high")]
    return {
        **{name: part[name] for name in (*shares, "decided", "inside")},
        **{name: int(part[name]) for name in ("n", "n_images", "n_groups", "n_refused")},
    }


def _over_kinds(kinds: pd.DataFrame) -> dict[str, float | int]:
    """Return the mean and the worst over kinds of processing; of no kind, only that."""
    numbers: dict[str, float | int] = {"n_kinds": len(kinds)}
    if kinds.empty:
        return numbers
    for name in _SHARES:
        numbers |= {f"{name}_mean": kinds[name].mean(), f"{name}_worst": kinds[name].max()}
    return numbers | {
        "decided_mean": kinds["decided"].mean(),
        "decided_least": kinds["decided"].min(),
    }


def _lines(counted: pd.DataFrame, pooling: Pooling) -> list[str]:
    """Say what matters most, in a line each."""
    tiles, foreign = _of_new_groups(counted, pooling)
    lines = ["the classifier knows the groups of all test reals: they make no headline"]
    if len(tiles):
        first, changed = tiles.iloc[0], tiles.iloc[1:]
        worst = tiles.sort_values("false_alarms", kind="stable").iloc[-1]
        flagged, suspected = changed["flagged"].mean(), changed["false_alarms"].mean()
        lines = [
            f"{first['n']} held-out reals after {len(changed)} kinds of benign processing: "
            f"above the threshold {_percent(flagged)}, AI suspected {_percent(suspected)} on "
            f"average, {_percent(worst['false_alarms'])} at worst ({worst['set']}); as they are "
            f"{_percent(first['flagged'])} and {_percent(first['false_alarms'])}"
        ]
    for _, part in foreign.iterrows():
        lines.append(
            f"{part['set']}: {part['n']} micrographs of {part['n_groups']} new groups "
            f"({part['n_refused']} refused), {pooling} of tiles: above the threshold "
            f"{_percent(part['flagged'])}, AI suspected {_percent(part['false_alarms'])}, decided "
            f"{_percent(part['decided'])}"
        )
    if not (counted["kind"] == "foreign").any():
        lines.append("no foreign sets are listed, so none were counted")
    return lines


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
