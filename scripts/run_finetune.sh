#!/usr/bin/env bash
# Fine-tunes Bort on one task and writes the files its leaderboard accepts.
#
#   scripts/run_finetune.sh <task> [bort finetune options…]      RTE, SST-2, STS-B, …
#   scripts/run_finetune.sh TEST1                                RTE-format rows of test_data/ and a small model, under a minute
#   scripts/run_finetune.sh TEST2                                the same with SST-2-format rows
#
# The model is $MODEL (by default bort_4_8_768_1024 with model/bort.params); data are in $MXNET_HOME/datasets, by default ~/.mxnet/datasets.
# The run is in $OUTPUT_DIR, by default runs/finetune/<task>; paths are taken from the top of the repository.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

[ $# -ge 1 ] || { sed -n '4,6s/^# *//p' "$0" >&2; exit 2; }
task=$1
shift

bort=.venv/bin/bort
[ -x "$bort" ] || { echo "run_finetune: error: no $bort; run scripts/setup_env.sh first" >&2; exit 2; }

case $task in
TEST1 | TEST2)
    if [ "$task" = TEST1 ]; then name=RTE; else name=SST-2; fi
    model=${MODEL:-runs/test/model}
    [ -d "$model" ] || OUTPUT_DIR=runs/test scripts/run_pretraining_distillation.sh 1 TEST
    options=(--model "$model" --data_root test_data --epochs 10 --batch_size 16 --lr 1e-3)
    ;;
*)
    name=$task
    if [ -n "${MODEL:-}" ]; then
        options=(--model "$MODEL")
    else
        options=(--model bort_4_8_768_1024 --params model/bort.params --dataset_name openwebtext_ccnews_stories_books_cased)
    fi
    ;;
esac
exec "$bort" finetune --task "$name" --output_dir "${OUTPUT_DIR:-runs/finetune/$task}" "${options[@]}" "$@"
