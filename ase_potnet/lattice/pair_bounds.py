"""A proven bound on the error of pair sums, close to the error itself.

The plan keeps a bound from lattice-point counting below the tolerance. That bound is safe for every geometry and
therefore loose; here the first terms beyond the cut-offs are looked at one by one, those of real space for the pairs
at hand, those of reciprocal space with all phases aligned, and only what lies beyond is bounded by counting.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ase_potnet.lattice.bounds import lattice_tail
from ase_potnet.lattice.buckets import Bucket, gather_bucket, split_into_buckets
from ase_potnet.lattice.error_bounds import zero_mode_bound
from ase_potnet.lattice.pair_vectors import pair_vectors
from ase_potnet.lattice.partial_periodicity import partial_fourier
from ase_potnet.lattice.plan import Plan, Ragged, mixture_tails, prefactors, wave_vectors
from ase_potnet.lattice.potentials.base import Decomposition
from ase_potnet.lattice.special import exponential_integral
from ase_potnet.lattice.structures import Structures

Array = NDArray[np.float64]
RealSpaceSums = Callable[[Bucket, Decomposition, Tensor], Tensor]

_MARGIN = 1.0  # how far beyond the Gaussian cut-offs terms are looked at, reduced units
_ROUNDING = 8  # multiples of the machine epsilon, for every operation on a term


@torch.no_grad()
def pair_bounds(
    structures: Structures, plans: Sequence[Plan], decomposition: Decomposition, real_space_sums: RealSpaceSums
) -> Tensor:
    """Bound on |error| of every pair sum of a structure, truncation (proven) plus rounding (estimated). (B, K)"""
    matrix = np.abs(np.array(decomposition.coefficients))  # (K, n_primitives)
    bounds = np.zeros((structures.n_structures, len(matrix)))
    epsilon = torch.finfo(structures.positions.dtype).eps
    exact = replace(structures, positions=structures.positions.double(), cell=structures.cell.double())
    for plan in plans:
        unit = np.stack([p.norm * plan.scale ** (2 * p.p) for p in decomposition.primitives])  # (p, S)
        tails, sizes = _wave_terms(plan, decomposition)
        real, conditions = np.zeros_like(tails), np.zeros_like(tails)
        for members in split_into_buckets(exact, plan):
            bucket = gather_bucket(exact, plan, members)
            left_out, largest = _real_terms(bucket, decomposition, real_space_sums)
            real[:, members] += left_out
            conditions[:, members] = _conditions(exact, bucket, decomposition)
            sizes[:, members] += largest
            if plan.d in (1, 2) and plan.split:
                rule = partial_fourier(bucket, decomposition)
                for k, error in zip(plan.split, rule.rule.error, strict=True):
                    real[k, members] += error * float(rule.prefactor)
        total = unit * (tails + real + epsilon * conditions * sizes)
        bounds[plan.index] = (matrix @ total).T
    return torch.from_numpy(bounds).to(structures.positions)


def _conditions(structures: Structures, bucket: Bucket, decomposition: Decomposition) -> Array:
    """Rounding of a term relative to its size and the machine epsilon: operations and coordinates. (p, S)

    1/r^n passes on n times the relative error of r, exp(-alpha r) alpha times its error; the error of r is half that
    of the coordinates as they were given. Taken at the nearest distance, reduced units.
    """
    plan, members = bucket.plan, bucket.members
    nearest = np.full(len(members), np.inf)
    if bucket.n_max > 1:
        nearest = torch.linalg.vector_norm(pair_vectors(bucket), dim=1).amin(1).cpu().numpy()
    if plan.d > 0:
        nearest = np.minimum(nearest, np.sqrt((plan.basis[members] ** 2).sum(axis=2)).min(axis=1))
    scale = plan.scale[members]
    given = scale * structures.positions[bucket.atoms].abs().amax((1, 2)).cpu().numpy()
    rows = [
        _ROUNDING * (2 + 2 * abs(p.p)) + 0.5 * given * (p.alpha / scale + max(2 * p.p, 0) / nearest)
        for p in decomposition.primitives
    ]
    return np.stack(rows)


def _wave_terms(plan: Plan, decomposition: Decomposition) -> tuple[Array, Array]:
    """Reciprocal terms left out, and the sum of those taken with self and k = 0 terms. Reduced units. (p, S) each"""
    shape = (len(decomposition.primitives), len(plan.index))
    left_out, taken = np.zeros(shape), np.zeros(shape)
    if not plan.split:
        return left_out, taken
    dual = plan.dual
    outer = plan.wave_cutoff + _MARGIN
    beyond = wave_vectors(plan.basis, dual, plan.wave_cutoff, outer)
    tails = mixture_tails(plan, decomposition)
    rows = len(plan.split)
    further = tails.bound(np.concatenate([np.broadcast_to(outer, (rows, len(outer)))] * 2))[rows:]
    for row, k in enumerate(plan.split):
        primitive = decomposition.primitives[k]
        alpha = primitive.alpha / plan.scale
        factor = 2 * math.pi ** (0.5 * plan.d) / plan.volume
        index = 0.5 * plan.d - primitive.p
        zero = zero_mode_bound(primitive, plan.d, plan.scale)
        left_out[k] = factor * _sum_terms(beyond, dual, alpha, index)
        left_out[k] += further[row] / prefactors(plan, decomposition)[k]
        taken[k] = factor * (_sum_terms(plan.waves, dual, alpha, index) + 0.5 * zero) + 1 / abs(primitive.p)
    return left_out, taken


def _sum_terms(waves: Ragged, dual: Array, alpha: Array, index: float) -> Array:
    """sum_k E_index((k^2 + alpha^2)/4) over the wave vectors of each structure. (S,)"""
    structure = np.repeat(np.arange(len(alpha)), waves.count)
    vectors = math.pi * np.einsum("md,mdx->mx", waves.points, dual[structure])
    x = (vectors * vectors).sum(axis=1) + 0.25 * alpha[structure] ** 2
    values = exponential_integral((index,), torch.from_numpy(x))[0].numpy()
    sums: Array = np.bincount(structure, weights=values, minlength=len(alpha)).astype(np.float64)
    return sums


def _real_terms(bucket: Bucket, decomposition: Decomposition, real_space_sums: RealSpaceSums) -> tuple[Array, Array]:
    """Real-space terms left out (largest over the pairs), and the largest sum taken. Reduced units. (p, S) each"""
    plan = bucket.plan
    sums = real_space_sums(bucket, decomposition, bucket.squared_cutoff())  # (S, p, P)
    largest = sums.abs().amax(2).cpu().numpy().T
    if plan.d == 0:
        return np.zeros_like(largest), largest
    margin = np.full(len(plan.index), _MARGIN)
    for primitive, whole in zip(decomposition.primitives, plan.complete, strict=True):
        if whole:
            margin = np.maximum(margin, 7 * plan.scale / primitive.alpha)
    cutoff = plan.cutoff + margin
    wide_bucket = replace(bucket, plan=replace(plan, cutoff=cutoff))
    more = real_space_sums(wide_bucket, decomposition, wide_bucket.squared_cutoff())
    left_out = (more - sums).clamp(min=0).amax(2).cpu().numpy().T
    some = bucket.members
    for k, (primitive, whole) in enumerate(zip(decomposition.primitives, plan.complete, strict=True)):
        if whole:
            alpha = primitive.alpha / plan.scale
            value = np.exp(-alpha * cutoff) / primitive.norm * plan.scale ** (-2 * primitive.p)
            value = value * (plan.scale / cutoff) ** (primitive.p + 0.5)
            tail = lattice_tail(value, alpha, cutoff, plan.covering, plan.volume, plan.d)
        else:
            tails = mixture_tails(plan, decomposition)
            rows = len(plan.split)
            both = tails.bound(np.concatenate([np.broadcast_to(cutoff, (rows, len(cutoff)))] * 2))
            tail = both[plan.split.index(k)] / prefactors(plan, decomposition)[k]
        left_out[k] += tail[some]
    return left_out, largest
