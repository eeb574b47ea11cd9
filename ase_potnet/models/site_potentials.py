"""The complete channel: latent sources of the atoms and their infinite lattice sums."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ase_potnet.graph import AtomsBatch
from ase_potnet.lattice import Coulomb, London, Pauli, site_sums
from ase_potnet.models.local_environment import Environment

N_POTENTIALS = 3


class SourceFlow(nn.Module):
    """Sources of the atoms; those of the Coulomb potential flow along edges, so that they cancel in every fragment.

    q_i = sum_j w(r_ij) (a_j - a_i) sums to zero over any group of atoms without neighbours outside it, and vanishes
    for an isolated atom. Sources of London and Pauli potentials are functions of the atom.
    """

    def __init__(self, width: int, n_radial: int, n_sources: int) -> None:
        super().__init__()
        self.n_sources, self.n_radial = n_sources, n_radial
        self.donors = nn.Linear(width, n_sources, bias=False)
        self.weights = nn.Parameter(torch.randn(n_radial, n_sources) * n_radial**-0.5)
        self.sources = nn.Linear(width, (N_POTENTIALS - 1) * n_sources)

    def forward(self, scalars: Tensor, env: Environment) -> Tensor:
        """(T, C) -> (T, n_sources, 3)"""
        a = self.donors(scalars)  # (T, Q)
        messages = env.along_edges(a, 0) - a[:, None]  # (T, K, Q)
        charges = torch.einsum("tkn,nq,tkq->tq", env.radial, self.weights, messages) * 0.1
        others = self.sources(scalars).view(-1, self.n_sources, N_POTENTIALS - 1)
        return torch.cat((charges[..., None], others), dim=2)


class SitePotentials(nn.Module):
    """Coulomb, London and Pauli potentials of latent sources, each source in its own potential."""

    def __init__(self, n_sources: int, alpha: float, tolerance: float, fields: bool) -> None:
        super().__init__()
        self.potentials = (Coulomb(), London(), Pauli(alpha))
        self.tolerance, self.fields = tolerance, fields
        # typical sums at 2.5 Å: about 0.4, 0.02 and 0.005
        self.register_buffer("scale", torch.tensor([1.0, 20.0, 100.0]), persistent=False)
        self.strength = nn.Parameter(torch.zeros(n_sources, N_POTENTIALS))

    def forward(self, sources: Tensor, atoms: AtomsBatch) -> tuple[Tensor, Tensor]:
        """Potentials (T, 3 n_sources) and energies, half of source times potential (T,). sources: (T, Q, 3)"""
        n_atoms, n_sources, _ = sources.shape
        sums = site_sums(
            sources.reshape(n_atoms, -1),
            atoms.positions,
            atoms.cell,
            self.potentials,
            pbc=atoms.pbc,
            tolerance=self.tolerance,
            batch=atoms.batch,
        )  # (T, Q · 3, 3)
        assert isinstance(sums, Tensor)
        own = sums.view(n_atoms, n_sources, N_POTENTIALS, N_POTENTIALS).diagonal(dim1=2, dim2=3)  # (T, Q, 3)
        own = own * self.scale.to(own)
        energies = 0.5 * (self.strength * sources * own).sum((1, 2))
        return own.reshape(n_atoms, -1), energies
