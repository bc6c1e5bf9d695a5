#!/usr/bin/env bash
# The whole road to the bundled checkpoint, resumable: run it again after any interruption and it goes on.
#
#     bash scripts/release_checkpoint.sh FOLDER_WITH_PUBLIC_DOMAIN_NOVELS
#
# On two CPU cores about an hour and a half. On a GPU take more steps and a wider model, for example
#
#     SIZE=mini STEPS=20000 BATCH=64 bash scripts/release_checkpoint.sh FOLDER
set -euo pipefail
source "$(dirname "$0")/environment.sh"
ensure_environment

NOVELS=${1:?"which folder holds the novels? bash scripts/release_checkpoint.sh FOLDER"}
SIZE=${SIZE:-mini}
STEPS=${STEPS:-3300}
SHORT=$((STEPS * 88 / 100)) # so many steps on short windows, which are quicker; the rest on the model's whole context
BATCH=${BATCH:-8}
DATA=data/prepared
RUN=checkpoints/bundled

[ -f "$DATA/manifest.json" ] || "$PYTHON" scripts/prepare_corpus.py "$NOVELS" data/sample --out "$DATA"

# All steps of one run: same weights, same schedule, other windows towards the end.
train() {
    "$PYTHON" scripts/train.py --data "$DATA" --output_dir "$RUN" --size "$SIZE" --max_steps "$STEPS" \
        --eval_every 200 --eval_windows 96 --save_every 100 --resume "$@"
}
train --context_length 256 --batch_size "$BATCH" --stop_after "$SHORT"
train --batch_size $((BATCH / 2))

"$PYTHON" scripts/evaluate.py "$RUN/best" "$DATA" --out out/evaluation
grep -E '^train --|^    "\$PYTHON" scripts/train' "$0" >out/commands.txt
"$PYTHON" scripts/export_checkpoint.py "$RUN/best" --out data/pretrained \
    --evaluation out/evaluation/evaluation.json --commands out/commands.txt
