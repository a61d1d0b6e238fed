"""The MXNet engine: the only room that imports MXNet, GluonNLP and Horovod.

Importing it restores the NumPy names that MXNet needs and tells OpenBLAS its processor, so ``import bort.gluon`` (or any name that ``bort``
takes from here) must come before the first ``import mxnet`` of a program.
"""

from bort.gluon import numpy_aliases, openblas  # noqa: F401

openblas.choose_core_type()
