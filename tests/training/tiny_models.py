"""Models of a few dozen weights, known to `build_model` once `register` has been called."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ase_potnet.graph import AtomsBatch, local_edges
from ase_potnet.models import registry
from ase_potnet.models.scaling import TargetScaling, composition

PROPERTY, ENERGY = "tiny-property", "tiny-energy"


@dataclass(frozen=True)
class PropertyConfig:
    n_targets: int = 1
    width: int = 6
    dropout: float = 0.1


class TinyProperty(nn.Module):
    """Mean over atoms of a network of the element and the volume per atom."""

    Config = PropertyConfig

    def __init__(self, config: PropertyConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(119, config.width)
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Sequential(
            nn.Linear(config.width + 1, config.width), nn.SiLU(), nn.Linear(config.width, config.n_targets)
        )
        self.scaling = TargetScaling(config.n_targets)

    def forward(self, atoms: AtomsBatch) -> Tensor:
        volume = torch.linalg.det(atoms.cell).abs() / atoms.n_atoms / 20
        x = torch.cat([self.dropout(self.embedding(atoms.numbers)), volume[atoms.batch, None]], dim=1)
        outputs = self.head(x)
        total = outputs.new_zeros(atoms.n_structures, outputs.shape[1]).index_add(0, atoms.batch, outputs)
        return self.scaling.restore(total / atoms.n_atoms[:, None].to(total), composition(atoms))


@dataclass(frozen=True)
class EnergyConfig:
    width: int = 4
    cutoff: float = 4.0


class TinyEnergy(nn.Module):
    """Σ over neighbours of a polynomial of their distance, coefficients by element, and element references."""

    Config = EnergyConfig

    def __init__(self, config: EnergyConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(119, config.width)
        self.references = nn.Parameter(torch.zeros(119))
        self.energy_scale = 1.0

    def set_references(self, references: Tensor, energy_scale: float, elements: Tensor) -> None:
        self.energy_scale = energy_scale
        with torch.no_grad():
            self.references.copy_(torch.where(elements, references, 0.0))

    def forward(self, atoms: AtomsBatch) -> Tensor:
        edges = local_edges(atoms, self.config.cutoff)
        distance = edges.vectors(atoms).norm(dim=1)
        powers = torch.stack([(1 - distance / self.config.cutoff) ** (k + 2) for k in range(self.config.width)], dim=1)
        kinds = self.embedding(atoms.numbers)
        pairs = (kinds[edges.receiver] * kinds[edges.sender] * powers).sum(1)
        energies = pairs.new_zeros(len(atoms.numbers)).index_add(0, edges.receiver, pairs)
        return energies + self.references.to(energies)[atoms.numbers]


def register() -> None:
    """Make both known to `build_model` of this process."""
    sys.modules["potnet_tiny_models"] = sys.modules[__name__]
    registry._CLASSES[PROPERTY] = ("potnet_tiny_models", "TinyProperty")
    registry._CLASSES[ENERGY] = ("potnet_tiny_models", "TinyEnergy")
