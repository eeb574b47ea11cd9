"""Gated messages between the pairs of atoms that local edges join."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from ase_potnet.models.layers import sum_over_neighbours
from ase_potnet.models.neighbour_channel import NeighbourPairs


class GatedMessages(nn.Module):
    """Σ_j SiLU(A x_i + B x_j + b) · W f_ij, f_ij the radial functions of the edges j -> i, added up.

    The gate of a pair serves all its edges, and the message is linear in the functions of the edges. So the sum does
    not depend on how the images of j are told apart, and costs a pair of atoms rather than an edge.
    """

    def __init__(self, width: int, message_width: int, n_functions: int) -> None:
        super().__init__()
        self.receiver = nn.Linear(width, message_width)
        self.sender = nn.Linear(width, message_width, bias=False)
        self.functions = nn.Linear(n_functions, message_width, bias=False)

    def forward(self, x: Tensor, pairs: NeighbourPairs) -> Tensor:
        """(T, width) -> (T, message_width)"""
        at_receiver = self.receiver(x).index_select(0, pairs.receiver)  # (P, message_width)
        gate = functional.silu(at_receiver + self.sender(x).index_select(0, pairs.sender))
        return sum_over_neighbours(gate * self.functions(pairs.functions), pairs.receiver, len(x))
