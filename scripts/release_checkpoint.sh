#!/usr/bin/env bash
# The whole road to the bundled checkpoint, resumable: run it again after any interruption and it goes on.
#
#     bash scripts/release_checkpoint.sh FOLDER_WITH_PUBLIC_DOMAIN_NOVELS
#
# On two CPU cores some two hours. On a GPU take more steps and larger batches, for example
#
#     STEPS=20000 BATCH=32 bash scripts/release_checkpoint.sh FOLDER
set -euo pipefail
source "$(dirname "$0")/environment.sh"
ensure_environment

NOVELS=${1:?"which folder holds the novels? bash scripts/release_checkpoint.sh FOLDER"}
SIZE=${SIZE:-mini}
STEPS=${STEPS:-8000}
BATCH=${BATCH:-4} # windows of 512 a step, or as many tokens in shorter ones
DATA=data/prepared
RUN=checkpoints/bundled

[ -f "$DATA/manifest.json" ] || "$PYTHON" scripts/prepare_corpus.py "$NOVELS" data/sample --out "$DATA"

# All steps of one run, same weights, same schedule: short windows first, which are quicker, then longer ones.
train() {
    "$PYTHON" scripts/train.py --data "$DATA" --output_dir "$RUN" --size "$SIZE" --max_steps "$STEPS" \
        --learning_rate 5e-3 --eval_every 500 --eval_windows 96 --save_every 250 --resume "$@"
}
train --context_length 128 --batch_size $((BATCH * 4)) --stop_after $((STEPS * 60 / 100))
train --context_length 256 --batch_size $((BATCH * 2)) --stop_after $((STEPS * 85 / 100))
train --context_length 512 --batch_size "$BATCH"

"$PYTHON" scripts/evaluate.py "$RUN/best" "$DATA" --out out/evaluation
"$PYTHON" scripts/benchmark.py settings --checkpoint "$RUN/best" --heldout "$DATA"
grep -E '^train --|^    "\$PYTHON" scripts/train|^        --learning' "$0" >out/commands.txt
"$PYTHON" scripts/export_checkpoint.py "$RUN/best" --out data/pretrained \
    --evaluation out/evaluation/evaluation.json --commands out/commands.txt
