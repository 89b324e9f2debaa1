"""The portable mode: all libraries use one set of instructions, so that processors differ less.

Sums depend on their order, and libraries add in another order with wider registers. So the same
training ends in other digits on a processor with AVX-512 than on one without, and after some
hundred steps in other fakes. With `SEMFORENSICS_PORTABLE=1` every library is held to AVX2,
everything runs on one thread, and networks are trained in float32 whatever the parameters say:
bfloat16 is computed by other instructions on each processor. What it reaches and what not:
benchmarks/results/instruction_sets.md.

The libraries read their variables when they are loaded, so this module imports nothing heavy.
"""

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from semforensics.core.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

VARIABLE = "SEMFORENSICS_PORTABLE"
INSTRUCTIONS = {
    "ATEN_CPU_CAPABILITY": "avx2",  # torch's own kernels
    "ONEDNN_MAX_CPU_ISA": "AVX2",  # its convolutions
    "MKL_CBWR": "COMPATIBLE",  # its matrix products: what MKL promises on every maker's processor
    "OPENBLAS_CORETYPE": "Haswell",  # numpy's and scipy's
    "NPY_DISABLE_CPU_FEATURES": "AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL",
    "OPENCV_CPU_DISABLE": "AVX512-SKX,AVX512-COMMON,AVX512-KNL,AVX512-KNM,AVX512-CNL,AVX512-ICL",
}
"""Of each library, the variable that holds it to AVX2."""


def is_portable() -> bool:
    """Say whether the mode is asked for."""
    return os.environ.get(VARIABLE, "") not in ("", "0")


def make_portable() -> bool:
    """Hold all libraries to the same instructions, if the mode is asked for; say whether it is.

    Whatever the user has set for one of them is replaced.
    """
    if not is_portable():
        return False
    assert not {"torch", "numpy"} & sys.modules.keys(), "loaded before their variables are set"
    os.environ.update(INSTRUCTIONS)
    return True


def refuse_unportable(option: str, found: object, portable: Sequence[object]) -> None:
    """Refuse what would end in other bytes on another machine.

    Raises:
        InputError: The option is not one of those that are portable.
    """
    if found not in portable:
        raise InputError(
            f"{option} {found}: {VARIABLE} takes {' or '.join(map(str, portable))}; unset it, or "
            "leave this option out"
        )


def square_root(x: "Tensor") -> "Tensor":
    """Return the roots of numbers from 0 up; in the portable mode the same on every processor.

    torch takes roots on a CPU by MKL's vector functions, which no variable holds to one kernel: on
    an AMD EPYC a fifth of them are not what IEEE 754 asks for, and others on another processor.
    """
    return x * x.clamp_min(1e-38).rsqrt() if is_portable() else x.sqrt()


def adam_kernel() -> bool | None:
    """Return whether Adam shall be fused: in the portable mode; the others take such roots."""
    return True if is_portable() else None
