#!/usr/bin/env bash
# Sets up, then runs the whole of Bort at toy size on test_data/: vocabulary → shards → a RoBERTa teacher trained on the spot → a Bort
# distilled from it on two Horovod workers, and one trained without its help → fine-tuning → leaderboard files → a table and plots.
# Two cores, 4 GB, under four minutes after set-up. Output: runs/quickstart/, or the folder given as the first argument.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

scripts/setup_env.sh
run=${1:-runs/quickstart}
bort=.venv/bin/bort
if [ -e "$run" ] && [ ! -e "$run/.quickstart" ]; then
    echo "quickstart: error: $run exists and no quick start made it; give another folder" >&2
    exit 2
fi
rm -rf "$run"
mkdir -p "$run"
touch "$run/.quickstart"
step() { printf '\n── %s (%d s)\n' "$*" "$SECONDS"; }

# Models of this size are trained fastest by one thread: a second one mostly waits for the first.
export OMP_NUM_THREADS=1
workers() { PATH=$PWD/.venv/bin:$PATH horovodrun --gloo -np 2 "$@"; }

step "Vocabulary: a byte-level BPE of 800 tokens"
"$bort" vocab train --input test_data/corpus/*.txt --output "$run/vocab" --vocab_size 800

step "Shards: whole sentences packed to 64 tokens"
"$bort" data --input test_data/corpus --output "$run/shards" --vocab "$run/vocab" --max_seq_length 64 --num_outputs 2
"$bort" data --input test_data/heldout --output "$run/heldout" --vocab "$run/vocab" --max_seq_length 64

common=(--data "$run/shards" --data_eval "$run/heldout" --vocab "$run/vocab" --warmup_ratio 0.3 --log_interval 20 --eval_interval 60)

step "Teacher: RoBERTa of two layers, masked language modelling"
"$bort" pretrain --model test_data/models/teacher.json --teacher_model none --output_dir "$run/teacher" "${common[@]}" \
    --num_steps 600 --batch_size 16 --lr 1e-3

student=(--model test_data/models/student.json "${common[@]}" --num_steps 300 --batch_size 8 --lr 1e-3)
step "Student: Bort of two layers, distilled on two workers"
workers "$bort" pretrain --teacher_model "$run/teacher/model" --output_dir "$run/distilled" "${student[@]}"
step "The same student without a teacher, for comparison"
workers "$bort" pretrain --teacher_model none --output_dir "$run/alone" "${student[@]}"

for task in RTE SST-2; do
    step "Fine-tuning on $task-format rows"
    "$bort" finetune --task "$task" --model "$run/distilled/model" --data_root test_data --output_dir "$run/finetune/$task" \
        --epochs 12 --batch_size 16 --lr 1e-3 --early_stop 0
done

step "Predicting once more, from the checkpoint on disk"
"$bort" predict --checkpoint "$run/finetune/RTE/best" --task RTE --data_root test_data --output "$run/predictions"
cmp "$run/predictions/RTE.tsv" "$run/finetune/RTE/predictions/RTE.tsv"

step "Summary"
.venv/bin/python scripts/quickstart_report.py "$run"
printf '\ndone in %d s\n' "$SECONDS"
