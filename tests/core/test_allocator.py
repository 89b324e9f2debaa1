"""Threads that wait for each other give their cores to whoever needs them."""

import os

import pytest

from semforensics.core.allocator import wait_asleep


def test_threads_sleep_while_they_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless the user has chosen how threads wait, they sleep."""
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)

    wait_asleep()

    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"


def test_the_choice_of_a_user_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """A policy that is set already is kept."""
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")

    wait_asleep()

    assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE"
