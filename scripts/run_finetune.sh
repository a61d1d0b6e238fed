#!/usr/bin/env bash
# Fine-tunes Bort on one task and writes the files its leaderboard accepts. Called again, it resumes.
#
#   scripts/run_finetune.sh <task> [bort finetune options…]      RTE, SST-2, STS-B, …
#   scripts/run_finetune.sh TEST1                                RTE-format rows of test_data/ and a small model, under a minute
#   scripts/run_finetune.sh TEST2                                the same with SST-2-format rows
#
# The model is $MODEL (by default bort_4_8_768_1024 with model/bort.params), unless --model or --init_from is given; data are in
# $MXNET_HOME/datasets, by default ~/.mxnet/datasets. The run is in $OUTPUT_DIR, by default runs/finetune/<task>; paths are taken from the top
# of the repository. NUM_WORKERS=N shares it among N Horovod workers: on the CPU, or with --gpu one a GPU.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

[ $# -ge 1 ] || { sed -n '4,6s/^# *//p' "$0" >&2; exit 2; }
task=$1 workers=${NUM_WORKERS:-1}
shift
[[ $workers =~ ^[1-9][0-9]*$ ]] || { echo "run_finetune: error: NUM_WORKERS must be at least 1, got \"$workers\"" >&2; exit 2; }

bort=.venv/bin/bort
[ -x "$bort" ] || { echo "run_finetune: error: no $bort; run scripts/setup_env.sh first" >&2; exit 2; }

# A model of the caller's own goes before any other.
model=()
if [[ " $* " != *" --model"[\ =]* && " $* " != *" --init_from"[\ =]* ]]; then
    case $task in
    TEST1 | TEST2)
        folder=${MODEL:-runs/test/model}
        [ -d "$folder" ] || OUTPUT_DIR=runs/test scripts/run_pretraining_distillation.sh 1 TEST
        model=(--model "$folder")
        ;;
    *)
        if [ -n "${MODEL:-}" ]; then
            model=(--model "$MODEL")
        else
            model=(--model bort_4_8_768_1024 --params model/bort.params --dataset_name openwebtext_ccnews_stories_books_cased)
        fi
        ;;
    esac
fi
case $task in
TEST1) name=RTE ;;
TEST2) name=SST-2 ;;
*) name=$task ;;
esac
[ "$name" = "$task" ] || model+=(--data_root test_data --epochs 10 --early_stop 0 --batch_size "$((16 / workers > 0 ? 16 / workers : 1))" --lr 1e-3)

worker=("$bort" finetune --task "$name" --output_dir "${OUTPUT_DIR:-runs/finetune/$task}" "${model[@]}" "$@")
[ "$workers" -gt 1 ] || exec "${worker[@]}"
if [[ " $* " != *" --gpu "* ]]; then
    # Workers that share a machine's cores must not each start a thread for every core.
    cores=$(nproc)
    export OMP_NUM_THREADS=$((cores > workers ? cores / workers : 1))
fi
PATH=$PWD/.venv/bin:$PATH exec horovodrun --gloo -np "$workers" "${worker[@]}"
