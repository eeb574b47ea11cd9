"""A fast potential: the Lennard-Jones pair, smooth at its end, the same for all elements from 1 to 94."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ase_potnet.graph import AtomsBatch, Edges, local_edges
from ase_potnet.models import registry
from ase_potnet.pretrained import save_model

NAME = "pair-model"


@dataclass(frozen=True)
class Config:
    sigma: float = 2.6  # Å
    epsilon: float = 0.1  # eV
    cutoff: float = 5.5  # Å


class PairModel(nn.Module):
    Config = Config

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, atoms: AtomsBatch, edges: Edges | None = None) -> Tensor:
        if int(atoms.numbers.max()) > 94:
            raise ValueError(f"atoms must hold the elements 1 to 94, got number {int(atoms.numbers.max())}")
        c = self.config
        edges = local_edges(atoms, c.cutoff) if edges is None else edges
        r2 = edges.vectors(atoms).square().sum(1)
        x6 = (c.sigma**2 / r2) ** 3
        smooth = (1 - r2 / c.cutoff**2) ** 3
        pairs = 2 * c.epsilon * (x6 * x6 - x6) * smooth
        energies = pairs.new_zeros(len(atoms.numbers)).index_add(0, edges.receiver, pairs)
        return energies * self.scale

    def set_tolerance(self, tolerance: float) -> None:
        """There is no lattice sum."""


def register() -> None:
    sys.modules["potnet_pair_model"] = sys.modules[__name__]
    registry._CLASSES[NAME] = ("potnet_pair_model", "PairModel")


def save(folder: Path) -> Path:
    register()
    return save_model(PairModel(Config()), folder, task="energy")
