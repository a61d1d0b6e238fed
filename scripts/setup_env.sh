#!/usr/bin/env bash
# Makes .venv with everything Bort needs: pinned Python packages, Horovod built for MXNet with Gloo, and this project, editable.
# Needs Linux x86-64, Python 3.10–3.12 with pip and headers, and a C++ compiler. About four minutes on two cores the first time (most of it
# Horovod's build), seconds afterwards. Set PYTHON to choose the interpreter.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

venv=.venv
horovod=horovod==0.28.1

fail() { echo "setup_env: error: $*" >&2; exit 2; }
say() { echo "setup_env: $*"; }

find_python() {
    for candidate in ${PYTHON:-python3 python3.12 python3.11 python3.10}; do
        if "$candidate" -c 'import sys; raise SystemExit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null; then
            echo "$candidate"; return
        fi
    done
    fail "no Python 3.10, 3.11 or 3.12 found${PYTHON:+ at $PYTHON}; install one, or name it: PYTHON=/path/to/python3.11 $0"
}

# What was installed is described by these files; a second run with the same ones has nothing to do.
fingerprint() {
    { "$venv/bin/python" --version; echo "$horovod"; cat requirements.txt setup.py; } | sha256sum | cut -d' ' -f1
}

build_horovod() {
    command -v c++ >/dev/null || fail "no C++ compiler (c++); install g++ or clang"
    local log=$venv/horovod-build.log
    say "building $horovod for MXNet with Gloo (one to two minutes; log: $log)"
    PATH=$(pwd_of "$venv/bin"):$PATH MAKEFLAGS=-j$(nproc) \
        HOROVOD_WITH_MXNET=1 HOROVOD_WITH_GLOO=1 HOROVOD_WITHOUT_MPI=1 HOROVOD_WITHOUT_PYTORCH=1 HOROVOD_WITHOUT_TENSORFLOW=1 \
        "$venv/bin/pip" install --no-build-isolation --no-deps --no-cache-dir --force-reinstall "$horovod" >"$log" 2>&1 \
        || { tail -n 40 "$log" >&2; fail "Horovod did not build; the whole log is $log"; }
}

horovod_is_built() {
    [ "$("$venv/bin/pip" show horovod 2>/dev/null | sed -n 's/^Version: //p')" = "${horovod#*==}" ] || return 1
    built=$("$venv/bin/horovodrun" --check-build 2>&1) && grep -q '\[X\] MXNet' <<<"$built" && grep -q '\[X\] Gloo' <<<"$built"
}

check_horovod() {
    horovod_is_built || fail "Horovod is here but without MXNet or Gloo; horovodrun --check-build says: ${built:-nothing}"
    local log=$venv/horovod-check.log
    PATH=$(pwd_of "$venv/bin"):$PATH OMP_NUM_THREADS=1 "$venv/bin/horovodrun" -np 2 --gloo "$venv/bin/python" scripts/check_horovod.py \
        >"$log" 2>&1 || { tail -n 20 "$log" >&2; fail "an all-reduce over two Horovod processes failed; the whole log is $log"; }
    say "Horovod: MXNet and Gloo built in, an all-reduce over two processes gives the sum"
}

pwd_of() { (cd "$1" && pwd); }

if [ ! -x "$venv/bin/python" ]; then
    python=$(find_python)
    say "making $venv with $("$python" --version)"
    "$python" -m venv "$venv" || { rm -rf "$venv"; fail "$python cannot make a virtual environment; on Debian: apt-get install python3-venv python3-dev"; }
fi
if [ "$(cat "$venv/bort-fingerprint" 2>/dev/null)" = "$(fingerprint)" ]; then
    say "$venv is up to date"
    exit 0
fi

say "installing pinned packages"
# GluonNLP builds against what is already installed, so its tools come first and its build is not isolated.
"$venv/bin/pip" install -qq $(grep -oE '^(pip|setuptools|wheel|Cython|numpy)==[^ ]+' requirements.txt)
"$venv/bin/pip" install -qq --no-build-isolation -r requirements.txt
# Horovod's build and its launcher import MXNet in processes of their own, so every process of this environment restores the NumPy names.
ln -sfn "$PWD/bort/gluon/numpy_aliases.py" "$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/sitecustomize.py"
horovod_is_built || build_horovod
check_horovod
"$venv/bin/pip" install -qq --no-build-isolation --no-deps --editable .
# The first training run would compile them otherwise.
"$venv/bin/python" -m bort.gluon.kernels >/dev/null || fail "the CPU kernels of bort/gluon/kernels.cc do not compile; see the message above"
fingerprint >"$venv/bort-fingerprint"
say "done: $venv/bin/bort"
