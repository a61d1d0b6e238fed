#!/usr/bin/env python
"""One Horovod worker of a pre-training run, under the name of the published script; `bort pretrain` is the command behind it."""

import sys

from bort.cli import main

sys.exit(main(["pretrain", *sys.argv[1:]]))
