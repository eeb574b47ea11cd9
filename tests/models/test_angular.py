"""Spherical harmonics, their couplings, and quadratures of the sphere."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from e3nn import o3

from ase_potnet.models import sphere_tables
from ase_potnet.models.angular import EdgeHarmonics, SphereGrid
from ase_potnet.models.layers import recorded_for_compiler


@pytest.mark.parametrize("l_max", [0, 1, 3, sphere_tables.L_MAX, sphere_tables.L_MAX + 1])
def test_harmonics_are_those_of_e3nn(l_max: int) -> None:
    generator = torch.Generator().manual_seed(l_max)
    directions = torch.nn.functional.normalize(torch.randn(50, 3, generator=generator, dtype=torch.float64), dim=1)
    expected = o3.spherical_harmonics(list(range(l_max + 1)), directions, normalize=False, normalization="component")
    torch.testing.assert_close(EdgeHarmonics(l_max)(directions), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("degree", [1, 6, 11, sphere_tables.DEGREES[-1], sphere_tables.DEGREES[-1] + 1])
def test_rules_integrate_products_of_harmonics(degree: int) -> None:
    points, weights = sphere_tables.lebedev_rule(degree)
    try:
        values = EdgeHarmonics(degree // 2)(torch.from_numpy(points)).numpy()
    except NotImplementedError as error:
        pytest.skip(f"this e3nn: {error}")
    overlaps = values.T @ (weights[:, None] * values) / (4 * math.pi)
    np.testing.assert_allclose(overlaps, np.eye(len(overlaps)), atol=1e-12)


@pytest.mark.parametrize("l_out", [0, 2])
def test_products_are_those_of_functions_on_the_sphere(l_out: int) -> None:
    pairs = torch.randn(9, 60, 4, generator=torch.Generator().manual_seed(l_out), dtype=torch.float64)  # more blocks
    points, weights = sphere_tables.lebedev_rule(12)  # exact for degree 3 · 2 + l_out, and another rule
    values = EdgeHarmonics(2)(torch.from_numpy(points))
    back = values[:, : (l_out + 1) ** 2] * torch.from_numpy(weights / (4 * math.pi))[:, None]
    a, b = torch.einsum("pl,ltc->ptc", values, pairs).split(2, dim=2)
    for found, on_grid in zip(SphereGrid(2, 3, l_out).products(pairs), (a * b, a * b * b), strict=True):
        torch.testing.assert_close(found, torch.einsum("pl,ptc->ltc", back, on_grid), rtol=0, atol=1e-12)


@pytest.mark.parametrize("l_out", [0, 1])
def test_derivatives_of_products(l_out: int) -> None:
    grid = SphereGrid(1, 3, l_out)
    generator = torch.Generator().manual_seed(l_out)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64, requires_grad=True)

    def products(pairs: torch.Tensor) -> torch.Tensor:
        return torch.stack(grid.products(pairs))

    few = draw(4, 2, 4)
    assert torch.autograd.gradcheck(products, few)
    assert torch.autograd.gradgradcheck(products, few)
    # three orders of more atoms than a block holds, against plain operations
    pairs, weights, direction = draw(4, 60, 4), draw(2, (l_out + 1) ** 2, 60, 2), draw(4, 60, 4)

    def three_orders() -> list[torch.Tensor]:
        first = torch.autograd.grad(products(pairs), pairs, weights, create_graph=True)
        second = torch.autograd.grad(first[0], (pairs, weights), direction, retain_graph=True)  # by hand
        again = torch.autograd.grad(first[0], (pairs, weights), direction, create_graph=True)
        third = torch.autograd.grad(sum(part.sin().sum() for part in again), (pairs, weights, direction))
        return [*first, *second, *again, *third]

    found = three_orders()
    with recorded_for_compiler():
        expected = three_orders()
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_the_table_is_what_the_libraries_give() -> None:
    table = sphere_tables._table()
    for l in range(1, sphere_tables.L_MAX):
        np.testing.assert_allclose(table[f"coupling_{l}"], sphere_tables._make_coupling(l), rtol=0, atol=1e-14)
    for degree in sphere_tables.DEGREES:
        points, weights = sphere_tables._make_rule(degree)
        np.testing.assert_allclose(table[f"rule_{degree}"], np.column_stack((points, weights)), rtol=0, atol=1e-14)


def test_a_calculator_is_made_without_the_slow_libraries() -> None:
    code = (
        "import sys, torch; before = set(sys.modules); import ase_potnet; ase_potnet.PotNetCalculator();"
        "print([name for name in ('e3nn', 'scipy', 'torch._dynamo', 'sympy') if name in {*sys.modules} - before])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
