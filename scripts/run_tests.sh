#!/usr/bin/env bash
# Sets up and checks everything: style, layers, types, then the tests with coverage. Two cores: under ten minutes after set-up.
# With --peers first, what the optional extras need (requirements-peers.txt: PyTorch, Transformers, ONNX, OpenVINO, Ray …) is installed into
# .venv too, so that their tests run; without it, those of packages that are not there are skipped.
# Further arguments go to pytest, which then runs in one process: scripts/run_tests.sh --peers tests/export -k golden.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

extras=()
if [ "${1:-}" = --peers ]; then
    extras=(--peers)
    shift
fi
scripts/setup_env.sh "${extras[@]}"
bin=.venv/bin
echo "── ruff"; "$bin/ruff" check .; "$bin/ruff" format --check .
echo "── layers"; "$bin/lint-imports"
echo "── types"; "$bin/mypy"
echo "── tests"
if [ $# -eq 0 ]; then
    set -- -n 2 --dist loadfile --no-loadscope-reorder
    # Two processes have two cores: a second thread of each would wait for the other's.
    export OMP_NUM_THREADS=1
fi
exec "$bin/python" -m pytest --cov --cov-report=term --durations=15 "$@"
