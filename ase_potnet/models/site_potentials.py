"""The complete channel: latent sources of the atoms and their infinite lattice sums."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ase_potnet.graph import AtomsBatch
from ase_potnet.lattice import Coulomb, London, Pauli, site_sums
from ase_potnet.models.local_environment import Environment, Neighbourhoods, of_atoms

N_POTENTIALS = 3


class Sources(nn.Module):
    """Latent sources of the atoms for the three potentials; those of the Coulomb potential shall sum to zero.

    neutral="flow": charges flow along local edges, q_i = sum_j w(r_ij) (a_j - a_i), so that they sum to zero over every
    fragment, however far from others, and vanish for an isolated atom. neutral="mean": charges are functions of
    the atom; the model takes their mean over the structure off. Ions far apart keep theirs.
    """

    def __init__(self, width: int, n_radial: int, n_sources: int, neutral: str, unbounded: bool = False) -> None:
        super().__init__()
        self.n_sources, self.neutral, self.unbounded = n_sources, neutral, unbounded
        self.donors = nn.Linear(width, n_sources, bias=False)
        if neutral == "flow":
            self.weights = nn.Parameter(torch.randn(n_radial, n_sources) * n_radial**-0.5)
        self.sources = nn.Linear(width, (N_POTENTIALS - 1) * n_sources)

    def forward(self, scalars: Tensor, around: Neighbourhoods) -> Tensor:
        """(T, C) -> (T, n_sources, 3)"""
        charges = self.donors(scalars)  # (T, Q)
        if self.neutral == "flow":
            donated = charges
            charges = around.of_atoms(lambda group: self._flow(donated, group))
        others = self.sources(scalars).view(-1, self.n_sources, N_POTENTIALS - 1)
        if not self.unbounded:
            others = bounded(others)
        return torch.cat((charges[..., None], others), dim=2)

    def _flow(self, donated: Tensor, env: Environment) -> Tensor:
        """Charges that flow to atoms. (T, Q) -> (t, Q)"""
        messages = env.at_neighbours(donated) - of_atoms(donated, env.receivers)[:, None]  # (t, K, Q)
        return ((env.radial @ (0.1 * self.weights)) * messages).sum(1)


@dataclass(frozen=True)
class CompletePotentials:
    """What the complete channel says of every atom.

    potentials: (T, 3 Q) invariants, bounded
    fields: (T, 3, 3 Q) vectors, or None
    energies: (T,) half of source times potential
    """

    potentials: Tensor
    fields: Tensor | None
    energies: Tensor


class SitePotentials(nn.Module):
    """Coulomb, London and Pauli potentials of latent sources, each source in its own potential.

    What an atom sees of them is bounded, its London energy, too, and London attracts and Pauli repels atoms with equal
    sources, whatever is learned: else sources that grow with the density make compressed metals collapse. Weak
    potentials, those of distant atoms, stay linear. ``unbounded`` leaves all that out, as weights of before want it.
    """

    is_london: Tensor

    def __init__(
        self, n_sources: int, alpha: float, tolerance: float | None, fields: bool, unbounded: bool = False
    ) -> None:
        super().__init__()
        self.unbounded = unbounded
        self.potentials = (Coulomb(), London(), Pauli(alpha))
        self.tolerance, self.fields = tolerance, fields
        # to order one: typical sums at 2.5 Å are 0.4, 0.02 and 0.005
        self.register_buffer("scale", torch.tensor([1.0, 20.0, 100.0]), persistent=False)
        self.register_buffer("is_london", torch.tensor([False, True, False]), persistent=False)
        self.strength = nn.Parameter(torch.tensor([0.0, 0.01, 0.01]).repeat(n_sources, 1))

    def forward(self, sources: Tensor, atoms: AtomsBatch, around: Neighbourhoods | None = None) -> CompletePotentials:
        """sources: (T, Q, 3). around: see ``of_sums``"""
        found = site_sums(
            sources.reshape(len(sources), -1),
            atoms.positions,
            atoms.cell,
            self.potentials,
            pbc=atoms.pbc,
            tolerance=self.tolerance,
            field=self.fields,
            batch=atoms.batch,
        )  # (T, Q · 3, 3) and (T, Q · 3, 3, 3)
        sums, fields = found if isinstance(found, tuple) else (found, None)
        of_sources = None if fields is None else _own(fields, sources)
        return self.of_sums(sources, _own(sums, sources), of_sources, around)

    def of_sums(
        self, sources: Tensor, sums: Tensor, fields: Tensor | None = None, around: Neighbourhoods | None = None
    ) -> CompletePotentials:
        """The same from sources (T, Q, 3), their own sums (T, Q, 3) and fields (T, 3, Q, 3).

        around: if given, an atom sees the difference of its Coulomb potential to those of its neighbours, not the
        potential itself, which a layer with a net dipole shifts beyond itself at any distance.
        """
        scale = self.get_buffer("scale").to(sources)
        potentials = sums * scale
        if fields is not None:
            fields = (fields * scale).flatten(2)
        if self.unbounded:
            energies = 0.5 * (self.strength * sources * potentials).sum((1, 2))
            return CompletePotentials(potentials.flatten(1), fields, energies)
        differences = potentials
        if around is not None:
            coulomb = around.of_atoms(lambda group: group.less_neighbours(potentials[..., 0]))
            differences = torch.cat((coulomb[..., None], potentials[..., 1:]), dim=2)
        seen = bounded(differences)
        coulomb, london, pauli = self.strength.unbind(1)
        strengths = torch.stack((coulomb, -london.abs(), pauli.abs()), dim=1)
        energies = 0.5 * (strengths * sources * torch.where(self.is_london, seen, potentials)).sum((1, 2))
        return CompletePotentials(seen.flatten(1), fields, energies)


def bounded(values: Tensor) -> Tensor:
    """Values well below 10 as they are, no result beyond: x / √(1 + x²/100)."""
    return values * torch.rsqrt(1 + 0.01 * values * values)


def _own(sums: Tensor, sources: Tensor) -> Tensor:
    """The potential that belongs to each source. (T, Q · 3, 3, ...) -> (T, ..., Q, 3)"""
    return sums.view(*sources.shape, *sums.shape[2:]).diagonal(dim1=2, dim2=3).movedim(1, -2)
