"""DVC's command line, of the environment that this code runs in."""

import subprocess
import sys
from pathlib import Path


def run_dvc(repository: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a DVC command of this Python, which need not be on the path."""
    command = [sys.executable, "-m", "dvc", *arguments]
    return subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False)
