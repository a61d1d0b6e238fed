#!/usr/bin/env bash
# Sets up and checks everything: style, layers, types, then the tests with coverage. Two cores: under ten minutes after set-up.
# Arguments go to pytest, which then runs in one process: scripts/run_tests.sh tests/gluon -k golden.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

scripts/setup_env.sh
bin=.venv/bin
echo "── ruff"; "$bin/ruff" check .; "$bin/ruff" format --check .
echo "── layers"; "$bin/lint-imports"
echo "── types"; "$bin/mypy"
echo "── tests"
[ $# -gt 0 ] || set -- -n 2 --dist loadfile --no-loadscope-reorder
exec "$bin/python" -m pytest --cov --cov-report=term --durations=15 "$@"
