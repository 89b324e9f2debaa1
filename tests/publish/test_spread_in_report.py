"""The pull-request report reads the spread over trainings that a revision stores."""

import json
import subprocess
from pathlib import Path

from semforensics.publish.changes import results_in
from semforensics.publish.review import _read_metrics
from semforensics.trials.spread import COLUMNS, SPREAD_FILE


def test_intervals_contain_the_stored_spread_of_trainings(tmp_path: Path) -> None:
    """A revision with the table widens its intervals by it; one without leaves them."""

    def git(*arguments: str) -> None:
        identity = ["-c", "user.name=Test", "-c", "user.email=test@example.org"]
        subprocess.run(["git", *identity, *arguments], cwd=tmp_path, check=True)

    number = {"auroc": 0.9, "auroc_low": 0.88, "auroc_high": 0.92}
    (tmp_path / "metrics").mkdir()
    (tmp_path / "metrics/one.json").write_text(json.dumps({"gan": number}))
    git("init", "-q")
    git("add", "-A")
    git("commit", "-qm", "Without")
    rows = [f"metrics/one.json,gan.auroc,all,{seed},{0.9 + seed / 1e4}" for seed in (100, 200, 300)]
    (tmp_path / SPREAD_FILE).parent.mkdir()
    (tmp_path / SPREAD_FILE).write_text("\n".join([",".join(COLUMNS), *rows]) + "\n")
    git("add", "-A")
    git("commit", "-qm", "With")

    before, after = (
        results_in(_read_metrics(tmp_path, revision)["metrics/one.json"])["gan.auroc"]
        for revision in ("HEAD~1", "HEAD")
    )

    assert (before.low, before.high) == (0.88, 0.92)
    assert after.low is not None
    assert after.high is not None
    assert after.low < 0.85
    assert 0.95 < after.high <= 1
    assert after.value == before.value
