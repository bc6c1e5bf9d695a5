#!/usr/bin/env bash
# From a fresh clone to a passage and its attention:
#
#     bash scripts/quickstart.sh                    a passage in the terminal, and pages in out/
#     bash scripts/quickstart.sh --prompt 喬峯 --length 300 --seed 3
#     bash scripts/quickstart.sh --notebook         JupyterLab with notebooks/01_generate.ipynb
set -uo pipefail
source "$(dirname "$0")/environment.sh"
ensure_environment
exec "$PYTHON" scripts/quickstart.py "$@"
