#!/usr/bin/env bash
# The whole road to the bundled checkpoint, resumable: run it again after any interruption and it goes on.
#
#     bash scripts/release_checkpoint.sh FOLDER_WITH_PUBLIC_DOMAIN_NOVELS
#
# On two CPU cores five to six hours: three rounds of training, each from where the one before ended; the measuring; and
# a shorter training without one of the works, which that checkpoint is then fine-tuned on. On a GPU one round of more
# steps and larger batches is enough, for example
#
#     FIRST=20000 SECOND=0 THIRD=0 BATCH=32 bash scripts/release_checkpoint.sh FOLDER
set -euo pipefail
NOVELS=$(cd "${1:?"which folder holds the novels? bash scripts/release_checkpoint.sh FOLDER"}" && pwd)
source "$(dirname "$0")/environment.sh"
ensure_environment

SIZE=${SIZE:-mini}
BATCH=${BATCH:-4}        # windows of 512 a step, or as many tokens in shorter ones; later rounds take twice as many
FIRST=${FIRST:-6500}     # steps of the first round
SECOND=${SECOND:-4300}   # of the second; 0 leaves it out
THIRD=${THIRD:-12400}    # and of the third
WITHOUT=${WITHOUT:-1800} # steps of the training without the work below
TUNING=${TUNING:-1000}   # steps of fine-tuning on it: some ten minutes on two cores
LEFT_OUT=${LEFT_OUT:-七劍十三俠}
DATA=data/prepared
RUN=checkpoints/bundled

mapfile -t new < <(find "$NOVELS" -iname "*$LEFT_OUT*.txt")
mapfile -t others < <(find "$NOVELS" -iname '*.txt' -not -iname "*$LEFT_OUT*.txt")
if [ ${#new[@]} = 0 ]; then
    fail "no $LEFT_OUT in $NOVELS: name a work of it, LEFT_OUT=… bash scripts/release_checkpoint.sh $NOVELS"
fi

[ -f "$DATA/manifest.json" ] || "$PYTHON" scripts/prepare_corpus.py "$NOVELS" data/sample --out "$DATA"

train() {
    "$PYTHON" scripts/train.py --size "$SIZE" --eval_every 400 --eval_windows 96 --save_every 200 --resume "$@"
}
# A round is one run, same schedule over all its steps: short windows first, which are quicker, then longer ones.
first() {
    train --data "$1" --output_dir "$2" --max_steps "$3" --learning_rate 5e-3 "${@:4}"
}
# Once more over the same text, in another order, from the best so far: round number, steps.
another() {
    local round=$1 steps=$2
    local options=(--data "$DATA" --output_dir "$RUN-$round" --init_from "$BEST" --seed $((round - 1)) --max_steps "$steps"
        --schedule linear --learning_rate 2.5e-3 --muon_learning_rate 0.01)
    [ "$steps" -gt 0 ] || return 0
    train "${options[@]}" --context_length 256 --batch_size $((BATCH * 4)) --stop_after $((steps * 85 / 100))
    train "${options[@]}" --context_length 512 --batch_size $((BATCH * 2))
    BEST=$RUN-$round/best
}
first "$DATA" "$RUN" "$FIRST" --context_length 128 --batch_size $((BATCH * 4)) --stop_after $((FIRST * 60 / 100))
first "$DATA" "$RUN" "$FIRST" --context_length 256 --batch_size $((BATCH * 2)) --stop_after $((FIRST * 85 / 100))
first "$DATA" "$RUN" "$FIRST" --context_length 512 --batch_size "$BATCH"
BEST=$RUN/best
another 2 "$SECOND"
another 3 "$THIRD"

"$PYTHON" scripts/evaluate.py "$BEST" "$DATA" --names data/classics.json --examples 60 --out out/evaluation
"$PYTHON" scripts/benchmark.py settings --checkpoint "$BEST" --heldout "$DATA"
mkdir -p out
sed -n '/^train() {/,/^another 3/p' "$0" >out/commands.txt
"$PYTHON" scripts/export_checkpoint.py "$BEST" --out data/pretrained \
    --evaluation out/evaluation/evaluation.json --commands out/commands.txt

# What fine-tuning is worth on a work that the checkpoint has truly never read.
[ -f "$DATA-others/manifest.json" ] ||
    "$PYTHON" scripts/prepare_corpus.py "${others[@]}" data/sample --out "$DATA-others"
[ -f "$DATA-new/manifest.json" ] ||
    "$PYTHON" scripts/prepare_corpus.py "${new[@]}" --out "$DATA-new" --heldout 0.1
OTHERS=checkpoints/others
first "$DATA-others" "$OTHERS" "$WITHOUT" --context_length 128 --batch_size $((BATCH * 4)) \
    --stop_after $((WITHOUT * 80 / 100))
first "$DATA-others" "$OTHERS" "$WITHOUT" --context_length 256 --batch_size $((BATCH * 2))
"$PYTHON" scripts/benchmark.py finetune --checkpoint "$OTHERS/best" --novels "$DATA-new" --steps "$TUNING"
