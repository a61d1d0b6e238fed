#!/usr/bin/env bash
# Distils a Bort from RoBERTa-large on N Horovod workers: one GPU each where MXNet finds GPUs, one share of the CPU's cores each elsewhere.
#
#   scripts/run_pretraining_distillation.sh <num gpus> <training data> <testing data> [optional teacher checkpoint] [bort pretrain options…]
#   scripts/run_pretraining_distillation.sh <num gpus> TEST          a small student from a small teacher on test_data/, about one minute
#
# Paths are taken from the top of the repository. Data are folders of shards made by scripts/create_pretraining_data.py. The teacher
# checkpoint is the .params file of roberta_24_1024_16, a model folder, or a Hugging Face RoBERTa's folder. The run is in $OUTPUT_DIR
# (runs/pretraining); called again, it resumes.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() { sed -n '4,5s/^# *//p' "$0" >&2; exit 2; }
[ $# -ge 2 ] || usage
workers=$1 training=$2
shift 2
[[ $workers =~ ^[1-9][0-9]*$ ]] || { echo "run_pretraining_distillation: error: the number of workers must be at least 1, got \"$workers\"" >&2; usage; }

bort=.venv/bin/bort
[ -x "$bort" ] || { echo "run_pretraining_distillation: error: no $bort; run scripts/setup_env.sh first" >&2; exit 2; }
output=${OUTPUT_DIR:-runs/pretraining}

if [ "$training" = TEST ]; then
    output=${OUTPUT_DIR:-runs/test}
    work=$output/input
    [ -d "$work/vocab" ] || "$bort" vocab train --input test_data/corpus/*.txt --output "$work/vocab" --vocab_size 800
    for part in corpus heldout; do
        "$bort" data --input "test_data/$part" --output "$work/$part" --vocab "$work/vocab" --max_seq_length 64
    done
    "$bort" pretrain --model test_data/models/teacher.json --teacher_model none --data "$work/corpus" --vocab "$work/vocab" \
        --output_dir "$work/teacher" --num_steps 60 --batch_size 16 --lr 1e-3 --warmup_ratio 0.3
    options=(--model test_data/models/student.json --teacher_model "$work/teacher/model" --data "$work/corpus" --data_eval "$work/heldout"
        --vocab "$work/vocab" --num_steps 60 --lr 1e-3 --warmup_ratio 0.3 --ckpt_interval 30 "$@")
else
    [ $# -ge 1 ] || usage
    options=(--data "$training" --data_eval "$1" --dataset_name openwebtext_ccnews_stories_books_cased)
    shift
    if [ $# -ge 1 ] && [[ $1 != --* ]]; then
        if [ -d "$1" ]; then options+=(--teacher_model "$1"); else options+=(--teacher_params "$1"); fi
        shift
    fi
    options+=("$@")
fi

gpus=$(.venv/bin/python -c 'import bort.gluon, mxnet; print(mxnet.context.num_gpus())')
if [ "$gpus" -ge "$workers" ]; then
    options+=(--gpu)
elif [ "$gpus" -gt 0 ]; then
    echo "run_pretraining_distillation: error: $workers workers, but MXNet finds $gpus GPUs; start as many workers as GPUs, or fewer" >&2
    exit 2
else
    # Workers that share a machine's cores must not each start a thread for every core.
    cores=$(nproc)
    export OMP_NUM_THREADS=$((cores > workers ? cores / workers : 1))
fi
worker=(.venv/bin/python scripts/run_pretraining_distillation_hvd.py --output_dir "$output" "${options[@]}")
[ "$workers" -gt 1 ] || exec "${worker[@]}"
PATH=$PWD/.venv/bin:$PATH exec horovodrun --gloo -np "$workers" "${worker[@]}"
