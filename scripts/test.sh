#!/usr/bin/env bash
# All tests and the style checks, in the environment of quickstart.sh. Arguments go to pytest: bash scripts/test.sh -k writer
set -uo pipefail
source "$(dirname "$0")/environment.sh"
ensure_environment
status=0
"$PYTHON" -m ruff check . || status=1
"$PYTHON" -m ruff format --check . || status=1
# One worker and one thread a core: the models of the tests are too small to share work between threads.
OMP_NUM_THREADS=1 "$PYTHON" -m pytest --numprocesses auto "$@" || status=1
exit $status
