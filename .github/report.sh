#!/usr/bin/env bash
# What a change does to the numbers, on any forge: .github/report.sh BASE HEAD OUT
# Leaves OUT/report.md with pictures beside it; ends with 1 where dvc.lock does not belong to code and
# parameters. Nothing is run again: hashes of another machine would differ.
set -euo pipefail
cd "$(git rev-parse --show-toplevel)"
base=$1 head=$2 out=$3

make --silent setup
export PATH="$PWD/.venv/bin:$PATH"
export DVC_SITE_CACHE_DIR="${DVC_SITE_CACHE_DIR:-$PWD/.scratch/dvc-site-cache}" DVC_NO_ANALYTICS=1

lock=0
stages=$(semforensics check-lock) || lock=$?
[ "$lock" -le 1 ] || exit "$lock"
# Data of both sides, for the plots; metrics and curves are in Git. A base whose data were never
# pushed leaves its pictures out.
dvc pull --quiet
git worktree add --quiet --detach .scratch/base "$base"
(cd .scratch/base && dvc pull --quiet --allow-missing) || echo "no data of the base: $base" >&2
git worktree remove --force .scratch/base
semforensics pull-request-report "$base" "$head" "$out"
if [ "$lock" -ne 0 ]; then # at the top: a comment leaves out the end
  page=$(< "$out/report.md")
  {
    printf '⚠ **`dvc.lock` does not belong to this code and these parameters**: run `dvc repro` and commit.\n\n'
    printf 'Stale: `%s`.\n\n%s\n' "$(sed 's/^stale: //' <<< "$stages" | paste -sd ' ')" "$page"
  } > "$out/report.md"
fi
exit "$lock"
