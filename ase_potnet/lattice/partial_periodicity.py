r"""The reciprocal-space part of slabs and wires, in reduced units.

Poisson-resum the periodic directions of every Gaussian only. With z the distance along the others,

    long(v) = pi^(d/2)/V_d sum_k exp(i k v) \int_0^1 t^(p-1-d/2) exp(-(k^2 + alpha^2)/4t - t z^2) dt,

by quadrature in t. Nodes are shared by all wave vectors and potentials; for each node, exp(-t z^2) multiplies one
matrix product over k. The k = 0 term of a power law has its own quadrature in u = sqrt(t), where it is entire.
Source: A. Grzybowski, E. Gwóźdź, A. Bródka, Phys. Rev. B 61, 6706 (2000) for the slab, with t kept as the variable.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ase_potnet.lattice.buckets import Bucket
from ase_potnet.lattice.plan import prefactors
from ase_potnet.lattice.potentials.base import Decomposition, Primitive
from ase_potnet.lattice.reciprocal_space import pair_products, plane_waves

Array = NDArray[np.float64]


@dataclass(frozen=True)
class MixtureQuadrature:
    """Quadrature over t in (0, 1) of the long range of one slab or wire, in reduced units.

    nodes (Q,) and weights (n, Q): for k != 0, and k = 0 of screened potentials, the integral over t of
    t^(p-1-d/2) g(t) is sum_q weights g(nodes). zero_nodes (Z,), zero_weights (n, Z), zero_constant (n,): the k = 0
    term of a power law is constant + sum_z weights (exp(-t z^2) - 1), Hadamard's finite part where it diverges.
    """

    nodes: Tensor
    weights: Tensor
    zero_nodes: Tensor
    zero_weights: Tensor
    zero_constant: Tensor
    error: Array  # (n,) measured against a much finer rule, per unit prefactor


_VALUES = 1 << 17  # values over nodes, potentials and pairs held at a time
_WIDEST = 12.0  # sqrt(t) z up to which one panel serves
_ROUNDING = 16 * np.finfo(np.float64).eps  # of an integral
_RULES = (12, 16, 20, 24, 32, 40, 48, 64, 80, 96, 128, 160, 200, 256)


def mixture_quadrature(
    primitives: list[Primitive], alphas: list[float], d: int, k2: Array, z2_max: float, tolerance: Array
) -> MixtureQuadrature:
    """The smallest Gauss-Legendre rules (in ln t, and in sqrt(t) for k = 0) that are accurate to ``tolerance``.

    k2: squared wave numbers that occur (without 0). tolerance: (n,) on the integral over t, or rounding where that is
    more. The error is measured against a much finer rule over the whole range of k^2 and z^2 that occurs. For k = 0 the
    integrand in sqrt(t) is as narrow as 1/z: panels become narrower by factors of 4 towards 0.
    """
    p = np.array([primitive.p for primitive in primitives])
    alpha = np.array(alphas)
    screened = alpha > 0
    decays = [0.25 * (np.min(k2) + a * a) for a in alpha] if len(k2) else []
    decays += [0.25 * a * a for a in alpha[screened]]
    lower = math.log(min([0.02 * min(decays), 0.5]) if decays else 0.5)
    samples = np.unique(np.quantile(k2, (0, 0.05, 0.3, 1))) if len(k2) else np.zeros(0)
    z2 = np.concatenate(([0.0], np.geomspace(1e-3, max(z2_max, 1e-2), 40)))
    n_panels = 1 + max(0, math.ceil(math.log(max(z2_max, 1e-2) / _WIDEST**2, 16)))
    panels = [0.0, *(4.0**-k for k in reversed(range(n_panels)))]
    power = (p - 0.5 * d)[:, None]

    def rule(n: int) -> tuple[Array, Array]:
        u, w = legendre(n, lower, 0.0)
        return np.exp(u), w * np.exp(power * u)

    def integrals(n: int) -> Array:
        t, w = rule(n)
        kappa = 0.25 * (np.append(samples, 0.0)[None, :] + alpha[:, None] ** 2)  # (n, K)
        with np.errstate(divide="ignore"):
            damping = np.exp(-kappa[:, :, None] / t) * (kappa > 0)[:, :, None]
        return np.einsum("nq,nkq,zq->nkz", w, damping, np.exp(-z2[:, None] * t))

    def zero_rule(n: int) -> tuple[Array, Array]:
        rules = [legendre(n, lower, upper) for lower, upper in pairwise(panels)]
        u, w = (np.concatenate(values) for values in zip(*rules, strict=True))
        return u * u, np.where(screened[:, None], 0.0, 2 * w * u ** (2 * power - 1))

    def zero_integrals(n: int) -> Array:
        t, w = zero_rule(n)
        return np.einsum("nq,zq->nz", w, np.expm1(-z2[:, None] * t))

    def smallest(integrals: Callable[[int], Array], finest: int) -> tuple[int, Array]:
        """Nodes that are enough, and the error with them (n,)."""
        fine = integrals(finest).reshape(len(p), -1)
        enough = np.maximum(tolerance, _ROUNDING * np.abs(fine).max(axis=1))
        for n in _RULES:
            error: Array = np.abs(integrals(n).reshape(fine.shape) - fine).max(axis=1)
            if (error < enough).all():
                break
        return n, error

    n, error = smallest(integrals, 512)
    n_zero, zero_error = smallest(zero_integrals, 128)
    t, w = rule(n)
    t_zero, w_zero = zero_rule(n_zero)
    with np.errstate(divide="ignore"):
        constant = np.where(screened | (power[:, 0] == 0), 0.0, 1 / power[:, 0])
    return MixtureQuadrature(
        nodes=torch.from_numpy(t),
        weights=torch.from_numpy(w),
        zero_nodes=torch.from_numpy(t_zero),
        zero_weights=torch.from_numpy(w_zero),
        zero_constant=torch.from_numpy(constant),
        error=2 * (error * (2 * len(k2) + 1) + zero_error),
    )


def to_like(rule: MixtureQuadrature, like: Tensor) -> MixtureQuadrature:
    """The quadrature with the dtype and device of ``like``."""
    return MixtureQuadrature(
        nodes=rule.nodes.to(like),
        weights=rule.weights.to(like),
        zero_nodes=rule.zero_nodes.to(like),
        zero_weights=rule.zero_weights.to(like),
        zero_constant=rule.zero_constant.to(like),
        error=rule.error,
    )


def partial_fourier(bucket: Bucket, decomposition: Decomposition) -> PartialFourier:
    """Quadrature rule and wave vectors of the only structure of a bucket, for its split primitives."""
    plan, split = bucket.plan, bucket.plan.split
    s = int(bucket.members[0])
    waves, _ = bucket.waves()
    host_waves = waves[0].detach().cpu().numpy().astype(np.float64)
    across = bucket.across[0].detach()
    extent = across.amax(0) - across.amin(0)
    alphas = [decomposition.primitives[k].alpha / float(plan.scale[s]) for k in split]
    prefactor = math.pi ** (0.5 * plan.d) / plan.volume[s]
    factors = np.array([prefactors(plan, decomposition)[k][s] for k in split])
    rule = mixture_quadrature(
        [decomposition.primitives[k] for k in split],
        alphas,
        plan.d,
        np.einsum("xm,xm->m", host_waves, host_waves),
        float((extent**2).sum()),
        1e-3 * plan.tolerance[s] / (factors * prefactor * (2 * host_waves.shape[1] + 1)),
    )
    rule = to_like(rule, bucket.positions)
    return PartialFourier(
        rule=rule,
        alphas=bucket.positions.new_tensor(alphas),
        waves=waves[0],
        prefactor=math.pi ** (0.5 * plan.d) / bucket.volume[0],
    )


@dataclass(frozen=True)
class PartialFourier:
    """Everything the long range of one slab or wire needs. Reduced units."""

    rule: MixtureQuadrature
    alphas: Tensor  # (n,)
    waves: Tensor  # (3, M) one of each pair k, -k; without 0
    prefactor: Tensor  # () pi^(d/2)/V_d

    def node_weights(self) -> tuple[Tensor, Tensor]:
        """Weights (Q, n, M) of k != 0, the 2 for the pair k, -k included, and (Q, n) of k = 0 (screened only)."""
        k2 = self.waves[0] ** 2 + self.waves[1] ** 2 + self.waves[2] ** 2
        kappa = 0.25 * (k2[None, :] + self.alphas[:, None] ** 2)  # (n, M)
        base = self.prefactor * self.rule.weights.T  # (Q, n)
        finite = 2 * base[:, :, None] * torch.exp(-kappa / self.rule.nodes[:, None, None])
        damping = torch.exp(-0.25 * self.alphas**2 / self.rule.nodes[:, None])
        return finite, base * damping * (self.alphas > 0)


def partial_long_range(left: tuple[Tensor, Tensor], right: tuple[Tensor, Tensor], parts: PartialFourier) -> Tensor:
    """Long range between two sets of atoms of one slab or wire.

    left, right: positions (I, 3) and their components along the non-periodic directions (I, 3).
    Returns (n, I, J).
    """
    _, z2 = _separation(left, right)
    waves_left, waves_right = (plane_waves(side[0][None], parts.waves[None]) for side in (left, right))
    finite, zero = parts.node_weights()
    rule, shape = parts.rule, (-1, len(parts.alphas), *z2.shape)
    total = (parts.prefactor * rule.zero_constant)[:, None, None].expand(-1, *z2.shape)
    for some in _node_chunks(parts, z2.shape, 1):
        products = pair_products(waves_left, waves_right, finite[some].flatten(0, 1)[None]).view(shape)  # (q, n, I, J)
        gaussians = torch.exp(-rule.nodes[some, None, None] * z2)  # (q, I, J)
        total = total + (gaussians[:, None] * (products + zero[some][..., None, None])).sum(0)
    decays = torch.expm1(-rule.zero_nodes[:, None, None] * z2)  # (Z, I, J)
    return total + torch.tensordot(parts.prefactor * rule.zero_weights, decays, 1)


def partial_long_range_field(
    left: tuple[Tensor, Tensor], right: tuple[Tensor, Tensor], parts: PartialFourier
) -> Tensor:
    """Minus the gradient of ``partial_long_range`` with respect to the left positions. Returns (n, I, J, 3)."""
    separation, z2 = _separation(left, right)
    waves_left, waves_right = (plane_waves(side[0][None], parts.waves[None]) for side in (left, right))
    # d/dr_i [cos|sin]_i = [-sin|cos]_i k, so minus the gradient pairs [sin|-cos]_i with [cos|sin]_j
    n_waves = parts.waves.shape[1]
    turned = torch.cat((waves_left[..., n_waves:], -waves_left[..., :n_waves]), dim=2)
    finite, zero = parts.node_weights()
    rule, n = parts.rule, len(parts.alphas)
    along = z2.new_zeros(n, *z2.shape)  # coefficient of the separation
    across = z2.new_zeros(n, 3, *z2.shape)
    for some in _node_chunks(parts, z2.shape, 4):
        nodes = rule.nodes[some, None, None]
        gaussians = torch.exp(-nodes * z2)  # (q, I, J)
        products = pair_products(waves_left, waves_right, finite[some].flatten(0, 1)[None]).view(-1, n, *z2.shape)
        along = along + ((2 * nodes * gaussians)[:, None] * (products + zero[some][..., None, None])).sum(0)
        weights = finite[some][:, :, None] * parts.waves  # (q, n, 3, M)
        slopes = pair_products(turned, waves_right, weights.flatten(0, 2)[None]).view(-1, n, 3, *z2.shape)
        across = across + (gaussians[:, None, None] * slopes).sum(0)
    decays = torch.exp(-rule.zero_nodes[:, None, None] * z2)
    along = along + torch.tensordot(2 * parts.prefactor * rule.zero_weights * rule.zero_nodes, decays, 1)
    return along[..., None] * separation + across.permute(0, 2, 3, 1)


def _separation(left: tuple[Tensor, Tensor], right: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Separations along the non-periodic directions (I, J, 3) and their squares (I, J)."""
    separation = left[1][:, None, :] - right[1][None, :, :]
    return separation, separation[..., 0] ** 2 + separation[..., 1] ** 2 + separation[..., 2] ** 2


def _node_chunks(parts: PartialFourier, shape: tuple[int, ...], n_products: int) -> list[slice]:
    """Nodes to take together: few calls for small systems, bounded memory for large ones."""
    width = n_products * len(parts.alphas) * shape[0] * max(shape[1], 2 * parts.waves.shape[1])
    step = max(1, _VALUES // max(1, width))
    n_nodes = len(parts.rule.nodes)
    return [slice(start, min(start + step, n_nodes)) for start in range(0, n_nodes, step)]


def legendre(n: int, lower: float, upper: float) -> tuple[Array, Array]:
    """Gauss-Legendre nodes and weights on [lower, upper]."""
    nodes, weights = _unit_legendre(n)
    half = 0.5 * (upper - lower)
    return lower + half * (nodes + 1), half * weights


@lru_cache(maxsize=64)
def _unit_legendre(n: int) -> tuple[Array, Array]:
    return np.polynomial.legendre.leggauss(n)
