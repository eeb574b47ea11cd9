r"""What a potential states about itself.

A primitive potential is a mixture of Gaussians, phi(r) = c \int_0^oo t^(p-1) exp(-t r^2 - alpha^2/4t) dt.
Splitting the integral at t = eta gives the short and the long range of Ewald's method. In *reduced units*,
lengths times sqrt(eta), the split sits at t = 1 and phi(r) = eta^p c I(r', alpha') with alpha' = alpha/sqrt(eta):
all parts below are functions of reduced arguments, without the factor eta^p c.

A composite potential (Lennard-Jones, Morse) is a sum of primitive ones.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
from torch import Tensor

from ase_potnet.lattice.special import Radial


class Potential(ABC):
    """A pair potential phi(r) that can be summed over a lattice."""

    @abstractmethod
    def real_space(self, r: Tensor) -> Tensor:
        """phi(r) for distances r > 0 in Å (any shape)."""

    @abstractmethod
    def terms(self) -> tuple[tuple[float, Primitive], ...]:
        """The potential as a sum of coefficient times primitive potential."""


class Primitive(Potential):
    """A Gaussian mixture with index ``p``, inverse length ``alpha`` (1/Å, 0 for a power law) and factor ``norm``."""

    alpha: float = 0.0

    @property
    @abstractmethod
    def p(self) -> float:
        """Index of the mixture: weight t^(p-1)."""

    @property
    @abstractmethod
    def norm(self) -> float:
        """The factor c."""

    def terms(self) -> tuple[tuple[float, Primitive], ...]:
        return ((1.0, self),)

    @abstractmethod
    def short_range(self, radial: Radial, alpha: Tensor | float, n_orders: int = 1) -> list[Tensor]:
        r"""\int_1^oo of the mixture and its derivatives (-d/dr^2)^m, m < n_orders, at r^2 = radial.x."""

    @abstractmethod
    def complete(self, radial: Radial, alpha: Tensor | float, n_orders: int = 1) -> list[Tensor]:
        r"""\int_0^oo of the mixture (the whole potential) and its derivatives (-d/dr^2)^m."""

    @abstractmethod
    def fourier(self, k2: Tensor, alpha: Tensor | float) -> Tensor:
        """Three-dimensional Fourier transform of the long range at squared wave number k2 > 0."""

    @abstractmethod
    def self_term(self, alpha: Tensor | float) -> Tensor | float:
        """The long range at r = 0, which the reciprocal sum contains and the lattice sum must not."""

    @abstractmethod
    def background(self, alpha: Tensor | float) -> Tensor | float:
        """The k = 0 term of the Fourier transform in three dimensions (see ``zero_mode_is_logarithmic``)."""

    def zero_mode_is_logarithmic(self, n_periodic: int) -> bool:
        """True at the pole p = d/2 of the Epstein zeta function, where the k = 0 term becomes ln(eta)."""
        return self.alpha == 0.0 and 2 * self.p == n_periodic


class _RadialValues(torch.autograd.Function):
    """(-d/dx)^order of several reduced potentials at x = r^2, differentiable to every order."""

    @staticmethod
    def forward(ctx, x, primitives, complete, alphas, order):  # type: ignore[no-untyped-def]
        radial, values, slopes = Radial(x), [], []
        n_orders = order + (2 if ctx.needs_input_grad[0] else 1)
        for primitive, whole, alpha in zip(primitives, complete, alphas, strict=True):
            evaluate = primitive.complete if whole else primitive.short_range
            orders = evaluate(radial, 0.0 if alpha is None else alpha, n_orders)
            values.append(orders[order])
            slopes += orders[order + 1 :]
        ctx.static = (primitives, complete, alphas, order)
        ctx.save_for_backward(x, *slopes)
        return torch.stack(values)

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        x, *slopes = ctx.saved_tensors
        if torch.is_grad_enabled():
            primitives, complete, alphas, order = ctx.static
            slopes = _RadialValues.apply(x, primitives, complete, alphas, order + 1)
        total = grad[0] * slopes[0]
        for k in range(1, len(grad)):
            total = total + grad[k] * slopes[k]
        return -total, None, None, None, None


def radial_values(
    primitives: tuple[Primitive, ...],
    complete: tuple[bool, ...],
    alphas: tuple[Tensor | None, ...],
    x: Tensor,
    order: int = 0,
) -> Tensor:
    """(-d/dx)^order of the short range (or where ``complete`` of the whole) of reduced potentials at x = r^2 > 0.

    alphas: per primitive None or a tensor that broadcasts with x. Returns (n_primitives, *x.shape).
    """
    return _RadialValues.apply(x, primitives, complete, alphas, order)


def radial_derivative(
    primitive: Primitive, x: Tensor, alpha: Tensor | float, *, complete: bool, order: int = 0
) -> Tensor:
    """The same for one primitive."""
    return radial_values((primitive,), (complete,), (alpha,), x, order)[0]  # type: ignore[arg-type]


def require_positive(name: str, value: float) -> float:
    """``value`` as a float, or ValueError naming the parameter."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise ValueError(f"{name} must be a positive number, got {value!r}") from None
    if not (math.isfinite(number) and number > 0):
        raise ValueError(f"{name} must be a positive number, got {value!r}")
    return number


@dataclass(frozen=True, eq=False)
class Decomposition:
    """Distinct primitives of a list of potentials and the matrix that recombines them.

    One object for equal lists, as long as ``decompose`` keeps it: a key of caches, compared by identity.
    """

    primitives: tuple[Primitive, ...]
    coefficients: tuple[tuple[float, ...], ...]  # (K, n_primitives)

    @cached_property
    def weights(self) -> list[float]:
        """Largest |coefficient| of each primitive over the potentials, times their number of terms. (n_primitives,)"""
        return [
            max(abs(row[k]) * sum(c != 0 for c in row) for row in self.coefficients)
            for k in range(len(self.primitives))
        ]

    @cached_property
    def is_identity(self) -> bool:
        n = len(self.primitives)
        return self.coefficients == tuple(tuple(float(i == j) for j in range(n)) for i in range(n))


def decompose(potentials: Potential | list[Potential] | tuple[Potential, ...]) -> Decomposition:
    """Potentials as combinations of distinct primitives. Raises ValueError for anything else."""
    if isinstance(potentials, type) or not isinstance(potentials, (Potential, Iterable)):
        raise ValueError(f"potentials must hold Potential objects such as Coulomb(), got {potentials!r}")
    listed = (potentials,) if isinstance(potentials, Potential) else tuple(potentials)
    if not listed:
        raise ValueError("potentials must hold at least one Potential, got an empty sequence")
    for item in listed:
        if not isinstance(item, Potential):
            raise ValueError(
                f"potentials must hold Potential objects such as Coulomb(), got {type(item).__name__}: {item!r}"
            )
    try:
        return _decompose(listed)
    except TypeError as error:
        if "unhashable" not in str(error):
            raise
        raise ValueError(f"potentials must be hashable, as frozen dataclasses are: {error}") from None


@lru_cache(maxsize=64)
def _decompose(listed: tuple[Potential, ...]) -> Decomposition:
    primitives: dict[Primitive, int] = {}
    rows: list[dict[int, float]] = []
    for item in listed:
        row: dict[int, float] = {}
        for coefficient, primitive in item.terms():
            if not isinstance(primitive, Primitive) or not math.isfinite(coefficient):
                raise ValueError(
                    f"potentials: terms of {item!r} must be finite numbers with primitives such as Coulomb(), "
                    f"InversePower(6) or Pauli(3.0), got {coefficient!r} with {primitive!r}"
                )
            if coefficient != 0:
                k = primitives.setdefault(primitive, len(primitives))
                row[k] = row.get(k, 0.0) + float(coefficient)
        rows.append(row)
    if not primitives:
        raise ValueError("potentials: none has a term that is not zero")
    matrix = tuple(tuple(row.get(k, 0.0) for k in range(len(primitives))) for row in rows)
    return Decomposition(tuple(primitives), matrix)
