"""Spherical harmonics of edges, and products of functions on the sphere (Gaunt products)."""

from __future__ import annotations

import math

import numpy as np
import torch
from e3nn import o3
from scipy.integrate import lebedev_rule
from torch import Tensor, nn

_ODD_DEGREES = (3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31)  # of the Lebedev rules that are used


def spherical_harmonics(l_max: int, directions: Tensor) -> Tensor:
    """Real spherical harmonics of degree 0 ... l_max at unit vectors, mean square 1. (..., 3) -> (..., (l_max+1)^2)"""
    return o3.spherical_harmonics(list(range(l_max + 1)), directions, normalize=False, normalization="component")


class EdgeHarmonics(nn.Module):
    """The same functions by the recursion Y_(l+1) = C_l (Y_l ⊗ Y_1), few operations on many directions."""

    def __init__(self, l_max: int) -> None:
        super().__init__()
        self.l_max = l_max
        direction = torch.nn.functional.normalize(torch.tensor([0.3, -0.5, 0.7], dtype=torch.float64), dim=0)
        for l in range(1, l_max):
            coupling = o3.wigner_3j(l, 1, l + 1, dtype=torch.float64).reshape(-1, 2 * l + 3)  # up to a factor
            known = [
                o3.spherical_harmonics(k, direction, normalize=False, normalization="component") for k in (l, 1, l + 1)
            ]
            raw = torch.outer(known[0], known[1]).reshape(-1) @ coupling
            coupling = coupling * (known[2] @ raw) / (raw @ raw)
            self.register_buffer(f"coupling_{l}", coupling, persistent=False)

    def forward(self, directions: Tensor) -> Tensor:
        """Unit vectors (..., 3) -> (..., (l_max+1)^2), as ``spherical_harmonics``."""
        parts = [torch.ones_like(directions[..., :1])]
        if self.l_max > 0:
            parts.append(math.sqrt(3) * directions)
        for l in range(1, self.l_max):
            pairs = (parts[l][..., :, None] * parts[1][..., None, :]).flatten(-2)
            parts.append(pairs @ self.get_buffer(f"coupling_{l}").to(pairs))
        return torch.cat(parts, dim=-1)


class SphereGrid(nn.Module):
    """Products of functions on the sphere, exact by quadrature, back to spherical harmonics.

    Products of expansions in spherical harmonics couple degrees with Gaunt coefficients (S. Luo et al., Enabling
    efficient equivariant operations in the Fourier basis via Gaunt tensor products, ICLR 2024). On a grid they are
    products of numbers; a Lebedev rule of degree order · l_max + l_out makes them exact, and equivariant to rounding.
    """

    to_grid: Tensor
    from_grid: Tensor

    def __init__(self, l_max: int, order: int, l_out: int) -> None:
        super().__init__()
        degree = next(d for d in _ODD_DEGREES if d >= order * l_max + l_out)
        points, weights = lebedev_rule(degree)  # (3, P), (P,)
        values = spherical_harmonics(l_max, torch.from_numpy(np.ascontiguousarray(points.T)))  # (P, n_lm)
        back = values[:, : (l_out + 1) ** 2] * torch.from_numpy(weights / (4 * math.pi))[:, None]
        self.register_buffer("to_grid", values, persistent=False)
        self.register_buffer("from_grid", back.T.contiguous(), persistent=False)

    def products(self, pairs: Tensor) -> tuple[Tensor, Tensor]:
        """a·b and a·b·b, degrees up to l_out. (n_lm, T, 2 C), first a, then b -> two (n_out, T, C)"""
        n_atoms, width = pairs.shape[1], pairs.shape[2] // 2
        on_grid = (self.to_grid.to(pairs) @ pairs.flatten(1)).view(-1, n_atoms, 2 * width)
        a, b = on_grid.split(width, dim=2)  # (P, T, C)
        second = a * b
        back = self.from_grid.to(pairs)
        return tuple((back @ part.flatten(1)).view(-1, n_atoms, width) for part in (second, second * b))  # type: ignore[return-value]
