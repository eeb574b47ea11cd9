"""Ziegler-Biersack-Littmark repulsion of nuclei at short distance."""

from __future__ import annotations

import torch
from ase.data import covalent_radii
from torch import Tensor, nn

from ase_potnet.models.layers import is_recorded
from ase_potnet.models.local_environment import Environment, Neighbourhoods, of_atoms
from ase_potnet.models.radial import envelope

_COULOMB = 14.399645  # e^2 / 4 pi epsilon_0, eV Å
_BOHR = 0.529177  # Å
_COEFFICIENTS = (0.1818, 0.5099, 0.2802, 0.02817)
_EXPONENTS = (3.2, 0.9423, 0.4028, 0.2016)


class ScreenedNuclearRepulsion(nn.Module):
    """Universal ZBL potential, switched off smoothly where the covalent radii touch.

    Source: J. F. Ziegler, J. P. Biersack, U. Littmark, The Stopping and Range of Ions in Solids (1985).
    """

    radii: Tensor

    def __init__(self, cutoff: float) -> None:
        super().__init__()
        radii = torch.tensor(covalent_radii[:95])
        self.register_buffer("radii", radii.clamp(max=0.5 * cutoff), persistent=False)

    def forward(self, numbers: Tensor, around: Neighbourhoods) -> Tensor:
        """Energy of every atom, half of each pair, eV. (T,)"""
        return around.of_atoms(lambda group: self._energies(numbers, group))

    def _energies(self, numbers: Tensor, env: Environment) -> Tensor:
        """Of the atoms of a group. (t,)"""
        own, radii = of_atoms(numbers, env.receivers), self.radii.to(env.distances)
        end = radii[own][:, None] + radii[numbers][env.senders]  # (t, K), where the repulsion ends, Å
        if is_recorded():
            return _pair_energies(env.distances, end, own[:, None], numbers[env.senders]).sum(1)
        near = torch.nonzero(env.distances < end)  # few, mostly none
        if len(near) == 0:
            return env.distances.new_zeros(len(own))
        i, k = near.unbind(1)
        pairs = _pair_energies(env.distances[i, k], end[i, k], own[i], numbers[env.senders[i, k]])
        return pairs.new_zeros(len(own)).index_add(0, i, pairs)


def _pair_energies(r: Tensor, end: Tensor, z_i: Tensor, z_j: Tensor) -> Tensor:
    """Half the energy of pairs at distance r, zero from ``end`` on, eV."""
    z_i, z_j = z_i.to(r), z_j.to(r)
    x = r * (z_i**0.23 + z_j**0.23) / (0.8854 * _BOHR)
    screening = sum(c * torch.exp(-e * x) for c, e in zip(_COEFFICIENTS, _EXPONENTS, strict=True))
    return 0.5 * _COULOMB * z_i * z_j / r * screening * envelope(r / end)
