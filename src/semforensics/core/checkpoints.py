"""Weights on disk: safetensors, with everything else as JSON in the file's header.

A weights file may come from a stranger, so it is never a pickle: opening one runs no code.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from semforensics.core.errors import InputError
from semforensics.core.files import atomic_file

N = TypeVar("N", bound=nn.Module)

_KEY = "semforensics"


def save_checkpoint(
    path: Path, state: Mapping[str, Tensor], meta: Mapping[str, Any], *, half: bool = False
) -> None:
    """Write a state dict and its description to one file, whole or not at all.

    The description rebuilds the network and says where it came from: anything JSON can hold. `half`
    stores floating-point tensors of two or more axes in 16 bit (IEEE half); vectors and scalars,
    among them all normalisation statistics, keep 32.

    Raises:
        InputError: A weight does not fit 16 bit.
    """
    stored = {}
    for name, tensor in state.items():
        tensor = tensor.detach().cpu().contiguous()
        if half and tensor.is_floating_point() and tensor.ndim >= 2:
            if not bool((tensor.abs() <= torch.finfo(torch.float16).max).all()):
                raise InputError(f"{path}: {name} does not fit 16-bit floats")
            tensor = tensor.half()
        stored[name] = tensor.clone()
    with atomic_file(path) as temporary:
        # safetensors' own writer makes files that only their owner may read.
        temporary.write_bytes(save(stored, {_KEY: json.dumps(dict(meta), sort_keys=True)}))


def load_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a state dict, floating-point tensors as float32, and its description.

    Raises:
        InputError: Not a safetensors file of this project.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = (file.metadata() or {}).get(_KEY)
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise InputError(f"{path}: not a safetensors file: {error}") from error
    if header is None:
        raise InputError(f"{path}: no description of this project in its header")
    state = {n: t.float() if t.is_floating_point() else t for n, t in state.items()}
    try:
        meta = json.loads(header)
    except ValueError as error:
        raise InputError(f"{path}: its description is not JSON: {error}") from error
    if not isinstance(meta, dict):
        raise InputError(f"{path}: its description is no JSON object")
    return state, meta


def load_network(
    path: Path, architectures: Mapping[str, Callable[..., N]], made_by: str
) -> tuple[N, dict[str, Any]]:
    """Rebuild a network from its file alone, in eval mode, with the description beside it.

    `architectures` build networks from the arguments in the description, by its architecture;
    `made_by` is the command that writes such a file.

    Raises:
        FileNotFoundError: There is no such file.
        InputError: It holds something else.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; `{made_by}` makes it")
    state, meta = load_checkpoint(path)
    architecture: Any = meta.get("architecture")
    if architecture not in architectures:
        expected = " or ".join(map(repr, architectures))
        raise InputError(f"{path}: architecture {architecture!r}, expected {expected}")
    with refused_as(f"{path}: not the weights it says it holds"):
        network = architectures[architecture](**meta["arguments"])
        network.load_state_dict(state)
    network.eval()
    return network, meta


def own_arguments(names: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a constructor that calls this with its fresh `locals()`."""
    return {name: value for name, value in names.items() if name not in ("self", "__class__")}


@contextmanager
def refused_as(text: str) -> Iterator[None]:
    """Turn what goes wrong when weights do not fit their network into an `InputError`.

    Names that are missing, arguments that no network takes, and shapes that differ end in errors of
    several kinds.
    """
    try:
        yield
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{text}: {error}") from error
