"""Screens a folder on a local Ray of two workers; a process of its own for the test to start."""

import json
import os
import sys
from pathlib import Path

from tests.screening.stand_in import StandIn

if __name__ == "__main__":
    from semforensics.screening.ray_job import screen_with_ray
    from semforensics.screening.submission import Options

    folder, out, scratch, log = map(Path, sys.argv[1:5])
    totals = screen_with_ray(
        [folder],
        out,
        StandIn(log=log),
        Options(scratch, "semforensics screen", workers=2),
    )
    print(json.dumps({"stats": os.environ["RAY_USAGE_STATS_ENABLED"], **totals.verdicts}))
