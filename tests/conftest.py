"""Settings of every test."""

from __future__ import annotations

import os

import torch

# the systems are tiny: a second thread only waits, and two test processes with two threads each crawl
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"  # of the processes that tests start

# These must import the installed package, not the tree of the current folder, which has no ase_potnet.training:
# pytest-xdist leaves an empty entry, the current folder, in PYTHONPATH, and `python -c` adds it, too.
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep)))
if not os.environ["PYTHONPATH"]:
    del os.environ["PYTHONPATH"]
os.environ["PYTHONSAFEPATH"] = "1"
