import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

ROWS = {"file": ["a.png", "b.png"], "mse_min": [1.5, 20.0], "nearest": "c.png", "mse_mean": 30.0}


@pytest.fixture
def project(root: Path, tmp_path: Path) -> Path:
    """The definitions of the plots with a table to draw, and nothing else of the repository."""
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(root / name, tmp_path)
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc/config").write_text(
        f"[core]\nno_scm = true\nanalytics = false\nsite_cache_dir = {tmp_path}/site\n"
    )
    shutil.copytree(root / ".dvc/plots", tmp_path / ".dvc/plots")
    (tmp_path / "plots/distances").mkdir(parents=True)
    return tmp_path


@pytest.mark.parametrize(
    ("plot", "kind"),
    [("nearest_fake_of_each_real", "real"), ("nearest_real_of_each_fake", "fake")],
)
def test_dvc_draws_the_histogram(project: Path, plot: str, kind: str):
    """`dvc plots show` fills our template with the table: bins of `mse_min`, counted."""
    table = project / f"plots/distances/fastgan_per_{kind}.csv"
    pd.DataFrame(ROWS).to_csv(table, index=False)

    shown = subprocess.run(
        [sys.executable, "-m", "dvc", "plots", "show", "--json", plot],
        cwd=project,
        env=os.environ | {"DVC_NO_ANALYTICS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )

    spec = json.loads(shown.stdout)["data"][plot][0]["content"]
    assert "<DVC_METRIC" not in shown.stdout
    assert [(v["file"], float(v["mse_min"])) for v in spec["data"]["values"]] == [
        ("a.png", 1.5),
        ("b.png", 20.0),
    ]
    assert spec["transform"] == [{"calculate": "toNumber(datum['mse_min'])", "as": "distance"}]
    assert spec["encoding"]["x"]["field"] == "distance"
    assert spec["encoding"]["x"]["title"] == "Smallest MSE (grey levels squared)"
    assert spec["encoding"]["y"]["title"].lower() == f"{kind}s"
