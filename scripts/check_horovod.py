"""Sums one array over all Horovod processes and fails if the sum is wrong; run by setup_env.sh under ``horovodrun -np 2``."""

import runpy
from pathlib import Path

# The project is not installed yet when this runs, so the aliases are taken by path.
runpy.run_path(str(Path(__file__).parent.parent / "bort" / "gluon" / "numpy_aliases.py"))

import horovod.mxnet as hvd  # noqa: E402
import mxnet as mx  # noqa: E402

hvd.init()
total = hvd.allreduce(mx.nd.array([1.0, hvd.rank()]), average=False, name="check").asnumpy()
expected = [hvd.size(), hvd.size() * (hvd.size() - 1) / 2]
if hvd.size() != 2 or total.tolist() != expected:
    raise SystemExit(f"rank {hvd.rank()} of {hvd.size()}: all-reduce gave {total.tolist()}, expected {expected}")
