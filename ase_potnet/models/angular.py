"""Spherical harmonics of edges, and products of functions on the sphere (Gaunt products)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ase_potnet.models.layers import is_recorded
from ase_potnet.models.sphere_tables import coupling, lebedev_rule

_ATOMS = 10  # whose values on the grid stay in cache


class EdgeHarmonics(nn.Module):
    """Real spherical harmonics of degree 0 ... l_max, mean square 1, by the recursion Y_(l+1) = C_l (Y_l ⊗ Y_1).

    Components in e3nn's order and sign ("component" normalisation).
    """

    def __init__(self, l_max: int) -> None:
        super().__init__()
        self.l_max = l_max
        for l in range(1, l_max):
            self.register_buffer(f"coupling_{l}", torch.from_numpy(coupling(l)), persistent=False)

    def forward(self, directions: Tensor) -> Tensor:
        """Unit vectors (..., 3) -> (..., (l_max+1)^2)"""
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
        points, weights = lebedev_rule(order * l_max + l_out)
        values = EdgeHarmonics(l_max)(torch.from_numpy(points))  # (P, n_lm)
        back = values[:, : (l_out + 1) ** 2] * torch.from_numpy(weights / (4 * math.pi))[:, None]
        self.register_buffer("to_grid", values, persistent=False)
        self.register_buffer("from_grid", back.T.contiguous(), persistent=False)

    def products(self, pairs: Tensor) -> tuple[Tensor, Tensor]:
        """a·b and a·b·b, degrees up to l_out. (n_lm, T, 2 C), first a, then b -> two (n_out, T, C)"""
        tables = self.to_grid.to(pairs), self.from_grid.to(pairs)
        if self.training or is_recorded():
            return _products(pairs, *tables)
        both: Tensor = _Products.apply(pairs, *tables)
        return both[0], both[1]


def _products(pairs: Tensor, to_grid: Tensor, from_grid: Tensor) -> tuple[Tensor, Tensor]:
    n_atoms, width = pairs.shape[1], pairs.shape[2] // 2
    on_grid = (to_grid @ pairs.flatten(1)).view(-1, n_atoms, 2 * width)
    a, b = on_grid.split(width, dim=2)  # (P, T, C)
    second = a * b
    back = (from_grid @ second.flatten(1), from_grid @ (second * b).flatten(1))
    return back[0].view(-1, n_atoms, width), back[1].view(-1, n_atoms, width)


class _Products(torch.autograd.Function):
    """The same for some atoms at a time, in memory that stays in cache; differentiable to every order."""

    @staticmethod
    def forward(ctx, pairs, to_grid, from_grid):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(pairs, to_grid, from_grid)
        n_atoms, width = pairs.shape[1], pairs.shape[2] // 2
        result = pairs.new_empty(2, len(from_grid), n_atoms, width)
        memory = pairs.new_empty(3 * len(to_grid) * min(n_atoms, _ATOMS) * width)
        for start in range(0, n_atoms, _ATOMS):
            some = slice(start, start + _ATOMS)
            both, (product,) = _work(memory, 1, len(to_grid), min(_ATOMS, n_atoms - start), width)
            a, b = _on_grid(pairs[:, some], to_grid, both)
            for place, left in enumerate((a, product)):
                torch.mul(left, b, out=product)
                result[place][:, some] = (from_grid @ product.flatten(1)).view(len(from_grid), -1, width)
        return result

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        pairs, to_grid, from_grid = ctx.saved_tensors
        if torch.is_grad_enabled():
            inputs = pairs.view_as(pairs)
            outputs = torch.stack(_products(inputs, to_grid, from_grid))
            return torch.autograd.grad(outputs, inputs, grad, create_graph=True)[0], None, None
        n_atoms, width = pairs.shape[1], pairs.shape[2] // 2
        result = torch.empty_like(pairs)
        memory = pairs.new_empty(4 * len(to_grid) * min(n_atoms, _ATOMS) * width)
        for start in range(0, n_atoms, _ATOMS):
            some = slice(start, start + _ATOMS)
            both, (of_second, of_third) = _work(memory, 2, len(to_grid), min(_ATOMS, n_atoms - start), width)
            a, b = _on_grid(pairs[:, some], to_grid, both)
            for slopes, part in zip((of_second, of_third), grad, strict=True):
                _times(from_grid.T, part[:, some].flatten(1), slopes.flatten(1))
            of_second.add_(of_third.mul_(b))  # g2 + b g3
            of_third.add_(of_second).mul_(a)  # a (g2 + 2 b g3), the slope by b
            torch.mul(of_second, b, out=a)  # the slope by a
            b.copy_(of_third)
            result[:, some] = (to_grid.T @ both.flatten(1)).view(len(pairs), -1, 2 * width)
        return result, None, None


def _work(memory: Tensor, n_others: int, n_points: int, n_atoms: int, width: int) -> tuple[Tensor, Tensor]:
    """Room for two functions on the grid side by side (P, t, 2 C), and for others (n_others, P, t, C)."""
    size = n_points * n_atoms * width
    both, others = memory[: 2 * size], memory[2 * size : (2 + n_others) * size]
    return both.view(n_points, n_atoms, 2 * width), others.view(n_others, n_points, n_atoms, width)


def _on_grid(pairs: Tensor, to_grid: Tensor, both: Tensor) -> tuple[Tensor, Tensor]:
    """Two functions on the grid, in the memory of ``both``. (n_lm, t, 2 C) -> two (P, t, C)"""
    torch.mm(to_grid, pairs.flatten(1), out=both.flatten(1))
    a, b = both.chunk(2, dim=2)
    return a, b


def _times(left: Tensor, right: Tensor, result: Tensor) -> None:
    """Product of matrices; a column times a row is a product of numbers, which BLAS makes slowly."""
    (torch.mul if left.shape[1] == 1 else torch.mm)(left, right, out=result)
