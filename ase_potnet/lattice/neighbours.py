"""Short-range part of the site sums: pairs within the cut-off, found and summed a block at a time.

A block is a range of rows (atoms i) of some structures against all later columns (atoms j > i), every image of the
pair among the few lattice points that can bring it within the cut-off. Its radial functions form a dense matrix W,
and W q serves the rows, W^T q the columns. No list of neighbours is kept.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from ase_potnet.lattice.buckets import Bucket
from ase_potnet.lattice.potentials.base import radial_values
from ase_potnet.lattice.real_space import RadialTerms, nonzero_flat

_BLOCK = 1 << 16  # distances looked at together: their memory, used again for every block, stays in cache


def sum_over_neighbours(bucket: Bucket, sources: Tensor, terms: RadialTerms, field: bool) -> Tensor:
    """sum_j sum_n phi_k(|r_j + n - r_i|) q_j over j != i within the cut-off, and minus its gradient at r_i.

    sources: (S, n, C), zero at padding. Returns (1 or 4, n_primitives, S, n, C). Differentiable to every order.
    Raises ValueError where two atoms of a structure coincide.
    """
    n_structures, n, n_channels = sources.shape
    images = bucket.images().transpose(0, 1).contiguous()  # (3, S, M)
    cutoff2 = bucket.squared_cutoff()
    total = sources.new_zeros(4 if field else 1, len(terms.primitives), n_structures, n, n_channels)
    blocks = list(_blocks(n_structures, n, images.shape[2]))
    n_pairs = max((some.stop - some.start) * (rows.stop - rows.start) * (n - rows.start) for some, rows in blocks)
    work = _Workspace(sources, n_pairs, images.shape[2])
    for some, rows in blocks:
        vectors = _vectors(bucket, some, rows, work)  # (3, s, I, J)
        shape = vectors.shape[1:]
        entry, image = _search(bucket, vectors.detach(), images[:, some].detach(), cutoff2[some], some, work)
        edges = [vector.reshape(-1).index_select(0, entry) for vector in vectors]
        if images.shape[2] > 1:  # image 0 is the origin
            edges = [v + m.reshape(-1).index_select(0, image) for v, m in zip(edges, images[:, some], strict=True)]
        x = edges[0] * edges[0] + edges[1] * edges[1] + edges[2] * edges[2]  # (E,)
        if len(x) and float(x.detach().min()) < 1e-20:
            raise ValueError("positions must differ, got two atoms of a structure at the same place")
        alphas = _alphas(terms, some, image, images.shape[2])
        left, right = sources[some, rows], sources[some, rows.start :]
        weights = [radial_values(terms.primitives, terms.complete, alphas, x)]
        if field:
            slopes = radial_values(terms.primitives, terms.complete, alphas, x, order=1)
            weights += [-2 * slopes * edge for edge in edges]
        for order, of_order in enumerate(weights):
            for k, values in enumerate(of_order):
                dense = x.new_zeros(shape.numel()).index_add(0, entry, values).view(shape)
                total[order, k, some, rows] += dense @ right
                back = dense.transpose(1, 2) @ left
                total[order, k, some, rows.start :] += back if order == 0 else -back
    return total


def _blocks(n_structures: int, n: int, n_images: int) -> Iterator[tuple[slice, slice]]:
    """Structures and rows of each block: several whole structures, or some rows of one."""
    together = max(1, _BLOCK // (n * n * n_images))
    n_rows = n if together > 1 else max(1, _BLOCK // (n * n_images))
    for start in range(0, n_structures, together):
        begin = 0
        while begin < n:
            stop = min(n, begin + max(n_rows, _BLOCK // ((n - begin) * n_images)))
            yield slice(start, min(start + together, n_structures)), slice(begin, stop)
            begin = stop


class _Workspace:
    """Memory of one block, used again for the next: fresh memory costs more than the arithmetic."""

    def __init__(self, like: Tensor, n_pairs: int, n_images: int) -> None:
        self.vectors = like.new_empty(3 * n_pairs)
        self.turns = like.new_empty(3 * n_pairs)
        self.part = like.new_empty(n_pairs * n_images)
        self.distances = like.new_empty(n_pairs * n_images)

    @staticmethod
    def shaped(memory: Tensor, *shape: int) -> Tensor:
        return memory[: math.prod(shape)].view(shape)


def _vectors(bucket: Bucket, some: slice, rows: slice, work: _Workspace) -> Tensor:
    """r_j - r_i, j from the first row on, moved by lattice vectors into the cell around the origin. (3, s, I, J)"""
    columns = bucket.positions[some].permute(2, 0, 1)  # (3, s, n)
    right, left = columns[:, :, None, rows.start :], columns[:, :, rows, None]
    shape = (3, right.shape[1], left.shape[2], right.shape[3])
    differentiable = torch.is_grad_enabled() and (columns.requires_grad or bucket.lattice.requires_grad)
    out = None if differentiable else work.shaped(work.vectors, *shape)
    vectors = torch.sub(right, left, out=out)
    if bucket.plan.d == 0:
        return vectors
    with torch.no_grad():
        turns = work.shaped(work.turns, bucket.plan.d, *shape[1:])
        fractions = (bucket.dual[some] @ bucket.positions[some].transpose(1, 2)).transpose(0, 1)  # (d, s, n)
        torch.sub(fractions[:, :, None, rows.start :], fractions[:, :, rows, None], out=turns).round_()
    turns = turns.view(*turns.shape[:2], -1).transpose(0, 1)  # (s, d, I J)
    moved = vectors.view(3, shape[1], -1).transpose(0, 1)  # (s, 3, I J)
    lattice = bucket.lattice[some].transpose(1, 2)
    if differentiable:
        return torch.baddbmm(moved, lattice, turns.clone(), alpha=-1).transpose(0, 1).reshape(shape)
    moved.baddbmm_(lattice, turns, alpha=-1)
    return vectors


@torch.no_grad()
def _search(
    bucket: Bucket, vectors: Tensor, images: Tensor, cutoff2: Tensor, some: slice, work: _Workspace
) -> tuple[Tensor, Tensor]:
    """Entries of (s, I, J) and of (s, M) of every vector and image closer than the cut-off, j > i. (E,) each"""
    n_some, n_rows, n_columns = vectors.shape[1:]
    n_images = images.shape[2]
    part = work.shaped(work.part, n_some, n_images, n_rows, n_columns)
    distance2 = work.shaped(work.distances, *part.shape)
    for axis, (vector, image) in enumerate(zip(vectors, images, strict=True)):
        torch.add(vector[:, None], image[:, :, None, None], out=part)
        if axis == 0:
            torch.mul(part, part, out=distance2)
        else:
            distance2.addcmul_(part, part)
    lower = torch.ones(n_rows, n_rows, dtype=torch.bool, device=vectors.device).tril_()
    distance2[..., :n_rows].masked_fill_(lower, math.inf)
    if bucket.is_padded:
        last = torch.from_numpy(bucket.n_atoms[some]).to(vectors.device)
        absent = torch.arange(bucket.n_max - n_columns, bucket.n_max, device=last.device) >= last[:, None]
        distance2.masked_fill_(absent[:, None, None], math.inf)
    flat = nonzero_flat(distance2 < cutoff2[:, None, None, None])
    n_pairs = n_rows * n_columns
    if n_some * n_images == 1:
        return flat, flat  # the second is not needed
    image = torch.div(flat, n_pairs, rounding_mode="floor")  # structure and image
    structure = torch.div(image, n_images, rounding_mode="floor")
    return flat + (structure - image) * n_pairs, image


def _alphas(terms: RadialTerms, some: slice, image: Tensor, n_images: int) -> tuple[Tensor | None, ...]:
    """alpha of every edge for each primitive; one number where there is one structure."""
    if some.stop - some.start == 1:
        return tuple(None if alpha is None else alpha[some] for alpha in terms.alphas)
    structure = torch.div(image, n_images, rounding_mode="floor")
    return tuple(None if alpha is None else alpha[some].index_select(0, structure) for alpha in terms.alphas)
