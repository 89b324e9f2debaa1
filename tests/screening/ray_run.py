"""Screens a folder on a local Ray of two workers; a process of its own for the test to start."""

import json
import os
import sys
from pathlib import Path

from tests.screening.stand_in import StandIn

if __name__ == "__main__":
    from semforensics.screening.ray_job import RayRunner
    from semforensics.screening.submission import Options, screen_submission

    folder, out, scratch, log = map(Path, sys.argv[1:5])
    options = Options(scratch, "semforensics screen", workers=2)
    totals = screen_submission([folder], out, StandIn(log=log), options, RayRunner("local"))
    print(json.dumps({"stats": os.environ["RAY_USAGE_STATS_ENABLED"], **totals.verdicts}))
