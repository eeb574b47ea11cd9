"""Short-range part of the site sums: pairs within the cut-off, found and summed a block at a time.

Neighbours are looked for among the atoms and those of their images that lie within the cut-off of the cell, one of
each two opposite images. The squared distances of atoms (rows) to these (columns) are a product of matrices, in
single precision; what is closer than the cut-off and a margin for rounding is computed again in full precision. No
list of all neighbours is kept.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from ase_potnet.lattice.buckets import Bucket
from ase_potnet.lattice.potentials.base import radial_values
from ase_potnet.lattice.real_space import RadialTerms, floor_divide, nonzero_flat, nonzero_less
from ase_potnet.lattice.recomputing import recomputed
from ase_potnet.lattice.reduction import half_widths, integer_grid

_DISTANCES = 1 << 18  # looked at together: their memory stays in cache
_BLOCK = 1 << 20  # distances whose neighbours are summed together
_FEW_CHANNELS = 8  # summed pair by pair up to here, as products of matrices above
_KEPT = 1 << 25  # values of pairs kept for derivatives; where these want more, all are computed again,
_VALUES = 1 << 22  # with at most so many values together


def sum_over_neighbours(bucket: Bucket, sources: Tensor, terms: RadialTerms, field: bool) -> Tensor:
    """sum_j sum_n phi_k(|r_j + n - r_i|) q_j within the cut-off, and minus its gradient at r_i.

    The atom's own images are included, the atom itself is not. sources: (S, n, C), zero at padding. Returns
    (S, n, 1 or 4, n_primitives, C). Differentiable to every order. Raises ValueError where two atoms coincide.
    """
    n_structures, n, n_channels = sources.shape
    near = _Columns(bucket)
    flat = sources.reshape(-1, n_channels)
    n_primitives, n_orders = len(terms.primitives), 4 if field else 1
    shape = (n_orders * n_primitives, n_structures, n, n_channels)
    few = n_channels <= _FEW_CHANNELS
    per_pair = shape[0] * (2 * n_channels + 2 if few else 2)  # about, values that derivatives want

    def add_pairs(total: Tensor, some: slice, rows: slice, row: Tensor, column: Tensor, structure: Tensor) -> Tensor:
        """Adds what some pairs give. total: (n_outputs, S, n, C)"""
        pairs = zip(near.columns, near.rows, strict=True)
        edges = [there.index_select(0, column) - here.index_select(0, row) for there, here in pairs]
        x = edges[0] * edges[0] + edges[1] * edges[1] + edges[2] * edges[2]  # (E,)
        if len(x) and float(x.detach().min()) < 1e-20:
            raise ValueError("positions must differ, got two atoms of a structure at the same place")
        alphas = tuple(None if alpha is None else alpha.index_select(0, structure) for alpha in terms.alphas)
        weights = list(radial_values(terms.primitives, terms.complete, alphas, x))
        if field:
            slopes = radial_values(terms.primitives, terms.complete, alphas, x, order=1)
            weights += [-2 * slope * edge for edge in edges for slope in slopes]
        other = near.atoms.index_select(0, column)
        if few:
            of_row, of_other = flat.index_select(0, row), flat.index_select(0, other)
            for k, values in enumerate(weights):
                sums = total[k].view(-1, n_channels)
                sums.index_add_(0, row, values[:, None] * of_other)
                back = values if k < n_primitives else -values  # index_add_ with alpha takes twenty times as long
                sums.index_add_(0, other, back[:, None] * of_row)
            return total
        block = (some.stop - some.start, rows.stop - rows.start, n)
        entry = (row - (some.start * n + rows.start) - structure) * n + other
        for k, values in enumerate(weights):
            matrix = x.new_zeros(math.prod(block)).index_add(0, entry, values).view(block)
            total[k, some, rows] += matrix @ sources[some]
            back = matrix.transpose(1, 2) @ sources[some, rows]
            total[k, some] += back if k < n_primitives else -back
        return total

    def sums_of(some: slice, rows: slice) -> Tensor:
        return add_pairs(sources.new_zeros(shape), some, rows, *near.pairs(some, rows))

    total = sources.new_zeros(shape)
    everything = slice(0, n_structures), slice(0, n)
    parts = list(_parts(*everything, near.count, _BLOCK))
    first = near.pairs(*parts[0])
    if torch.is_grad_enabled() and per_pair * len(first[0]) * len(parts) > _KEPT:
        for part in _parts(*everything, near.count, _VALUES // per_pair):
            total = total + recomputed(sums_of, *part)
    else:
        for part in parts:
            total = add_pairs(total, *part, *(first if part is parts[0] else near.pairs(*part)))
    return total.view(n_orders, n_primitives, n_structures, n, n_channels).permute(2, 3, 0, 1, 4)


class _Columns:
    """Atoms and images of each structure that can be within the cut-off of its atoms, and the search among them.

    count: G columns a structure, the same atoms and images for every structure of the bucket
    rows (3, S n), columns (3, S G): positions, differentiable; atoms (S G,): of the columns, among the (S, n)
    """

    def __init__(self, bucket: Bucket) -> None:
        n_structures, self.n_atoms = len(bucket.positions), bucket.n_max
        points, image, atom = _images_within(bucket)
        images = points @ bucket.lattice  # (S, M, 3)
        columns = bucket.positions.index_select(1, atom) + images.index_select(1, image)  # (S, G, 3)
        self.count = len(atom)
        self.rows, self.columns = (side.reshape(-1, 3).T.contiguous() for side in (bucket.positions, columns))
        first_atom = torch.arange(0, n_structures * self.n_atoms, self.n_atoms, device=atom.device)
        self.atoms = (atom + first_atom[:, None]).view(-1)
        # |c - r|^2 = (-2 r, r^2, 1) (c, 1, c^2)
        rows, columns = self.rows.detach(), self.columns.detach()
        row_length2, column_length2 = ((side * side).sum(0, keepdim=True) for side in (rows, columns))
        cutoff2 = bucket.squared_cutoff()
        margin = 32 * torch.finfo(torch.float32).eps * float(column_length2.max())
        if bucket.is_padded:
            absent = torch.from_numpy(np.arange(self.n_atoms) >= bucket.n_atoms[:, None]).to(rows.device).view(1, -1)
            row_length2.masked_fill_(absent, math.inf)
            column_length2.masked_fill_(absent.index_select(1, self.atoms), math.inf)
        single = margin < 0.01 * float(cutoff2.min()) and torch.get_float32_matmul_precision() == "highest"
        dtype = torch.float32 if single else torch.float64
        left = torch.cat((-2 * rows, row_length2, torch.ones_like(row_length2))).to(dtype)
        right = torch.cat((columns, torch.ones_like(column_length2), column_length2)).to(dtype)
        self._left = left.view(5, n_structures, -1).permute(1, 2, 0)  # (S, n, 5)
        self._right = right.view(5, n_structures, -1).transpose(0, 1)  # (S, 5, G)
        self._cutoff2 = (cutoff2 + margin).to(dtype)

    @torch.no_grad()
    def pairs(self, some: slice, rows: slice) -> tuple[Tensor, Tensor, Tensor]:
        """Row, column and structure of the pairs within the cut-off, each pair once. (E,) each

        Where the part has one structure, that is (1,).
        """
        found = [self._near(*part) for part in _parts(some, rows, self.count, _DISTANCES)]
        row, column = (torch.cat(indices) for indices in zip(*found, strict=True))
        if some.stop - some.start == 1:
            structure = torch.full((1,), some.start, device=row.device)
        else:
            structure = floor_divide(row, self.n_atoms)
        return row, column + structure * self.count, structure

    def _near(self, some: slice, rows: slice) -> tuple[Tensor, Tensor]:
        """Row among (S, n) and column among the G of its structure. (E,) each"""
        n_rows = rows.stop - rows.start
        distance2 = torch.bmm(self._left[some, rows], self._right[some, :, rows.start :])  # columns before were rows
        width = distance2.shape[2]
        twice = torch.ones(n_rows, n_rows, dtype=torch.bool, device=distance2.device).tril_()
        distance2[..., :n_rows].masked_fill_(twice, math.inf)
        flat = nonzero_less(distance2, self._cutoff2[some, None, None])
        row = floor_divide(flat, width)
        column = flat - row * width + rows.start
        return row + (some.start * self.n_atoms + rows.start), column


def _images_within(bucket: Bucket) -> tuple[Tensor, Tensor, Tensor]:
    """Integer points (M, d), and the point and the atom of every image within the cut-off of the cell (G,) each.

    The atoms themselves come first. Of each point and its opposite there is one.
    """
    plan, n, d = bucket.plan, bucket.n_max, bucket.plan.d
    width = half_widths(plan.cutoff[bucket.members], plan.dual[bucket.members])
    reach = tuple((width.max(axis=0) + 1).astype(np.int64).tolist())
    grid = np.concatenate((np.zeros((1, d)), integer_grid(reach, True))) if d > 0 else np.zeros((1, 0))
    points = torch.from_numpy(grid).to(bucket.positions)
    with torch.no_grad():
        fractions = bucket.dual @ bucket.positions.transpose(1, 2)  # (S, d, n), at most 1/2
        limits = torch.from_numpy(width + 0.50001).to(fractions)[..., None, None]
        moved = (fractions[:, :, None] + points.T[..., None]).abs_()  # (S, d, M, n)
        near = (moved <= limits).all(dim=1).any(dim=0)
        near[0] = True
        flat = nonzero_flat(near.view(-1))
    image = floor_divide(flat, n)
    return points, image, flat - image * n


def _parts(some: slice, rows: slice, n_columns: int, size: int) -> Iterator[tuple[slice, slice]]:
    """All these rows of several structures, or some of one, with at most about ``size`` entries together."""
    n_rows = min(rows.stop - rows.start, max(1, size // n_columns))
    together = max(1, size // ((rows.stop - rows.start) * n_columns))
    for start in range(some.start, some.stop, together):
        for begin in range(rows.start, rows.stop, n_rows):
            yield slice(start, min(start + together, some.stop)), slice(begin, min(begin + n_rows, rows.stop))
