"""The MXNet engine: the only room that imports MXNet, GluonNLP and Horovod.

Importing it restores the NumPy names that MXNet needs, tells OpenBLAS its processor and makes OMP_NUM_THREADS one number, so
``import bort.gluon`` (or any name that ``bort`` takes from here) must come before the first ``import mxnet`` of a program.
"""

import os

from bort.gluon import numpy_aliases, openblas  # noqa: F401
from bort.machine import num_threads

if os.environ.get("OMP_NUM_THREADS", "").strip(" +-0123456789"):
    # OpenMP takes a list, with a number for each level of nested regions. MXNet, which nests none, would abort the process.
    os.environ["OMP_NUM_THREADS"] = str(num_threads())

openblas.choose_core_type()
