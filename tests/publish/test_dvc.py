"""DVC as a program of this environment."""

from pathlib import Path

import pytest

from semforensics.publish.dvc import run_dvc


def test_dvc_is_found_without_an_activated_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The DVC beside this Python answers, whatever the path says."""
    monkeypatch.setenv("PATH", str(tmp_path))

    done = run_dvc(tmp_path, "version")

    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("DVC version")
