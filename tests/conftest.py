"""Settings of every test."""

from __future__ import annotations

import os

import torch

# the systems are tiny: a second thread only waits, and two test processes with two threads each crawl
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"  # of the processes that tests start

# `python -c` in this folder would import the tree, which has no ase_potnet.training, not the installed package
os.environ["PYTHONSAFEPATH"] = "1"
