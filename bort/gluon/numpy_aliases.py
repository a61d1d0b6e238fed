"""Restores the NumPy names that MXNet 1.9.1 asks for while it is imported.

NumPy 1.24 removed ``np.bool`` and its siblings, which only ever meant Python's own types; MXNet still uses them. Import this module
before MXNet; importing ``bort.gluon`` does. ``scripts/setup_env.sh`` also links it into the environment as ``sitecustomize``, because
Horovod's build and its launcher, ``horovodrun``, import MXNet in processes of their own.
"""

import numpy

for _type in (bool, object, float, int, str, complex):
    # Looking into __dict__ avoids NumPy's __getattr__, which warns about each of these names.
    if _type.__name__ not in numpy.__dict__:
        setattr(numpy, _type.__name__, _type)
