"""torch-pme as a peer: its EwaldCalculator at the best splitting that reaches a given accuracy."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
import torchpme
from torch import Tensor
from vesin import NeighborList


def ewald_call(
    sources: Tensor, positions: Tensor, cell: Tensor, exponent: int, smearing: float, reach: float
) -> Callable[[], Tensor]:
    """One evaluation of P_i = sum_j S_ij q_j of 1/r^exponent, neighbour list and wave vectors included.

    reach: cut-offs in units of the smearing, sqrt(2) times the argument of the Gaussian that is left out.
    torch-pme's grid of wave vectors covers half the range that lr_wavelength suggests, so pi / k_max is passed.
    """
    if exponent == 1:
        potential = torchpme.CoulombPotential(smearing=smearing)
    else:
        potential = torchpme.InversePowerLawPotential(exponent=exponent, smearing=smearing)
    calculator = torchpme.EwaldCalculator(
        potential, lr_wavelength=math.pi * smearing / reach, full_neighbor_list=False
    ).double()
    search = NeighborList(cutoff=reach * smearing, full_list=False)
    points, box = positions.detach().numpy(), cell.detach().numpy()

    def call() -> Tensor:
        i, j, distance = search.compute(points=points, box=box, periodic=True, quantities="ijd")
        pairs = torch.from_numpy(np.stack((i, j), axis=1).astype(np.int64))
        return 2 * calculator(sources, cell, positions, pairs, torch.from_numpy(distance))

    return call


def smearings(n_atoms: int, volume: float) -> list[float]:
    """Splittings to try, around the optimum for N^1.5 scaling."""
    centre = volume ** (1 / 3) / n_atoms ** (1 / 6) / math.sqrt(2 * math.pi)
    return [centre * factor for factor in (0.5, 0.63, 0.8, 1.0, 1.26, 1.6)]
