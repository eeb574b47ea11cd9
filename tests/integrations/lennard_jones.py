"""A potential whose phonons are known: Lennard-Jones, the same for all elements, as ASE's with smooth=True.

``register`` makes it known to ``build_model``, so that it can be saved and loaded.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from ase.calculators.lj import LennardJones
from torch import Tensor, nn

from ase_potnet.graph import AtomsBatch, Edges, local_edges
from ase_potnet.models import registry
from ase_potnet.pretrained import save_model

NAME = "lennard-jones-solid"


@dataclass(frozen=True)
class Config:
    sigma: float = 3.0  # Å
    epsilon: float = 0.05  # eV
    onset: float = 4.5  # Å
    cutoff: float = 6.5  # Å


class LennardJonesSolid(nn.Module):
    Config = Config

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, atoms: AtomsBatch, edges: Edges | None = None) -> Tensor:
        c = self.config
        edges = local_edges(atoms, c.cutoff) if edges is None else edges
        r2 = edges.vectors(atoms).square().sum(1)
        x6 = (c.sigma**2 / r2) ** 3
        cut2, onset2 = c.cutoff**2, c.onset**2
        switch = (cut2 - r2) ** 2 * (cut2 + 2 * r2 - 3 * onset2) / (cut2 - onset2) ** 3
        pairs = 4 * c.epsilon * (x6 * x6 - x6) * torch.where(r2 < onset2, 1.0, switch)
        energies = pairs.new_zeros(len(atoms.numbers)).index_add(0, edges.receiver, 0.5 * pairs)
        return energies * self.scale

    def set_tolerance(self, tolerance: float) -> None:
        """There is no lattice sum."""


def register() -> None:
    sys.modules["potnet_lennard_jones"] = sys.modules[__name__]
    registry._CLASSES[NAME] = ("potnet_lennard_jones", "LennardJonesSolid")


def model() -> LennardJonesSolid:
    return LennardJonesSolid(Config()).double()


def save(folder: Path) -> Path:
    register()
    return save_model(model(), folder, task="energy")


def ase_calculator() -> LennardJones:
    c = Config()
    return LennardJones(sigma=c.sigma, epsilon=c.epsilon, rc=c.cutoff, ro=c.onset, smooth=True)
