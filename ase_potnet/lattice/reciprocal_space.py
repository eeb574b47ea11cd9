"""The reciprocal-space part for three periodic directions, in reduced units: (1/V) sum_k exp(i k v) H(k)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ase_potnet.lattice.potentials.base import Primitive
from ase_potnet.lattice.products import multiply
from ase_potnet.lattice.special import exponential_integral

_CHUNK = 1 << 17  # values held at a time: half of that takes 5 % longer
_KEPT = 1 << 20  # phases of a batch up to which its plane waves are kept for the backward pass


def fourier_weights(primitives: list[Primitive], alphas: list[Tensor | None], waves: Tensor, volume: Tensor) -> Tensor:
    """2 H(k)/V of the long range of every primitive, the 2 standing for the pair k, -k.

    alphas: (B,) or None for a power law. waves: (B, 3, M) wave vectors. volume: (B,). Returns (B, n_primitives, M).
    """
    k2 = waves[:, 0] ** 2 + waves[:, 1] ** 2 + waves[:, 2] ** 2
    if all(alpha is None for alpha in alphas):
        # H(k) = pi^(3/2) E_(3/2-p)(k^2/4) as in InversePower.fourier, all at once
        values = exponential_integral(tuple(1.5 - primitive.p for primitive in primitives), 0.25 * k2)
        return values.transpose(0, 1) * (2 * math.pi**1.5 / volume)[:, None, None]
    transforms = [
        primitive.fourier(k2, 0.0 if alpha is None else alpha[:, None])
        for primitive, alpha in zip(primitives, alphas, strict=True)
    ]
    return torch.stack(transforms, dim=1) * (2 / volume)[:, None, None]


def plane_waves(positions: Tensor, waves: Tensor) -> Tensor:
    """[cos(k r) | sin(k r)] for positions (B, N, 3) and waves (B, 3, M) -> (B, N, 2M)."""
    phase = positions @ waves
    return torch.cat((torch.cos(phase), torch.sin(phase)), dim=2)


def pair_products(left: Tensor, right: Tensor, weights: Tensor) -> Tensor:
    """sum_k w_k cos(k (r_i - r_j)) = [cos|sin]_i diag(w, w) [cos|sin]_j^T.

    left (B, I, 2M), right (B, J, 2M), weights (B, n, M) -> (B, n, I, J).
    """
    n_batch, n_left, n_columns = left.shape
    doubled = torch.cat((weights, weights), dim=2)  # (B, n, 2M)
    weighted = (left[:, None] * doubled[:, :, None]).reshape(n_batch, weights.shape[1] * n_left, n_columns)
    return torch.bmm(weighted, right.transpose(1, 2)).view(n_batch, -1, n_left, right.shape[1])


class _WaveSum(torch.autograd.Function):
    """sum_k w_k cos(k (r_i - r_j)) in chunks of structures and reused memory; differentiable to every order."""

    @staticmethod
    def forward(ctx, positions, waves, weights):  # type: ignore[no-untyped-def]
        n_batch, n_atoms, _ = positions.shape
        n_weights, n_waves = weights.shape[1:]
        sums = positions.new_empty(n_batch, n_weights, n_atoms, n_atoms)
        memory = _Memory(positions, waves, weights)
        # plane waves of a small batch are kept for the backward pass, others computed again
        keep = any(ctx.needs_input_grad) and n_batch * n_atoms * n_waves <= _KEPT
        kept = [positions.new_empty(n_batch, n_atoms, 2 * n_waves)] if keep else []
        for part in memory.parts:
            basis = memory.plane_waves(positions[part], waves[part], kept[0][part] if keep else memory.basis)
            multiply(memory.weight(basis, weights[part]), basis.transpose(1, 2), out=sums[part])
        ctx.save_for_backward(positions, waves, weights, *kept)
        return sums

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        positions, waves, weights, *kept = ctx.saved_tensors
        if torch.is_grad_enabled():
            inputs = _aliases(positions, waves, weights)
            basis = plane_waves(*inputs[:2])
            sums = pair_products(basis, basis, inputs[2])
            wanted = [x for x, is_wanted in zip(inputs, ctx.needs_input_grad, strict=True) if is_wanted]
            slopes = iter(torch.autograd.grad(sums, wanted, grad, create_graph=True))
            return tuple(next(slopes) if is_wanted else None for is_wanted in ctx.needs_input_grad)
        n_waves = waves.shape[2]
        grads = (torch.empty_like(positions), torch.empty_like(waves), torch.empty_like(weights))
        memory = _Memory(positions, waves, weights)
        both = grad + grad.transpose(2, 3)
        for part in memory.parts:
            basis = kept[0][part] if kept else memory.plane_waves(positions[part], waves[part], memory.basis)
            weighted = memory.weighted[: len(basis)]  # (b, n, N, 2M)
            multiply(both[part], basis, out=weighted)
            per_wave = (weighted * basis.unsqueeze(1)).sum(2)  # (b, n, 2M); einsum takes five times as long
            torch.add(per_wave[..., :n_waves], per_wave[..., n_waves:], out=grads[2][part])
            of_basis = memory.weight(weighted, weights[part]).sum(1)  # (b, N, 2M)
            cosine, sine = basis[..., :n_waves], basis[..., n_waves:]  # there may be no waves
            phase = of_basis[..., n_waves:] * cosine - of_basis[..., :n_waves] * sine  # (b, N, M)
            multiply(phase[:, None], waves[part].transpose(1, 2), out=grads[0][part][:, None])
            multiply(positions[part].transpose(1, 2)[:, None], phase, out=grads[1][part][:, None])
        return grads[0], grads[1], grads[2].mul_(0.5)


def _aliases(*inputs: Tensor) -> tuple[Tensor, ...]:
    """The same values as inputs of their own: weights depend on the waves, whose gradient must not count that path."""
    return tuple(x.view_as(x) for x in inputs)


class _Memory:
    """Reused memory of one call, for some structures at a time: phases, [cos|sin], and their weighted copies."""

    def __init__(self, positions: Tensor, waves: Tensor, weights: Tensor) -> None:
        n_batch, n_atoms, _ = positions.shape
        n_weights, n_waves = weights.shape[1:]
        step = max(1, min(n_batch, _CHUNK // max(1, n_atoms * n_waves * 2 * n_weights)))
        self.parts = [slice(start, min(start + step, n_batch)) for start in range(0, n_batch, step)]
        self.phase = positions.new_empty(step, n_atoms, n_waves)
        self.basis = positions.new_empty(step, n_atoms, 2 * n_waves)
        self.weighted = positions.new_empty(step, n_weights, n_atoms, 2 * n_waves)

    def plane_waves(self, positions: Tensor, waves: Tensor, out: Tensor) -> Tensor:
        """[cos(k r) | sin(k r)] of some structures, in ``out``. (b, N, 2M)"""
        n_waves = waves.shape[2]
        basis, phase = out[: len(positions)], self.phase[: len(positions)]
        multiply(positions[:, None], waves, out=phase[:, None])
        torch.cos(phase, out=basis[..., :n_waves])
        torch.sin(phase, out=basis[..., n_waves:])
        return basis

    def weight(self, values: Tensor, weights: Tensor) -> Tensor:
        """values (b, N, 2M) or (b, n, N, 2M) times weights (b, n, M), in ``weighted``. (b, n, N, 2M)"""
        doubled = torch.cat((weights, weights), dim=2).unsqueeze(2)  # (b, n, 1, 2M)
        values = values.unsqueeze(1) if values.ndim == 3 else values
        return torch.mul(values, doubled, out=self.weighted[: len(values)])


def sum_over_waves(positions: Tensor, waves: Tensor, weights: Tensor) -> Tensor:
    """sum_k w_k cos(k (r_i - r_j)) for positions (B, N, 3), waves (B, 3, M), weights (B, n, M) -> (B, n, N, N)."""
    return _WaveSum.apply(positions, waves, weights)
