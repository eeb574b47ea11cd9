"""Settings of every test."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
import torch

from ase_potnet.models import build_model

# the systems are tiny: a second thread only waits, and two test processes with two threads each crawl
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"  # of the processes that tests start

# `python -c` in this folder would import the tree, which has no ase_potnet.training, not the installed package
os.environ["PYTHONSAFEPATH"] = "1"


@pytest.fixture(scope="session")
def random_network() -> Callable[..., Any]:
    """Makes a network of a registered name with options, in float64, no parameter zero."""

    def make(name: str, **options: object) -> Any:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = build_model(name, options).double()
            with torch.no_grad():
                for parameter in model.parameters():
                    if not parameter.any():
                        parameter.normal_()
        return model

    return make
