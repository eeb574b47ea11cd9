"""Ziegler-Biersack-Littmark repulsion of nuclei at short distance."""

from __future__ import annotations

import torch
from ase.data import covalent_radii
from torch import Tensor, nn

from ase_potnet.models.local_environment import Environment
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

    def forward(self, numbers: Tensor, env: Environment) -> Tensor:
        """Energy of every atom, half of each pair, eV. (T,)"""
        r = env.distances
        radii = self.radii.to(r)[numbers]  # (T,)
        end = radii[:, None] + radii[env.senders]
        near = torch.nonzero(r < end)  # few, mostly none
        if len(near) == 0:
            return r.new_zeros(len(numbers))
        i, k = near.unbind(1)
        j = env.senders[i, k]
        r, end = r[i, k], end[i, k]
        z_i, z_j = numbers[i].to(r), numbers[j].to(r)
        x = r * (z_i**0.23 + z_j**0.23) / (0.8854 * _BOHR)
        screening = sum(c * torch.exp(-e * x) for c, e in zip(_COEFFICIENTS, _EXPONENTS, strict=True))
        pairs = 0.5 * _COULOMB * z_i * z_j / r * screening * envelope(r / end)
        return pairs.new_zeros(len(numbers)).index_add(0, i, pairs)
