"""Local edges added up pair by pair, and sums over neighbours as small matrix products."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ase_potnet.graph import Edges

_PADDING = 1.5  # most to fewest neighbours within a group of atoms


@dataclass(frozen=True)
class NeighbourPairs:
    """Pairs of atoms that at least one local edge joins, sorted by receiver, then by sender.

    Whatever is linear in functions of the edges may use their sum over all edges of a pair instead: a cell of 8 atoms
    has at most 64 pairs however many images lie within the cut-off.

    receiver, sender: (P,)
    functions: (P, F) sums of functions of the edges
    n_atoms: T
    """

    receiver: Tensor
    sender: Tensor
    functions: Tensor
    n_atoms: int

    def split(self, n_first: int) -> tuple[NeighbourPairs, NeighbourPairs]:
        """The same pairs with the first functions, and with the others."""
        first, others = self.functions[:, :n_first].contiguous(), self.functions[:, n_first:]
        return replace(self, functions=first), replace(self, functions=others)


def neighbour_pairs(edges: Edges, functions: Tensor, n_atoms: int) -> NeighbourPairs:
    """Adds up functions (E, F) of the edges, pair by pair. Differentiable in them."""
    keys, pair = torch.unique_consecutive(edges.receiver * n_atoms + edges.sender, return_inverse=True)
    summed = functions.new_zeros(len(keys), functions.shape[1]).index_add(0, pair, functions)
    receiver = torch.div(keys, n_atoms, rounding_mode="floor")
    return NeighbourPairs(receiver, keys - receiver * n_atoms, summed, n_atoms)


class NeighbourChannel:
    """Sums A_i = Σ_j f_ij q_j over the pairs of a batch, for any number of sources q."""

    def __init__(self, pairs: NeighbourPairs) -> None:
        n_pairs, n_functions = pairs.functions.shape
        counts = torch.bincount(pairs.receiver, minlength=pairs.n_atoms).cpu().numpy()
        first = np.cumsum(counts) - counts
        order = np.argsort(counts, kind="stable")
        self._groups, start = [], 0
        self._n_functions = n_functions
        for stop in _ends(counts[order]) if n_pairs else ():
            some = order[start:stop]
            start = stop
            places = np.arange(max(1, counts[some[-1]]))
            present = places < counts[some][:, None]  # (t, K)
            rows = np.minimum(first[some][:, None] + places, n_pairs - 1)
            index = torch.from_numpy(rows.reshape(-1)).to(pairs.sender.device)
            functions = pairs.functions[index].view(*rows.shape, n_functions)
            if not present.all():
                functions = functions * torch.from_numpy(present[..., None]).to(functions.device)
            self._groups.append((functions.transpose(1, 2), pairs.sender[index].view(rows.shape)))
        self._places = torch.from_numpy(np.argsort(order)).to(pairs.sender.device)

    def sums(self, sources: Tensor) -> Tensor:
        """(T, C) -> (T, F, C)"""
        if not self._groups:
            return sources.new_zeros(len(sources), self._n_functions, sources.shape[1])
        parts = [
            torch.bmm(functions, sources.index_select(0, senders.view(-1)).view(*senders.shape, -1))
            for functions, senders in self._groups
        ]
        return torch.cat(parts).index_select(0, self._places)


def _ends(counts: np.ndarray) -> list[int]:
    """Where to cut the ascending counts of neighbours into groups."""
    ends, start = [], 0
    while start < len(counts):
        limit = max(int(_PADDING * counts[start]), 4)
        start = int(np.searchsorted(counts, limit, side="right"))
        ends.append(start)
    return ends
