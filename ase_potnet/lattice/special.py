r"""Special functions of the lattice sums, in closed form.

Every potential here is a mixture of Gaussians,

    phi(r) = c \int_0^oo t^(p-1) exp(-t r^2 - alpha^2 / 4t) dt,

and Ewald's idea is to cut that integral at t = eta: the part above is short-ranged in real space,
the part below in reciprocal space (Essmann et al., J. Chem. Phys. 103, 8577 (1995) for 1/r^n;
Salin and Caillol, J. Chem. Phys. 113, 10459 (2000) for exp(-alpha r)/r). In units where eta = 1 both
parts are made of two functions of one variable,

    E_q(x)        = \int_1^oo u^(q-1) exp(-x u) du                    (x^-q times Gamma(q, x))
    E_q(x, alpha) = \int_1^oo u^(q-1) exp(-x u - alpha^2 / 4u) du

for integer and half-integer q. They obey -d/dx E_q = E_(q+1), so a derivative of any order is the same
function with a higher index; that is what makes the autograd functions below exact to every order.
"""

from __future__ import annotations

import math
from functools import cached_property

import torch
from torch import Tensor

_SQRT_PI = math.sqrt(math.pi)
_EULER_GAMMA = 0.5772156649015329


def double_index(q: float) -> int:
    """2 q as an integer; raises ValueError unless q is an integer or a half-integer."""
    doubled = round(2 * q)
    if abs(doubled - 2 * q) > 1e-12:
        raise ValueError(f"index must be an integer or half-integer, got {q}")
    return doubled


class Radial:
    """Shared intermediates of one set of arguments x = r^2 > 0 (any shape): computed once, on demand."""

    def __init__(self, x: Tensor) -> None:
        self.x = x

    @cached_property
    def r(self) -> Tensor:
        return self.x.sqrt()

    @cached_property
    def inverse(self) -> Tensor:
        return self.x.reciprocal()

    @cached_property
    def inverse_r(self) -> Tensor:
        return self.r * self.inverse

    @cached_property
    def gaussian(self) -> Tensor:
        return torch.exp(-self.x)

    @cached_property
    def erfc(self) -> Tensor:
        return torch.erfc(self.r)


def exponential_integrals(q: float, radial: Radial, n_orders: int = 1) -> list[Tensor]:
    """E_q(x), E_(q+1)(x), ..., ``n_orders`` of them, by recursion from a closed form.

    Integration by parts gives x E_(q+1) = q E_q + exp(-x); all terms are positive for q > 0, where the
    recursion upwards is stable. Downwards it loses digits only where the values themselves are negligible.
    Source: DLMF 8.19.12 with E_q(x) = DLMF's E_(1-q)(x).
    """
    doubled = double_index(q)
    x, gaussian = radial.x, radial.gaussian
    if doubled > 0 and doubled % 2 == 0:
        # E_m(x) = exp(-x) / x * (1 + (m-1)/x * (1 + (m-2)/x * ...))
        m = doubled // 2
        value = gaussian * radial.inverse
        for j in range(1, m):
            value = torch.add(gaussian, value, alpha=j) * radial.inverse
        index = q
    elif doubled % 2 == 0:
        value, index = _e1(x), 0.0
    else:
        value, index = radial.erfc * radial.inverse_r * _SQRT_PI, 0.5
    while index > q:
        index -= 1
        value = (x * value - gaussian) / index
    while index < q:
        value = next_integral(index, value, radial)
        index += 1
    values = [value]
    for order in range(n_orders - 1):
        values.append(next_integral(index + order, values[-1], radial))
    return values


def next_integral(q: float, value: Tensor, radial: Radial) -> Tensor:
    """E_(q+1)(x), minus the derivative of E_q(x), from the value of that."""
    return torch.add(radial.gaussian, value, alpha=q) * radial.inverse


def _e1(x: Tensor) -> Tensor:
    """The exponential integral E_1(x) = Gamma(0, x) for x > 0. DLMF 6.6.2 (series), 6.9.1 (continued fraction)."""
    small = x.clamp(max=2.0)
    series = -_EULER_GAMMA - torch.log(small)
    power = -torch.ones_like(small)
    for k in range(1, 32):
        power = power * (-small) / k
        series = series + power / k
    large = x.clamp(min=2.0)
    fraction = torch.zeros_like(large)
    for k in range(100, 0, -1):
        fraction = k * k / (large + 2 * k + 1 - fraction)
    return torch.where(x < 2.0, series, torch.exp(-large) / (large + 1 - fraction))


def screened_integrals(q: float, alpha: Tensor | float, radial: Radial, n_orders: int = 1) -> list[Tensor]:
    """E_q(x, alpha), E_(q+1)(x, alpha), ... for q = -1/2 or 1/2 and alpha > 0.

    Closed forms: Salin and Caillol (2000), eq. 2.6, for q = 1/2; its alpha-derivative for q = -1/2. Recursion
    by parts: x E_(q+1) = q E_q + alpha^2/4 E_(q-1) + exp(-x - alpha^2/4).
    """
    r = radial.r
    outgoing = torch.exp(alpha * r) * torch.erfc(r + 0.5 * alpha)
    incoming = torch.exp(-alpha * r) * torch.erfc(r - 0.5 * alpha)
    lower = (incoming - outgoing) * (_SQRT_PI / alpha)
    upper = (incoming + outgoing) * (0.5 * _SQRT_PI) * radial.inverse_r
    edge = radial.gaussian * _exp(-0.25 * alpha * alpha)
    return _screened_ladder(q, alpha, radial, lower, upper, edge, n_orders)


def screened_complete(q: float, alpha: Tensor | float, radial: Radial, n_orders: int = 1) -> list[Tensor]:
    """The same integrals from 0 instead of 1: the whole potential, for a plain sum in real space."""
    decay = torch.exp(-alpha * radial.r)
    lower = decay * (2 * _SQRT_PI / alpha)
    if q < 0 and n_orders == 1:
        return [lower]
    upper = decay * radial.inverse_r * _SQRT_PI
    return _screened_ladder(q, alpha, radial, lower, upper, None, n_orders)


def _screened_ladder(
    q: float,
    alpha: Tensor | float,
    radial: Radial,
    lower: Tensor,
    upper: Tensor,
    edge: Tensor | None,
    n_orders: int,
) -> list[Tensor]:
    values = [lower, upper]
    quarter = 0.25 * alpha * alpha
    first = double_index(q + 0.5) // 2
    for j in range(2, first + n_orders):
        index = j - 1.5
        total = index * values[-1] + quarter * values[-2]
        values.append((total if edge is None else total + edge) * radial.inverse)
    return values[first : first + n_orders]


def _exp(x: Tensor | float) -> Tensor | float:
    return torch.exp(x) if isinstance(x, Tensor) else math.exp(x)


class _ExponentialIntegrals(torch.autograd.Function):
    """E_q(x) for several q, with -d/dx E_q = E_(q+1): differentiable to every order."""

    @staticmethod
    def forward(ctx, x: Tensor, indices: tuple[float, ...]) -> Tensor:  # type: ignore[no-untyped-def]
        radial, n_orders = Radial(x), 2 if ctx.needs_input_grad[0] else 1
        orders = [exponential_integrals(q, radial, n_orders) for q in indices]
        ctx.indices = indices
        ctx.save_for_backward(x, *(values[1] for values in orders if n_orders == 2))
        return torch.stack([values[0] for values in orders])

    @staticmethod
    def backward(ctx, grad: Tensor):  # type: ignore[no-untyped-def]
        x, *slopes = ctx.saved_tensors
        if torch.is_grad_enabled():
            slopes = _ExponentialIntegrals.apply(x, tuple(q + 1 for q in ctx.indices))
        total = grad[0] * slopes[0]
        for k in range(1, len(ctx.indices)):
            total = torch.addcmul(total, grad[k], slopes[k])
        return -total, None


def exponential_integral(indices: tuple[float, ...], x: Tensor) -> Tensor:
    """E_q(x) = x^-q Gamma(q, x) for x > 0 and integer or half-integer q; differentiable to every order.

    Returns (len(indices), *x.shape).
    """
    return _ExponentialIntegrals.apply(x, indices)
