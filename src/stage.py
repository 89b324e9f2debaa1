"""Run one command of this checkout: what dvc.yaml calls.

An editable install points at one working tree; a queued or temporary experiment lives in another.
Python puts this file's folder first on its path, so the code beside it runs, whatever is installed.
"""

from semforensics.cli.main import main

if __name__ == "__main__":
    main()
