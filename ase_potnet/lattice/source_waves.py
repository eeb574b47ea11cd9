"""Reciprocal-space part of the site sums through structure factors, three periodic directions, reduced units.

    P_i = sum_k w_k sum_j cos(k (r_i - r_j)) q_j

Two ways. Small structures: cos(k r) and sin(k r) of every atom and wave, batched over structures. Large ones: with
fractional coordinates f and k = 2 pi m D, exp(i k r) = exp(2 pi i m_0 f_0) exp(2 pi i m_1 f_1) exp(2 pi i m_2 f_2)
factorises, so that a structure factor costs a few multiply-adds of a matrix product instead of a cosine and a sine.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ase_potnet.lattice.reciprocal_space import plane_waves

_FACTORISED = 1 << 14  # plane waves (atoms times waves) of a structure from which on factors are cheaper
_SLAB = 1 << 17  # plane-wave values along two axes held at a time
_CHANNELS = 64  # summed together: intermediate results stay in cache


def sum_sources_over_waves(
    positions: Tensor,
    dual: Tensor,
    points: list[NDArray[np.float64]],
    waves: Tensor,
    weights: Tensor,
    sources: Tensor,
    field: bool,
) -> Tensor:
    """sum_k w_k sum_j cos(k (r_i - r_j)) q_j, and minus its gradient at r_i. Differentiable to every order.

    positions (B, N, 3), dual (B, 3, 3) and the integer points (M_b, 3) of every structure, first component not
    negative; waves = 2 pi dual^T points (B, 3, M), weights (B, n, M), zero where padded; sources (B, N, C).
    Returns (B, N, 1 or 4, n, C).
    """
    if positions.shape[1] * max(map(len, points)) < _FACTORISED:
        return _sum_plane_waves(positions, waves, weights, sources, field)
    sums = []
    for b, of_one in enumerate(points):
        waves_of_one = positions[b], dual[b], _Grid(of_one), weights[b, :, : len(of_one)]
        some_channels = sources[b].split(_CHANNELS, dim=1)
        sums.append(torch.cat([_sum_factorised(*waves_of_one, some, field) for some in some_channels], dim=3))
    return torch.stack(sums)


def _sum_plane_waves(positions: Tensor, waves: Tensor, weights: Tensor, sources: Tensor, field: bool) -> Tensor:
    n_batch, n_atoms, n_channels = sources.shape
    n_waves, n_weights = waves.shape[2], weights.shape[1]
    basis = plane_waves(positions, waves)  # (B, N, 2M)
    factors = torch.bmm(basis.transpose(1, 2), sources)  # (B, 2M, C)
    doubled = torch.cat((weights, weights), dim=2).transpose(1, 2)  # (B, 2M, n)
    columns = (doubled[..., None] * factors[:, :, None]).flatten(2)[:, :, None]  # (B, 2M, 1, n C)
    if field:
        # minus the gradient of cos(k r) C + sin(k r) S is k (sin(k r) C - cos(k r) S)
        turned = torch.cat((-columns[:, n_waves:], columns[:, :n_waves]), dim=1)
        along = torch.cat((waves, waves), dim=2).transpose(1, 2)[..., None]  # (B, 2M, 3, 1)
        columns = torch.cat((columns, along * turned), dim=2)  # (B, 2M, 4, n C)
    return torch.bmm(basis, columns.flatten(2)).view(n_batch, n_atoms, 4 if field else 1, n_weights, n_channels)


def _sum_factorised(
    positions: Tensor, dual: Tensor, grid: _Grid, weights: Tensor, sources: Tensor, field: bool
) -> Tensor:
    """One structure: positions (N, 3), weights (n, M), sources (N, C) -> (N, 1 or 4, n, C).

    Slice by slice along one axis ("outer"), in real arithmetic: ``left`` holds the products of cosines and sines of
    the outer and the inner axis, ``right`` those of the first axis times the sources. Their product is turned into
    structure factors S_m (``unfold``), these into w_m S_m and back into coefficients of ``left``.
    """
    n_atoms, n_channels = sources.shape
    n_columns = 2 * n_channels * len(weights)  # per wave along the first axis: cos and sin of every sum
    angles = 2 * math.pi * (dual @ positions.T)  # (3, N)
    first, inner, outer = (_table(angles[axis], size) for axis, size in zip(grid.axes, grid.extent, strict=True))
    right = (first[:, :, None] * sources.T.contiguous()).view(-1, n_atoms)  # (M0 2 C, N)
    box = grid.scatter(weights)  # (M2, M1, 4, M0, n)
    unfold = _unfolding(sources)
    sums = [sources.new_zeros(grid.extent[0] * n_columns, n_atoms) for _ in range(3 if field else 1)]
    for some, b, a in grid.slabs(n_atoms):
        left = inner[:b, :, None] * outer[some, None, None]  # (c, b, 2, 2, N)
        n_left = left.numel() // (4 * n_atoms)  # c b
        products = left.view(-1, n_atoms) @ right[: a * 2 * n_channels].T  # (4 b, a 2 C)
        products = products.view(n_left, 4, a, 2, n_channels)
        waves = torch.complex(products[:, :, :, 0], products[:, :, :, 1]).view(n_left, 4, -1)
        factors = (unfold @ waves).view(n_left, 4, a, 1, n_channels)  # S_m
        weighted = (factors * box[some, :b, :, :a, :, None].flatten(0, 1)).view(n_left, 4, -1)  # w_m S_m
        folded = torch.view_as_real(unfold.mH @ weighted).reshape(4 * n_left, a * n_columns)
        lefts = [left]
        if field:
            lefts.append(_slope(inner)[:b, :, None] * outer[some, None, None])
            lefts.append(inner[:b, :, None] * _slope(outer)[some, None, None])
        for total, one in zip(sums, lefts, strict=True):
            total[: a * n_columns].addmm_(folded.T, one.view(-1, n_atoms))
    columns = [_contract(sums[0], first, n_columns)]
    if field:
        by_angle = [_contract(sums[0], _slope(first), n_columns)]
        by_angle += [_contract(total, first, n_columns) for total in sums[1:]]
        gradient = torch.einsum("dx,dnk->xnk", dual[list(grid.axes)], torch.stack(by_angle))
        columns += list(gradient * (-2 * math.pi))
    return torch.stack(columns, dim=1).view(n_atoms, len(columns), len(weights), n_channels)


class _Grid:
    """Integer points of one structure as a box (outer, inner, signs of inner and outer, first axis)."""

    def __init__(self, points: NDArray[np.float64]) -> None:
        whole = points.T.astype(np.int64, order="C")
        size = (np.abs(whole).max(axis=1) + 1).tolist()
        self.axes = (0, 1, 2) if size[2] <= size[1] else (0, 2, 1)  # first, inner, outer: few slices
        self.extent = n_first, n_inner, n_outer = tuple(size[axis] for axis in self.axes)
        first, inner, outer = (whole[axis] for axis in self.axes)
        signs = 2 * (inner < 0) + (outer < 0)
        inner, outer = np.abs(inner), np.abs(outer)
        self.place = ((outer * n_inner + inner) * 4 + signs) * n_first + first
        taken = np.zeros((n_outer, n_inner, n_first), dtype=np.bool_)
        taken[outer, inner, first] = True
        columns = (taken.any(axis=2) * np.arange(1, n_inner + 1), taken.any(axis=1) * np.arange(1, n_first + 1))
        # of each slice: waves along the inner and the first axis
        self.reach = list(zip(*(column.max(axis=1).tolist() for column in columns), strict=True))

    def slabs(self, n_atoms: int) -> Iterator[tuple[slice, int, int]]:
        """Slices to take together, and how many waves they have at most along the inner and the first axis."""
        start, n_outer = 0, self.extent[2]
        while start < n_outer:
            together = max(1, _SLAB // (4 * n_atoms * self.reach[start][0] + 1))
            reach = self.reach[start : start + together]
            b, a = (max(column) for column in zip(*reach, strict=True))
            if b > 0:
                yield slice(start, start + len(reach)), b, a
            start += together

    def scatter(self, weights: Tensor) -> Tensor:
        """weights (n, M) -> (outer, inner, 4, first, n), zero between the points."""
        n_first, n_inner, n_outer = self.extent
        box = weights.new_zeros(n_outer * n_inner * 4 * n_first, len(weights))
        place = torch.from_numpy(self.place).to(weights.device)
        return box.index_copy(0, place, weights.T).view(n_outer, n_inner, 4, n_first, -1)


def _table(angle: Tensor, size: int) -> Tensor:
    """cos(m angle), sin(m angle) for m = 0 ... size - 1. (size, 2, N)"""
    phase = torch.arange(size, dtype=angle.dtype, device=angle.device)[:, None] * angle
    return torch.stack((torch.cos(phase), torch.sin(phase)), dim=1)


def _slope(table: Tensor) -> Tensor:
    """Derivative of a table with respect to its angle."""
    m = torch.arange(len(table), dtype=table.dtype, device=table.device)[:, None]
    return torch.stack((-m * table[:, 1], m * table[:, 0]), dim=1)


def _unfolding(like: Tensor) -> Tensor:
    """exp(i s a) exp(i t b) for s, t = +- from the products of cos, sin of a and cos, sin of b. (4, 4) complex"""
    one = torch.tensor([[1, 1j], [1, -1j]], dtype=like.dtype.to_complex(), device=like.device)
    return torch.kron(one, one)


def _contract(sums: Tensor, table: Tensor, n_columns: int) -> Tensor:
    """Last axis: sums (M0 n C 2, N), table (M0, 2, N) -> (N, n C)."""
    split = sums.view(len(table), n_columns // 2, 2, -1)
    if sums.numel() < _SLAB:
        return (split * table[:, None]).sum((0, 2)).T
    total = torch.zeros_like(split[0, :, 0])
    for block, rows in zip(split, table, strict=True):
        total.addcmul_(block[:, 0], rows[0]).addcmul_(block[:, 1], rows[1])  # one big product would not fit the cache
    return total.T
