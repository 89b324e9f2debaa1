"""What is set before torch is imported, so this module imports nothing heavy.

glibc hands every large tensor back to the kernel and faults it in again at the next step, which
costs a fifth and more of a training step on a CPU. Kept memory stays at its high-water mark.
"""

import ctypes
import gc
import os
import sys

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4


def keep_memory() -> bool:
    """Stop glibc from returning freed memory to the kernel.

    Returns:
        Whether it took effect; False off Linux and with other C libraries, where nothing is done.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    settings = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, 2**31 - 1), (_M_TOP_PAD, 2**27))
    return all(mallopt(option, value) == 1 for option, value in settings)


def search_rarely() -> None:
    """Let Python search for unused objects less often than it does by default.

    Loading torch makes half a million objects and no rubbish; to search them again and again took a
    sixth of the time to start.
    """
    gc.set_threshold(20_000, 10, 100)


def wait_asleep() -> None:
    """Let threads that wait for each other sleep, unless the user has chosen otherwise.

    torch's threads (OpenMP) wait for each other many times a second. By default they keep their
    cores busy meanwhile, and where another process needs these cores all of them stall.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
