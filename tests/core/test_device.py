"""Devices, threads and seeds."""

import os

import pytest
import torch

from semforensics.core.allocator import keep_memory
from semforensics.core.device import choose_device, count_cores, seed_everything, set_threads


def test_auto_finds_a_device() -> None:
    """`auto` is CUDA where there is one, else the CPU."""
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize("name", ["gpu", "", "meta", "cpu:0", "cuda:01", "cuda:300"])
def test_unknown_devices_are_refused(name: str) -> None:
    """A device this project does not run on is a clear error."""
    with pytest.raises(ValueError, match="expected auto, cpu, cuda"):
        choose_device(name)


def test_threads_are_set_and_told() -> None:
    """The number in use is given back; zero means all cores."""
    before = torch.get_num_threads()
    try:
        assert set_threads(1) == 1
        assert set_threads(0) >= 1
        with pytest.raises(ValueError, match="threads: -1"):
            set_threads(-1)
    finally:
        torch.set_num_threads(before)


def test_cores_are_counted_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a system cannot say which cores are ours, all of them are."""
    assert 1 <= count_cores() <= (os.cpu_count() or 1)

    monkeypatch.delattr("os.sched_getaffinity", raising=False)
    assert count_cores() == os.cpu_count()


def test_seeding_repeats_initialisation() -> None:
    """Two networks made after the same seed are equal."""
    first, second = (seed_everything(5) or torch.nn.Linear(3, 3).weight for _ in range(2))

    assert torch.equal(first, second)


def test_keeping_memory_is_harmless_where_it_cannot_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """Off Linux nothing is done."""
    monkeypatch.setattr("sys.platform", "darwin")

    assert keep_memory() is False
