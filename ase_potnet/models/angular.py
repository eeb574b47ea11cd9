"""Spherical harmonics of edges, and products of functions on the sphere (Gaunt products)."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from ase_potnet.models.layers import is_recorded
from ase_potnet.models.sphere_tables import coupling, lebedev_rule

_ATOMS = 24  # whose values on the grid stay in the cache of a CPU


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
        if is_recorded():
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
        result = pairs.new_empty(2, len(from_grid), pairs.shape[1], pairs.shape[2] // 2)
        for some, (both,), (product,) in _blocks(pairs, len(to_grid), 1, 1):
            a, b = _to_grid(to_grid, pairs[:, some], both).chunk(2, dim=2)
            for place, left in enumerate((a, product)):
                torch.mul(left, b, out=product)
                result[place, :, some] = _from_grid(from_grid, product)
        return result

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        pairs, to_grid, from_grid = ctx.saved_tensors
        return _Slopes.apply(pairs, grad, to_grid, from_grid), None, None


class _Slopes(torch.autograd.Function):
    """Gradient of the products times ``grad`` (u and v on the grid): b (u + v b) by a, and a (u + 2 v b) by b."""

    @staticmethod
    def forward(ctx, pairs, grad, to_grid, from_grid):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(pairs, grad, to_grid, from_grid)
        result = torch.empty_like(pairs)
        for some, (both,), (u, v) in _blocks(pairs, len(to_grid), 1, 2):
            a, b = _to_grid(to_grid, pairs[:, some], both).chunk(2, dim=2)
            for part, values in zip(grad[:, :, some], (u, v), strict=True):
                _to_grid(from_grid.T, part, values)
            u.add_(v.mul_(b))  # u + v b
            v.add_(u).mul_(a)
            torch.mul(u, b, out=a)
            b.copy_(v)
            result[:, some] = _from_grid(to_grid.T, both)
        return result

    @staticmethod
    def backward(ctx, cotangent):  # type: ignore[no-untyped-def]
        pairs, grad, to_grid, from_grid = ctx.saved_tensors
        if torch.is_grad_enabled():
            return *_differentiable_slopes_of_slopes(pairs, grad, cotangent, to_grid, from_grid), None, None
        of_pairs, of_grad = torch.empty_like(pairs), torch.empty_like(grad)
        for some, (both, slopes), (u, v, p, q) in _blocks(pairs, len(to_grid), 2, 4):
            a, b = _to_grid(to_grid, pairs[:, some], both).chunk(2, dim=2)
            x, y = _to_grid(to_grid, cotangent[:, some], slopes).chunk(2, dim=2)
            for part, values in zip(grad[:, :, some], (u, v), strict=True):
                _to_grid(from_grid.T, part, values)
            torch.mul(y, a, out=p)
            torch.addcmul(p, x, b, out=q)  # x b + y a, the slope by u
            of_grad[0, :, some] = _from_grid(from_grid, q)
            q.add_(p).mul_(b)  # b (x b + 2 y a), that by v
            of_grad[1, :, some] = _from_grid(from_grid, q)
            u.addcmul_(v, b, value=2)  # u + 2 v b
            torch.mul(y, u, out=q)  # that by a
            torch.mul(x, u, out=y).addcmul_(v, p, value=2)  # x (u + 2 v b) + 2 y a v, that by b
            x.copy_(q)
            of_pairs[:, some] = _from_grid(to_grid.T, slopes)
        return of_pairs, of_grad, None, None


def _differentiable_slopes_of_slopes(
    pairs: Tensor, grad: Tensor, cotangent: Tensor, to_grid: Tensor, from_grid: Tensor
) -> tuple[Tensor, ...]:
    inputs = (pairs.view_as(pairs), grad.view_as(grad))
    outputs = torch.stack(_products(inputs[0], to_grid, from_grid))
    (slopes,) = torch.autograd.grad(outputs, inputs[0], inputs[1], create_graph=True)
    return torch.autograd.grad(slopes, inputs, cotangent, create_graph=True)


def _blocks(pairs: Tensor, n_points: int, n_both: int, n_others: int) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Some atoms (on a GPU all), and room on the grid, used again for the next, for so many pairs of functions
    (n_both, P, t, 2 C) and single ones (n_others, P, t, C)."""
    n_atoms, width = pairs.shape[1], pairs.shape[2] // 2
    together = max(1, min(n_atoms, _ATOMS) if pairs.device.type == "cpu" else n_atoms)
    memory = pairs.new_empty((2 * n_both + n_others) * n_points * together * width)
    for start in range(0, n_atoms, together):
        n_some = min(together, n_atoms - start)
        sizes = [n * n_points * n_some * width for n in (2 * n_both, n_others)]
        both, others = memory[: sum(sizes)].split(sizes)
        shape = (n_points, n_some)
        yield slice(start, start + n_some), both.view(n_both, *shape, -1), others.view(n_others, *shape, -1)


def _to_grid(table: Tensor, values: Tensor, result: Tensor) -> Tensor:
    """Functions on the grid, in the memory of ``result``. (P, n) and (n, t, C) -> (P, t, C)"""
    # a column times a row is a product of numbers, which BLAS makes slowly
    (torch.mul if table.shape[1] == 1 else torch.mm)(table, values.flatten(1), out=result.flatten(1))
    return result


def _from_grid(table: Tensor, values: Tensor) -> Tensor:
    """(n, P) and (P, t, C) -> (n, t, C)"""
    return (table @ values.flatten(1)).view(len(table), *values.shape[1:])
