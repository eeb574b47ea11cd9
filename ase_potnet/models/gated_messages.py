"""Gated messages over local edges, in blocks of edges that stay in the processor's cache."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from ase_potnet.models.layers import sum_over_neighbours

_BLOCK = 1 << 16  # numbers of one intermediate


class GatedMessages(nn.Module):
    """Σ_j w_ij · σ(gate) · SiLU(message), gate and message linear in x_i, x_j and the radial functions of the edge."""

    def __init__(self, width: int, message_width: int, n_radial: int) -> None:
        super().__init__()
        self.receiver = nn.Linear(width, 2 * message_width)
        self.sender = nn.Linear(width, 2 * message_width, bias=False)
        self.edge = nn.Linear(n_radial, 2 * message_width, bias=False)

    def forward(self, x: Tensor, receiver: Tensor, sender: Tensor, radial: Tensor, weight: Tensor) -> Tensor:
        """x (T, width), receiver and sender (E,), radial (E, n_radial), weight w (E, 1) -> (T, message_width)"""
        at_receiver, at_sender = self.receiver(x), self.sender(x)  # (T, 2 message_width)
        if radial.requires_grad or weight.requires_grad or radial.is_cuda:
            hidden = at_receiver[receiver] + at_sender[sender] + self.edge(radial)
            return sum_over_neighbours(_gated(hidden) * weight, receiver, len(x))
        result: Tensor = _BlockwiseMessages.apply(
            at_receiver, at_sender, self.edge.weight.T, receiver, sender, radial, weight
        )
        return result


def _gated(hidden: Tensor) -> Tensor:
    gate, message = hidden.chunk(2, dim=1)
    return torch.sigmoid(gate) * functional.silu(message)


class _BlockwiseMessages(torch.autograd.Function):
    """The sums without any intermediate of all edges; differentiable once, in everything but radial and weight."""

    @staticmethod
    def forward(ctx: Any, *inputs: Tensor) -> Tensor:
        at_receiver, at_sender, matrix, receiver, sender, radial, weight = inputs
        ctx.save_for_backward(*inputs)
        width = at_receiver.shape[1] // 2
        total = at_receiver.new_zeros(len(at_receiver), width)
        for some in _blocks(len(receiver), 2 * width):
            hidden = _hidden(inputs, some)
            messages = hidden[:, :width].sigmoid_().mul_(functional.silu(hidden[:, width:])).mul_(weight[some])
            total.index_add_(0, receiver[some], messages)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        inputs = ctx.saved_tensors
        at_receiver, at_sender, matrix, receiver, sender, radial, weight = inputs
        width = at_receiver.shape[1] // 2
        of_receiver, of_sender = torch.zeros_like(at_receiver), torch.zeros_like(at_sender)
        of_matrix = torch.zeros_like(matrix)
        for some in _blocks(len(receiver), 2 * width):
            hidden = _hidden(inputs, some)
            gate, message = hidden[:, :width].sigmoid(), hidden[:, width:]
            slope = grads[0].index_select(0, receiver[some]).mul_(weight[some]).mul_(gate)
            share = message.sigmoid()
            value = message * share  # SiLU
            # d/dgate: g w σ' SiLU, σ' = σ (1 - σ); d/dmessage: g w σ SiLU', SiLU' = s + SiLU (1 - s)
            torch.addcmul(slope, slope, gate, value=-1, out=hidden[:, :width]).mul_(value)
            torch.addcmul(share, value, share, value=-1, out=share).add_(value)
            torch.mul(slope, share, out=hidden[:, width:])
            of_receiver.index_add_(0, receiver[some], hidden)
            of_sender.index_add_(0, sender[some], hidden)
            of_matrix.addmm_(radial[some].T, hidden)
        return of_receiver, of_sender, of_matrix, None, None, None, None


def _blocks(n_edges: int, width: int) -> list[slice]:
    size = max(64, _BLOCK // width)
    return [slice(start, start + size) for start in range(0, n_edges, size)]


def _hidden(inputs: tuple[Tensor, ...], some: slice) -> Tensor:
    at_receiver, at_sender, matrix, receiver, sender, radial, _ = inputs
    hidden = at_receiver.index_select(0, receiver[some])
    hidden += at_sender.index_select(0, sender[some])
    return hidden.addmm_(radial[some], matrix)
