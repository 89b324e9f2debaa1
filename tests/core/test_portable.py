"""The portable mode: what it sets, and what it refuses."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from semforensics.cli.frame import DeviceRun
from semforensics.core import device
from semforensics.core.errors import InputError
from semforensics.core.portable import (
    VARIABLE,
    adam_kernel,
    is_portable,
    refuse_unportable,
    square_root,
)
from semforensics.params import Section

ROOT = Path(__file__).parents[2]


def precisions(section: Section) -> set[str]:
    """All precisions of nested parameters."""
    found: set[str] = set()
    for name, value in section:
        found |= precisions(value) if isinstance(value, Section) else set()
        found |= {value} if name == "precision" else set()
    return found


def test_parameters_are_of_float32_in_the_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    """And as the file says without it."""
    file = ROOT / "params.yaml"
    monkeypatch.setattr(device, "bf16_is_emulated", lambda _: False)
    monkeypatch.delenv(VARIABLE, raising=False)
    assert not is_portable()
    assert precisions(DeviceRun(file).params) == {"float32", "bfloat16"}

    for off in ("", "0"):
        monkeypatch.setenv(VARIABLE, off)
        assert not is_portable()
    monkeypatch.setenv(VARIABLE, "1")
    assert precisions(DeviceRun(file).params) == {"float32"}
    assert DeviceRun(file).device.type == "cpu"


def test_parameters_are_of_float32_where_bfloat16_would_be_slow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A processor that computes bfloat16 in software is many times as slow with it."""
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(device, "bf16_is_emulated", lambda device: device.type == "cpu")
    assert precisions(DeviceRun(ROOT / "params.yaml", device_name="cpu").params) == {"float32"}


def test_what_is_not_portable_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU adds in another order, and several processes do."""
    monkeypatch.setenv(VARIABLE, "1")
    with pytest.raises(InputError, match=f"device cuda: {VARIABLE} takes auto or cpu"):
        _ = DeviceRun(ROOT / "params.yaml", device_name="cuda").device
    with pytest.raises(InputError, match=f"processes 2: {VARIABLE} takes 1"):
        refuse_unportable("processes", 2, (1,))


def test_the_libraries_are_held_before_they_are_loaded() -> None:
    """Torch computes with AVX2 where it could with more; what the user had set is replaced."""
    code = (
        "from semforensics.core.portable import make_portable\n"
        "import json, os\n"
        "assert make_portable()\n"
        "import torch\n"
        "found = torch.backends.cpu.get_cpu_capability(), os.environ['MKL_CBWR']\n"
        "print(json.dumps(found))\n"
        "try: make_portable()\n"
        "except AssertionError as error: print(error)\n"
    )
    environment = os.environ | {VARIABLE: "1", "MKL_CBWR": "AUTO"}

    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )

    first, second = done.stdout.splitlines()
    assert json.loads(first)[0] in ("AVX2", "DEFAULT")  # the latter where there is no AVX2
    assert json.loads(first)[1] == "COMPATIBLE"
    assert second == "loaded before their variables are set"


def test_roots_are_torch_s_but_in_the_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the mode they are near, 0 stays 0, and Adam is fused."""
    x = torch.tensor([0.0, 1e-6, 0.3, 2.0, 1e6])
    monkeypatch.delenv(VARIABLE, raising=False)
    assert torch.equal(square_root(x), x.sqrt())
    assert adam_kernel() is None

    monkeypatch.setenv(VARIABLE, "1")

    torch.testing.assert_close(square_root(x), x.sqrt(), rtol=3e-7, atol=0)
    assert adam_kernel() is True
