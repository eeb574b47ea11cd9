"""Speed of the main calls under pytest-benchmark: `pytest benchmarks -n 0 --benchmark-only`."""

from __future__ import annotations

import pytest
import torch
from lattice import POTENTIALS, crystal, distortions, gradient_call

from ase_potnet.lattice import Coulomb, London, Pauli, pair_sums, site_sums
from ase_potnet.lattice.plan import forget_plans


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    forget_plans()
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize(("n", "batch"), [(10, 1), (10, 64), (20, 32), (40, 16), (80, 8)])
def test_pair_sums(benchmark, n, batch):
    positions, cell = distortions(n, batch)
    benchmark(lambda: pair_sums(positions, cell, POTENTIALS))


@pytest.mark.parametrize(("n", "batch"), [(10, 64), (80, 8)])
def test_pair_sums_with_gradients(benchmark, n, batch):
    positions, cell = distortions(n, batch)
    benchmark(lambda: gradient_call(positions, cell, 1e-8))


@pytest.mark.parametrize("n", [20, 160, 640])
@pytest.mark.parametrize("channels", [1, 64])
def test_site_sums(benchmark, n, channels):
    positions, cell = crystal(n, torch.Generator().manual_seed(n))
    sources = torch.randn(n, channels, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    benchmark(lambda: site_sums(sources, positions, cell, (Coulomb(), London(), Pauli(3.0))))
