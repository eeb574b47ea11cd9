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

    def products(self, left: Tensor, right: Tensor) -> Tensor:
        """a·b and a·b·b, degrees up to l_out. Two (T, n_lm, C) -> (T, n_out, 2 C)"""
        a, b = self.to_grid.to(left) @ left, self.to_grid.to(left) @ right  # (T, P, C)
        second = a * b
        return self.from_grid.to(left) @ torch.cat((second, second * b), dim=2)
