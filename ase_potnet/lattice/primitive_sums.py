"""Pair sums of the primitives of one bucket of structures: real space, reciprocal space, constants."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ase_potnet.lattice.buckets import Bucket
from ase_potnet.lattice.caching import cache_tensors
from ase_potnet.lattice.pair_vectors import distinct_pairs, pair_vectors
from ase_potnet.lattice.partial_periodicity import partial_fourier, partial_long_range
from ase_potnet.lattice.potentials.base import Decomposition
from ase_potnet.lattice.real_space import sum_over_images
from ase_potnet.lattice.reciprocal_space import fourier_weights, sum_over_waves


@cache_tensors(maxsize=64)
def slots_of_pairs(n: int, device: torch.device) -> Tensor:
    """Place of every (i, j) among the distinct pairs: 0 for the self pair, then those of ``distinct_pairs``. (n n,)"""
    first, second = (index.cpu().numpy() for index in distinct_pairs(n, device))
    slots = np.zeros((n, n), dtype=np.int64)
    slots[first, second] = slots[second, first] = np.arange(1, len(first) + 1)
    return torch.from_numpy(slots.reshape(-1)).to(device)


@cache_tensors(maxsize=64)
def self_and_distinct_pairs(n: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """First and second atom of the self pair and of ``distinct_pairs`` (P,), and the slots of every (i, j) (n n,)."""
    first, second = (torch.cat((pair.new_zeros(1), pair)) for pair in distinct_pairs(n, device))
    return first, second, slots_of_pairs(n, device)


def primitive_pair_sums(bucket: Bucket, decomposition: Decomposition) -> Tensor:
    """Sums of the primitives of one bucket. (S, n_primitives, n_max, n_max)"""
    n = bucket.n_max
    sums = real_space_sums(bucket, decomposition, bucket.squared_cutoff())  # (S, n_primitives, P)
    split = bucket.plan.split
    if split:
        if bucket.plan.d == 3:
            constant, long = bucket.zero_mode(decomposition), _reciprocal_sums(bucket, decomposition)
        else:
            atoms = (bucket.positions[0], bucket.across[0])
            constant = bucket.logarithms(decomposition)
            long = partial_long_range(atoms, atoms, partial_fourier(bucket, decomposition))[None]
        is_self = sums.new_zeros(sums.shape[2])
        is_self[0] = 1.0
        own = bucket.self_terms(decomposition)
        sums = sums + torch.addcmul(constant[:, :, None], own[:, :, None], is_self, value=-1)
    sums = sums.index_select(2, slots_of_pairs(n, sums.device)).view(*sums.shape[:2], n, n)
    if split:
        whole = len(split) == len(decomposition.primitives)
        sums = sums + long if whole else sums.index_add(1, torch.tensor(split, device=sums.device), long)
    return sums * bucket.prefactors(decomposition)[:, :, None, None]


def real_space_sums(bucket: Bucket, decomposition: Decomposition, cutoff2: Tensor) -> Tensor:
    """Real-space part of the distinct pairs of one bucket, reduced units. (S, n_primitives, P)"""
    vectors = pair_vectors(bucket)
    vectors = torch.cat((vectors.new_zeros(len(vectors), 3, 1), vectors), dim=2)  # the self pair first
    return sum_over_images(vectors, bucket.images(), cutoff2, bucket.terms(decomposition))


def _reciprocal_sums(bucket: Bucket, decomposition: Decomposition) -> Tensor:
    """Reciprocal part of the split primitives without k = 0, reduced units. (S, n_split, n_max, n_max)"""
    waves, present = bucket.waves()
    split = bucket.plan.split
    terms = bucket.terms(decomposition)
    weights = fourier_weights(
        [decomposition.primitives[k] for k in split],
        [terms.alphas[k] for k in split],
        waves,
        bucket.volume,
    )
    if present is not None:
        weights = weights * present[:, None]
    return sum_over_waves(bucket.positions, waves, weights)
