"""Pack a classifier into the model file that `screen` loads.

One file holds network, calibration, training domain and the statistics of the reals, and says what
it was trained on and what it cannot tell. It holds weights and statistics, no pixels.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import UInt8

from semforensics.core.checkpoints import save_checkpoint
from semforensics.core.errors import InputError
from semforensics.core.files import atomic_folder, read_json, sha256_of
from semforensics.core.images import read_crop, stack_crops
from semforensics.core.tables import read_splits
from semforensics.detector.corpus import PSEUDO, Corpus
from semforensics.detector.domain import DOMAIN_ARRAYS, DOMAIN_FILE, Domain, feature_names
from semforensics.detector.inference import FoldedNetwork
from semforensics.detector.scoring import MODEL_FILE, load_classifier
from semforensics.params import PackageModelParams
from semforensics.publish.part_rule import measure_part_rule
from semforensics.screening.judge.npr_model import KIND
from semforensics.screening.judge.references import References
from semforensics.screening.records import GreyOfAnySize


def package_model(
    classifier: Path,
    corpus: Corpus,
    false_alarms: Path,
    folder: Path,
    *,
    params: PackageModelParams,
    phases: int,
    data: str,
) -> str:
    """Put a classifier and statistics of its reals into `model.safetensors`; return a summary.

    The crops of the training split become references, those of the validation split calibrate the
    search for generated parts. `false_alarms` holds the metrics of `count_false_alarms` on this
    classifier. When the model scores it averages `phases`; `data` says where the reals come from:
    "simulated", "boiko" or "folder".

    Raises:
        InputError: The classifier knows other data, another number of groups or other sizes; or
            the metrics are of another classifier.
        FileNotFoundError: A file is missing.
    """
    network, meta = load_classifier(classifier, torch.device("cpu"))
    if "calibration" not in meta:
        raise InputError(f"{classifier}: a model without calibration; train it again")
    if meta["data"] != data:
        raise InputError(f"{classifier}: trained on data {meta['data']!r}, expected {data!r}")
    domain = Domain.load(classifier / DOMAIN_FILE)
    cropped, splits = corpus.cropped, corpus.splits
    table = read_splits(splits)
    size_px = int(meta["size_px"][0])
    train, held_out = (table[table["split"] == split] for split in ("train", "validation"))
    for part, key in ((train, "n_train_groups"), (held_out, "n_validation_groups")):
        if part["group"].nunique() != meta[key]:
            raise InputError(
                f"{splits}: {key} {part['group'].nunique()}, the classifier's are {meta[key]}; "
                "not the splits it was trained on"
            )
    panels = [_join_crops(cropped, part, size_px) for _, part in held_out.groupby("micrograph")]
    references = _measure_references(cropped, train, panels, size_px)
    parts = measure_part_rule(
        FoldedNetwork(network),
        panels,
        _held_out_fakes(corpus, meta),
        phases=phases,
        kinds=meta["params"]["calibrate_on"],
        seed=corpus.seed,
    )
    state = {f"network.{n}": t for n, t in network.state_dict().items()}
    state |= {f"domain.{n}": torch.from_numpy(getattr(domain, n)).float() for n in DOMAIN_ARRAYS}
    state |= {f"references.{n}": tensor for n, tensor in references.tensors().items()}
    about = {
        "kind": KIND,
        "name": params.name,
        "data": data,
        "phases": phases,
        "size_px": size_px,
        "training_domain": {
            "data": data,
            "material": params.material,
            "instrument": params.instrument,
            "magnifications": sorted({f"{m:g}k" for m in table["magnification_k"].dropna()}),
            "source": params.source,
            "generators": list(meta["generators"]),
            "train": f"{len(train)} crops of {train['group'].nunique()} sample areas",
            "tiles_px": size_px,
        },
        "limits": list(params.limits),
        "domain": {"features": feature_names(), "limits": domain.limits},
        "references": references.numbers(),
        "false_alarms": _read_false_alarms(false_alarms, meta),
        "classifier_sha256": sha256_of(classifier / MODEL_FILE),
    }
    if parts is not None:
        about["parts"] = parts.numbers()
    with atomic_folder(folder) as temporary:
        save_checkpoint(temporary / MODEL_FILE, state, {**meta, **about})
        size = (temporary / MODEL_FILE).stat().st_size
    return (
        f"{params.name}: fingerprints of {len(train)} reals, near below {references.nearest:.3f}; "
        f"{size / 1000:.0f} kB in {folder / MODEL_FILE}"
    )


def _read_false_alarms(path: Path, meta: dict[str, Any]) -> list[dict[str, Any]]:
    """Return on how many new real panels the classifier was measured, and how many it suspects."""
    metrics = read_json(path)
    if not isinstance(metrics.get("panels"), list) or metrics.get("detector") != meta["detector"]:
        raise InputError(
            f"{path}: not the false alarms of detector {meta['detector']}; run count_false_alarms"
        )
    return [{**counted, "alpha": metrics["alpha"]} for counted in metrics["panels"]]


def _held_out_fakes(
    corpus: Corpus, meta: dict[str, Any]
) -> list[UInt8[np.ndarray, "n size_px size_px"]]:
    """Read the fakes of the validation split, by generator."""
    names = tuple(name for name in meta["generators"] if name != PSEUDO)
    listed = corpus.list_images(names)
    held_out = listed[(listed["class"] == "fake") & (listed["split"] == "validation")]
    return [stack_crops(part["path"]) for _, part in held_out.groupby("generator")]


def _measure_references(
    cropped: Path, train: pd.DataFrame, others: list[GreyOfAnySize], size_px: int
) -> References:
    """Fingerprint the training crops; whole held-out micrographs show how near others come."""
    reals = stack_crops(cropped / file for file in train["file"])
    if reals.shape[1:] != (size_px, size_px):
        raise InputError(
            f"{cropped}: crops of {reals.shape[1:]} px, the classifier's have {size_px}"
        )
    return References.measure(reals, tuple(train["file"]), others)


def _join_crops(
    cropped: Path, part: pd.DataFrame, size_px: int
) -> UInt8[np.ndarray, "height width"]:
    """Put the crops of one micrograph together again."""
    tops, lefts = part["top_px"] - part["top_px"].min(), part["left_px"] - part["left_px"].min()
    whole = np.zeros((int(tops.max()) + size_px, int(lefts.max()) + size_px), dtype=np.uint8)
    for file, top, left in zip(part["file"], tops, lefts, strict=True):
        whole[top : top + size_px, left : left + size_px] = read_crop(cropped / file)
    return whole
