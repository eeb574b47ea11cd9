"""EquivariantProperties: the backbone of EquivariantPotNet with a head for intensive properties."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ase_potnet.graph import AtomsBatch, Edges
from ase_potnet.models.equivariant_potnet import EquivariantPotNet, EquivariantPotNetConfig
from ase_potnet.models.layers import mean_over_atoms, mlp
from ase_potnet.models.local_environment import Places
from ase_potnet.models.scaling import TargetScaling, composition


@dataclass(frozen=True)
class EquivariantPropertiesConfig(EquivariantPotNetConfig):
    """Those of the backbone, and

    n_targets: numbers predicted for every structure
    """

    n_targets: int = 1


class EquivariantProperties(EquivariantPotNet):
    """Properties of crystals from the features and the energy of an interatomic potential.

    Parameters of the backbone have the names that they have in EquivariantPotNet, so that a training can start from a
    potential (``model.start_from`` in a recipe). ``forward`` returns (B, n_targets) in the units of the targets.
    """

    Config = EquivariantPropertiesConfig

    def __init__(self, config: EquivariantPropertiesConfig) -> None:
        super().__init__(config)
        width, n_targets = config.width, config.n_targets
        self.norm = nn.LayerNorm(width)
        self.atom_head = mlp(width, 2 * width, n_targets)
        self.head = mlp(width, 2 * width, n_targets)
        self.from_energy = nn.Linear(1, n_targets, bias=False)
        nn.init.zeros_(self.from_energy.weight)
        self.scaling = TargetScaling(n_targets)

    def forward(self, atoms: AtomsBatch, edges: Edges | Places | None = None) -> Tensor:
        """Predictions in physical units. (B, n_targets)"""
        scalars, energies, _ = self.features(atoms, self.places(atoms, edges))
        scalars = self.norm(scalars)
        parts = torch.cat((scalars, self.atom_head(scalars), energies[:, None]), dim=1)
        pooled = mean_over_atoms(parts, atoms.batch, atoms.n_structures)
        features, outputs, energy = pooled.split((self.config.width, self.scaling.mean.shape[0], 1), dim=1)
        total = outputs + self.head(features) + self.from_energy(energy)
        return self.scaling.restore(total, composition(atoms))
