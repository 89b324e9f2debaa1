"""One training in several processes, on one machine or many; each computes a share of each batch.

All processes hold the same networks and draw the random numbers of the whole batch; each computes
its share of the images, and gradients are averaged before every step. So a step is that of a
single process, with two exceptions: statistics over a batch (batch norm, StyleGAN2's minibatch
standard deviation) cover a share, and sums are rounded in another order. All that lasts is equal
everywhere, so the first process alone writes, and one state file resumes them all. Of a single
process every function here returns its argument.

Gradients are averaged explicitly, not by DistributedDataParallel, whose hooks do not see the
gradients that R1 and the path length take.
"""

import os
import signal
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch import distributed as dist

from semforensics.core.errors import InputError

T = TypeVar("T")

TIMEOUT = timedelta(seconds=40)
"""How long a process waits for the others in a step before it takes them for dead."""
FILE_TIMEOUT = timedelta(hours=1)
"""How long the others wait for the first process while it reads or writes files."""


def is_worker() -> bool:
    """Say whether a launcher (ours or torchrun) has started this process beside others."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def launch(processes: int) -> int:
    """Run this process's own command line in several processes of this machine, under torchrun.

    Returns:
        The exit code of the process that failed first, 1 if it was killed, 0 if none did.
    """
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import parse_args, run

    os.environ.setdefault("OMP_NUM_THREADS", "1")  # until each has read how many it shall use
    arguments = ["--standalone", f"--nproc-per-node={processes}", "--max-restarts=0", *sys.argv]
    try:
        run(parse_args(arguments))  # type: ignore[no-untyped-call]
    except ChildFailedError as error:
        rank, failure = min(error.failures.items(), key=lambda item: item[1].timestamp)
        code = failure.exitcode
        how = f"ended with exit code {code}" if code > 0 else f"was killed ({_signal(-code)})"
        print(
            f"error: process {rank} of 0 … {processes - 1} {how}, and the others were stopped; "
            "started again, a training is resumed from its last saved state",
            file=sys.stderr,
        )
        return max(code, 1)
    return 0


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


@contextmanager
def process_group(device: torch.device) -> Iterator[torch.device]:
    """Join the processes that a launcher has started, if it has: nccl on CUDA, gloo elsewhere."""
    if not is_worker():
        yield device
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=TIMEOUT)
    _FILE_GROUPS.append(dist.new_group(backend="gloo", timeout=FILE_TIMEOUT))
    try:
        yield device
    finally:
        _FILE_GROUPS.clear()
        dist.destroy_process_group()


def num_processes() -> int:
    """Return the number of processes that train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_first() -> bool:
    """Say whether this is the process that writes."""
    return not dist.is_initialized() or dist.get_rank() == 0


def whole(count: int) -> int:
    """Return the size of the batch of which each process has `count` images."""
    return count * num_processes()


def share(count: int) -> slice:
    """Return which of the `count` images of a batch are this process's, the same number but one."""
    if not dist.is_initialized():
        return slice(0, count)
    rank, world = dist.get_rank(), dist.get_world_size()
    return slice(count * rank // world, count * (rank + 1) // world)


def check_batch(batch: int, name: str) -> None:
    """Refuse a batch that cannot be divided evenly.

    Raises:
        InputError: It is not a multiple of the number of processes.
    """
    if batch % num_processes():
        raise InputError(
            f"{name}: {batch} images, cannot be divided evenly among {num_processes()} processes"
        )


def average(values: Tensor) -> Tensor:
    """Return the mean over the processes."""
    if num_processes() == 1:
        return values
    values = values.clone()
    _sum(values)
    return values / num_processes()


def gather(x: Tensor) -> Tensor:
    """Return the rows of all processes, in the order of the batch; all have equally many."""
    if num_processes() == 1:
        return x
    rows = [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(whole(1))]
    dist.all_gather(rows, x.contiguous())
    return torch.cat(rows)


def from_first(value: T) -> T:
    """Return what the first process has: numbers, lists and CPU tensors.

    The others wait as long as for a file, since the first may have read the value from one.
    """
    if num_processes() == 1:
        return value
    box = [value if is_first() else None]
    dist.broadcast_object_list(box, group=_FILE_GROUPS[0])
    return box[0]  # type: ignore[return-value]


@contextmanager
def writing() -> Iterator[bool]:
    """Yield whether this is the process that writes; leave the block when it has written.

    Writing a large file may take longer than a step may. So the others wait for it here, with a
    time-out for files, and not in the averages of the next step, with that of a step. All processes
    must come here.
    """
    yield is_first()
    if num_processes() > 1:
        dist.barrier(group=_FILE_GROUPS[0])


def average_gradients(parameters: Iterable[Tensor]) -> None:
    """Replace each gradient by its mean over the processes."""
    _average_in_place([p.grad for p in parameters if p.grad is not None])


def average_buffers(network: nn.Module) -> None:
    """Replace each buffer of real numbers by its mean over the processes."""
    _average_in_place([b for b in network.buffers() if b.is_floating_point()])


@torch.no_grad()
def _average_in_place(tensors: Sequence[Tensor]) -> None:
    """Average tensors over the processes, in one message."""
    if num_processes() == 1 or not tensors:
        return
    flat = torch.cat([tensor.flatten() for tensor in tensors])
    _sum(flat)
    flat /= num_processes()
    means = torch.split(flat, [tensor.numel() for tensor in tensors])
    for tensor, mean in zip(tensors, means, strict=True):
        tensor.copy_(mean.view_as(tensor))


def _sum(values: Tensor) -> None:
    """Sum over the processes, in place."""
    if os.getppid() != _LAUNCHER:  # it died without stopping us: a new one may have been started
        raise ConnectionError("the launcher of this training is gone")
    dist.all_reduce(values)


_LAUNCHER = os.getppid()
_FILE_GROUPS: list[dist.ProcessGroup] = []
"""The same processes with the longer time-out, while there are several."""
