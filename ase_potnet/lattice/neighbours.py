"""Neighbour pairs within the real-space cut-off and weighted sums over them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from vesin import NeighborList

from ase_potnet.lattice.buckets import Bucket


@dataclass(frozen=True)
class Neighbours:
    """Every neighbour pair of a bucket once, atoms numbered through the padded bucket (S n_max of them).

    one, other (E,): atoms; vectors (E, 3): r_other - r_one, image included, reduced units, differentiable;
    structure (E,). The directed edges (both ways, sorted by receiver) serve sparse products: crow (S n_max + 1,),
    column (2E,), order (2E,) which of the edges [one way, other way] stands where, and reverse (2E,), the place of
    the opposite edge.
    """

    one: Tensor
    other: Tensor
    vectors: Tensor
    structure: Tensor
    crow: Tensor
    column: Tensor
    order: Tensor
    reverse: Tensor


def find_neighbours(bucket: Bucket) -> Neighbours:
    """Pairs within the cut-off of each structure of a bucket, self images included, by cell lists on the host."""
    plan, members = bucket.plan, bucket.members
    positions = bucket.positions.detach().cpu().double().numpy()
    lattice = bucket.lattice.detach().cpu().double().numpy()
    periodic = np.arange(3) < plan.d
    firsts, seconds, shifts, owners = [], [], [], []
    for s, n_atoms in enumerate(bucket.n_atoms.tolist()):
        search = NeighborList(cutoff=float(plan.cutoff[members[s]]), full_list=False)
        box = _complete_box(lattice[s])
        first, second, shift = search.compute(
            points=positions[s, :n_atoms], box=box, periodic=periodic, quantities="ijS"
        )
        firsts.append(first.astype(np.int64) + s * bucket.n_max)
        seconds.append(second.astype(np.int64) + s * bucket.n_max)
        shifts.append(shift)
        owners.append(np.full(len(first), s))
    one, other, owner = (np.concatenate(parts) for parts in (firsts, seconds, owners))
    to = lambda array: torch.from_numpy(np.ascontiguousarray(array)).to(bucket.positions.device)  # noqa: E731
    flat = bucket.positions.reshape(-1, 3)
    vectors = flat.index_select(0, to(other)) - flat.index_select(0, to(one))
    if plan.d > 0:
        moved = [
            to(shift[:, : plan.d].astype(np.float64)).to(flat) @ cell
            for shift, cell in zip(shifts, bucket.lattice, strict=True)
        ]
        vectors = vectors + (moved[0] if len(moved) == 1 else torch.cat(moved))
    receiver = np.concatenate((one, other))
    order = np.argsort(receiver, kind="stable")
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    crow = np.concatenate(([0], np.cumsum(np.bincount(receiver, minlength=flat.shape[0]))))
    return Neighbours(
        one=to(one),
        other=to(other),
        vectors=vectors,
        structure=to(owner),
        crow=to(crow),
        column=to(np.concatenate((other, one))[order]),
        order=to(order),
        reverse=to(place[(order + len(one)) % len(order)]),
    )


def _complete_box(lattice: NDArray[np.float64]) -> NDArray[np.float64]:
    """Three independent vectors: the periodic ones, and unit vectors perpendicular to them."""
    d = len(lattice)
    if d == 3:
        return lattice
    _, _, basis = np.linalg.svd(lattice, full_matrices=True) if d else (None, None, np.eye(3))
    return np.concatenate((lattice, basis[d:]))


class _WeightedSum(torch.autograd.Function):
    """out[m, i] = sum_j values[m, ij] sources[j]: bilinear, so its derivatives are sums of the same kind."""

    @staticmethod
    def forward(ctx, values, sources, edges):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(values, sources)
        ctx.edges = edges
        return torch.stack(
            [
                # the fastest sparse-times-dense product of torch on a CPU that is not in beta
                torch.nn.functional.embedding_bag(
                    edges.column, sources, edges.crow, mode="sum", per_sample_weights=row, include_last_offset=True
                )
                for row in values
            ]
        )

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        values, sources = ctx.saved_tensors
        of_values = _EdgeProducts.apply(grad, sources, ctx.edges) if ctx.needs_input_grad[0] else None
        of_sources = None
        if ctx.needs_input_grad[1]:
            opposite = values.index_select(1, ctx.edges.reverse)
            of_sources = sum(
                _WeightedSum.apply(opposite[m : m + 1], grad[m], ctx.edges)[0] for m in range(len(values))
            )
        return of_values, of_sources, None


class _EdgeProducts(torch.autograd.Function):
    """out[m, ij] = left[m, i] . right[j], the companion of _WeightedSum."""

    @staticmethod
    def forward(ctx, left, right, edges):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(left, right)
        ctx.edges = edges
        row = torch.repeat_interleave(edges.crow.diff())
        step = max(1, (1 << 18) // max(1, right.shape[1]))
        out = left.new_empty(len(left), len(row))
        for start in range(0, len(row), step):
            part = slice(start, start + step)
            of_right = right.index_select(0, edges.column[part])
            for m in range(len(left)):
                torch.linalg.vecdot(left[m].index_select(0, row[part]), of_right, out=out[m, part])
        return out

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        left, right = ctx.saved_tensors
        of_left = _WeightedSum.apply(grad, right, ctx.edges)
        opposite = grad.index_select(1, ctx.edges.reverse)
        of_right = sum(_WeightedSum.apply(opposite[m : m + 1], left[m], ctx.edges)[0] for m in range(len(left)))
        return of_left, of_right, None


def sum_over_neighbours(weights: Tensor, sources: Tensor, neighbours: Neighbours, *, odd: bool = False) -> Tensor:
    """sum_j w_ij q_j for every atom i, each pair serving both of its atoms.

    weights: (m, E), the weight of ``other`` at ``one``; the opposite way it has the same value, or with ``odd`` the
    opposite sign. sources: (n, C). Returns (m, n, C). Differentiable to every order.
    """
    both = torch.cat((weights, -weights if odd else weights), dim=1).index_select(1, neighbours.order)
    return _WeightedSum.apply(both, sources, neighbours)
