"""torchvision beside a CPU build of torch."""

import subprocess
import sys


def test_torchvision_and_lpips_import_after_it() -> None:
    """The pure-Python parts of torchvision work in a fresh process."""
    code = (
        "import semforensics.core.torchvision_compat, torchvision, lpips, torch\n"
        "from torchvision.transforms import v2\n"
        "print(v2.functional.resize(torch.zeros(1, 8, 8), [4, 4]).shape)"
    )

    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True
    )

    assert "torch.Size([1, 4, 4])" in done.stdout, done.stderr
