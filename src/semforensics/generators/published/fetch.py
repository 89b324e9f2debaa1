"""Fetch the published autoencoders and check each file by its hash."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from semforensics.core.errors import InputError
from semforensics.generators.published.networks import LATENT_CHANNELS
from semforensics.perceptual.weights import fetch_file

SHA256: Mapping[str, str] = {
    "taesd_encoder": "a6b8c0fda4aad50784e543389e0239c72c5e31e9775c9e612ea8333bf3a77dcb",
    "taesd_decoder": "d903e7cc3ae58f21d985a3498a841fa8b230edccff7ac5d27607b0c557945c6f",
    "taesdxl_encoder": "3d78013286676a1a51074831230f90972e573698fe4b11416d6f28e0cd5bbe7e",
    "taesdxl_decoder": "ae5256b046b01d577279ed93a55bbb1fb2689e55aa14cfc0f7f841e0160202a5",
    "taesd3_encoder": "e5c96f3476bd26fe73e96d701a694f40d7ab48a290494cbbf70a3697d09cab4a",
    "taesd3_decoder": "e940e227e2a41919f0735ec423129724666f8b949c8bbce7a04b78ecfb4667de",
}
"""Of the weights of M. O. Bohan (MIT), saved as 16-bit safetensors in ComfyUI's `vae_approx`."""


def fetch_published(names: Sequence[str], source: str, folder: Path) -> Path:
    """Fetch encoders and decoders; those that lie in the folder already are not fetched again.

    Args:
        names: Of `LATENT_CHANNELS`.
        source: Address below which `<name>_encoder.safetensors` and `<name>_decoder.safetensors`
            lie, or a folder that holds them.
        folder: Where they are kept.

    Returns:
        `folder`.

    Raises:
        InputError: A name is unknown, or a file has another hash.
        FileNotFoundError: A file is not to be had.
    """
    if unknown := sorted(set(names) - LATENT_CHANNELS.keys()):
        raise InputError(
            f"published autoencoders {', '.join(unknown)}: expected some of "
            f"{', '.join(LATENT_CHANNELS)}"
        )
    base = source if "://" in source else Path(source).resolve().as_uri()
    for name in names:
        for half in ("encoder", "decoder"):
            file = f"{name}_{half}.safetensors"
            fetch_file(f"{base.rstrip('/')}/{file}", folder / file, SHA256[f"{name}_{half}"])
    return folder
