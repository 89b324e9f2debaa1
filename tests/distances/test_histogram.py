import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

ROWS = {
    "fastgan": {"file": ["a.png", "b.png"], "mse_min": [1.5, 20.0], "lpips_min": [0.1, 0.2]},
    "stylegan2_ada": {"file": ["a.png", "c.png"], "mse_min": [3.5, 7.0], "lpips_min": [0.3, 0.4]},
}


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
    ("plot", "kind", "column", "label"),
    [
        ("nearest_fake_of_each_real", "real", "mse_min", "Smallest MSE (grey levels squared)"),
        ("nearest_real_of_each_fake", "fake", "mse_min", "Smallest MSE (grey levels squared)"),
        ("lpips_nearest_fake_of_each_real", "real", "lpips_min", "Smallest LPIPS (no unit)"),
        ("lpips_nearest_real_of_each_fake", "fake", "lpips_min", "Smallest LPIPS (no unit)"),
    ],
)
def test_dvc_draws_the_histogram(project: Path, plot: str, kind: str, column: str, label: str):
    """`dvc plots show` fills our template with the tables of both GANs, apart in one picture."""
    for gan, rows in ROWS.items():
        table = project / f"plots/distances/{gan}_per_{kind}.csv"
        pd.DataFrame(rows).to_csv(table, index=False)

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
    drawn = {
        gan: [float(v[column]) for v in spec["data"]["values"] if gan in v["filename"]]
        for gan in ROWS
    }
    assert drawn == {gan: rows[column] for gan, rows in ROWS.items()}
    assert spec["transform"] == [{"calculate": f"toNumber(datum['{column}'])", "as": "distance"}]
    assert spec["encoding"]["x"]["field"] == "distance"
    assert spec["encoding"]["x"]["title"] == label
    assert spec["encoding"]["y"]["title"].lower() == f"{kind}s"
    assert spec["encoding"]["column"]["field"] == "filename"
