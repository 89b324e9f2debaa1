"""The device that computes, and its number of threads."""

import os
import random
import re

import numpy as np
import torch

from semforensics.core.errors import InputError


def choose_device(name: str) -> torch.device:
    """Resolve `auto` (CUDA where there is one, else CPU), `cpu`, `cuda` or `cuda:N`.

    Of several processes on one machine, each gets its own CUDA device.

    Raises:
        InputError: The name is unknown, or CUDA is asked for and there is none.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and "LOCAL_RANK" in os.environ:
        name = f"cuda:{os.environ['LOCAL_RANK']}"
    if not re.fullmatch(r"cpu|cuda(:[1-9]?[0-9])?", name):
        raise InputError(f"device {name!r}: expected auto, cpu, cuda or cuda:N")
    device = torch.device(name)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InputError(f"device {name!r}: this machine has no CUDA device that torch can use")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(f"device {name!r}: this machine has {torch.cuda.device_count()} of CUDA")
    return device


def count_cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def set_threads(count: int) -> int:
    """Use `count` CPU threads, all cores for 0, and return the number in use.

    Of several processes on one machine, 0 is an equal share of the cores for each.
    """
    if count < 0:
        raise InputError(f"threads: {count}, expected 0 (all cores) or more")
    neighbours = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    torch.set_num_threads(count or max(1, count_cores() // neighbours))
    return torch.get_num_threads()


def seed_everything(seed: int) -> None:
    """Seed weight initialisation; every later draw comes from a generator that is passed in."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - libraries that draw from the global state
    torch.manual_seed(seed)


def bf16_is_emulated(device: torch.device) -> bool:
    """Say whether bfloat16 arithmetic runs in software on this device.

    On a CPU that is many times as slow as float32.
    """
    if device.type == "cuda":
        return not torch.cuda.is_bf16_supported(including_emulation=False)
    return not torch.cpu._is_avx512_bf16_supported()
