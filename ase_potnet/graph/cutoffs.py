"""Distances up to which atoms are neighbours."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from ase.data import chemical_symbols
from numpy.typing import NDArray
from torch import Tensor

from ase_potnet.checks import is_finite
from ase_potnet.graph.atoms_batch import AtomsBatch


@dataclass(frozen=True)
class PairCutoffs:
    """Cut-offs that grow with the atoms: max(shortest, reach_i + reach_j).

    shortest: Å
    reach: (n_elements,) by atomic number, Å
    """

    shortest: float
    reach: Tensor

    @classmethod
    def of(cls, cutoff: float | PairCutoffs) -> PairCutoffs:
        """The same for all pairs from a number of Å. Raises ValueError naming cutoff (not a positive number)."""
        if isinstance(cutoff, PairCutoffs):
            return cutoff
        if not (is_finite(cutoff) and cutoff > 0):
            raise ValueError(f"cutoff must be a positive number of Å, got {cutoff!r}")
        return cls(cutoff, torch.zeros(len(chemical_symbols), dtype=torch.float64))

    def between(self, numbers_i: Tensor, numbers_j: Tensor) -> Tensor:
        """Of pairs of atoms by their atomic numbers, (...) each, Å. (...)"""
        reach = self.reach.to(numbers_i.device)
        return (reach[numbers_i] + reach[numbers_j]).clamp(min=self.shortest)

    def longest(self, atoms: AtomsBatch) -> NDArray[np.float64]:
        """The longest of each structure, Å. (B,)"""
        reach = self.reach.double().cpu().numpy()[atoms.numbers.cpu().numpy()]
        n_atoms = atoms.n_atoms.cpu().numpy()
        return np.maximum(self.shortest, 2 * np.maximum.reduceat(reach, np.cumsum(n_atoms) - n_atoms))

    def wider(self, skin: float) -> PairCutoffs:
        """All longer by the skin, Å."""
        return PairCutoffs(self.shortest + skin, self.reach + 0.5 * skin)

    @cached_property
    def all_equal(self) -> bool:
        """Whether all pairs have the shortest."""
        return bool(2 * self.reach.max() <= self.shortest)
