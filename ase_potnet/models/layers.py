"""Parts that the networks share: radial bases, reductions over neighbours and structures, small networks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn

from ase_potnet.lattice import (
    Coulomb,
    InversePower,
    London,
    Pauli,
    Potential,
    ScreenedCoulomb,
)

_KINDS: dict[str, type[Any]] = {
    "coulomb": Coulomb,
    "london": London,
    "pauli": Pauli,
    "screened_coulomb": ScreenedCoulomb,
    "inverse_power": InversePower,
}

_recorded = ContextVar("recorded", default=False)


@contextmanager
def recorded_for_compiler() -> Iterator[None]:
    """Inside, networks choose formulas of plain tensor operations that do not depend on values, for a compiler."""
    token = _recorded.set(True)
    try:
        yield
    finally:
        _recorded.reset(token)


def is_recorded() -> bool:
    """Whether ``recorded_for_compiler`` is on."""
    return _recorded.get()


def read_potentials(names: Sequence[str]) -> tuple[Potential, ...]:
    """Potentials from text such as "coulomb", "pauli(3.0)", "inverse_power(12)". Raises ValueError."""
    return tuple(_read_potential(name) for name in names)


def _read_potential(text: str) -> Potential:
    kind, _, rest = text.partition("(")
    if kind not in _KINDS or (rest and not rest.endswith(")")):
        raise ValueError(f"potentials: no potential {text!r}; there are {', '.join(_KINDS)}, as in 'pauli(3.0)'")
    try:
        values = [float(part) for part in rest[:-1].split(",") if part.strip()]
        if kind == "inverse_power":
            return InversePower(*(int(value) for value in values))
        potential: Potential = _KINDS[kind](*values)
    except (TypeError, ValueError) as error:
        raise ValueError(f"potentials: {text!r}: {error}") from error
    return potential


def sum_over_neighbours(messages: Tensor, receiver: Tensor, n_atoms: int) -> Tensor:
    """Sum of the messages that each atom receives. (E, C), (E,) -> (T, C)"""
    return messages.new_zeros(n_atoms, messages.shape[1]).index_add_(0, receiver, messages)


def mean_over_atoms(values: Tensor, batch: Tensor, n_structures: int) -> Tensor:
    """Mean over the atoms of each structure. (T, C), (T,) -> (B, C)"""
    if n_structures == 1:
        return values.mean(0, keepdim=True)
    total = values.new_zeros(n_structures, values.shape[1]).index_add_(0, batch, values)
    counts = torch.bincount(batch, minlength=n_structures).to(values.dtype)
    return total / counts[:, None]


def envelope(distance: Tensor, cutoff: float) -> Tensor:
    """1 at zero distance, 0 from the cut-off on, twice continuously differentiable: 1 - 10x³ + 15x⁴ - 6x⁵."""
    x = (distance / cutoff).clamp(max=1.0)
    return 1 + x * x * x * (-10 + x * (15 - 6 * x))


class GaussianBasis(nn.Module):
    """exp(-(x - c)² / 2w²) on equally spaced centres c, w the spacing times ``relative_width``. (...) -> (..., n)"""

    centres: Tensor

    def __init__(self, low: float, high: float, n: int, relative_width: float = 1.0) -> None:
        super().__init__()
        self.register_buffer("centres", torch.linspace(low, high, n), persistent=False)
        self.width = relative_width * (high - low) / (n - 1)

    def forward(self, x: Tensor) -> Tensor:
        reduced = (x[..., None] - self.centres.to(x)) / self.width
        return torch.exp(-0.5 * reduced * reduced)


class MultiquadricBasis(nn.Module):
    """√((x - c)² + w²) on equally spaced centres c, w their spacing (Hardy's multiquadrics). (...) -> (..., n)"""

    centres: Tensor

    def __init__(self, low: float, high: float, n: int) -> None:
        super().__init__()
        self.register_buffer("centres", torch.linspace(low, high, n), persistent=False)
        self.width = (high - low) / (n - 1)

    def forward(self, x: Tensor) -> Tensor:
        distance = x[..., None] - self.centres.to(x)
        return torch.sqrt(distance * distance + self.width**2)


def mlp(n_in: int, n_hidden: int, n_out: int) -> nn.Sequential:
    """Linear, SiLU, Linear."""
    return nn.Sequential(nn.Linear(n_in, n_hidden), nn.SiLU(), nn.Linear(n_hidden, n_out))
