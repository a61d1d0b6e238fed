#!/usr/bin/env bash
# Makes .venv with everything Bort needs: pinned Python packages, Horovod built for MXNet with Gloo, and this project, editable.
# Needs Linux x86-64, Python 3.10–3.12 with pip and headers, and a C++ compiler. About four minutes on two cores the first time (most of it
# Horovod's build), seconds afterwards. Set PYTHON to choose the interpreter.
# --peers: also what the optional extras and their tests need (requirements-peers.txt); Python 3.11 or 3.12.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

venv=.venv
horovod=horovod==0.28.1
peers=
oldest=10  # the first minor version of Python 3 that will do
case ${1:-} in
    "") ;;
    --peers) peers=yes oldest=11 ;;
    *) echo "setup_env: error: $1 is not an option; the only one is --peers" >&2; exit 2 ;;
esac

fail() { echo "setup_env: error: $*" >&2; exit 2; }
say() { echo "setup_env: $*"; }

python_will_do() { "$1" -c "import sys; raise SystemExit(not (3, $oldest) <= sys.version_info[:2] <= (3, 12))" 2>/dev/null; }

find_python() {
    for candidate in ${PYTHON:-python3 python3.12 python3.11 python3.10}; do
        if python_will_do "$candidate"; then
            echo "$candidate"; return
        fi
    done
    fail "no Python 3.$oldest to 3.12 found${PYTHON:+ at $PYTHON}; install one, or name it: PYTHON=/path/to/python3.11 $0${peers:+ --peers}"
}

# What was installed is described by these files; a second run with the same ones has nothing to do.
fingerprint() {
    { "$venv/bin/python" --version; echo "$horovod"; cat requirements.txt setup.py; } | sha256sum | cut -d' ' -f1
}
peers_fingerprint() { { fingerprint; cat requirements-peers.txt; } | sha256sum | cut -d' ' -f1; }

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

install() {
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
}

install_peers() {
    python_will_do "$venv/bin/python" \
        || fail "requirements-peers.txt needs Python 3.11 or 3.12, $venv has $("$venv/bin/python" --version); remove $venv, then: PYTHON=python3.11 $0 --peers"
    say "installing what the optional extras and their tests need (requirements-peers.txt)"
    "$venv/bin/pip" install -qq -r requirements-peers.txt -c requirements.txt
    peers_fingerprint >"$venv/bort-peers-fingerprint"
    say "done: the extras"
}

if [ "$(cat "$venv/bort-fingerprint" 2>/dev/null)" = "$(fingerprint)" ]; then say "$venv is up to date"; else install; fi
[ -n "$peers" ] || exit 0
if [ "$(cat "$venv/bort-peers-fingerprint" 2>/dev/null)" = "$(peers_fingerprint)" ]; then say "the extras are up to date"; else install_peers; fi
