r"""The Epstein zeta function with phase, Z(n; v, w) = sum_m exp(-2 pi i w.m) |v + m L|^-n."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from ase_potnet.lattice.bounds import MixtureTail
from ase_potnet.lattice.error_bounds import check_tolerance
from ase_potnet.lattice.plan import lattice_images
from ase_potnet.lattice.potentials.base import radial_values
from ase_potnet.lattice.potentials.inverse_power import InversePower
from ase_potnet.lattice.reduction import covering_radius_bound, dual_basis, gram_schmidt_lengths
from ase_potnet.lattice.special import exponential_integral
from ase_potnet.lattice.structures import PeriodicFlags, read_structures


def epstein_zeta(
    n: int,
    displacement: Tensor,
    cell: Tensor,
    *,
    phase: Tensor | tuple[float, float, float] | None = None,
    pbc: PeriodicFlags = True,
    tolerance: float = 1e-10,
) -> Tensor:
    """Epstein zeta function of integer exponent, with phase, on a lattice of one, two or three dimensions.

    Z(n; v, w) = sum over lattice points m of exp(-2 pi i w.m) |v + m L|^-n, the term at zero distance left out,
    and its analytic continuation where the sum does not converge.

    Args:
        n: exponent, an integer from 1 to 60.
        displacement: (..., 3) Å, in the span of the periodic lattice vectors.
        cell: (3, 3) Å, rows are lattice vectors.
        phase: (3,) fractional reciprocal coordinates w; entries of non-periodic directions are ignored.
        pbc: which rows of the cell are periodic.
        tolerance: largest absolute truncation error, Å^-n.

    Returns:
        (...) complex. At the pole n = d without phase Hadamard's finite part, as in ``pair_sums``.

    Raises:
        ValueError: naming the argument that is wrong.

    Source: R. E. Crandall, "Fast evaluation of Epstein zeta functions" (1998), eq. 4; A. A. Buchheit et al.,
    "Computation and properties of the Epstein zeta function", arXiv:2412.16317.
    """
    power = InversePower(n)
    if not isinstance(displacement, Tensor):
        raise ValueError(f"displacement must be a tensor (..., 3), got {type(displacement).__name__}")
    if displacement.shape[-1:] != (3,):
        raise ValueError(f"displacement must have shape (..., 3), got {tuple(displacement.shape)}")
    try:
        checked = read_structures(displacement.reshape(-1, 3), cell, pbc, None)
    except ValueError as error:
        raise ValueError(str(error).replace("positions", "displacement")) from None
    limit, d, p = check_tolerance(tolerance), int(checked.pbc.sum()), power.p
    if d == 0:
        raise ValueError("pbc must have at least one periodic direction for a lattice sum")
    rows = torch.from_numpy(checked.pbc[0]).to(cell.device)
    shift = _read_phase(phase, checked.pbc[0])  # (d,)
    basis = checked.host_cell[:, checked.pbc[0]]  # (1, d, 3)
    lengths = gram_schmidt_lengths(basis)
    volume = float(lengths.prod())
    scale = math.sqrt(math.pi) / volume ** (1 / d)
    lattice = cell[rows] * scale  # (d, 3) reduced units
    dual = torch.linalg.inv(lattice @ lattice.T) @ lattice
    reduced = checked.positions * scale
    fractional = reduced @ dual.T
    if not torch.allclose(fractional.detach() @ lattice.detach(), reduced.detach(), atol=1e-8 * scale):
        raise ValueError("displacement must lie in the span of the periodic lattice vectors; use pair_sums otherwise")
    turns = torch.round(fractional.detach())
    inside = reduced - turns @ lattice  # (V, 3)
    factor = power.norm * scale**n
    floor = 4 * torch.finfo(displacement.dtype).eps * factor * (1 / p + 1)
    if limit < floor:
        raise ValueError(f"tolerance {limit:.1e} is below what {displacement.dtype} can reach here (about {floor:.1e})")
    cutoffs = _cutoffs(basis * scale, d, p, factor, limit)
    images = lattice_images(basis * scale, dual_basis(basis * scale), cutoffs[:1]).points
    real = _real_sum(power, inside, torch.from_numpy(images).to(cell) @ lattice, images, shift)
    long = _wave_sum(power, inside, lattice, dual, shift, float(cutoffs[1]), d, scale)
    origin = ((inside.detach() ** 2).sum(1) < 1e-20).to(inside)
    total = factor * (real + long - origin / p)
    if not shift.any():
        total = torch.complex(total.real, torch.zeros_like(total.real))  # waves come in pairs k, -k
    return (total * _unit_phase(turns @ torch.from_numpy(shift).to(cell))).reshape(displacement.shape[:-1])


def _read_phase(phase: Tensor | tuple[float, float, float] | None, periodic: np.ndarray) -> np.ndarray:
    if isinstance(phase, Tensor):
        if phase.requires_grad:
            raise ValueError("phase has no gradients; pass phase.detach()")
        phase = tuple(phase.tolist()) if phase.ndim == 1 else phase
    values = np.zeros(3) if phase is None else np.asarray(phase, dtype=np.float64)
    if values.shape != (3,) or not np.isfinite(values).all():
        raise ValueError(f"phase must be three finite numbers, got {phase!r}")
    values = values[periodic]
    return np.asarray(values - np.rint(values))


def _cutoffs(basis: np.ndarray, d: int, p: float, factor: float, tolerance: float) -> np.ndarray:
    """Real-space cut-off and that of |k|/2, reduced units, each with a proven tail of half the tolerance."""
    lengths = gram_schmidt_lengths(basis)
    volume = lengths.prod()
    column = lambda a, b: np.array([[float(a)], [float(b)]])  # noqa: E731
    tails = MixtureTail(
        factor=column(factor, factor * math.pi ** (0.5 * d) / volume),
        q=column(p, 0.5 * d - p),
        shift=column(0, 0),
        covering=column(covering_radius_bound(lengths)[0], math.pi * covering_radius_bound(1 / lengths)[0]),
        volume=column(volume, math.pi**d / volume),
        d=d,
    )
    return tails.solve(np.array([0.5 * tolerance]))[:, 0]


def _unit_phase(turns: Tensor) -> Tensor:
    return torch.exp(2j * math.pi * turns)


def _real_sum(power: InversePower, inside: Tensor, images: Tensor, points: np.ndarray, shift: np.ndarray) -> Tensor:
    """Short-range terms. inside (V, 3), images (M, 3) -> (V,)"""
    separation = inside[:, None] + images
    x = (separation**2).sum(-1)
    apart = x.detach() > 1e-20
    values = radial_values((power,), (False,), (None,), torch.where(apart, x, 1.0))[0]
    phases = _unit_phase(torch.from_numpy(-points @ shift).to(inside))
    return (torch.where(apart, values, 0.0) * phases).sum(1)


def _wave_sum(
    power: InversePower,
    inside: Tensor,
    lattice: Tensor,
    dual: Tensor,
    shift: np.ndarray,
    cutoff: float,
    d: int,
    scale: float,
) -> Tensor:
    """Long-range terms exp(i k v) at k = 2 pi (m + w) dual, k = 0 as in ``pair_sums``. (V,)"""
    host = lattice.detach().cpu().numpy().astype(np.float64)
    reach = np.floor(cutoff / math.pi * np.sqrt((host**2).sum(1)) + 0.5).astype(int)
    points = np.stack(np.meshgrid(*[np.arange(-r, r + 1) for r in reach], indexing="ij"), -1).reshape(-1, d) + shift
    zero = (points == 0).all(1)
    waves = 2 * math.pi * torch.from_numpy(points[~zero]).to(lattice) @ dual  # (M, 3)
    volume = torch.linalg.det(lattice @ lattice.T).sqrt()
    kappa = 0.25 * (waves**2).sum(1)
    weights = exponential_integral((0.5 * d - power.p,), kappa)[0]
    total = (weights * torch.exp(1j * (inside @ waves.T))).sum(1)
    if zero.any():
        pole = power.zero_mode_is_logarithmic(d)
        total = total + (2 * math.log(scale) if pole else 1 / (power.p - 0.5 * d))
    return total * (math.pi ** (0.5 * d) / volume)
