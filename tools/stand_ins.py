"""Stand-ins for packages that the trainings import and a machine with torch alone lacks.

`tools/gpu_campaign.py` shall run on a machine that has torch, numpy and Pillow, and where nothing
can be installed. The trainings import more: jaxtyping for the shapes in annotations, pydantic for
parameters, safetensors for weights, and others that only other parts of the program use. A package
that is installed is always taken; a stand-in checks nothing, and holds what the trainings need.
"""

import copy
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from inspect import get_annotations
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

PACKAGES = {
    "jaxtyping": (),
    "pandas": (),
    "pydantic": (),
    "rich": ("console", "progress"),
    "safetensors": ("torch",),
    "tifffile": (),
    "yaml": (),
}
"""Each with those of its modules that are imported by name."""
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "U16": torch.uint16,
    "U8": torch.uint8,
}


def install() -> list[str]:
    """Put a stand-in in the place of each package that is not there; return their names."""
    missing = [name for name in PACKAGES if find_spec(name) is None]
    for name in missing:
        package = _Module(name)
        package.__path__ = []
        sys.modules[name] = package
        for child in PACKAGES[name]:
            module = _Module(f"{name}.{child}")
            sys.modules[module.__name__] = module
            setattr(package, child, module)
    if "pydantic" in missing:
        vars(sys.modules["pydantic"]).update(
            BaseModel=Model, ConfigDict=dict, Field=_nothing, model_validator=_no_validator
        )
    if "safetensors" in missing:
        vars(sys.modules["safetensors"]).update(SafetensorError=ValueError, safe_open=Weights)
        vars(sys.modules["safetensors.torch"]).update(save=save, load_file=load_file)
    return missing


class _Placeholder(type):
    """What a name of a missing package is: good for an annotation, not for a call."""

    def __getitem__(cls, _: object) -> Any:
        return Any

    def __call__(cls, *_: object, **__: object) -> Any:
        raise ImportError(f"{cls.__module__}.{cls.__name__}: {cls.__module__} is not installed")


class _Module(ModuleType):
    def __init__(self, name: str) -> None:
        super().__init__(name)
        # Of no file: torch asks for the specification of a package before it looks for its files.
        self.__spec__ = ModuleSpec(name, None)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Placeholder(name, (), {"__module__": self.__name__})


def _nothing(*_: object, **__: object) -> None:
    return None


def _no_validator(**_: object) -> Callable[[Any], Any]:
    return lambda function: function


class Model:
    """In the place of pydantic's BaseModel: the fields by name, without checks of their values."""

    def __init__(self, **values: Any) -> None:
        names = {name for cls in type(self).__mro__ for name in get_annotations(cls)}
        if names != set(values):
            raise ValueError(f"{type(self).__name__}: {sorted(names ^ set(values))}")
        vars(self).update(values)

    def model_dump(self, exclude: Any = (), **_: object) -> dict[str, Any]:
        """Return the values by name."""
        return {name: value for name, value in vars(self).items() if name not in exclude}

    def model_copy(self, update: Mapping[str, Any]) -> "Model":
        """Return a copy with other values."""
        changed = copy.copy(self)
        vars(changed).update(update)
        return changed

    @classmethod
    def model_validate(cls, values: Mapping[str, Any]) -> "Model":
        """Return an object of these values."""
        return cls(**values)


def save(tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None = None) -> bytes:
    """Return tensors as a safetensors file: the header's length, the header, all numbers."""
    names = {dtype: name for name, dtype in _DTYPES.items()}
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    parts, end = [], 0
    for name, tensor in tensors.items():
        part = tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
        offsets = [end, end + len(part)]
        shape = list(tensor.shape)
        header[name] = {"dtype": names[tensor.dtype], "shape": shape, "data_offsets": offsets}
        parts.append(part)
        end += len(part)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + b"".join(parts)


def load_file(path: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of a safetensors file."""
    with Weights(path) as weights:
        return {name: weights.get_tensor(name) for name in weights.keys()}  # noqa: SIM118


class Weights:
    """A safetensors file that is open."""

    def __init__(self, path: Path, framework: str = "pt") -> None:
        assert framework == "pt"
        content = Path(path).read_bytes()
        start = 8 + int.from_bytes(content[:8], "little")
        if len(content) < 8 or start > len(content):
            raise ValueError("the header is incomplete")
        self.header = json.loads(content[8:start])
        self.content = content[start:]

    def __enter__(self) -> "Weights":
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def metadata(self) -> dict[str, str] | None:
        """Return the texts that are stored beside the tensors."""
        found: dict[str, str] | None = self.header.get("__metadata__")
        return found

    def keys(self) -> Iterator[str]:
        """Return the names of the tensors."""
        return (name for name in self.header if name != "__metadata__")

    def get_tensor(self, name: str) -> torch.Tensor:
        """Return a tensor, a copy."""
        entry = self.header[name]
        start, end = entry["data_offsets"]
        numbers = torch.frombuffer(bytearray(self.content[start:end] or b"\0"), dtype=torch.uint8)
        return numbers[: end - start].view(_DTYPES[entry["dtype"]]).view(entry["shape"])
