"""Radial functions of the local channel: Bessel functions under a smooth envelope."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def envelope(x: Tensor) -> Tensor:
    """1 at x = 0, 0 from x = 1 on, with continuous first and second derivatives there: 1 - 28x⁶ + 48x⁷ - 21x⁸.

    Source: J. Gasteiger et al., Directional message passing for molecular graphs (ICLR 2020), eq. 8, p = 6.
    """
    x = x.clamp(max=1.0)
    cube = x * x * x
    return 1 + cube * cube * (x * (48 - 21 * x) - 28)


class RadialBasis(nn.Module):
    """sin(n pi r / r_c) r_c / r for n = 1 ... n_radial, times ``envelope``.

    Source: J. Gasteiger et al. (ICLR 2020), eq. 7.
    """

    def __init__(self, n_radial: int) -> None:
        super().__init__()
        self.n_radial = n_radial

    def forward(self, r: Tensor, cutoffs: Tensor) -> tuple[Tensor, Tensor]:
        """Radial functions and the envelope. (...), (...) Å -> (..., n_radial), (...)"""
        x = r / cutoffs
        n = math.pi * torch.arange(1, self.n_radial + 1, dtype=r.dtype, device=r.device)
        smooth = envelope(x)
        return torch.sin(x[..., None] * n) * (smooth / x)[..., None], smooth
