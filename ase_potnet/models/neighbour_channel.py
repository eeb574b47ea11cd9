"""Sums of fixed functions of the edges times sources on the neighbours, as small matrix products."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ase_potnet.graph import Edges

_PADDING = 1.5  # most to fewest neighbours within a group of atoms


class NeighbourChannel:
    """Sums A_i = Σ_j f(r_j - r_i) q_j over the local edges of a batch, for any number of sources q.

    The functions of all edges that join the same two atoms are added up once, when the channel is made: sums are
    linear, so a cell of 8 atoms has at most 8 neighbours an atom however many images lie within the cut-off.
    """

    def __init__(self, edges: Edges, functions: Tensor, n_atoms: int) -> None:
        """functions: (E, F) of the edges, zero at the cut-off."""
        keys, pair = torch.unique_consecutive(edges.receiver * n_atoms + edges.sender, return_inverse=True)
        n_pairs, n_functions = len(keys), functions.shape[1]
        summed = functions.new_zeros(n_pairs + 1, n_functions).index_add(0, pair, functions)  # and a row of zeros
        sender = torch.cat((keys % n_atoms, keys.new_zeros(1)))
        counts = torch.bincount(torch.div(keys, n_atoms, rounding_mode="floor"), minlength=n_atoms).cpu().numpy()
        first = np.cumsum(counts) - counts
        order = np.argsort(counts, kind="stable")
        self._groups, start = [], 0
        for stop in _ends(counts[order]):
            some = order[start:stop]
            start = stop
            places = np.arange(max(1, counts[some[-1]]))
            rows = np.where(places < counts[some][:, None], first[some][:, None] + places, n_pairs)  # (t, K)
            index = torch.from_numpy(rows).to(sender.device)
            self._groups.append((summed[index].transpose(1, 2).contiguous(), sender[index]))
        self._places = torch.from_numpy(np.argsort(order)).to(sender.device)

    def sums(self, sources: Tensor) -> Tensor:
        """(T, C) -> (T, F, C)"""
        parts = [torch.bmm(functions, sources[senders]) for functions, senders in self._groups]
        return torch.cat(parts)[self._places]


def _ends(counts: np.ndarray) -> list[int]:
    """Where to cut the ascending counts of neighbours into groups."""
    ends, start = [], 0
    while start < len(counts):
        limit = max(int(_PADDING * counts[start]), 4)
        start = int(np.searchsorted(counts, limit, side="right"))
        ends.append(start)
    return ends
