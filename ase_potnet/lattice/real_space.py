"""The real-space part: sums over the images of every pair, in reduced units."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ase_potnet.lattice.potentials.base import Primitive, radial_derivative
from ase_potnet.lattice.special import Radial

_CHUNK = 1 << 17  # pair-image distances held at a time: half of that takes 5 to 10 % longer
FAR_AWAY = 1e8  # where padding sits, in reduced units; its square is finite in float32


@dataclass(frozen=True)
class RadialTerms:
    """The primitives of a sum: which are summed whole, and alpha in reduced units, (B,) per primitive or None."""

    primitives: tuple[Primitive, ...]
    complete: tuple[bool, ...]
    alphas: tuple[Tensor | None, ...]

    def alpha_of(self, k: int, some: slice, n_pairs: int, pair: Tensor) -> Tensor | float:
        """alpha of primitive k for every entry, where ``pair`` counts the pairs of some structures."""
        alpha = self.alphas[k]
        if alpha is None:
            return 0.0
        alpha = alpha[some]
        if len(alpha) == 1:
            return alpha
        return alpha[:, None].expand(-1, n_pairs).reshape(-1).index_select(0, pair)


def nonzero_flat(mask: Tensor) -> Tensor:
    """Flat indices of True entries. On a CPU numpy is six times faster than torch here."""
    if mask.is_cuda:
        return torch.nonzero(mask.reshape(-1)).reshape(-1)
    return torch.from_numpy(np.flatnonzero(mask.numpy()))


def floor_divide(index: Tensor, divisor: int) -> Tensor:
    """index // divisor. On a CPU numpy is several times faster than torch here, too."""
    if index.is_cuda:
        return torch.div(index, divisor, rounding_mode="floor")
    return torch.from_numpy(index.numpy() // divisor)


def nonzero_less(values: Tensor, limits: Tensor) -> Tensor:
    """Flat indices of the values below the limits. On a CPU numpy compares several times faster than torch, too."""
    if values.is_cuda:
        return nonzero_flat(values < limits)
    return torch.from_numpy(np.flatnonzero(np.less(values.numpy(), limits.numpy())))


def entries_within(distance2: Tensor, cutoff2: Tensor) -> tuple[Tensor, Tensor]:
    """Flat indices of the distances (B, P, M) within the cut-offs (B,), and the pair of each. (n_entries,) both"""
    flat = nonzero_less(distance2, cutoff2[:, None, None])
    return flat, floor_divide(flat, distance2.shape[2])


def squared_distances(vectors: Tensor, images: Tensor, work: Tensor) -> Tensor:
    """|v + n|^2 for vectors (B, 3, P) and images (B, 3, M) -> (B, P, M), componentwise: exact at short distances.

    work: (2, at least B P M), reused memory; the result lies in its first row.
    """
    shape = (vectors.shape[0], vectors.shape[2], images.shape[2])
    size = shape[0] * shape[1] * shape[2]
    total, part = work[0, :size].view(shape), work[1, :size].view(shape)
    torch.add(vectors[:, 0, :, None], images[:, 0, None, :], out=total)
    total.mul_(total)
    for axis in (1, 2):
        torch.add(vectors[:, axis, :, None], images[:, axis, None, :], out=part)
        total.addcmul_(part, part)
    return total


def chunks(n_batch: int, n_pairs: int, n_images: int) -> list[tuple[slice, slice]]:
    """Slices of structures and pairs whose distances stay in cache."""
    in_chunk = max(1, _CHUNK // (n_pairs * n_images))
    pairs_in_chunk = n_pairs if in_chunk > 1 else max(64, _CHUNK // n_images)
    return [
        (slice(start, min(start + in_chunk, n_batch)), slice(begin, min(begin + pairs_in_chunk, n_pairs)))
        for start in range(0, n_batch, in_chunk)
        for begin in range(0, n_pairs, pairs_in_chunk)
    ]


class _ImageSum(torch.autograd.Function):
    """sum_n phi_k(|v_p + n|) over images within a cut-off; differentiable to every order."""

    @staticmethod
    def forward(ctx, vectors, images, cutoff2, terms):  # type: ignore[no-untyped-def]
        n_batch, n_pairs, n_images = vectors.shape[0], vectors.shape[2], images.shape[2]
        n_orders = 2 if ctx.needs_input_grad[0] or ctx.needs_input_grad[1] else 1
        sums = vectors.new_zeros(len(terms.primitives), n_batch, n_pairs)
        pieces = chunks(n_batch, n_pairs, n_images)
        widest = max((b.stop - b.start) * (p.stop - p.start) for b, p in pieces) * n_images
        work = vectors.new_empty(2, widest)
        kept = []
        for some, pairs in pieces:
            distance2 = squared_distances(vectors[some, :, pairs], images[some], work)
            if pairs.start == 0:
                distance2[:, 0, 0] = torch.inf
            flat, pair = entries_within(distance2, cutoff2[some])
            radial = Radial(distance2.view(-1).index_select(0, flat))
            part = sums[:, some, pairs].view(len(terms.primitives), -1)  # whole rows, or a part of one
            slopes = []
            for k, primitive in enumerate(terms.primitives):
                evaluate = primitive.complete if terms.complete[k] else primitive.short_range
                orders = evaluate(radial, terms.alpha_of(k, some, pairs.stop - pairs.start, pair), n_orders)
                part[k].index_add_(0, pair, orders[0])
                slopes += orders[1:]
            if n_orders == 2:
                kept += [flat, pair, *slopes]
        ctx.terms, ctx.pieces = terms, pieces
        ctx.save_for_backward(vectors, images, *kept)
        return sums.transpose(0, 1)

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        vectors, images, *kept = ctx.saved_tensors
        n_primitives = len(ctx.terms.primitives)
        stride = 2 + n_primitives
        grad_vectors: list[Tensor] = []
        grad_images: dict[int, Tensor] = {}
        widest = max((b.stop - b.start) * (p.stop - p.start) for b, p in ctx.pieces) * images.shape[2]
        work = vectors.new_empty(0 if torch.is_grad_enabled() else widest)
        for number, (some, pairs) in enumerate(ctx.pieces):
            flat, pair, *slopes = kept[number * stride : (number + 1) * stride]
            part, lattice = vectors[some, :, pairs], images[some]
            if torch.is_grad_enabled():
                # a second derivative may follow, so the slopes must be differentiable as well
                slopes = _differentiable_slopes(part, lattice, flat, pair, some, ctx.terms)
            upstream = grad[some, :, pairs].transpose(0, 1).reshape(n_primitives, -1)
            weight = upstream[0].index_select(0, pair) * slopes[0]
            for k in range(1, n_primitives):
                weight = torch.addcmul(weight, upstream[k].index_select(0, pair), slopes[k])
            shape = (part.shape[0], part.shape[2], lattice.shape[2])
            size = shape[0] * shape[1] * shape[2]
            if torch.is_grad_enabled():
                dense = weight.new_zeros(size).index_copy(0, flat, -2 * weight).view(shape)
            else:
                dense = work[:size].zero_().index_copy_(0, flat, weight.mul_(-2)).view(shape)
            grad_vectors.append(torch.bmm(lattice, dense.transpose(1, 2)).addcmul(dense.sum(2).unsqueeze(1), part))
            of_images = torch.bmm(part, dense).addcmul(dense.sum(1).unsqueeze(1), lattice)
            grad_images[some.start] = grad_images[some.start] + of_images if some.start in grad_images else of_images
        if ctx.pieces[0][0].stop - ctx.pieces[0][0].start < len(vectors) and ctx.pieces[0][1].stop < vectors.shape[2]:
            # one structure at a time, its pairs in several chunks
            per_structure = len(grad_vectors) // len(vectors)
            grad_vectors = [
                torch.cat(grad_vectors[n : n + per_structure], dim=2)
                for n in range(0, len(grad_vectors), per_structure)
            ]
        elif ctx.pieces[0][1].stop < vectors.shape[2]:
            grad_vectors = [torch.cat(grad_vectors, dim=2)]
        return torch.cat(grad_vectors), torch.cat(list(grad_images.values())), None, None


def _differentiable_slopes(vectors, images, flat, pair, some, terms):  # type: ignore[no-untyped-def]
    """-d phi_k/d r^2 of every entry as functions of the vectors and images."""
    n_pairs, n_images = vectors.shape[2], images.shape[2]
    image = flat % n_images + floor_divide(pair, n_pairs) * n_images
    of_pair = vectors.transpose(1, 2).reshape(-1, 3)[pair]
    of_image = images.transpose(1, 2).reshape(-1, 3)[image]
    x = ((of_pair + of_image) ** 2).sum(-1)
    return [
        radial_derivative(primitive, x, terms.alpha_of(k, some, n_pairs, pair), complete=terms.complete[k], order=1)
        for k, primitive in enumerate(terms.primitives)
    ]


def sum_over_images(vectors: Tensor, images: Tensor, cutoff2: Tensor, terms: RadialTerms) -> Tensor:
    """Short-range (or complete) sums over images.

    vectors: (B, 3, P) pair vectors, images: (B, 3, M) lattice points, both padded with FAR_AWAY; cutoff2: (B,)
    squared cut-offs. Pair 0 is the self pair v = 0, whose image 0 (n = 0) is left out.
    Returns (B, n_primitives, P).
    """
    return _ImageSum.apply(vectors, images, cutoff2, terms)
