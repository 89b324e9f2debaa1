"""False alarms on honest micrographs: processed as authors do, and from other sources.

Two kinds of images, real ones all of them. Held-out reals of the test side after each benign
processing of the grid; and sets of whole micrographs from outside, which go through the same
canonicaliser as the training images. Rates stand for single tiles and for whole micrographs, whose
tiles' logits are pooled: by each rule, so that what a rule buys can be seen.

A verdict on a pooled logit uses the calibration of single tiles. A mean or median of tiles scatters
less than a tile, so its false alarms are rarer than alpha promises; a maximum's are more frequent.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool
from rich.console import Console
from rich.progress import track

from semforensics.acquire.listing import differences, list_files, select_files
from semforensics.acquire.names import describe_name
from semforensics.core.errors import InputError, raise_problems
from semforensics.core.files import atomic_file, atomic_folder
from semforensics.core.tables import LISTING_COLUMNS, read_listing, read_splits, write_table
from semforensics.detector.calibration import decide
from semforensics.detector.corpus import LabelledImages
from semforensics.detector.detector import Detector
from semforensics.detector.perturbations import AS_IT_IS, GRID
from semforensics.detector.tiling import Pooling, pool
from semforensics.figures.heatmaps import false_alarm_heatmap
from semforensics.figures.style import save_figure, source_line
from semforensics.micrographs.crop import cut, read_image_area
from semforensics.params import CropParams, FalseAlarmsParams
from semforensics.trials.robustness import judge, process, rate
from semforensics.trials.under_test import DetectorUnderTest

BENIGN_COLUMNS = ("set", *LISTING_COLUMNS)
_NEW, _KNOWN = "new", "known"
"""Whether images of a group were in the classifier's training or validation split."""


def list_benign(folder: Path, listing: Path, sets: Mapping[str, Sequence[str]]) -> int:
    """List the micrographs of all foreign sets with size and hash; return their number.

    Args:
        folder: Where they lie.
        listing: CSV to write; without sets it holds its header only.
        sets: For each name the glob patterns of its files, below `folder`.

    Raises:
        InputError: A pattern selects nothing, or something selected is not a readable file.
    """
    selected = _selected(folder, sets)
    table = list_files(folder, [file for _, file in selected])
    table.insert(0, "set", [name for name, _ in selected])
    write_table(table, listing)
    return len(table)


def _selected(folder: Path, sets: Mapping[str, Sequence[str]]) -> list[tuple[str, str]]:
    """Return the files of all sets, as (set, file), sorted."""
    return [(name, file) for name in sorted(sets) for file in select_files(folder, sets[name])]


def read_benign_listing(
    listing: Path, folder: Path | None, sets: Mapping[str, Sequence[str]]
) -> list[tuple[str, str]]:
    """Check the folder against its listing, and give the files of all sets, as (set, file).

    Returns:
        Nothing where no sets are named and the listing holds its header only.

    Raises:
        InputError: It is no such listing, or holds no file of the sets; files are new, missing or
            changed since; or no folder is given for those that are listed.
    """
    table = read_listing(listing, BENIGN_COLUMNS)
    if table.empty:
        if sets:
            raise InputError(
                f"{listing}: lists nothing, but count_false_alarms.sets names {', '.join(sets)}; "
                f"to list their files, run `semforensics list-benign FOLDER {listing}` "
                "(`make repro BENIGN=FOLDER` does so)"
            )
        return []
    if folder is None:
        raise InputError(
            f"{listing} lists {len(table)} micrographs; SEMFORENSICS_BENIGN must say where they lie"
        )
    present = _selected(folder, sets)
    raise_problems(
        differences(
            dict(zip(table["set"] + ": " + table["file"], table["sha256"], strict=True)),
            {f"{name}: {file}": folder / file for name, file in present},
        ),
        f"files of {folder} differ from {listing}; to list them anew, run "
        f"`semforensics list-benign {folder} {listing}`",
    )
    return present


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

    Args:
        tested: The detector; the seed of its corpus is that of noise.
        listing: The foreign micrographs with their hashes, as `write_benign_listing` writes it.
        folder: Where they lie; None: there must not be any.
        metrics: JSON file to write: numbers of groups the classifier never saw.
        plots: Folder to write: false_alarms.csv, one row per set and way of counting, images.csv,
            one row per micrograph, and false_alarms.png.
        params: The sets, and the rule of pooling that counts.
        crop: How a micrograph is cut, as for the training images.

    Returns:
        One line on the processed reals, and one per foreign set or that there is none.

    Raises:
        InputError: alpha is finer than the calibration resolves; the detector's tiles have another
            size; or the foreign files are not as listed.
        FileNotFoundError: Images are missing.
    """
    detector, alpha, seed = tested.detector, tested.alpha, tested.corpus.seed
    detector.check_alpha(alpha)
    if detector.meta["size_px"] != [crop.size_px, crop.size_px]:
        raise InputError(
            f"{tested.folder}: trained on {detector.meta['size_px']} px, crops have "
            f"{crop.size_px} px"
        )
    foreign = read_benign_listing(listing, folder, params.sets)
    splits = tested.corpus.splits
    tiles = processed_tiles(detector, tested.test, read_splits(splits), alpha, seed)
    refused = pd.DataFrame(columns=["set", "file", "group", "reason"])
    if foreign:
        assert folder is not None
        found, refused = foreign_tiles(detector, folder, foreign, crop, alpha)
        tiles = pd.concat([tiles, found], ignore_index=True)
    known = known_groups(splits)
    for table in (tiles, refused):
        table["groups"] = np.where(table["group"].isin(known), _KNOWN, _NEW)
    images = pool_images(detector, tiles, alpha)
    counted = count(tiles, images, refused, detector.threshold)
    named = {name.replace(" ", ": ", 1) for name in detector.meta["params"]["calibrate_on"]}
    counted.insert(2, "calibrated", counted["set"].isin(named))

    with atomic_folder(plots) as temporary:
        counted.to_csv(temporary / "false_alarms.csv", index=False, lineterminator="\n")
        listed = pd.concat([images, refused], ignore_index=True)
        listed.to_csv(temporary / "images.csv", index=False, lineterminator="\n")
        own = tiles[tiles["set"] == tiles["set"].iloc[0]]
        held_out = f"{len(own)} held-out reals of {own['file'].nunique()} micrographs"
        source = f"{source_line(f'Detector {tested.name}', detector.meta['data'])} · {held_out}"
        figure = false_alarm_heatmap(counted[counted["groups"] == _NEW], source=source)
        save_figure(figure, temporary / "false_alarms.png")
    result = summarise(counted, detector, params.pooling, alpha)
    with atomic_file(metrics) as path:
        path.write_text(json.dumps(result, indent=2) + "\n")
    return "\n".join(_lines(counted, params.pooling))


def processed_tiles(
    detector: Detector, test: LabelledImages, splits: pd.DataFrame, alpha: float, seed: int
) -> pd.DataFrame:
    """Score the test side's reals as they are and after every benign processing.

    Returns:
        One row per image and processing: kind, set, file (its micrograph), group, logit, verdict,
        is_inside.
    """
    is_real = ~test.is_fake
    table = test.table[is_real.numpy()]
    images, files = test.images[is_real], table["file"].tolist()
    micrographs = splits.set_index("file")["micrograph"]
    parts = []
    cells = [AS_IT_IS, *(cell for cell in GRID if cell.benign)]
    console = Console(stderr=True)
    for cell in track(cells, "processed", console=console, disable=not console.is_terminal):
        outcome = judge(detector, process(cell, images, files, images[:1], seed), alpha)
        columns = {
            "kind": "processed",
            "set": f"{cell.axis}: {cell.level}",
            "file": micrographs[files].to_numpy(),
            "group": table["group"].to_numpy(),
            "logit": outcome.logits,
            "verdict": outcome.verdicts,
            "is_inside": outcome.is_inside,
        }
        parts.append(pd.DataFrame(columns))
    return pd.concat(parts, ignore_index=True)


def foreign_tiles(
    detector: Detector,
    folder: Path,
    files: Sequence[tuple[str, str]],
    crop: CropParams,
    alpha: float,
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
    console = Console(stderr=True)
    for name, file in track(files, "foreign", console=console, disable=not console.is_terminal):
        group = describe_name(file)["group"]
        try:
            cuts = [tile for *_, tile in cut(read_image_area(folder / file, crop), crop)]
        except ValueError as error:
            reason = str(error).removeprefix(f"{folder / file}: ")
            refused.append({"set": name, "file": file, "group": group, "reason": reason})
            continue
        outcome = judge(detector, torch.from_numpy(np.stack(cuts)[:, None]), alpha)
        columns = {
            "kind": "foreign",
            "set": name,
            "file": file,
            "group": group,
            "logit": outcome.logits,
            "verdict": outcome.verdicts,
            "is_inside": outcome.is_inside,
        }
        parts.append(pd.DataFrame(columns))
    table = pd.DataFrame(refused, columns=["set", "file", "group", "reason"])
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


def pool_images(detector: Detector, tiles: pd.DataFrame, alpha: float) -> pd.DataFrame:
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
    p_values = detector.p_values(images["logit"].to_numpy())
    images["verdict"] = decide(*p_values, alpha, images["is_inside"].to_numpy(dtype=bool))
    return images


def count(
    tiles: pd.DataFrame, images: pd.DataFrame, refused: pd.DataFrame, threshold: float
) -> pd.DataFrame:
    """Count alarms by set, known and new groups, tiles and pooled images.

    Returns:
        `flagged`: share above the threshold. `false_alarms`: share with the verdict
        "ai-suspected". `false_alarms_of_decided`: the same of those with any verdict but
        "inconclusive". Each with Wilson's 95 % interval, which takes images as independent; so the
        number of groups stands beside it.
    """
    rows = []
    single = tiles.assign(pooling="", level="tile")
    whole = images.assign(level="image")
    keys = ["kind", "set", "groups", "level", "pooling"]
    for names, part in pd.concat([single, whole]).groupby(keys, sort=False):
        suspected = (part["verdict"] == "ai-suspected").to_numpy()
        decided = (part["verdict"] != "inconclusive").to_numpy()
        flagged: Bool[np.ndarray, " n"] = (part["logit"] > threshold).to_numpy()
        _, name, groups, *_ = names
        missing = (refused["set"] == name) & (refused["groups"] == groups)
        rows.append(
            {
                **dict(zip(keys, names, strict=True)),
                "n": len(part),
                "n_images": part["file"].nunique(),
                "n_groups": part["group"].nunique(),
                "n_refused": int(missing.sum()),
                **rate("flagged", flagged),
                "inside": part["is_inside"].mean(),
                "decided": decided.mean(),
                **rate("false_alarms", suspected),
                **rate("false_alarms_of_decided", suspected[decided]),
            }
        )
    return pd.DataFrame(rows)


def summarise(
    counted: pd.DataFrame, detector: Detector, pooling: Pooling, alpha: float
) -> dict[str, Any]:
    """Return the numbers of new groups: of processed tiles, and of foreign images."""
    new = counted[counted["groups"] == _NEW]
    single = new[(new["kind"] == "processed") & (new["level"] == "tile")]
    result: dict[str, Any] = {
        "detector": detector.meta["detector"],
        "network": detector.meta["network"],
        "data": detector.meta["data"],
        "threshold_logit": detector.threshold,
        "phases": detector.phases,
        "alpha": alpha,
        "pooling": pooling,
        "original": {},
        # Kinds that the calibration knows are promised; the others are found out.
        "processed_calibrated": {},
        "processed_others": {},
        "foreign": {},
    }
    names = ("flagged", "false_alarms", "false_alarms_of_decided", "decided")
    if len(single):
        result["original"] = _numbers(single.iloc[0])
        changed = single.iloc[1:]
        for key, kinds in (
            ("processed_calibrated", changed[changed["calibrated"]]),
            ("processed_others", changed[~changed["calibrated"]]),
        ):
            result[key]["n_kinds"] = len(kinds)
            for name in names if len(kinds) else ():
                result[key] |= {
                    f"{name}_mean": _number(kinds[name].mean()),
                    f"{name}_{'least' if name == 'decided' else 'worst'}": _number(
                        kinds[name].min() if name == "decided" else kinds[name].max()
                    ),
                }
    chosen = new[(new["kind"] == "foreign") & (new["pooling"] == pooling)]
    for _, part in chosen.iterrows():
        result["foreign"][part["set"]] = _numbers(part)
    return result


def _numbers(part: "pd.Series[Any]") -> dict[str, float | int | None]:
    rates = ("flagged", "false_alarms", "false_alarms_of_decided")
    shares = [f"{name}{end}" for name in rates for end in ("", "_low", "_high")]
    counts = ("n", "n_images", "n_groups", "n_refused")
    return {
        **{name: _number(part[name]) for name in (*shares, "decided", "inside")},
        **{name: int(part[name]) for name in counts},
    }


def _number(value: float) -> float | None:
    """JSON knows no number for "nothing was decided"."""
    return None if np.isnan(value) else float(value)


def _lines(counted: pd.DataFrame, pooling: Pooling) -> list[str]:
    """Say what matters most, in a line each."""
    new = counted[counted["groups"] == _NEW]
    single = new[(new["kind"] == "processed") & (new["level"] == "tile")]
    lines = []
    if len(single):
        worst = single.sort_values("false_alarms", kind="stable").iloc[-1]
        flagged, suspected = (single[name].iloc[1:].mean() for name in ("flagged", "false_alarms"))
        first = single.iloc[0]
        lines.append(
            f"{first['n']} held-out reals after {len(single) - 1} kinds of benign processing: "
            f"above the threshold {_percent(flagged)}, AI suspected {_percent(suspected)} on "
            f"average, {_percent(worst['false_alarms'])} at worst ({worst['set']}); as they are "
            f"{_percent(first['flagged'])} and {_percent(first['false_alarms'])}"
        )
    else:
        lines.append("the classifier knows the groups of all test reals: they make no headline")
    foreign = new[(new["kind"] == "foreign") & (new["pooling"] == pooling)]
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
