"""Neighbour pairs within the real-space cut-off and weighted sums over them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor
from vesin import NeighborList

from ase_potnet.lattice.buckets import Bucket
from ase_potnet.lattice.pair_vectors import distinct_pairs, pair_vectors
from ase_potnet.lattice.real_space import chunks, nonzero_flat, squared_distances

_DENSE_LIMIT = 1 << 21  # pairs up to which all of them are looked at (in blocks) instead of using cell lists
_FEW_CHANNELS = 8  # up to here adding edge by edge beats sorting the edges by receiver


@dataclass(frozen=True)
class Neighbours:
    """Every pair of different atoms within the cut-off once, atoms numbered through the padded bucket.

    one, other (E,): atoms; vectors (E, 3): r_other - r_one, image included, reduced units, differentiable;
    structure (E,); n_atoms: S n_max.
    """

    one: Tensor
    other: Tensor
    vectors: Tensor
    structure: Tensor
    n_atoms: int

    @cached_property
    def by_receiver(self) -> tuple[Tensor, Tensor, Tensor]:
        """Both directions sorted by receiver: first edge of each atom, sender, and place among [one way, other way]."""
        receiver = torch.cat((self.one, self.other))
        keys = receiver.cpu().numpy()
        if self.n_atoms < 1 << 16:
            keys = keys.astype(np.uint16)  # radix sort
        order = torch.from_numpy(np.argsort(keys, kind="stable")).to(receiver.device)
        count = torch.bincount(receiver, minlength=self.n_atoms)
        first = torch.cat((count.new_zeros(1), count.cumsum(0)))
        return first, torch.cat((self.other, self.one))[order], order


def find_neighbours(bucket: Bucket) -> Neighbours:
    """Pairs of different atoms within the cut-off of each structure of a bucket, each once."""
    n_pairs = bucket.n_max * (bucket.n_max - 1) // 2
    search = _search_all_pairs if n_pairs <= _DENSE_LIMIT else _search_cells
    one, other, structure, shift = search(bucket)
    flat = bucket.positions.reshape(-1, 3)
    vectors = flat.index_select(0, other) - flat.index_select(0, one)
    if bucket.plan.d > 0 and len(one):
        if len(bucket.members) == 1:
            vectors = vectors + shift @ bucket.lattice[0]
        else:
            vectors = vectors + (shift[:, :, None] * bucket.lattice[structure]).sum(1)
    return Neighbours(one, other, vectors, structure, len(flat))


@torch.no_grad()
def _search_all_pairs(bucket: Bucket) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Distances of all pairs and images, a block at a time: (one, other, structure, shift (E, d))."""
    first, second = distinct_pairs(bucket.n_max, bucket.positions.device)
    images, points, cutoff2 = bucket.images(), bucket.image_points(), bucket.squared_cutoff()
    n_images, d = images.shape[2], bucket.plan.d
    ones, others, owners, shifts = [], [], [], []
    for some, pairs in chunks(len(bucket.members), max(1, len(first)), n_images):
        vectors, turns = pair_vectors(bucket, first[pairs], second[pairs], some, pairs.start)
        # transposed: pairs run fastest, there are many more of them than images
        work = vectors.new_empty(2, len(vectors) * n_images * vectors.shape[2])
        distance2 = squared_distances(images[some], vectors, work)  # (s, M, p)
        flat = nonzero_flat(distance2 < cutoff2[some, None, None])
        width = vectors.shape[2]
        row = torch.div(flat, width, rounding_mode="floor")  # structure and image
        pair = flat - row * width
        owner = torch.div(row, n_images, rounding_mode="floor")
        place = pair + owner * (d * width)
        # r_other - r_one + shift L = -(v + n)
        turn = [turns.view(-1).take(place + axis * width) for axis in range(d)]
        image = row - owner * n_images
        point = [points[some].reshape(-1).take(image + (owner * d + axis) * n_images) for axis in range(d)]
        shifts.append(torch.stack([t - p for t, p in zip(turn, point, strict=True)], dim=1))
        owner = owner + some.start
        ones.append(first.index_select(0, pair + pairs.start) + owner * bucket.n_max)
        others.append(second.index_select(0, pair + pairs.start) + owner * bucket.n_max)
        owners.append(owner)
    return tuple(torch.cat(parts) for parts in (ones, others, owners, shifts))  # type: ignore[return-value]


def _search_cells(bucket: Bucket) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Cell lists on the host, for large structures: (one, other, structure, shift (E, d))."""
    plan, device = bucket.plan, bucket.positions.device
    positions = bucket.positions.detach().cpu().double().numpy()
    lattice = bucket.lattice.detach().cpu().double().numpy()
    periodic = np.arange(3) < plan.d
    columns: list[list[np.ndarray]] = [[], [], [], []]
    for s, n_atoms in enumerate(bucket.n_atoms.tolist()):
        box = lattice[s]
        if plan.d < 3:  # add unit vectors perpendicular to the periodic ones
            box = np.concatenate((box, np.linalg.svd(box, full_matrices=True)[2][plan.d :]))
        search = NeighborList(cutoff=float(plan.cutoff[bucket.members[s]]), full_list=False)
        first, second, shift = search.compute(
            points=positions[s, :n_atoms], box=box, periodic=periodic, quantities="ijS"
        )
        apart = first != second  # own images are summed without a list
        columns[0].append(first[apart].astype(np.int64) + s * bucket.n_max)
        columns[1].append(second[apart].astype(np.int64) + s * bucket.n_max)
        columns[2].append(np.full(int(apart.sum()), s))
        columns[3].append(shift[apart, : plan.d].astype(np.float64))
    one, other, structure, shifts = (torch.from_numpy(np.concatenate(parts)).to(device) for parts in columns)
    return one, other, structure, shifts.to(bucket.positions)


class _WeightedSum(torch.autograd.Function):
    """out[m, i] = sum_j w[m, ij] q[j], with w[ji] = sign w[ij]: bilinear, so derivatives are sums of the same kind."""

    @staticmethod
    def forward(ctx, weights, sources, edges, sign):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(weights, sources)
        ctx.static = (edges, sign)
        if sources.shape[1] <= _FEW_CHANNELS:
            of_one, of_other = sources.index_select(0, edges.one), sources.index_select(0, edges.other)
            out = sources.new_zeros(len(weights), len(sources), sources.shape[1])
            for m, row in enumerate(weights):
                out[m].index_add_(0, edges.one, row[:, None] * of_other)
                out[m].index_add_(0, edges.other, row[:, None] * of_one, alpha=sign)
            return out
        first, sender, order = edges.by_receiver
        both = torch.cat((weights, sign * weights), dim=1)
        return torch.stack(
            [
                # the fastest sparse-times-dense product of torch on a CPU that is not in beta
                torch.nn.functional.embedding_bag(
                    sender,
                    sources,
                    first,
                    mode="sum",
                    per_sample_weights=row.index_select(0, order),
                    include_last_offset=True,
                )
                for row in both
            ]
        )

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        weights, sources = ctx.saved_tensors
        edges, sign = ctx.static
        of_weights = of_sources = None
        if ctx.needs_input_grad[0]:
            of_weights = _EdgeProducts.apply(grad, sources, edges, sign)
        if ctx.needs_input_grad[1]:
            parts = [_WeightedSum.apply(weights[m : m + 1], grad[m], edges, sign)[0] for m in range(len(weights))]
            of_sources = sign * sum(parts)
        return of_weights, of_sources, None, None


class _EdgeProducts(torch.autograd.Function):
    """out[m, ij] = left[m, i] . right[j] + sign left[m, j] . right[i], the companion of _WeightedSum."""

    @staticmethod
    def forward(ctx, left, right, edges, sign):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(left, right)
        ctx.static = (edges, sign)
        step = max(1, (1 << 17) // right.shape[1])
        out = left.new_empty(len(left), len(edges.one))
        for start in range(0, len(edges.one), step):
            one, other = edges.one[start : start + step], edges.other[start : start + step]
            right_one, right_other = right.index_select(0, one), right.index_select(0, other)
            for m in range(len(left)):
                forth = (left[m].index_select(0, one) * right_other).sum(1)
                back = (left[m].index_select(0, other) * right_one).sum(1)
                torch.add(forth, back, alpha=sign, out=out[m, start : start + step])
        return out

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        left, right = ctx.saved_tensors
        edges, sign = ctx.static
        of_left = _WeightedSum.apply(grad, right, edges, sign)
        parts = [_WeightedSum.apply(grad[m : m + 1], left[m], edges, sign)[0] for m in range(len(left))]
        return of_left, sign * sum(parts), None, None


def sum_over_neighbours(weights: Tensor, sources: Tensor, neighbours: Neighbours, *, odd: bool = False) -> Tensor:
    """sum_j w_ij q_j for every atom i, each pair serving both of its atoms.

    weights: (m, E), the weight of ``other`` at ``one``; the opposite way it has the same value, or with ``odd`` the
    opposite sign. sources: (n, C). Returns (m, n, C). Differentiable to every order.
    """
    return _WeightedSum.apply(weights, sources, neighbours, -1 if odd else 1)
